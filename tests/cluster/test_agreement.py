"""What the files of cluster/ have to say alike, and what none of them may say."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

STUDY = "search_spaces/a100.yaml"
"""The study that every cluster is shown with."""
SETUP = re.compile(r"python -m pip install .*constraints.*")
Texts = dict[str, str]


def test_the_dockerfile_and_the_cluster_yaml_install_alike(texts: Texts, aws: dict[str, Any]) -> None:
    in_image = SETUP.findall(texts["Dockerfile"])
    on_machines = [found for line in aws["setup_commands"] for found in SETUP.findall(line)]
    assert in_image == on_machines == ["python -m pip install --no-cache-dir -c constraints-gpu.txt '.[gpu]'"]


def test_the_dockerfile_and_the_cluster_yaml_bring_the_same_files(
    texts: Texts, aws: dict[str, Any], cluster: Path
) -> None:
    copied = {
        name
        for line in re.findall(r"^COPY (?:--\S+ )*(.*)$", texts["Dockerfile"], flags=re.MULTILINE)
        for name in line.split()[:-1]
    }
    mounted = {name for name in aws["file_mounts"].values() if not name.startswith("~")}
    assert copied - mounted == {"search_spaces"}  # to AWS they come with the job
    assert mounted <= copied
    assert not [name for name in copied if not (cluster.parent / name).exists()]
    let_through = set(re.findall(r"^!(.*)$", texts["Dockerfile.dockerignore"], flags=re.MULTILINE))
    assert let_through == copied


def test_all_name_one_image_of_this_version_of_raystudy(texts: Texts, cluster: Path) -> None:
    version = tomllib.loads((cluster.parent / "pyproject.toml").read_text())["project"]["version"]
    named = {name: set(re.findall(r"[\w./-]+/raystudy:\d[\w.-]*", text)) for name, text in texts.items()}
    users = {name for name, images in named.items() if images}
    assert users == {"Dockerfile", "README.md", "kuberay-rayjob.yaml", "kuberay-raycluster.yaml"}
    assert set().union(*named.values()) == {f"YOUR_REGISTRY/raystudy:{version}"}


def test_ray_s_version_is_the_one_of_the_constraints(texts: Texts, rayjob: dict[str, Any], cluster: Path) -> None:
    pinned = _pins(cluster.parent / "constraints-gpu.txt")["ray"]
    assert rayjob["spec"]["rayClusterSpec"]["rayVersion"] == pinned
    assert f"FROM rayproject/ray:{pinned}-py311-cu128" in texts["Dockerfile"]
    assert ray.__version__ == _pins(cluster.parent / "constraints.txt")["ray"]


def test_the_gpu_constraints_differ_in_torch_and_xformers_only(cluster: Path) -> None:
    """The pair is what xformers 0.0.35's own cpp_lib.json says that it was built for."""
    with_gpu, without = (_pins(cluster.parent / f"constraints{kind}.txt") for kind in ("-gpu", ""))
    assert set(with_gpu) - set(without) == {"xformers"}
    assert set(without) <= set(with_gpu)
    assert {name for name in without if without[name] != with_gpu[name]} == {"torch"}
    assert (with_gpu["torch"], with_gpu["xformers"]) == ("2.10.0", "0.0.35")


