"""The Slurm script with pretended `srun` and `scontrol`, and once with a real Ray on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

JOB = "7007"
FAKES = {
    "scontrol": 'printf "localhost\\nother\\n"',
    "getent": 'echo "127.0.0.1 STREAM localhost"',
    "srun": 'echo "srun $*" >>"$TRACE"; exec sleep 60',
    "ray": 'echo "ray $* mode=$RAY_AUTH_MODE" >>"$TRACE"; stat -c %a "$RAY_AUTH_TOKEN_PATH" >>"$TRACE"\n'
    '[ "$1" = health-check ] || exec sleep 60',
    # Stands for the wait for all nodes, whose program comes on the standard input and their number after it, and for
    # the study.
    "python": 'case "$1" in -c) echo a-secret ;; -) cat >/dev/null\n'
    'until [ "$2" = 1 ] || grep -q srun "$TRACE"; do sleep 0.1; done ;;\n'
    '*) echo "study $*" >>"$TRACE"; eval "$STUDY" ;; esac',
}


@pytest.fixture
def script(cluster: Path) -> Path:
    return cluster / "slurm.sh"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    home = tmp_path / "submitted"
    (home / ".venv" / "bin").mkdir(parents=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY", "SLURM"))}
    return kept | {
        "SLURM_SUBMIT_DIR": str(home),
        "SLURM_JOB_ID": JOB,
        "SLURM_JOB_NODELIST": "nodes",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "RAYSTUDY_HOME": str(tmp_path / "studies"),
        "TRACE": str(tmp_path / "trace"),
        "STUDY": "exit 0",
    }


def install(environment: dict[str, str], *names: str) -> None:
    for name in names:
        path = Path(environment["SLURM_SUBMIT_DIR"]) / ".venv" / "bin" / name
        path.write_text(f"#!/usr/bin/env bash\n{FAKES[name]}\n")
        path.chmod(0o755)


def run(script: Path, environment: dict[str, str], seconds: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(script), "search_spaces/yeast.yaml", "--smoke"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def test_head_first_then_workers_then_the_study_and_nothing_is_left(script: Path, environment: dict[str, str]) -> None:
    install(environment, *FAKES)
    done = run(script, environment)
    assert done.returncode == 0, done.stderr
    trace = Path(environment["TRACE"]).read_text()
    order = [trace.index(word) for word in ("ray start --head", "srun --nodes=1", "study -m raystudy.tune")]
    assert order == sorted(order)
    assert "--exclude=localhost" in trace  # the head is no worker as well
    assert f"--address=127.0.0.1:{20000 + int(JOB)}" in trace
    assert "search_spaces/yeast.yaml --smoke" in trace
    assert not subprocess.run(["pgrep", "-f", f"raystudy-{JOB}"], capture_output=True, text=True).stdout


def test_the_token_is_the_owners_alone_and_goes_with_the_job(script: Path, environment: dict[str, str]) -> None:
    install(environment, *FAKES)
    done = run(script, environment)
    assert done.returncode == 0, done.stderr
    trace = Path(environment["TRACE"]).read_text()
    assert "mode=token" in trace
    assert set(trace.split()) & {"600", "644", "664"} == {"600"}
    folder = Path(environment["RAYSTUDY_HOME"]) / f"slurm-{JOB}"
    assert not (folder / "ray_token").exists()
    written = [path.read_text() for path in folder.iterdir()]
    assert not [text for text in (done.stdout, done.stderr, trace, *written) if "a-secret" in text]


def test_the_study_s_exit_code_is_the_job_s(script: Path, environment: dict[str, str]) -> None:
    install(environment, *FAKES)
    assert run(script, environment | {"STUDY": "exit 2"}).returncode == 2


def test_one_node_needs_no_workers(script: Path, environment: dict[str, str]) -> None:
    install(environment, *FAKES)
    assert run(script, environment | {"SLURM_JOB_NUM_NODES": "1"}).returncode == 0
    assert "srun" not in Path(environment["TRACE"]).read_text()


def test_before_the_time_is_up_the_study_is_interrupted_and_waited_for(
    script: Path, environment: dict[str, str]
) -> None:
    install(environment, *FAKES)
    study = 'trap "echo kept >>$TRACE; exit 130" TERM; echo ready >>$TRACE; while :; do sleep 1 & wait; done'
    job = subprocess.Popen([str(script)], env=environment | {"STUDY": study}, stderr=subprocess.DEVNULL)
    trace = Path(environment["TRACE"])
    until = time.monotonic() + 30
    while not (trace.exists() and "ready" in trace.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)  # as `--signal=B:USR1@300` does
    assert job.wait(timeout=30) == 130
    assert "kept" in trace.read_text()


def test_shellcheck_finds_nothing(cluster: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    scripts = sorted(str(path) for path in cluster.glob("*.sh"))
    found = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_with_a_real_ray_a_study_runs_and_ends(script: Path, environment: dict[str, str]) -> None:
    """One node, on loopback: a real head, the real wait for nodes, a real study of two trials."""
    install(environment, "scontrol", "getent")
    project = script.parents[1]
    (Path(environment["SLURM_SUBMIT_DIR"]) / "search_spaces").symlink_to(project / "search_spaces")
    environment |= {
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_PER_TASK": "2",
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "PYTHONPATH": str(project),
        "RAYSTUDY_OBJECT_STORE": str(128 * 2**20),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray leaves loopback for the machine's outward address
    }
    try:
        done = run(script, environment, seconds=840)
        assert done.returncode == 0, done.stdout + done.stderr
        assert list(Path(environment["RAYSTUDY_HOME"]).glob("*/spec.json"))
        assert not subprocess.run(["pgrep", "-f", f"raystudy-{JOB}"], capture_output=True, text=True).stdout
    finally:
        shutil.rmtree(f"/tmp/raystudy-{JOB}", ignore_errors=True)
