"""The truth table: however a trial ends, Optuna's storage, the record, the report and MLflow say the same of it.

Each row is one study, in which what its name says happens to its first proposal; each column is what a reader of that
place is told afterwards. Optuna and MLflow are real and are read afresh, as their own pages would read them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest

from raystudy.errors import Reason
from raystudy.report.table import report_json, status_json
from raystudy.search.policy import Origin, SearchPolicy
from raystudy.tracking.mlflow import MlflowMirror
from raystudy.tracking.records import Records, TrialRecord, TrialState
from tests.search.cases import ask, in_optuna, make_spec, metrics

TABLE = """
ending                        | Optuna   value  broken            | record      reason              attempts | MLflow

completed                     | COMPLETE 0.3    -                 | complete    -                   1        | FINISHED
pruned                        | PRUNED   0.1    -                 | pruned      successive_halving  1        | FINISHED
pruned_as_the_time_is_up      | PRUNED   0.1    -                 | pruned      budget              1        | FINISHED
pruned_as_the_money_is_spent  | PRUNED   0.1    -                 | pruned      budget              1        | FINISHED
pruned_as_another_is_enough   | PRUNED   0.1    -                 | pruned      target_reached      1        | FINISHED

nan                           | FAIL     -      -                 | failed      nan                 1        | FAILED
crash                         | FAIL     -      -                 | failed      crash               1        | FAILED
timeout                       | FAIL     -      -                 | failed      timeout             1        | FAILED
ended_without_a_value         | FAIL     -      -                 | failed      crash               1        | FAILED
out_of_memory                 | RUNNING  -      -                 | running     out_of_memory       1        | RUNNING
out_of_memory_and_tried_again | RUNNING  -      -                 | running     -                   2        | RUNNING
out_of_memory_then_completed  | COMPLETE 0.3    -                 | complete    -                   2        | FINISHED
out_of_memory_twice           | FAIL     -      -                 | failed      out_of_memory       2        | FAILED
preempted                     | RUNNING  -      -                 | running     preempted           1        | RUNNING
preempted_20_times            | COMPLETE 0.3    -                 | complete    -                   21       | FINISHED
preempted_21_times            | FAIL     -      -                 | failed      preempted           21       | FAILED
worker_lost                   | RUNNING  -      -                 | running     worker_lost         1        | RUNNING
worker_lost_twice             | COMPLETE 0.3    -                 | complete    -                   3        | FINISHED
worker_lost_3_times           | FAIL     -      -                 | failed      worker_lost         3        | FAILED
interrupted                   | RUNNING  -      -                 | running     interrupted         1        | RUNNING
interrupted_and_completed     | COMPLETE 0.3    -                 | complete    -                   2        | FINISHED
interrupted_for_good          | PRUNED   0.1    -                 | pruned      budget              2        | FINISHED
driver_lost                   | RUNNING  -      -                 | running     driver_lost         1        | RUNNING
driver_lost_and_completed     | COMPLETE 0.3    -                 | complete    -                   2        | FINISHED

breaks_a_rule                 | PRUNED   -      rule              | infeasible  rule                1        | FAILED
breaks_a_constraint           | PRUNED   -      constraint        | infeasible  constraint          1        | FAILED
too_many_parameters           | PRUNED   -      parameters        | infeasible  parameters          1        | FAILED
too_much_memory               | PRUNED   -      memory            | infeasible  memory              1        | FAILED
no_such_attention_backend     | PRUNED   -      attention_backend | infeasible  attention_backend   1        | FAILED

