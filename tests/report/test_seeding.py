from __future__ import annotations

import json

import pytest

from raystudy.report.seeding import benchmark_verdict, seeding_outcome
from raystudy.tracking.records import Records, TrialRecord, TrialState


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / "studies" / "fake")


def add(records: Records, trial_id: str, origin: str, width: int | None, valid_r2: float | None) -> None:
    config = {} if width is None else {"latent_dim": width}
    arm = "dense" if origin == "arm" else None
    records.trial_started(TrialRecord(trial_id, config, "h", 10, 1, origin, arm=arm))
    if valid_r2 is not None:
        records.trial_epoch(trial_id, {"epoch": 1, "valid_r2": valid_r2, "epoch_seconds": 1.0})
    records.trial_ended(trial_id, TrialState.COMPLETE if valid_r2 is not None else TrialState.FAILED)


def test_the_best_seeded_trial_is_ranked_among_all_that_have_a_value(records):
    add(records, "t0000", "seeded", 16, -0.5)
    add(records, "t0001", "seeded", 32, 0.31)
    add(records, "t0002", "sampled", 64, 0.42)
    add(records, "t0003", "sampled", 8, 0.35)
    add(records, "t0004", "sampled", 8, None)
    outcome = seeding_outcome(records.read())
    assert "2 of the 4 trials" in outcome
    assert "t0001 (latent width 32, R2 0.310), ranks 3 of 4" in outcome
    assert "the best of all is t0002 (latent width 64, R2 0.420), which was sampled" in outcome
    assert "not whether seeding helps" in outcome


def test_a_seeded_winner_is_the_best_of_all(records):
    add(records, "t0000", "sampled", 64, 0.2)
    add(records, "t0001", "seeded", 16, 0.3)
    outcome = seeding_outcome(records.read())
    assert "1 of the 2 trials with a validation R2 was seeded" in outcome
    assert "t0001 (latent width 16, R2 0.300), is the best of all" in outcome


def test_a_tie_is_no_defeat(records):
    add(records, "t0000", "sampled", 64, 0.3)
    add(records, "t0001", "seeded", 16, 0.3)
    assert "t0001 (latent width 16, R2 0.300), is the best of all" in seeding_outcome(records.read())


def test_an_arm_without_a_latent_width_may_be_the_best(records):
    add(records, "t0000", "arm", None, 0.3)
    add(records, "t0001", "seeded", 16, 0.1)
    assert "the best of all is t0000 (R2 0.300), the arm dense" in seeding_outcome(records.read())


def test_a_study_without_a_seeded_trial_has_no_outcome(records):
    add(records, "t0000", "sampled", 64, 0.3)
    assert seeding_outcome(records.read()) is None


def test_seeded_trials_that_all_failed_allow_no_conclusion(records):
    add(records, "t0000", "seeded", 16, None)
    add(records, "t0001", "sampled", 64, 0.3)
    assert "nothing can be said" in seeding_outcome(records.read())


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"{",
        b"[1]",
        b"null",
        b"\xff\xfe",
        b'{"verdict": "helps"}',
        b'{"verdict": 1, "command": "", "machine": "", "date": ""}',
    ],
)
def test_a_missing_or_damaged_benchmark_is_ignored(records, content):
    path = records.folder.parent / "benchmarks" / "seeding.json"
    if content is not None:
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    assert benchmark_verdict(records.read()) is None


def test_the_benchmark_beside_the_studies_is_read(records):
    words = {"verdict": "It helps.", "command": "python -m b", "machine": "2 cores", "date": "2026-01-02"}
    path = records.folder.parent / "benchmarks" / "seeding.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"figures": {"trials_with": 4.0}, **words}))
    assert benchmark_verdict(records.read()) == words
