"""Studies sent as Ray jobs to a head of their own, which asks for a token; and what is said where none answers."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from raystudy.errors import RaystudyError, SpecError
from raystudy.execution.cluster import check_address
from raystudy.materials import studies_folder
from raystudy.tracking.records import Records, TrialState
from tests.execution.heads import PATIENCE_SECONDS, ROOT, Head, job, running_head

LARGEST_UPLOAD_BYTES = 5_000_000


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with running_head() as started:
        yield started


def upload_of(folder: Path, tmp_path: Path) -> tuple[int, list[str]]:
    """Size and names of what Ray would send, by its own packing."""
    from ray._private import ray_constants
    from ray._private.runtime_env.packaging import create_package

    package = tmp_path / "package.zip"
    excludes = ray_constants.get_runtime_env_default_excludes()
    create_package(str(folder), package, include_gitignore=True, excludes=excludes)
    with zipfile.ZipFile(package) as archive:
        return package.stat().st_size, archive.namelist()


def test_a_checkout_in_use_uploads_its_code_and_neither_data_nor_results_nor_secrets(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for name in ("raystudy", "search_spaces", "cluster"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", ".rayignore", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout)
    for name in (".venv/lib/big", ".git/objects/big", "studies/yeast/trials/big", "data/big", "genes.parquet"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes(os.urandom(1_000_000))
    for name in ("auth_token", ".env", "server.key"):
        (checkout / name).write_text("secret")
    size, names = upload_of(checkout, tmp_path)
    print(f"upload: {size:,} bytes, {len(names)} files")
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "raystudy").rglob("*.py")}
    code |= {str(path.relative_to(ROOT)) for path in (ROOT / "raystudy").rglob("*.j2")}
    assert code <= {*names}
    assert "search_spaces/yeast.yaml" in names
    assert size < LARGEST_UPLOAD_BYTES
    left = [name for name in names if name.endswith("big") or Path(name).name in ("auth_token", ".env", "server.key")]
    assert left == []
    assert "genes.parquet" not in names


def test_in_a_job_results_stay_in_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAYSTUDY_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert studies_folder() == Path("studies")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert studies_folder() == tmp_path / "raystudy" / "studies"
    monkeypatch.setenv("RAYSTUDY_HOME", "/shared/studies")
    assert studies_folder() == Path("/shared/studies")
    monkeypatch.setenv("RAYSTUDY_HOME", "studies")
    with pytest.raises(SpecError, match="deleted after it"):
        studies_folder()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "no Ray answers at RAY_ADDRESS=127.0.0.1:1 .*refused"),
        ("127.0.0.1", "is no address: it is `host:port`"),
        ("127.0.0.1:many", "is no address"),
        ("http://user:hush@127.0.0.1:8265", "send the study as a job"),
    ],
)
def test_an_address_where_nobody_answers_is_told_at_once(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    began = time.time()
    with pytest.raises(RaystudyError, match=said) as raised:
        check_address()
    assert time.time() - began < 10
    assert "hush" not in str(raised.value)


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_without_the_token_nothing_is_taken_and_what_to_set_is_said(head: Head, tmp_path: Path) -> None:
    bare = {name: value for name, value in head.environment.items() if not name.startswith("RAY_AUTH")}
    bare |= {"RAY_AUTH_MODE": "disabled", "HOME": str(tmp_path)}
    refused = job(head, "submit", "--", "true", environment=bare)
    assert refused.returncode == 1
    assert "Unauthorized: Missing authentication token" in refused.stderr
    assert "RAY_AUTH_TOKEN_PATH" in refused.stderr
    wrong = secrets.token_hex(32)
    environment = bare | {"RAY_ADDRESS": head.address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": wrong}
    code = "from raystudy.execution.cluster import ray_cluster\nwith ray_cluster(): pass"
    run = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert "raystudy.errors.RaystudyError: the Ray at RAY_ADDRESS" in run.stderr
    assert "set ray_auth_mode=token" in run.stderr.lower()
    assert wrong not in run.stdout + run.stderr


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_stopped_job_is_interrupted_and_the_same_job_again_goes_on(
    head: Head, tiny_study: Callable[..., dict[str, Any]], data_folder: Path
) -> None:
    name = f"job{os.getpid()}"
    document = tiny_study(name, data_folder, baselines=["ridge"], pruner="none", budget={"trials": 1, "minutes": 60})
    document |= {"search": {}, "arms": [{"name": "one", "latent_dim": 8}]}
    document["training"] = {"epochs": 60, "batch_size": 16, "attention": "sdpa"}
    study_file = head.home / "study.yaml"  # beside the upload
    study_file.write_text(yaml.safe_dump(document))
    command = ["--working-dir", ".", "--", "python", "-m", "raystudy.tune", str(study_file)]
    assert job(head, "submit", "--no-wait", "--submission-id", "first", *command).returncode == 0
    records = Records(head.home / "raystudy" / "studies" / name)
    deadline = time.time() + PATIENCE_SECONDS
    while not any(len(trial.epochs) >= 2 for trial in records.read().trials):
        assert time.time() < deadline, job(head, "logs", "first").stdout
        time.sleep(0.2)
    assert job(head, "stop", "first").returncode == 0
    told = job(head, "logs", "first").stdout
    assert f"Results go to {records.folder} on " in told
    assert "Interrupted. Everything so far is kept; the same job, submitted again, goes on from there" in told
    assert "Traceback" not in told
    [trial] = records.read().trials
    assert trial.attempts[-1].state is TrialState.INTERRUPTED
    assert trial.attempts[-1].reason == "interrupted"

    again = job(head, "submit", *command)
    assert again.returncode == 0, again.stdout
    assert "Study " + name in again.stdout
    [trial] = records.read().trials
    assert trial.state is TrialState.COMPLETE
    assert [epoch["epoch"] for epoch in trial.epochs] == list(range(1, 61))
    assert trial.attempts[1].epochs[0]["epoch"] > 2, "it went on from its checkpoint"
    token = Path(head.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    assert token not in told + again.stdout + again.stderr
    assert not any(token.encode() in path.read_bytes() for path in records.folder.rglob("*") if path.is_file())