duplicate_of_a_complete_one   | COMPLETE 0.3    -                 | -           -                   -        | -
duplicate_of_a_pruned_one     | PRUNED   0.1    -                 | -           -                   -        | -
duplicate_of_a_failed_one     | FAIL     -      -                 | -           -                   -        | -
duplicate_of_an_infeasible_one| PRUNED   -      constraint        | -           -                   -        | -
duplicate_of_a_running_one    | FAIL     -      -                 | -           -                   -        | -
"""


@dataclass
class Row:
    """What each place says; None where it says nothing. Words of several parts are written with ``_`` in the table."""

    ending: str
    optuna: str
    value: float | None
    broken: str | None
    state: str | None
    reason: str | None
    attempts: int | None
    mlflow: str | None

    @classmethod
    def of(cls, line: str) -> Row:
        told = [None if cell == "-" else cell.replace("_", " ") for cell in line.replace("|", " ").split()]
        ending, state, value, broken, record, reason, attempts, status = told
        assert ending
        assert state
        if reason == "successive halving":
            reason = "successive_halving"  # a pruner is called as in the study file
        known = None if value is None else float(value)
        return cls(ending.replace(" ", "_"), state, known, broken, record, reason, attempts and int(attempts), status)  # type: ignore[arg-type]


ROWS = [Row.of(line) for line in TABLE.strip().splitlines()[2:] if line]


class Study:
    """A study of its own for one row, with MLflow listening; the methods are what can happen to its trials."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.uri = folder, uri
        self.now = 1_700_000_000.0
        self.ends = self.now + 1_000_000
        self.records = Records(folder, self.clock)
        self.records.append("session_started")
        self.changes: dict[str, Any] = {}
        self.subject = 0
        """The number, in Optuna, of what the row is about."""

    def clock(self) -> float:
        self.now += 0.01
        return self.now

    def open(self, **changes: Any) -> None:
        """Start a driver; ``changes`` are keys of the study file, kept for the next one."""
        self.changes |= changes
        search = {"learning_rate": {"kind": "log", "low": 1e-4, "high": 1e-2}}
        spec = make_spec(**{"name": self.folder.name, "search": search, "sampler": "random", **self.changes})
        mirror = MlflowMirror(self.uri, self.records)
        self.policy = SearchPolicy(spec, self.records, self.ends, [mirror.sync_trial], clock=self.clock)

    def first(self) -> TrialRecord:
        """The trial of a driver that has just been started, after an epoch with a validation R2 of 0.1."""
        self.open()
        return self.epoch(ask(self.policy))

    def epoch(self, trial: TrialRecord, valid_r2: float = 0.1, number: int = 1, seconds: float = 1.0) -> TrialRecord:
        self.stopped = self.policy.report(trial.id, metrics(number, valid_r2, seconds))
        return trial

    def complete(self, trial: TrialRecord, valid_r2: float = 0.3) -> None:
        for number in (1, 2, 3):
            self.epoch(trial, valid_r2 * number / 3, number)
        self.policy.end(trial.id, TrialState.COMPLETE)

    def lose(self, reason: Reason, times: int) -> TrialRecord:
        """Lose the first trial that often, taking it up again in between; the trial, as it was handed out last."""
        trial = self.first()
        for lost in range(times):
            if lost:
                assert ask(self.policy).id == trial.id
            self.policy.lost(trial.id, reason, "somewhere")
        return trial

    def refuse(self, **changes: Any) -> None:
        """Have a point refused, of a study changed so that it is."""
        self.open(**changes)
        self.policy.enqueue({key: self.bad(kind) for key, kind in self.policy.spec.search.items()}, Origin("seeded"))
        trial = self.policy.ask()
        assert trial is None or trial.id != "t0000"

    @staticmethod
    def bad(parameter: Any) -> Any:
        return parameter.corners()[-1]

    def twice(self, happens: Callable[[TrialRecord], None], **changes: Any) -> None:
        """Propose the same configuration again after something happened to the first."""
        self.open(**changes)
        for origin in ("seeded", "warm"):
            self.policy.enqueue({"learning_rate": 0.005}, Origin(origin))
        happens(ask(self.policy))
        ask(self.policy)
        self.subject = 1


def completed(study: Study) -> None:
    study.open()
    study.complete(ask(study.policy))


def pruned(study: Study) -> None:
    study.open(pruner="successive_halving")
    subject, others = ask(study.policy), [ask(study.policy) for _ in range(4)]
    for other in others:
        study.complete(other, 0.9)
    study.epoch(subject)
    assert study.stopped


def pruned_as_the_time_is_up(study: Study) -> None:
    study.open()
    study.now = study.ends - 1
    study.epoch(ask(study.policy))
    assert study.stopped


def pruned_as_the_money_is_spent(study: Study) -> None:
    budget = {"trials": 6, "minutes": 10, "cost": 2}
    study.open(budget=budget, prices={"cpu_hour": 2})
    trial = ask(study.policy)
    study.now += 3600
    study.epoch(trial)
    assert study.stopped


