"""The look at a search's machines: when it ends a search, and a real Ray that is gone under one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.victims import below, end_session, kill
from raystudy.errors import RaystudyError
from raystudy.execution import watch
from raystudy.execution.watch import LOOK_SECONDS, PATIENCE_SECONDS, ClusterWatch
from raystudy.study.sections import ResourcesSpec
from raystudy.tracking.records import Records, TrialState

NO_NODE_LEFT = (
    "error: RaystudyError: the cluster cannot run a trial any more: none of its nodes is left. Everything so far is "
    "kept; the same command goes on when the machines are back"
)
SMALL, LARGE = {"CPU": 1.0}, {"CPU": 8.0}
NEEDS = ResourcesSpec(cpus_per_worker=4)


def node(resources: dict[str, float], alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": resources}


class Cluster:
    """A cluster of given nodes, and a clock."""

    def __init__(self, *nodes: dict[str, Any]) -> None:
        self.nodes_now = list(nodes)
        self.now = 1000.0
        self.looks = 0

    def nodes(self) -> list[dict[str, Any]]:
        self.looks += 1
        return self.nodes_now

    def pass_time(self, looking: ClusterWatch, seconds: float) -> None:
        """As Tune does it: a step every now and then."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 1)
            looking.on_step_begin(0, [])


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(node(LARGE), node(SMALL))
    monkeypatch.setattr(watch.ray, "nodes", made.nodes)
    monkeypatch.setattr(watch.time, "monotonic", lambda: made.now)
    return made


def test_a_cluster_with_room_is_left_alone_and_looked_at_now_and_then(cluster: Cluster) -> None:
    cluster.pass_time(ClusterWatch(NEEDS, may_grow=False), 10 * PATIENCE_SECONDS)

    assert cluster.looks == pytest.approx(10 * PATIENCE_SECONDS / LOOK_SECONDS, abs=2)


def test_a_search_is_ended_when_no_node_with_room_came_back_for_a_while(cluster: Cluster) -> None:
    looking = ClusterWatch(NEEDS, may_grow=False)
    cluster.pass_time(looking, 60)
    cluster.nodes_now = [node(LARGE, alive=False), node(SMALL)]
    cluster.pass_time(looking, PATIENCE_SECONDS - 2 * LOOK_SECONDS)

    with pytest.raises(
        RaystudyError, match=r"needs \{CPU: 4\}, but the largest node has \{CPU: 1\}.*the same command goes on when"
    ) as caught:
        cluster.pass_time(looking, 4 * LOOK_SECONDS)
    assert caught.value.exit_code == 1
    assert caught.value.__cause__ is None


def test_a_node_that_comes_back_gives_it_all_its_patience_again(cluster: Cluster) -> None:
    looking, whole = ClusterWatch(NEEDS, may_grow=False), cluster.nodes_now
    for _ in range(3):
        cluster.nodes_now = [node(SMALL)]
        cluster.pass_time(looking, PATIENCE_SECONDS - 2 * LOOK_SECONDS)
        cluster.nodes_now = whole
        cluster.pass_time(looking, 2 * LOOK_SECONDS)

    cluster.nodes_now = [node(SMALL)]
    with pytest.raises(RaystudyError):
        cluster.pass_time(looking, PATIENCE_SECONDS + 2 * LOOK_SECONDS)


def test_a_cluster_that_may_grow_is_waited_for_while_it_has_any_node(cluster: Cluster) -> None:
    looking = ClusterWatch(NEEDS, may_grow=True)
    cluster.nodes_now = [node(SMALL)]
    cluster.pass_time(looking, 20 * PATIENCE_SECONDS)

    cluster.nodes_now = []
    with pytest.raises(RaystudyError, match="none of its nodes is left"):
        cluster.pass_time(looking, 2 * LOOK_SECONDS)


@pytest.mark.parametrize("left", [[], [node(LARGE, alive=False)]])
@pytest.mark.parametrize("may_grow", [True, False])
def test_without_any_node_a_search_is_ended_at_the_next_look(
    cluster: Cluster, left: list[dict[str, Any]], may_grow: bool
) -> None:
    looking = ClusterWatch(NEEDS, may_grow)
    cluster.pass_time(looking, 60)
    cluster.nodes_now = left

    with pytest.raises(RaystudyError, match=r"cannot run a trial any more: none of its nodes is left\. Ev"):
        cluster.pass_time(looking, 2 * LOOK_SECONDS)


class Session:
    """The command with a Ray of its own, in a process session of its own."""

    def __init__(self, study_file: Path, log: Path) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "MLFLOW_"))}
        self._log = log
        command = [sys.executable, "-m", "raystudy.tune", str(study_file)]
        with log.open("wb") as output:
            self.driver = subprocess.Popen(
                command, stdout=output, stderr=output, start_new_session=True, env=environment
            )

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        end_session(self.driver.pid)
        self.driver.wait()

    @property
    def said(self) -> str:
        return self._log.read_text()

    def wait_for(self, records: Records, more_epochs: int) -> None:
        goal, deadline = num_epochs(records) + more_epochs, time.time() + 240
        while num_epochs(records) < goal:
            assert self.driver.poll() is None, f"the driver ended before its Ray could be killed: {self.said}"
            assert time.time() < deadline, "the study did not get that far"
            time.sleep(0.1)

    def without(self, server: str) -> int:
        """Kill that part of its Ray; the driver's exit code, which must not take long."""
        (pid,) = below(self.driver.pid, (server,))
        assert kill(pid)
        return self.driver.wait(150)


EPOCHS = 20
"""So many that three sessions are needed for them."""


def num_epochs(records: Records) -> int:
    return sum(len(trial.epochs) for trial in records.read().trials)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_driver_whose_ray_is_gone_ends_by_itself_and_the_same_command_goes_on(
    data_folder: Path, tiny_study: Callable[..., dict[str, Any]], studies: Path, tmp_path: Path
) -> None:
    study_file, log, records = tmp_path / "study.yaml", tmp_path / "log", Records(studies / "headless")
    document = tiny_study("headless", data_folder, baselines=[], pruner="none")
    document |= {"training": {"epochs": EPOCHS, "batch_size": 16}, "budget": {**document["budget"], "minutes": 60}}
    study_file.write_text(yaml.safe_dump(document))

    with Session(study_file, log) as session:
        session.wait_for(records, more_epochs=3)
        assert session.without("raylet/raylet") == 1, session.said
        # Ray's core itself ends a driver that happens to ask the dead raylet for something before the watch has looked.
        ours = [line for line in session.said.splitlines() if line.startswith("error: ")]
        assert ours == [NO_NODE_LEFT] or (not ours and "Raylet is terminated" in session.said)
        assert "Traceback" not in session.said

    with Session(study_file, log) as session:
        session.wait_for(records, more_epochs=3)
        assert session.without("gcs/gcs_server") == 1, session.said  # Ray ends the process, after 30 seconds

    with Session(study_file, log) as session:
        assert session.driver.wait(400) == 0, session.said
    record = records.read()
    assert len(record.trials) == len({trial.config_hash for trial in record.trials}) == 4
    for trial in record.trials:
        assert trial.state is TrialState.COMPLETE
        assert [epoch["epoch"] for attempt in trial.attempts for epoch in attempt.epochs] == list(range(1, EPOCHS + 1))
    assert record.last("study_finished") is not None
