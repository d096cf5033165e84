"""Every sampler and every pruner, by its name in a study file, running whole studies; also taken up in the middle."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState as OptunaState

from raystudy.errors import Reason
from raystudy.search.policy import Origin, SearchPolicy
from raystudy.tracking.records import Records, TrialRecord, TrialState
from tests.search.cases import ARMS, EPOCHS, ask, enqueue_arms, in_optuna, metrics, open_policy, run_all, train

RATES = {"learning_rate": {"kind": "log", "low": 1e-4, "high": 1e-2}}
SPACE: dict[str, Any] = {
    **RATES,
    "dropout": {"kind": "float", "low": 0.0, "high": 0.4},
    "batch_size": {"kind": "pow2", "low": 16, "high": 128},
}
GRID: dict[str, Any] = {
    "learning_rate": {**RATES["learning_rate"], "points": 3},
    "batch_size": {"kind": "pow2", "low": 16, "high": 32},
}


def quality(trial: TrialRecord, epoch: int) -> float:
    """Best at a learning rate of 1e-2 and a dropout of 0; every trial gets better with each epoch."""
    config = trial.config
    return 20 * config["learning_rate"] - config["dropout"] + 0.01 * epoch + config["batch_size"] / 1e6


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "grid", "nsga2"])
def test_a_study_of_every_sampler_runs_to_its_end_and_is_taken_up_amid_it(folder: Path, sampler: str) -> None:
    grid = {**GRID, "dropout": {"kind": "float", "low": 0.0, "high": 0.4, "points": 3}}
    search = grid if sampler == "grid" else SPACE
    changes: dict[str, Any] = {"sampler": sampler, "search": search, "budget": {"trials": 12, "minutes": 10}}
    point = {"batch_size": 16, "learning_rate": 1e-3, "dropout": 0.2}
    first = open_policy(folder, **changes)
    first.enqueue(point, Origin("seeded"))
    for _ in range(7):
        train(first, ask(first), quality)
    left = ask(first)

    second = open_policy(folder, **changes)
    second.enqueue(point, Origin("seeded"))
    ran = run_all(second, quality)

    trials = Records(folder).read().trials
    assert ran[0].id == left.id
    assert len(trials) == len({trial.config_hash for trial in trials}) == 12
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert second.finished_reason == "trials"
    assert trials[0].config["batch_size"] == 16
    assert [trial.origin for trial in trials] == ["seeded"] + ["sampled"] * 11
    for trial in trials:
        for key, parameter in second.spec.search.items():
            assert parameter.allows(trial.config[key])
    told = [one for one in in_optuna(folder) if "duplicate_of" not in one.user_attrs]
    assert [one.value for one in told if one.state.is_finished()] == [trial.valid_r2 for trial in trials]


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_sampler_that_learns_comes_nearer_to_the_best_than_chance(sampler: str, tmp_path: Path) -> None:
    def late(sampler: str, seed: int) -> float:
        folder = tmp_path / f"{sampler}{seed}"
        folder.mkdir()
        changes: dict[str, Any] = {"sampler": sampler, "search": SPACE, "split": {"seed": seed}}
        policy = open_policy(folder, storage=InMemoryStorage(), **changes, budget={"trials": 16, "minutes": 10})
        ran = run_all(policy, quality)[-8:]
        return sum(quality(trial, 0) for trial in ran) / len(ran)

    seeds = range(1 if sampler == "gp" else 3)  # it thinks long
    assert sum(late(sampler, seed) - late("random", seed) for seed in seeds) / len(seeds) > 0.02


def on_the_grid(trials: list[TrialRecord]) -> list[tuple[float, int]]:
    return sorted((round(trial.config["learning_rate"], 9), trial.config["batch_size"]) for trial in trials)


@pytest.mark.parametrize("sessions", [1, 2, 3])
def test_a_grid_is_tried_once_everywhere_however_often_the_study_is_taken_up(folder: Path, sessions: int) -> None:
    changes: dict[str, Any] = {"sampler": "grid", "search": GRID, "budget": {"trials": 50, "minutes": 10}}
    for _ in range(sessions - 1):
        policy = open_policy(folder, **changes)
        train(policy, ask(policy), quality)
        ask(policy)  # and is killed
    policy = open_policy(folder, **changes)
    run_all(policy, quality)

    record = Records(folder).read()
    assert on_the_grid(record.trials) == sorted(product((1e-4, 1e-3, 1e-2), (16, 32)))
    assert policy.finished_reason == "exhausted"
    assert len(in_optuna(folder)) <= 6 + sessions, "nothing is proposed over and over again"
    again = open_policy(folder, **changes)
    assert again.ask() is None
    assert again.finished_reason == "exhausted"


def test_a_grid_goes_on_beside_arms_that_end_after_it(folder: Path) -> None:
    policy = open_policy(folder, sampler="grid", search=GRID, arms=ARMS, budget={"trials": 50, "minutes": 10})
    enqueue_arms(policy)
    slow = [ask(policy), ask(policy)]
    for _ in range(5):
        train(policy, ask(policy), quality)
    for arm in slow:  # with one value of the grid left
        train(policy, arm, quality)
    run_all(policy, quality)

    trials = Records(folder).read().trials
    sampled = [trial for trial in trials if trial.arm is None]
    assert on_the_grid(sampled) == sorted(product((1e-4, 1e-3, 1e-2), (16, 32)))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}


def test_a_grid_goes_on_after_points_that_were_put_first(folder: Path) -> None:
    policy = open_policy(folder, sampler="grid", search=GRID, budget={"trials": 50, "minutes": 10})
    for rate in (1e-3, 5e-3):  # one of the grid and one beside it
        policy.enqueue({"learning_rate": rate, "batch_size": 16}, Origin("warm"))
    run_all(policy, quality)

    tried = on_the_grid(Records(folder).read().trials)
    assert sorted({*tried}) == tried == sorted([*product((1e-4, 1e-3, 1e-2), (16, 32)), (5e-3, 16)])


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "nsga2"])
def test_a_space_without_anything_new_ends_the_search_as_exhausted(folder: Path, sampler: str) -> None:
    search = {"batch_size": {"kind": "pow2", "low": 16, "high": 64}, "depth": {"kind": "int", "low": 1, "high": 2}}
    policy = open_policy(
        folder, storage=InMemoryStorage(), sampler=sampler, search=search, budget={"trials": 500, "minutes": 10}
    )
    run_all(policy, lambda trial, _: trial.config["batch_size"] / 100)

    trials = Records(folder).read().trials
    assert len(trials) == len({trial.config_hash for trial in trials}) <= 6
    assert policy.finished_reason == "exhausted"
    if sampler == "random":
        assert len(trials) == 6
    assert policy.ask() is None


def test_while_something_runs_an_exhausted_search_waits_and_hands_out_again_what_is_lost(folder: Path) -> None:
    policy = open_policy(folder, search={"batch_size": {"kind": "pow2", "low": 16, "high": 16}}, sampler="random")
    only = ask(policy)
    assert policy.ask() is None
    assert (policy.num_running, policy.finished_reason) == (1, "exhausted")

    policy.lost(only.id, Reason.WORKER_LOST)

    assert ask(policy).id == only.id


PRUNERS = ["successive_halving", "hyperband", "median", "none"]
EIGHT = {"epochs": 8, "attention": "auto"}


def decisions(folder: Path, pruner: str, resume_after: int | None, **changes: Any) -> list[tuple[int, str | None]]:
    """After which epoch each of 16 known trials ended, and why; the driver is killed after so many epochs."""
    folder.mkdir(parents=True, exist_ok=True)
    search = {"dropout": {"kind": "float", "low": 0.0, "high": 0.9}}
    keys: dict[str, Any] = {"search": search, "pruner": pruner, "training": EIGHT, "sampler": "random", **changes}
    keys["budget"] = {"trials": 16, "minutes": 10}
    storage = InMemoryStorage()  # it outlives the driver

    def start() -> SearchPolicy:
        policy = open_policy(folder, storage=storage, **keys)
        for number in range(16):  # neither falling nor rising
            policy.enqueue({"dropout": (7 * number % 16) / 20}, Origin("seeded"))
        return policy

    policy, reported = start(), 0
    while (trial := policy.ask()) is not None:
        epoch = len(trial.epochs)  # a resumed attempt goes on from its checkpoint
        while epoch < 8:
            epoch += 1
            value = (0.9 - trial.config["dropout"]) * epoch / 8
            stop = policy.report(trial.id, metrics(epoch, value, seconds=1 + trial.config["dropout"]))
            reported += 1
            if reported == resume_after:
                policy = start()
                break
            if stop:
                break
        else:
            policy.end(trial.id, TrialState.COMPLETE)
    trials = Records(folder).read().trials
    assert len(trials) == 16
    return [(len(trial.epochs), trial.reason) for trial in trials]


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_study_taken_up_again_prunes_as_if_it_had_never_stopped(tmp_path: Path, pruner: str) -> None:
    whole = decisions(tmp_path / "whole" / "fake", pruner, None)

    for resume_after in (1, 11, 30):
        assert decisions(tmp_path / str(resume_after) / "fake", pruner, resume_after) == whole
    reasons = {reason for _, reason in whole}
    assert reasons == ({None} if pruner == "none" else {None, pruner})
    if pruner != "none":
        assert min(epochs for epochs, _ in whole) < 8 == max(epochs for epochs, _ in whole)


def test_hyperband_prunes_with_brackets_of_its_own_for_trials_of_different_length(folder: Path) -> None:
    search = {"epochs": {"kind": "int", "low": 2, "high": 8}, **RATES}
    policy = open_policy(folder, search=search, pruner="hyperband", budget={"trials": 16, "minutes": 10})
    while (trial := policy.ask()) is not None:
        for epoch in range(1, trial.config["epochs"] + 1):
            if policy.report(trial.id, metrics(epoch, quality(trial, epoch))):
                break
        else:
            policy.end(trial.id, TrialState.COMPLETE)

    ended = {trial.state for trial in Records(folder).read().trials}
    assert ended == {TrialState.COMPLETE, TrialState.PRUNED}


CONDITIONAL: dict[str, Any] = {
    "encoder": {"kind": "categorical", "choices": ["onehot", "embedding"]},
    "embedding_dim": {"kind": "pow2", "low": 8, "high": 16, "when": {"encoder": "embedding"}},
    "dropout": {"kind": "float", "low": 0.3, "high": 0.4, "when": {"embedding_dim": [16], "encoder": "embedding"}},
    **RATES,
}


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_a_key_whose_condition_fails_is_not_asked_of_optuna_and_keeps_the_studys_own_value(
    folder: Path, sampler: str
) -> None:
    budget = {"trials": 14, "minutes": 10}
    policy = open_policy(folder, sampler=sampler, search=CONDITIONAL, budget=budget)
    for width in (8, 16):
        policy.enqueue({"encoder": "embedding", "embedding_dim": width}, Origin("seeded"))
    run_all(policy, lambda trial, epoch: trial.config["learning_rate"] * epoch)

    own = {**policy.spec.configure({})[0].model_dump(), **policy.spec.configure({})[1].model_dump()}
    seen = set()
    for trial, told in zip(Records(folder).read().trials, in_optuna(folder), strict=False):
        config, active = trial.config, {"encoder", "learning_rate"}
        if config["encoder"] == "embedding":
            active.add("log2_embedding_dim")
            if config["embedding_dim"] == 16:
                active.add("dropout")
        assert set(told.params) == active
        if "log2_embedding_dim" not in active:
            assert config.get("embedding_dim", own["embedding_dim"]) == own["embedding_dim"]
        if "dropout" not in active:
            assert config["dropout"] == own["dropout"]
        else:
            assert 0.3 <= config["dropout"] <= 0.4
        seen.add(frozenset(active))
    assert len(seen) == 3, "each combination of active keys was tried"


def test_a_point_with_a_value_for_an_inactive_key_is_tried_without_it(folder: Path) -> None:
    search = {
        "encoder": {"kind": "categorical", "choices": ["onehot", "embedding"]},
        "embedding_dim": {"kind": "pow2", "low": 8, "high": 16, "when": {"encoder": "embedding"}},
    }
    policy = open_policy(folder, search=search)
    policy.enqueue({"encoder": "onehot", "embedding_dim": 16}, Origin("warm"))

    assert "embedding_dim" not in ask(policy).config
    assert in_optuna(folder)[0].params == {"encoder": "onehot"}


def test_the_sampler_is_told_of_a_broken_constraint_and_by_how_much(folder: Path) -> None:
    policy = open_policy(folder, search=SPACE, constraints=["dropout * 10 <= 1"])
    for dropout in (0.4, 0.05):
        policy.enqueue({"dropout": dropout}, Origin("seeded"))
    train(policy, ask(policy), quality)

    refused, trained = in_optuna(folder)
    assert (refused.state, refused.constraints) == (OptunaState.PRUNED, {"constraint": pytest.approx(3)})
    assert (trained.state, trained.constraints) == (OptunaState.COMPLETE, {})
    kept = Records(folder).read_trial("t0000")
    assert (kept.state, kept.reason) == (TrialState.INFEASIBLE, "constraint")
    assert kept.detail == "`dropout * 10 <= 1` does not hold"


def test_a_rule_that_divides_by_0_somewhere_refuses_what_it_cannot_judge(folder: Path) -> None:
    policy = open_policy(folder, search=SPACE, constraints=["1 / dropout <= 1000"])
    policy.enqueue({"dropout": 0.0}, Origin("seeded"))
    ask(policy)

    kept = Records(folder).read_trial("t0000")
    assert (kept.state, kept.reason, kept.detail) == (
        TrialState.INFEASIBLE,
        "constraint",
        "'1 / dropout <= 1000' divides by 0",
    )


def num_refused(folder: Path, sampler: str, seed: int) -> tuple[int, int]:
    """How many of the first and of the last 20 of 60 proposals broke a rule that has nothing to do with the value."""
    folder.mkdir()
    constraints = ["learning_rate <= 0.001"]  # half of the space
    keys: dict[str, Any] = {"sampler": sampler, "search": SPACE, "constraints": constraints, "split": {"seed": seed}}
    policy = open_policy(folder, storage=InMemoryStorage(), **keys, budget={"trials": 100, "minutes": 10})
    while len(policy.records.read().trials) < 60:
        train(policy, ask(policy), lambda one, _: -float(one.config["dropout"]), until=EPOCHS)
    states = [trial.state is TrialState.INFEASIBLE for trial in policy.records.read().trials[:60]]
    return sum(states[:20]), sum(states[-20:])


def test_tpe_learns_to_stay_out_of_the_region_that_a_constraint_forbids(tmp_path: Path) -> None:
    learning = [num_refused(tmp_path / str(seed), "tpe", seed) for seed in range(3)]
    chance = [num_refused(tmp_path / f"random{seed}", "random", seed) for seed in range(3)]

    early, late = (sum(column) for column in zip(*learning, strict=True))
    assert late < 0.5 * early
    assert late < 0.25 * sum(second for _, second in chance), "and it is not by chance that they are few"
