from __future__ import annotations

import json

import pytest

from raystudy.report.losses import cost, losses
from raystudy.tracking.records import Records, TrialRecord, TrialState


@pytest.fixture
def records(tmp_path) -> Records:
    return Records(tmp_path / "study")


def attempt(records: Records, trial_id: str, state: TrialState | None, reason=None, detail=None) -> None:
    records.trial_started(TrialRecord(trial_id, {}, trial_id, 10, 1, "sampled"))
    if state is not None:
        records.trial_ended(trial_id, state, reason, detail)


def test_lost_attempts_are_counted_by_reason_and_not_listed_as_failures(records):
    for trial_id in ("t0000", "t0001"):
        attempt(records, trial_id, TrialState.INTERRUPTED, "preempted", "the machine went")
    attempt(records, "t0000", TrialState.INTERRUPTED, "preempted")
    attempt(records, "t0001", TrialState.INTERRUPTED, "worker lost")
    for trial_id in ("t0000", "t0001"):
        attempt(records, trial_id, TrialState.COMPLETE)
    found = losses(records.read())
    assert found["failed"] == []
    assert found["notes"] == [
        "3 attempts were lost to preemption and taken up again.",
        "1 attempt was lost with a worker and taken up again.",
    ]


def test_a_lost_attempt_that_nothing_followed_waits(records):
    attempt(records, "t0000", TrialState.INTERRUPTED, "interrupted")
    assert losses(records.read())["notes"] == ["1 attempt was lost to Ctrl-C, to be taken up again."]


def test_an_attempt_left_open_was_lost_with_the_driver_once_another_began(records):
    attempt(records, "t0000", None)
    assert losses(records.read())["notes"] == [], "it may still run"
    attempt(records, "t0000", TrialState.COMPLETE)
    assert losses(records.read())["notes"] == ["1 attempt was lost with the driver and taken up again."]


def test_a_failure_has_its_reason_and_its_detail(records):
    attempt(records, "t0000", TrialState.FAILED, "nan", "non-finite loss")
    attempt(records, "t0001-r0", TrialState.FAILED, "crash")
    assert losses(records.read())["failed"] == [
        ("t0000", 1, "nan", "non-finite loss"),
        ("t0001-r0", 1, "crash", ""),
    ]


def test_infeasible_proposals_are_counted_by_reason_with_the_first_as_an_example(records):
    for number, reason in enumerate(["memory", "constraint", "memory"]):
        attempt(records, f"t{number:04d}", TrialState.INFEASIBLE, reason, f"detail {number}")
    assert losses(records.read())["infeasible"] == [
        ("memory", 2, "t0000: detail 0"),
        ("constraint", 1, "t0001: detail 1"),
    ]


def test_a_repeated_proposal_counts_once_however_often_it_was_written(records):
    for number in (3, 3, 4):
        records.append("duplicate", number=number, of="t0001")
    assert losses(records.read())["notes"] == [
        "2 proposals were configurations tried before and told to the sampler without training."
    ]


def test_the_cost_is_said_where_prices_are_given(fake_study):
    records = fake_study()
    assert cost(records.read())["cost of the search"] == "no prices in the study file"
    written = json.loads((records.folder / "spec.json").read_text())
    written["spec"]["prices"] = {"currency": "EUR", "cpu_hour": 0.05, "gpu_hour": 0.0}
    (records.folder / "spec.json").write_text(json.dumps(written))
    assert cost(records.read())["cost of the search"] == "1.25 EUR"


def test_the_cost_of_a_search_under_way_is_not_known(records):
    records.folder.mkdir()
    (records.folder / "spec.json").write_text('{"spec": {"prices": {"gpu_hour": 2.0}}}')
    found = cost(records.read())
    assert found["cost of the search"] == "not known yet"
    assert found["search stopped because"] == "it has not yet"
