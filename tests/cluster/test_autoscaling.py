"""A study on cluster/local.sh that asks for more than its head has: a node comes, computes, and goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raystudy.tracking.records import Records, TrialState
from tests.execution.heads import OUR_PYTHON, ROOT, free_ports

ADDRESS = "127.0.0.1:6399"
"""That of cluster/local.yaml."""
PATIENCE_SECONDS = 240
COUNT_NODES = """if True:
    import sys, time
    from raystudy.execution.cluster import ray_cluster
    import ray

    deadline = time.time() + float(sys.argv[1])
    with ray_cluster():
        while (alive := sum(node["Alive"] for node in ray.nodes())) > 1 and time.time() < deadline:
            time.sleep(0.5)
    print(alive)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RAYSTUDY_"))}
    return ours | {
        "PATH": OUR_PYTHON,
        "HOME": str(tmp_path),
        "RAY_AUTH_MODE": "token",
        "RAY_ADDRESS": ADDRESS,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAYSTUDY_HOME": str(tmp_path / "studies"),
        **dict(zip(("DASHBOARD_PORT", "AGENT_PORT", "CLIENT_PORT"), map(str, free_ports(3)), strict=True)),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def local_head(environment: dict[str, str], tmp_path: Path) -> Iterator[None]:
    log = tmp_path / "head.log"
    command = ["bash", str(ROOT / "cluster" / "local.sh")]
    without_address = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}
    with log.open("wb") as output:
        head = subprocess.Popen(command, env=without_address, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.time() + PATIENCE_SECONDS
        while "Ray runtime started" not in log.read_text():
            assert head.poll() is None, log.read_text()
            assert time.time() < deadline, log.read_text()
            time.sleep(0.2)
        yield
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_that_asks_for_more_gets_a_node_and_lets_it_go(
    local_head: None, environment: dict[str, str], tmp_path: Path
) -> None:
    def ours(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600)

    study = ours("-m", "raystudy.tune", "cluster/local-study.yaml")
    assert study.returncode == 0, study.stdout + study.stderr
    for trial in Records(tmp_path / "studies" / "local").read().trials:
        assert trial.state is TrialState.COMPLETE
        assert [epoch["workers"] for epoch in trial.epochs] == [2, 2, 2], "the head has room for one"
    marks = [mark for mark in (tmp_path / "studies/local/preflight").iterdir() if mark.name != "sign"]
    assert len(marks) >= 2, "the node that came was asked too"

    left = ours("-c", COUNT_NODES, str(PATIENCE_SECONDS))
    assert left.stdout.splitlines()[-1] == "1", left.stdout + left.stderr
