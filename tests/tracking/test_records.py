from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from raystudy.errors import Reason
from raystudy.tracking.records import MemoryRecords, Records, TrialRecord, TrialState, jsonable


@pytest.fixture
def clock():
    """The time that the next event gets."""
    return {"time": 0.0}


@pytest.fixture(params=[Records, MemoryRecords], ids=["files", "memory"])
def records(tmp_path: Path, clock, request) -> Records:
    return request.param(tmp_path / "studies" / "small", lambda: clock["time"])


@pytest.fixture
def files(tmp_path: Path) -> Records:
    return Records(tmp_path / "studies" / "small")


def trial(trial_id: str = "t0000") -> TrialRecord:
    return TrialRecord(trial_id, {"latent_dim": 8}, "abc", parameters=10, seed=1, origin="sampled")


def epoch(records: Records, number: int, valid_r2: float | None, seconds: float = 1.0) -> None:
    records.trial_epoch("t0000", {"epoch": number, "valid_r2": valid_r2, "epoch_seconds": seconds})


def test_what_is_written_is_read_again(records):
    records.append("session_started", spec_hash="h")
    records.trial_started(trial())
    epoch(records, 1, 0.2)
    epoch(records, 2, 0.1)
    records.trial_ended("t0000", TrialState.COMPLETE)
    study = records.read()
    (read,) = study.trials
    assert (read.config, read.parameters, read.state) == ({"latent_dim": 8}, 10, TrialState.COMPLETE)
    assert (read.valid_r2, read.best_epoch) == (0.2, 1)
    assert study.last("session_started")["spec_hash"] == "h"
    assert study.last("study_finished") is None


def test_a_torn_last_line_is_dropped_and_cut_off_before_the_next(files):
    files.append("session_started", spec_hash="h")
    path = files.folder / "study.jsonl"
    with path.open("a") as file:
        file.write('{"event": "search_fin')
    assert [line["event"] for line in files.read().events] == ["session_started"]
    files.append("study_finished", seconds=1.0)
    assert [line["event"] for line in files.read().events] == ["session_started", "study_finished"]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_trial_whose_first_line_is_torn_does_not_exist_yet(files):
    path = files.trial_folder("t0000") / "record.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"event": "started", "conf')
    assert files.read().trials == []


def test_a_resumed_attempt_continues_the_trial_and_its_repeated_epoch_counts(records):
    records.trial_started(trial())
    epoch(records, 1, 0.1)
    epoch(records, 2, 0.9)
    records.trial_started(trial())
    epoch(records, 2, 0.2)
    epoch(records, 3, 0.3)
    records.trial_ended("t0000", TrialState.PRUNED, "median", "at epoch 3")
    (read,) = records.read().trials
    assert [line["valid_r2"] for line in read.epochs] == [0.1, 0.2, 0.3]
    assert (read.state, read.reason, read.best_epoch) == (TrialState.PRUNED, "median", 3)
    assert (read.detail, read.explanation) == ("at epoch 3", "median: at epoch 3")
    assert [attempt.summary()["epochs"] for attempt in read.attempts] == [[1, 2], [2, 3]]


def test_a_trial_whose_last_attempt_was_interrupted_is_still_running(records, clock):
    records.trial_started(trial())
    clock["time"] = 5.0
    records.trial_ended("t0000", TrialState.INTERRUPTED, Reason.PREEMPTED)
    read = records.read_trial("t0000")
    assert (read.state, read.reason, read.detail) == (TrialState.RUNNING, "preempted", None)
    assert [(attempt.state, attempt.ended) for attempt in read.attempts] == [(TrialState.INTERRUPTED, 5.0)]


def test_an_attempt_can_be_closed_at_the_time_of_its_last_sign_of_life(records, clock):
    records.trial_started(trial())
    clock["time"] = 100.0
    records.trial_ended("t0000", TrialState.INTERRUPTED, Reason.DRIVER_LOST, time=7.0)
    clock["time"] = 200.0
    records.trial_started(trial())
    clock["time"] = 203.0
    epoch(records, 1, 0.1)
    clock["time"] = 204.0
    assert records.read_trial("t0000").seconds == 7.0 + 3.0, "of the open attempt up to its last epoch"
    records.trial_ended("t0000", TrialState.COMPLETE)
    assert records.read_trial("t0000").seconds == 7.0 + 4.0


