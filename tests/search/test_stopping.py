"""Budgets: when a search is over, what then happens to what still runs, and the word for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage

from raystudy.errors import Reason
from raystudy.search.policy import SearchPolicy
from raystudy.tracking.records import MemoryRecords, TrialRecord, TrialState
from tests.search.cases import ARMS, ask, enqueue_arms, make_spec, metrics, train

SEARCH = {"learning_rate": {"kind": "log", "low": 1e-4, "high": 1e-2}}
EUROS = {"currency": "EUR", "cpu_hour": 2, "gpu_hour": 30}


class Simulated:
    """A study with a clock of its own, in memory."""

    def __init__(self, folder: Path, ends_in: float = 1e9, **changes: Any) -> None:
        self.now = 0.0
        self.records = MemoryRecords(folder, lambda: self.now)
        self.storage = InMemoryStorage()
        self.ends = ends_in
        self.spec = make_spec(**{"search": SEARCH, "sampler": "random", **changes})
        self.policy = self.open()

    def open(self) -> SearchPolicy:
        self.policy = SearchPolicy(self.spec, self.records, self.ends, storage=self.storage, clock=lambda: self.now)
        return self.policy

    def epoch(self, trial: TrialRecord, number: int, value: float = 0.1, seconds: float = 60) -> bool:
        self.now += seconds
        return self.policy.report(trial.id, metrics(number, value, seconds))

    def complete(self, value: float, seconds: float = 60) -> TrialRecord:
        trial = ask(self.policy)
        self.now += seconds
        train(self.policy, trial, lambda *_: value)
        return self.records.read_trial(trial.id)


@pytest.mark.parametrize(
    ("resources", "hourly"),
    [
        ({}, 2),
        ({"cpus_per_worker": 4}, 8),
        ({"workers": 2, "gpus_per_worker": 1}, 2 * 2 + 2 * 30),
        ({"gpus_per_worker": 0.5}, 2 + 15),
    ],
)
def test_cost_is_what_all_attempts_held_times_the_prices(
    folder: Path, resources: dict[str, Any], hourly: float
) -> None:
    study = Simulated(folder, prices=EUROS, resources=resources)
    assert study.policy.cost == 0
    trial = ask(study.policy)
    study.epoch(trial, 1, seconds=1800)
    assert study.policy.cost == pytest.approx(hourly / 2)

    study.policy.lost(trial.id, Reason.PREEMPTED)
    study.now += 36_000  # nobody holds anything
    assert study.policy.cost == pytest.approx(hourly / 2)
    study.epoch(ask(study.policy), 2, seconds=1800)
    study.policy.end(trial.id, TrialState.FAILED, Reason.CRASH)
    assert study.policy.cost == pytest.approx(hourly)
    assert study.open().cost == pytest.approx(hourly), "what earlier sessions cost counts"


def test_a_search_ends_when_the_money_is_spent_and_so_does_what_runs(folder: Path) -> None:
    study = Simulated(folder, prices=EUROS, budget={"trials": 9, "minutes": 10, "cost": 2})
    first, second = ask(study.policy), ask(study.policy)
    assert not study.epoch(first, 1, seconds=1700)
    assert study.policy.finished_reason is None
    assert study.epoch(second, 1, seconds=1700)

    assert (study.policy.finished_reason, study.policy.ask()) == ("cost", None)
    assert study.records.read_trial(second.id).reason == Reason.BUDGET
    assert study.epoch(first, 2)
    assert study.records.read_trial(first.id).state is TrialState.PRUNED
    assert study.policy.num_running == 0


def test_a_trial_that_is_good_enough_ends_the_search_and_what_runs_says_so(folder: Path) -> None:
    study = Simulated(folder, budget={"trials": 9, "minutes": 10, "valid_r2": 0.5})
    running = ask(study.policy)
    study.complete(0.49)
    assert study.policy.finished_reason is None
    study.complete(0.5)

    assert (study.policy.finished_reason, study.policy.ask()) == ("target", None)
    assert study.epoch(running, 1, 0.1)
    ended = study.records.read_trial(running.id)
    assert (ended.state, ended.reason) == (TrialState.PRUNED, "target reached")
    assert study.open().finished_reason == "target"


def test_a_trial_is_good_enough_only_when_it_has_ended(folder: Path) -> None:
    study = Simulated(folder, budget={"trials": 9, "minutes": 10, "valid_r2": 0.5})
    trial = ask(study.policy)

    assert not study.epoch(trial, 1, 0.9), "it may train on"
    assert study.policy.finished_reason is None


@pytest.mark.parametrize(
    ("values", "over"),
    [
        ([0.3, 0.2, 0.1], False),
        ([0.3, 0.2, 0.1, 0.2], True),
        ([0.3, 0.2, 0.1, 0.4], False),
        ([0.3, 0.2, 0.1, 0.4, 0.1, 0.1], False),
        ([0.3, 0.3, 0.3, 0.3], True),
        ([-0.5, -0.4, -0.3, -0.2], False),
    ],
)
def test_without_a_new_best_for_so_many_trials_no_further_one_is_started(
    folder: Path, values: list[float], over: bool
) -> None:
    study = Simulated(folder, budget={"trials": 99, "minutes": 10, "no_improvement": 3})
    running = ask(study.policy)
    for value in values:
        study.complete(value)

    assert study.policy.finished_reason == ("no improvement" if over else None)
    assert study.open().finished_reason == ("no improvement" if over else None), "the same after a restart"
    assert (study.policy.ask() is not None) or over
    if over:
        assert study.records.read_trial(running.id).state is TrialState.RUNNING


def test_what_runs_when_nothing_improves_any_more_trains_on(folder: Path) -> None:
    study = Simulated(folder, budget={"trials": 99, "minutes": 10, "no_improvement": 1})
    running = ask(study.policy)
    for value in (0.3, 0.2):
        study.complete(value)

    assert study.policy.finished_reason == "no improvement"
    assert not study.epoch(running, 1, 0.1)


def test_a_trial_that_failed_without_a_value_is_no_improvement(folder: Path) -> None:
    study = Simulated(folder, budget={"trials": 99, "minutes": 10, "no_improvement": 2})
    study.complete(0.3)
    for _ in range(2):
        study.policy.lost(ask(study.policy).id, Reason.NAN)

    assert study.policy.finished_reason == "no improvement"


def test_trials_that_all_fail_do_not_count_as_not_improving_more_than_they_are(folder: Path) -> None:
    study = Simulated(folder, budget={"trials": 99, "minutes": 10, "no_improvement": 3})
    for _ in range(3):
        study.policy.lost(ask(study.policy).id, Reason.NAN)
    assert study.policy.finished_reason is None, "the first of them was the best so far"
    study.policy.lost(ask(study.policy).id, Reason.NAN)

    assert study.policy.finished_reason == "no improvement"


def test_refused_and_repeated_configurations_do_not_count_as_trials(folder: Path) -> None:
    search = {"batch_size": {"kind": "pow2", "low": 16, "high": 256}}
    constraints = ["batch_size >= 128"]
    budget = {"trials": 2, "minutes": 10, "no_improvement": 2}
    study = Simulated(folder, search=search, constraints=constraints, budget=budget)
    study.complete(0.1)
    study.complete(0.2)

    assert study.policy.ask() is None
    assert study.policy.finished_reason == "trials"
    states = [trial.state for trial in study.records.read().trials]
    assert states.count(TrialState.COMPLETE) == 2


@pytest.mark.parametrize("searched", [True, False])
def test_arms_count_as_trials_and_a_study_of_arms_alone_ends_with_the_last(folder: Path, searched: bool) -> None:
    study = Simulated(folder, search=SEARCH if searched else {}, arms=ARMS, budget={"trials": 5, "minutes": 10})
    enqueue_arms(study.policy)
    for _ in ARMS:
        study.complete(0.1)

    assert study.policy.finished_reason == (None if searched else "trials")


def test_the_minutes_of_a_study_end_the_search_in_time_for_the_finalists(folder: Path) -> None:
    study = Simulated(folder, ends_in=1000, finalists=2)
    trial = ask(study.policy)
    assert not study.epoch(trial, 1, seconds=100)  # each finalist: 3 epochs of 100 s, and 45 s to start
    study.now = 1000 - 2 * 345 - 1
    assert study.policy.finished_reason is None
    study.now += 1

    assert study.policy.finished_reason == "minutes"
    assert study.epoch(trial, 2, seconds=0)
    assert study.records.read_trial(trial.id).reason == "budget"


def test_a_trial_is_lost_when_the_budget_is_gone_and_is_closed_with_the_search(folder: Path) -> None:
    study = Simulated(folder, ends_in=10_000)
    trial = ask(study.policy)
    study.epoch(trial, 1)
    assert study.policy.lost(trial.id, Reason.PREEMPTED)
    study.now = 10_000

    assert study.policy.ask() is None
    study.policy.close()
    ended = study.records.read_trial(trial.id)
    assert (ended.state, ended.reason) == (TrialState.PRUNED, "budget")
