"""Trials on two workers of two machines (two raylets here): over both, on one that is left, and on one that comes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from raystudy.tracking.records import Records, StudyRecord, TrialState
from tests.execution.heads import PATIENCE_SECONDS, Head, running_head, running_node, tuning

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS, MANY_EPOCHS = 30, 2000
"""The many are not run to their end."""


@pytest.fixture
def head() -> Iterator[Head]:
    with running_head(cpus=1, joined=True) as started:
        yield started


@pytest.fixture
def study_file(tiny_study: Callable[..., dict[str, Any]], data_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    def write(epochs: int, **resources: Any) -> Path:
        document = tiny_study(
            "machines",
            data_folder,
            search={},
            arms=[{"name": "one"}],
            baselines=["ridge"],
            training={"epochs": epochs, "batch_size": 16, "attention": "sdpa"},
            budget={"trials": 1, "minutes": 10_000},  # by projection: else the many epochs are cut short
            resources=resources,
            cluster=[{"count": 2, "cpus": 1}],
        )
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


def wait_for(records: Records, log: Path, arrived: Callable[[StudyRecord], bool]) -> None:
    deadline = time.time() + PATIENCE_SECONDS
    while not arrived(records.read()):
        assert time.time() < deadline, log.read_text()
        time.sleep(0.2)


def epochs_with(workers: int, record: StudyRecord) -> int:
    return sum(epoch.get("workers", 1) == workers for trial in record.trials for epoch in trial.epochs)


def test_a_trial_over_two_machines_loses_one_and_goes_on_when_another_has_come(
    head: Head, study_file: Callable[..., Path], studies: Path, tmp_path: Path
) -> None:
    records, log = Records(studies / "machines"), tmp_path / "log"
    with running_node(head, 1) as node, tuning(head, study_file(EPOCHS, workers=2), studies, log) as driver:
        wait_for(records, log, lambda record: epochs_with(2, record) >= 2)
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()
        wait_for(records, log, lambda record: record.trials[0].attempts[0].state is not TrialState.RUNNING)
        with running_node(head, 1):
            assert driver.wait(2 * PATIENCE_SECONDS) == 0, log.read_text()

    (trial,) = records.read().trials
    assert [attempt.state for attempt in trial.attempts[:-1]] == [TrialState.INTERRUPTED] * (len(trial.attempts) - 1)
    assert trial.attempts[0].reason in ("preempted", "worker lost")
    assert trial.state is TrialState.COMPLETE
    assert [epoch["epoch"] for epoch in trial.epochs] == list(range(1, EPOCHS + 1))
    assert {epoch["workers"] for epoch in trial.epochs} == {2}


def test_a_trial_that_may_grow_begins_on_one_machine_and_grows_to_two(
    head: Head, study_file: Callable[..., Path], studies: Path, tmp_path: Path
) -> None:
    records, log = Records(studies / "machines"), tmp_path / "log"
    with tuning(head, study_file(MANY_EPOCHS, workers=[1, 2]), studies, log):
        wait_for(records, log, lambda record: epochs_with(1, record) >= 1)
        with running_node(head, 1):
            wait_for(records, log, lambda record: epochs_with(2, record) >= 2)

    (trial,) = records.read().trials
    workers = [epoch.get("workers", 1) for epoch in trial.epochs]
    assert [epoch["epoch"] for epoch in trial.epochs] == list(range(1, len(workers) + 1)), "none lost, none twice"
    assert workers == sorted(workers)
    assert len(trial.attempts) == 1, "growing is no failure"
    assert trial.global_batch == 32