def pruned_as_another_is_enough(study: Study) -> None:
    study.open(budget={"trials": 6, "minutes": 10, "valid_r2": 0.9})
    subject, other = ask(study.policy), ask(study.policy)
    study.complete(other, 0.95)
    study.epoch(subject)
    assert study.stopped


def ended_without_a_value(study: Study) -> None:
    study.open()
    study.policy.end(ask(study.policy).id, TrialState.COMPLETE)


def out_of_memory_and_tried_again(study: Study) -> None:
    trial = study.lose(Reason.OUT_OF_MEMORY, 1)
    again = ask(study.policy)
    assert (again.id, again.micro_batches) == (trial.id, 2)


def out_of_memory_then_completed(study: Study) -> None:
    out_of_memory_and_tried_again(study)
    study.complete(study.records.read_trial("t0000"))


def interrupted(study: Study) -> None:
    study.first()
    study.policy.interrupt()


def driver_lost(study: Study) -> None:
    study.first()
    study.open()


def taken_up(how: Callable[[Study], None]) -> Callable[[Study], None]:
    """Let it happen, then have another driver train on to the end."""

    def happens(study: Study) -> None:
        how(study)
        study.open()
        trial = ask(study.policy)
        assert trial.id == "t0000"
        study.complete(trial)

    return happens


def interrupted_for_good(study: Study) -> None:
    interrupted(study)
    study.now = study.ends
    study.open()
    assert study.policy.ask() is None
    study.policy.close()


def completed_after(reason: Reason, times: int) -> Callable[[Study], None]:
    def happens(study: Study) -> None:
        study.lose(reason, times)
        study.complete(ask(study.policy))

    return happens


def breaks_a_rule(study: Study) -> None:
    families = {"kind": "categorical", "choices": ["dna_protein", "protein"]}
    half_lives = {"kind": "categorical", "choices": ["none", "concat"]}
    rates = {"kind": "log", "low": 1e-4, "high": 1e-2}
    data = {"source": "synthetic", "window_bp": [300, 150], "max_protein": 300}
    study.refuse(search={"family": families, "half_life": half_lives, "learning_rate": rates}, data=data)


def no_such_attention_backend(study: Study) -> None:
    study.open()
    study.policy.end(ask(study.policy).id, TrialState.INFEASIBLE, "attention backend", "not on this machine")


ENDINGS: dict[str, Callable[[Study], Any]] = {
    "completed": completed,
    "pruned": pruned,
    "pruned_as_the_time_is_up": pruned_as_the_time_is_up,
    "pruned_as_the_money_is_spent": pruned_as_the_money_is_spent,
    "pruned_as_another_is_enough": pruned_as_another_is_enough,
    "nan": lambda study: study.lose(Reason.NAN, 1),
    "crash": lambda study: study.lose(Reason.CRASH, 1),
    "timeout": lambda study: study.lose(Reason.TIMEOUT, 1),
    "ended_without_a_value": ended_without_a_value,
    "out_of_memory": lambda study: study.lose(Reason.OUT_OF_MEMORY, 1),
    "out_of_memory_and_tried_again": out_of_memory_and_tried_again,
    "out_of_memory_then_completed": out_of_memory_then_completed,
    "out_of_memory_twice": lambda study: study.lose(Reason.OUT_OF_MEMORY, 2),
    "preempted": lambda study: study.lose(Reason.PREEMPTED, 1),
    "preempted_20_times": completed_after(Reason.PREEMPTED, 20),
    "preempted_21_times": lambda study: study.lose(Reason.PREEMPTED, 21),
    "worker_lost": lambda study: study.lose(Reason.WORKER_LOST, 1),
    "worker_lost_twice": completed_after(Reason.WORKER_LOST, 2),
    "worker_lost_3_times": lambda study: study.lose(Reason.WORKER_LOST, 3),
    "interrupted": interrupted,
    "interrupted_and_completed": taken_up(interrupted),
    "interrupted_for_good": interrupted_for_good,
    "driver_lost": driver_lost,
    "driver_lost_and_completed": taken_up(driver_lost),
    "breaks_a_rule": breaks_a_rule,
    "breaks_a_constraint": lambda study: study.refuse(constraints=["learning_rate <= 0.005"]),
    "too_many_parameters": lambda study: study.refuse(
        search={"latent_dim": {"kind": "categorical", "choices": [8, 64]}},
        budget={"trials": 6, "minutes": 10, "parameters": 10_000},
    ),
    "too_much_memory": lambda study: study.refuse(
        search={"latent_dim": {"kind": "categorical", "choices": [8, 64]}},
        resources={"memory_gb_per_worker": 0.0165},  # between the two widths
    ),
    "no_such_attention_backend": no_such_attention_backend,
    "duplicate_of_a_complete_one": lambda study: study.twice(study.complete),
    "duplicate_of_a_pruned_one": lambda study: study.twice(
        lambda trial: study.policy.end(study.epoch(trial).id, TrialState.PRUNED, "median")
    ),
    "duplicate_of_a_failed_one": lambda study: study.twice(
        lambda trial: study.policy.lost(study.epoch(trial).id, Reason.CRASH)
    ),
    "duplicate_of_an_infeasible_one": lambda study: study.twice(lambda _: None, constraints=["learning_rate <= 0.004"]),
    "duplicate_of_a_running_one": lambda study: study.twice(study.epoch),
}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One MLflow store for all rows: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def study(tmp_path: Path, uri: str, request: pytest.FixtureRequest) -> Study:
    return Study(tmp_path / request.node.callspec.id.replace("_", "-"), uri)


