"""Interrupting a real driver, with a Ray of its own, and killing a worker; kills of drivers are in test_chaos.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from raystudy.tracking.records import Records, StudyRecord, TrialState

PATIENCE_SECONDS = 240


def start(study_file: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        command = [sys.executable, "-m", "raystudy.tune", str(study_file), "--json"]
        # A shell that starts the tests in the background lets them, and what they start, ignore Ctrl-C.
        heed_ctrl_c = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, preexec_fn=heed_ctrl_c)


def wait_for(driver: subprocess.Popen[bytes], records: Records, arrived: Callable[[StudyRecord], bool]) -> StudyRecord:
    deadline = time.time() + PATIENCE_SECONDS
    while time.time() < deadline:
        record = records.read()
        if arrived(record):
            return record
        assert driver.poll() is None, "the driver ended before it could be stopped"
        time.sleep(0.05)
    raise AssertionError("the study did not get that far")


def trial_workers(driver: subprocess.Popen[bytes]) -> list[int]:
    """Processes below the driver that run a trial at this moment."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()]
    parent = {int(pid): int(ppid) for pid, ppid, _ in rows}

    def below_driver(pid: int) -> bool:
        while pid in parent and pid != driver.pid:
            pid = parent[pid]
        return pid == driver.pid

    return [int(pid) for pid, _, args in rows if args.startswith("ray::ImplicitFunc") and below_driver(int(pid))]


def num_epochs(record: StudyRecord) -> int:
    return sum(len(trial.epochs) for trial in record.trials)


@pytest.mark.ray
@pytest.mark.timeout(800)
def test_after_ctrl_c_and_a_killed_worker_every_trial_is_counted_once(
    data_folder: Path, tiny_study: Callable[..., dict[str, Any]], studies: Path, tmp_path: Path
) -> None:
    study_file, log = tmp_path / "study.yaml", tmp_path / "log"
    document = tiny_study("chaos", data_folder, baselines=["ridge"], pruner="none")
    study_file.write_text(yaml.safe_dump({**document, "training": {"epochs": 6, "batch_size": 16}}))
    records = Records(studies / "chaos")

    driver = start(study_file, log)
    before = wait_for(driver, records, lambda record: num_epochs(record) >= 2)
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(60) == 130
    assert "the same command goes on from there: raystudy tune" in log.read_text()

    log.unlink()
    driver = start(study_file, log)
    wait_for(driver, records, lambda record: num_epochs(record) >= num_epochs(before) + 4)
    os.kill(trial_workers(driver)[0], signal.SIGKILL)
    assert driver.wait(PATIENCE_SECONDS) == 0, log.read_text()
    report = json.loads(next(line for line in log.read_text().splitlines() if line.startswith("{")))
    record = records.read()
    assert len(record.trials) == len({trial.config_hash for trial in record.trials}) == 4
    assert {trial.state for trial in record.trials} == {TrialState.COMPLETE}
    for trial in record.trials:
        assert [epoch["epoch"] for epoch in trial.epochs] == [1, 2, 3, 4, 5, 6]
        trained = [epoch["epoch"] for attempt in trial.attempts for epoch in attempt.epochs]
        assert trained == sorted(set(trained)), "an attempt went on where the one before had stopped"
    reasons = [attempt.reason for trial in record.trials for attempt in trial.attempts[:-1]]
    assert reasons.count("worker lost") == 1
    assert {*reasons} == {"interrupted", "worker lost"}
    attempts = [attempt for trial in record.trials for attempt in trial.attempts[:-1]]
    assert {attempt.state for attempt in attempts} == {TrialState.INTERRUPTED}
    assert len(record.every("test_opened")) == 1
    assert report["best"]["test_r2"] is not None
