"""What the scaling benchmark reads from records and Ray Train's log, and a small run of the part without Ray."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.scaling import FIRST_STEP, STAGES, app, figures_of, stages_of
from raystudy.tracking.records import Attempt, TrialRecord, TrialState

BEGAN = 1_790_000_000.0


@pytest.fixture
def trial() -> TrialRecord:
    """Handed out at 0 s, its first step at 10 s; epochs of 4, 2 and 2 s; ended at 21 s."""
    ends = ((14.0, 4.0), (16.5, 2.0), (19.0, 2.0))
    epochs = [
        {"epoch": number, "time": BEGAN + end, "epoch_seconds": seconds}
        for number, (end, seconds) in enumerate(ends, start=1)
    ]
    attempt = Attempt(0, BEGAN, epochs, TrialState.COMPLETE, ended=BEGAN + 21)
    return TrialRecord("t0000", {}, "hash", 1, 0, "arm", attempts=[attempt])


def write_log(folder: Path, name: str, seconds: list[float]) -> None:
    """A controller's, with each stage's end so many seconds after the trial was handed out."""
    lines = [{"asctime": "2026-01-01 00:00:00,000", "message": "something else"}]
    for phrase, second in zip(STAGES, seconds, strict=True):
        moment = datetime.fromtimestamp(BEGAN + second)
        lines.append({"asctime": f"{moment:%Y-%m-%d %H:%M:%S},000", "message": f"[Worker Group] {phrase} in 1 s."})
    path = folder / f"ray-train-sys-controller-{name}.log"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")


def test_start_end_and_throughput_come_from_the_record(trial: TrialRecord) -> None:
    assert figures_of(trial, num_genes=80) == {"start_seconds": 10, "end_seconds": 2, "genes_per_second": 40}


def test_the_stages_of_a_start_add_up_to_it(trial: TrialRecord, tmp_path: Path) -> None:
    write_log(tmp_path, "finalist", [23, 24, 25, 26, 27])
    write_log(tmp_path, "trial", [3, 4, 7, 8, 9])
    write_log(tmp_path, "earlier", [-9, -8, -7, -6, -5])

    found = stages_of(tmp_path, trial)

    assert found == {**dict(zip(STAGES.values(), [3, 1, 3, 1, 1], strict=True)), FIRST_STEP: 1}
    assert sum(found.values()) == figures_of(trial, num_genes=80)["start_seconds"]


def test_networks_are_trained_at_once_without_ray() -> None:
    options = ["--genes", "200", "--epochs", "2", "--at-once", "2", "--json"]
    done = CliRunner().invoke(app, ["packed", *options])

    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["epochs_per_second"]
    assert found.keys() == {"2"}
    assert found["2"] > 0