def told_by_optuna(study: Study) -> dict[str, Any]:
    told = in_optuna(study.folder, study.folder.name)[study.subject]
    assert all(excess > 0 for excess in told.constraints.values())
    return {
        "state": told.state.name,
        "value": told.value,
        "broken": next(iter(told.constraints), None),
        "attributes": {key: told.user_attrs.get(f"raystudy.{key}") for key in ("state", "reason")},
        "duplicate_of": told.user_attrs.get("duplicate_of"),
    }


def told_by_mlflow(study: Study) -> dict[str, Any]:
    """Status, and state and reason by its tags, of the run of the trial that the row is about."""
    client = mlflow.MlflowClient(study.uri)
    experiment = client.get_experiment_by_name(study.folder.name).experiment_id
    runs = client.search_runs([experiment], f"tags.`raystudy.trial_id` = 't{study.subject:04d}'")
    assert len(runs) <= 1
    told = {run.info.status: {key: run.data.tags[f"raystudy.{key}"] for key in ("state", "reason")} for run in runs}
    return {"status": next(iter(told), None), "tags": next(iter(told.values()), None)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.ending)
def test_every_place_says_the_same_of_how_a_trial_ended(row: Row, study: Study) -> None:
    ENDINGS[row.ending](study)

    trial_id = f"t{study.subject:04d}"
    record = study.records.read()
    trial = next((trial for trial in record.trials if trial.id == trial_id), None)
    reported = json.loads(json.dumps(report_json(record, None), allow_nan=False))
    shown = next((one for one in reported["trials"] if one["id"] == trial_id), None)
    optuna_says, mlflow_says = told_by_optuna(study), told_by_mlflow(study)

    assert (optuna_says["state"], optuna_says["broken"]) == (row.optuna, row.broken)
    assert optuna_says["value"] == (None if row.value is None else pytest.approx(row.value))
    assert mlflow_says["status"] == row.mlflow
    if row.state is None:
        assert (trial, shown, mlflow_says["tags"]) == (None, None, None), "a repetition is no trial"
        assert optuna_says["duplicate_of"] == "t0000"
        assert reported["duplicates"] == [{"number": 1, "of": "t0000"}]
        return
    assert trial is not None
    assert shown is not None
    assert (trial.state.value, trial.reason, len(trial.attempts)) == (row.state, row.reason, row.attempts)
    assert (shown["state"], shown["reason"], len(shown["attempts"])) == (row.state, row.reason, row.attempts)
    assert status_json(record)["trials"][row.state] >= 1
    assert mlflow_says["tags"] == {"state": row.state, "reason": row.reason or "none"}
    ended = row.state != "running"
    assert optuna_says["attributes"] == {
        "state": row.state if ended else None,
        "reason": trial.explanation if ended else None,
    }
    *earlier, last = trial.attempts
    assert {attempt.state for attempt in earlier} <= {TrialState.INTERRUPTED}, "what it went on from"
    assert (last.ended is None) == (last.state is TrialState.RUNNING)


def test_each_ending_has_its_row() -> None:
    assert [row.ending for row in ROWS] == list(ENDINGS)
    assert {row.reason for row in ROWS} >= {reason.value for reason in Reason}, "one for each reason there is"