def _pins(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_every_file_of_the_project_that_is_named_exists(texts: Texts, cluster: Path) -> None:
    paths = r"(?<![\w./-])((?:cluster|search_spaces|docs|benchmarks)/[\w./-]*\w|constraints[\w-]*\.txt)"
    named = {found for text in texts.values() for found in re.findall(paths, text)}
    assert STUDY in named
    assert not [path for path in named if not (cluster.parent / path).exists()]


def test_the_study_fits_the_machines_that_the_cluster_may_start(aws: dict[str, Any], cluster: Path) -> None:
    study = yaml.safe_load((cluster.parent / STUDY).read_text())
    machine, asked = aws["available_node_types"]["a100"], study["resources"]
    (declared,) = study["cluster"]
    assert (declared["count"], declared["gpus"]) == (machine["max_workers"], machine["resources"]["GPU"])
    assert f"accelerator_type:{asked['accelerator']}" in machine["resources"]
    workers_there = machine["resources"]["GPU"] // asked["gpus_per_worker"]
    assert workers_there * asked["cpus_per_worker"] <= machine["resources"]["CPU"]


def test_the_study_that_is_submitted_is_the_same_everywhere(texts: Texts, rayjob: dict[str, Any]) -> None:
    assert rayjob["spec"]["entrypoint"] == f"python -m raystudy.tune {STUDY}"
    for name in ("README.md", "slurm.sh"):
        assert STUDY in texts[name]


def test_every_cluster_asks_for_a_token(texts: Texts, aws: dict[str, Any], raycluster: dict[str, Any]) -> None:
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "export RAY_AUTH_MODE=token" in aws[commands][-1]
    assert any(path.endswith("/.ray/auth_token") for path in aws["file_mounts"])
    assert raycluster["spec"]["authOptions"] == {"mode": "token", "secretName": "raystudy-ray-token"}
    for script in ("local.sh", "slurm.sh"):
        asked = re.search(r"^export .*RAY_AUTH_MODE=token", texts[script], flags=re.MULTILINE)
        assert asked is not None
        assert asked.start() < texts[script].index("ray start")
    assert "RAY_AUTH_MODE=disabled" not in "".join(texts.values())


def test_only_kubernetes_binds_the_dashboard_to_more_than_loopback(texts: Texts, aws: dict[str, Any]) -> None:
    hosts = {
        name: set(re.findall(r"(?:dashboard-host|--host)[=: ]+([\w.]+)", text))
        for name, text in texts.items()
        if name != "README.md"
    }
    assert {name: found for name, found in hosts.items() if found} == {
        "aws-a100.yaml": {"127.0.0.1"},
        "local.sh": {"127.0.0.1"},
        "slurm.sh": {"127.0.0.1"},
        "mlflow.service": {"127.0.0.1"},
        "kuberay-rayjob.yaml": {"0.0.0.0"},  # noqa: S104  # its Service could not reach it otherwise
        "kuberay-raycluster.yaml": {"0.0.0.0"},  # noqa: S104
    }


SECRET = re.compile(
    r"""(?ix) \b[0-9a-f]{32,63}\b | \bAKIA[0-9A-Z]{16}\b | -----BEGIN
    | (?:password|passwd|secret_key|auth_token|api_key)\s*[=:]\s*["']?(?!YOUR_)[^\s"'$#}/~<(]{6,}"""
)


def test_no_file_holds_a_secret(texts: Texts) -> None:
    # The pretended head's id is a constant of Ray's own.
    found = {name: SECRET.findall(re.sub(r"f{40,}0*", "", text)) for name, text in texts.items()}
    assert not {name: secrets for name, secrets in found.items() if secrets}


@pytest.mark.parametrize(
    "line", ["auth_token: 0123456789abcdef0123456789abcdef", "MLFLOW_AUTH_ADMIN_PASSWORD=hunter22"]
)
def test_a_secret_would_be_seen(line: str) -> None:
    assert SECRET.search(line)


def test_no_file_tells_pip_which_index_to_ask(texts: Texts) -> None:
    assert not [name for name, text in texts.items() if re.search(r"index-url|--find-links|/simple\b", text)]


def test_the_readme_explains_every_value_to_fill_in(texts: Texts) -> None:
    used = {value for name, text in texts.items() if name != "README.md" for value in re.findall(r"YOUR_\w+", text)}
    explained = set(re.findall(r"^\| `(YOUR_\w+)`", texts["README.md"], flags=re.MULTILINE))
    assert used
    assert explained == used


def test_all_write_their_studies_below_the_shared_mount(
    texts: Texts, aws: dict[str, Any], load: Callable[[str], dict[str, Any]]
) -> None:
    home = "/mnt/raystudy/studies"
    for name in ("aws-a100.yaml", "kuberay-rayjob.yaml", "kuberay-raycluster.yaml"):
        assert set(re.findall(r"RAYSTUDY_HOME(?:=|, value: )([\w/]+)", texts[name])) == {home}
    assert any("mount -t nfs4" in line and line.endswith(" /mnt/raystudy") for line in aws["setup_commands"])