def test_batches_in_parts_are_on_record_with_the_attempt(records):
    records.trial_started(trial())
    records.trial_ended("t0000", TrialState.INTERRUPTED, Reason.OUT_OF_MEMORY)
    records.trial_started(trial(), micro_batches=2)
    read = records.read_trial("t0000")
    assert [attempt.micro_batches for attempt in read.attempts] == [1, 2]
    assert read.micro_batches == 2
    assert [attempt.summary()["micro_batches"] for attempt in read.attempts] == [1, 2]


def test_what_a_trial_is_stays_as_its_first_attempt_said(records):
    records.trial_started(trial())
    later = trial()
    later.seed, later.config = 2, {"latent_dim": 16}
    records.trial_started(later)
    assert (records.read_trial("t0000").seed, records.read_trial("t0000").config) == (1, {"latent_dim": 8})


def test_a_replicate_knows_its_fold_and_its_seed(records):
    replicate = trial("t0000-r3")
    replicate.fold, replicate.replicate = 1, 1
    records.trial_started(replicate)
    (read,) = records.read().finalists
    assert (read.fold, read.replicate) == (1, 1)


def test_a_trial_that_never_started_is_told_by_its_name(records):
    with pytest.raises(KeyError, match="t0007 has never started"):
        records.read_trial("t0007")


def test_records_in_memory_leave_nothing_on_disk(tmp_path: Path):
    kept = MemoryRecords(tmp_path / "simulated")
    kept.append("session_started")
    kept.trial_started(trial())
    assert kept.read_trial("t0000").state is TrialState.RUNNING
    assert list(tmp_path.iterdir()) == []


def test_the_line_of_a_trial_is_the_same_in_a_file_and_in_memory(tmp_path: Path):
    kept = [kind(tmp_path / "small", lambda: 1.0) for kind in (Records, MemoryRecords)]
    for one in kept:
        one.trial_started(trial(), micro_batches=2)
        one.trial_epoch("t0000", {"epoch": 1, "valid_r2": np.float32("nan"), "where": Path("x")})
        one.trial_ended("t0000", TrialState.FAILED, Reason.NAN)
    assert kept[0].read().trials == kept[1].read().trials


def test_a_replicate_of_a_finalist_is_kept_apart_from_its_trial(records):
    records.trial_started(trial())
    records.trial_started(trial("t0000-r0"))
    study = records.read()
    assert [one.id for one in study.trials] == ["t0000"]
    assert [one.id for one in study.finalists] == ["t0000-r0"]


def test_numbers_that_json_cannot_hold_become_null(records):
    records.trial_started(trial())
    epoch(records, 1, float("nan"))
    epoch(records, 2, np.float32("inf"))
    (read,) = records.read().trials
    assert [line["valid_r2"] for line in read.epochs] == [None, None]
    assert read.best is None


def test_arrays_paths_and_tuples_become_plain_json():
    value = {"a": np.array([1.0, np.nan]), "b": Path("x"), "c": (np.int64(1), TrialState.FAILED)}
    assert json.dumps(jsonable(value), allow_nan=False) == '{"a": [1.0, null], "b": "x", "c": [1, "failed"]}'


def test_the_first_epoch_does_not_count_for_the_epoch_time(records):
    records.trial_started(trial())
    for number, seconds in enumerate([90.0, 2.0, 3.0, 4.0], 1):
        epoch(records, number, 0.1, seconds)
    assert records.read().trials[0].epoch_seconds == 3.0


def test_time_at_work_leaves_out_the_pause_between_two_sessions(records, clock):
    for now, event in [(0, "session_started"), (10, "baseline"), (1000, "session_started")]:
        clock["time"] = float(now)
        records.append(event, name="ridge")
    records.trial_started(trial())
    clock["time"] = 1007.0
    epoch(records, 1, 0.1)
    assert records.read().seconds == 10 + 7


def test_a_study_that_never_began_took_no_time(records):
    assert records.read().seconds == 0


def test_a_baseline_fitted_again_counts_once(records):
    records.append("baseline", name="ridge", valid_r2=0.1)
    records.append("baseline", name="gbm", valid_r2=0.2)
    records.append("baseline", name="ridge", valid_r2=0.3)
    assert {line["name"]: line["valid_r2"] for line in records.read().baselines} == {"ridge": 0.3, "gbm": 0.2}


def test_the_first_opening_of_the_test_genes_counts(records):
    assert records.read().test_scores == {}
    records.append("test_opened", scores={"ridge": {"test_r2": 0.1}})
    records.append("test_opened", scores={"ridge": {"test_r2": 0.9}})
    assert records.read().test_scores == {"ridge": {"test_r2": 0.1}}
