"""What may know what: read from the source's syntax, nothing is imported but in a process of its own."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "raystudy"

# Room -> what it may import from raystudy beside itself: a room, or one module of it.
MAY_IMPORT = {
    "errors": set(),
    "study": {"errors"},
    "data": {"errors", "study"},
    "models": {"errors", "study", "data"},
    "dimension": {"errors", "study", "data"},
    "tracking": {"errors", "study", "data.encode"},
    "report": {"errors", "tracking"},
    "search": {"errors", "study", "data", "models.build", "models.memory", "tracking.records"},
    "training": {"errors", "study", "data", "models", "dimension", "search", "tracking.records"},
    "execution": {"errors", "study", "data", "models", "dimension", "search", "training", "tracking.records"},
}
OUTER = {"errors", "study", "data", "models", "dimension", "tracking", "report", "search", "training", "execution"}
MAY_IMPORT |= {
    "materials": OUTER - {"execution", "report"},
    "printing": set(),
    "finalists": {*OUTER, "materials", "progress"},
    "sizes": {*OUTER, "materials", "progress", "finalists"},
    "predict": {*OUTER - {"execution"}, "materials", "load"},
    "explain": OUTER - {"execution", "search"},
    "export": {*OUTER - {"execution", "search"}, "materials", "export_numbers"},
    "export_numbers": {"tracking.records", "report", "training"},
    "data_commands": {"errors", "study", "data", "report", "materials", "printing"},
    "model_commands": {"errors", "data", "printing", "predict", "explain", "export"},
    "plan_warnings": OUTER,
    "simulate": OUTER - {"execution"},
    "plan": {*OUTER, "plan_warnings"},
    "progress": {"errors", "study", "tracking.records"},
    "tune": {
        *OUTER,
        "export",
        "finalists",
        "materials",
        "plan",
        "progress",
        "sizes",
        "cli.tune_module",
    },  # so that `python -m raystudy.tune` works
    "cli": {*OUTER, "data_commands", "materials", "model_commands", "plan", "printing", "progress", "simulate", "tune"},
}
# Third party -> the rooms and modules that may import it.
CONFINED = {
    "ray": {"execution"},
    "mlflow": {"tracking.mlflow", "tracking.pyfunc_model", "tracking.registry", "tracking.store"},
    "torch": {
        "data.batches",
        "data.resident",
        "dimension.hamming",
        "models",
        "training",
        "execution",
        "plan",
        "simulate",
        "tracking.pyfunc_model",
    },
    "safetensors": {"models", "training", "execution", "tracking.pyfunc_model"},
    "optuna": {"search", "execution", "tune", "simulate"},
    "typer": {"cli", "data_commands", "model_commands"},
    "xformers": {"models.backends"},
}
STUDY_MAY_USE = {"pydantic", "yaml"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """``training.loop`` for raystudy/training/loop.py; a package's ``__init__`` is the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(source: str) -> Iterator[str]:
    """Every name imported anywhere in a module, in full: ``a.b`` for both `import a.b` and `from a import b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def violations(name: str, source: str) -> list[str]:
    """What this module imports and may not."""
    room = name.split(".")[0]
    found = []
    for imported in imports(source):
        top, _, inner = imported.partition(".")
        if top == "raystudy" and inner and not within(inner, {*MAY_IMPORT[room], room, "__version__"}):
            found.append(f"{name} imports {imported}")
        if top in ("benchmarks", "tests") or (top in CONFINED and not within(name, CONFINED[top])):
            found.append(f"{name} imports {imported}")
        if room == "study" and top not in {*sys.stdlib_module_names, *STUDY_MAY_USE, "raystudy"}:
            found.append(f"{name} imports {imported}")
    return found


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_one_way_and_third_parties_stay_in_their_rooms(path: Path) -> None:
    name = name_of(path)
    assert not name or name.split(".")[0] in MAY_IMPORT, f"give the new room {name} its place in this test"

    assert violations(name, path.read_text()) == [] if name else True


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("study.spec", "import numpy"),
        ("study.spec", "from raystudy.data.genes import Genes"),
        ("data.genes", "import torch"),
        ("models.build", "from raystudy.training.loop import train"),
        ("search.policy", "from raystudy.models.perceiver import sinusoid"),
        ("search.policy", "from raystudy.tracking import mlflow"),
        ("training.loop", "import ray.train"),
        ("models.attention", "import xformers.ops"),
        ("models.build", "import benchmarks.ceiling"),
        ("training.selection", "from raystudy.tracking.mlflow import MlflowMirror"),
        ("tracking.records", "from mlflow import MlflowClient"),
        ("report.page", "from raystudy.training.metrics import r2"),
        ("tracking.provenance", "def f():\n    from raystudy.execution import cluster"),
        ("execution.task", "from raystudy import tune"),
        ("plan", "import raystudy.tune"),
        ("tune", "from raystudy.cli import main"),
        ("tune", "import ray"),
    ],
)
def test_an_import_in_the_wrong_place_is_found(name: str, line: str) -> None:
    assert violations(name, line)


def test_a_study_is_read_without_numpy_or_torch_and_searched_and_trained_without_ray() -> None:
    code = """if True:
        import sys
        import raystudy.study.spec
        assert not {"numpy", "torch", "ray", "mlflow", "optuna"} & set(sys.modules), "study"
        import raystudy.plan, raystudy.search.policy, raystudy.training.selection, raystudy.training.trained
        assert not {"ray", "mlflow"} & set(sys.modules), "training"
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert run.returncode == 0, run.stderr


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Every text file that is or would be committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout, so what belongs to the project is not known")
    found = {}
    for name in listed.stdout.splitlines():
        try:
            found[name] = (ROOT / name).read_text()
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
    return found


def index_hosts() -> set[str]:
    """Hosts of package indexes: the public ones, and those that this machine's pip is configured with."""
    configured = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    hosts = {urlparse(url).hostname for url in re.findall(r"https?://[^\s'\"]+", configured)}
    public = {".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("pypi", "python", "org"))}
    return public | {host for host in hosts if host and host not in ("localhost", "127.0.0.1")}


def test_no_package_index_is_named_anywhere(texts: dict[str, str]) -> None:
    hosts = index_hosts()

    assert [f"{name}: {host}" for name, text in texts.items() for host in hosts if host in text] == []


def test_no_path_of_a_build_machine_is_named_anywhere(texts: dict[str, str]) -> None:
    path = re.compile(r"(?<![\w.])/" + r"work(?![\w-])")
    assert path.search("cd /" + "work/main")
    assert not path.search("GNU/" + "work, a/" + "workers")

    assert [name for name, text in texts.items() if path.search(text)] == []
