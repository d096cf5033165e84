"""Several objectives: values in the order of the study file, and pruning by the one that is declared."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState as OptunaState

from raystudy.tracking.records import Records, TrialRecord, TrialState
from tests.search.cases import ask, in_optuna, metrics, open_policy

SEARCH: dict[str, Any] = {
    "latent_dim": {"kind": "pow2", "low": 8, "high": 64},
    "learning_rate": {"kind": "log", "low": 1e-4, "high": 1e-2},
}
ALL_THREE = [{"metric": "valid_r2"}, {"metric": "parameters"}, {"metric": "epoch_seconds"}]
TWO = [{"metric": "valid_r2"}, {"metric": "epoch_seconds"}]


def value(trial: TrialRecord, epoch: int) -> float:
    return trial.config["latent_dim"] / 100 + 0.05 * epoch


def seconds(trial: TrialRecord) -> float:
    return trial.config["latent_dim"] / 10 + trial.config["learning_rate"]


def run(folder: Path, trials: int = 14, until: int | None = None, **changes: Any) -> list[TrialRecord]:
    """Train up to so many trials, or stop after ``until``; in which the wide ones are better and slower."""
    keys: dict[str, Any] = {"search": SEARCH, "training": {"epochs": 4}, "budget": {"trials": trials, "minutes": 10}}
    policy = open_policy(folder, **(keys | changes))
    for _ in range(until or 10**6):
        trial = policy.ask()
        if trial is None:
            break
        for epoch in range(1, 5):
            if policy.report(trial.id, metrics(epoch, value(trial, epoch), seconds(trial))):
                break
        else:
            policy.end(trial.id, TrialState.COMPLETE)
    return Records(folder).read().trials


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
def test_optuna_is_told_the_values_in_the_order_of_the_study_file_with_their_directions(
    folder: Path, order: tuple[int, ...]
) -> None:
    objectives = [ALL_THREE[index] for index in order]
    (trial,) = run(folder, 1, objectives=objectives, pruner="none")

    (told,) = in_optuna(folder)
    reached = {"valid_r2": value(trial, 4), "parameters": trial.parameters, "epoch_seconds": seconds(trial)}
    assert told.values == pytest.approx([reached[one["metric"]] for one in objectives])
    stored = optuna.load_study(study_name="fake", storage=f"sqlite:///{folder / 'optuna.db'}")
    assert stored.directions == [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE]
    assert len(stored.best_trials) == 1


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [*product(("tpe", "nsga2", "random"), ("successive_halving", "hyperband", "median")), ("gp", "successive_halving")],
)
def test_every_pruner_goes_with_several_objectives_and_every_sampler_with_pruned_trials(
    folder: Path, sampler: str, pruner: str
) -> None:
    keys: dict[str, Any] = {"objectives": ALL_THREE, "sampler": sampler, "pruner": pruner}
    most = 9 if sampler == "gp" else 14  # it thinks long
    run(folder, most, until=7, **keys)  # the sampler is past its random start, and a driver is killed
    trials = run(folder, most, **keys)

    assert len(trials) == most
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    known = {told.number: told for told in in_optuna(folder)}  # of repeated proposals too, which are no trials
    for trial in trials:
        told = known[int(trial.id.removeprefix("t"))]
        if trial.state is TrialState.PRUNED:
            assert (told.state, trial.reason) == (OptunaState.PRUNED, pruner)
        else:
            assert told.state is OptunaState.COMPLETE
            assert told.values == pytest.approx([value(trial, 4), trial.parameters, seconds(trial)])


@pytest.mark.parametrize(("prune_on", "pruned_are"), [("valid_r2", "narrow"), ("epoch_seconds", "wide")])
@pytest.mark.parametrize("pruner", ["successive_halving", "median"])
def test_the_metric_that_is_declared_is_the_one_that_stops_trials_early(
    folder: Path, prune_on: str, pruned_are: str, pruner: str
) -> None:
    keys: dict[str, Any] = {"objectives": TWO, "prune_on": prune_on, "pruner": pruner, "sampler": "random"}
    trials = run(folder, trials=20, storage=InMemoryStorage(), **keys)

    def mean_width(state: TrialState) -> float:
        widths = [trial.config["latent_dim"] for trial in trials if trial.state is state]
        return sum(widths) / len(widths)

    narrower = mean_width(TrialState.PRUNED) < mean_width(TrialState.COMPLETE)
    assert narrower is (pruned_are == "narrow")


def test_what_trials_are_pruned_on_is_what_optuna_keeps_of_each_epoch(folder: Path) -> None:
    (trial,) = run(folder, 1, objectives=TWO, prune_on="epoch_seconds", pruner="none")

    assert in_optuna(folder)[0].intermediate_values == pytest.approx(dict.fromkeys(range(1, 5), seconds(trial)))


def test_tpe_with_several_objectives_looks_at_pruned_trials_the_right_way_round(folder: Path) -> None:
    # Of one objective and of two with the same metric first, the sampler ranks pruned trials alike.
    def best_is_above(name: str, **changes: Any) -> list[int]:
        place = folder / name
        place.mkdir()
        trials = run(place, trials=30, storage=InMemoryStorage(), pruner="successive_halving", sampler="tpe", **changes)
        return [trial.config["latent_dim"] for trial in trials[-10:]]

    assert sum(best_is_above("one")) / 10 > 32
    assert sum(best_is_above("two", objectives=[{"metric": "valid_r2"}, {"metric": "parameters"}])) / 10 > 8


def test_a_trial_without_a_value_of_every_objective_is_not_told_as_complete(folder: Path) -> None:
    policy = open_policy(folder, objectives=TWO, search=SEARCH)
    policy.end(ask(policy).id, TrialState.COMPLETE)

    assert (in_optuna(folder)[0].state, in_optuna(folder)[0].values) == (OptunaState.FAIL, None)


def test_a_repetition_of_a_configuration_is_told_all_its_values(folder: Path) -> None:
    search = {"latent_dim": {"kind": "pow2", "low": 8, "high": 16}}
    trials = run(folder, search=search, objectives=ALL_THREE, pruner="none", sampler="random")

    told = in_optuna(folder)
    assert len(trials) == 2 < len(told)
    for one in told:
        original = one.user_attrs.get("duplicate_of", f"t{one.number:04d}")
        assert one.values == told[int(original[1:])].values
