"""The study engine in simulated time: whatever goes wrong, each configuration counts once and nothing is lost."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from raystudy import cli
from raystudy.errors import SpecError
from raystudy.search.policy import DUPLICATE_OF
from raystudy.simulate import BEST_R2, Conditions, Simulation, Surface, simulate
from raystudy.study.reading import parse_spec
from raystudy.study.spec import StudySpec
from raystudy.tracking.records import MemoryRecords, Records, TrialRecord, TrialState

STUDY = Path(__file__).parents[1] / "search_spaces" / "yeast.yaml"
EPOCHS = 5
CALM = {
    "node_hours": 1e6,
    "straggler_share": 0.0,
    "crash_share": 0.0,
    "nan_share": 0.0,
    "memory_share": 0.0,
    "hang_share": 0.0,
    "worker_lost_share": 0.0,
    "driver_kills": 0,
}
STORMY = {
    "node_hours": 0.2,
    "straggler_share": 0.1,
    "crash_share": 0.05,
    "nan_share": 0.1,
    "memory_share": 0.2,
    "hang_share": 0.02,
    "worker_lost_share": 0.1,
    "driver_kills": 3,
}
"""Something of everything, many times in a study of a hundred trials."""
BUDGET = {"trials": 100, "minutes": 10, "trial_minutes": 20}


def make_spec(**changes: Any) -> StudySpec:
    return parse_spec(
        {
            "name": "simulated",
            "data": {"source": "synthetic", "window_bp": [200, 100], "max_protein": 50},
            "model": {"num_latents": 4, "queries_dim": 8},
            "search": {
                "latent_dim": {"kind": "pow2", "low": 8, "high": 64},
                "encoder": {"kind": "categorical", "choices": ["onehot", "embedding"]},
                "learning_rate": {"kind": "log", "low": 1e-4, "high": 1e-2},
                "dropout": {"kind": "float", "low": 0.0, "high": 0.5},
            },
            "sampler": "random",
            "training": {"epochs": EPOCHS},
            "budget": BUDGET,
            **changes,
        }
    )


def storm(seed: int = 0, **changes: Any) -> Simulation:
    """A study, played to its end under `STORMY` conditions."""
    simulation = Simulation(make_spec(**changes), Conditions(gpus=24, seed=seed, **STORMY))
    simulation.run()
    return simulation


def outcome(spec: StudySpec, num_trials: int | None = None, **conditions: Any) -> dict[str, Any]:
    """Without what the real clock says."""
    found = simulate(spec, Conditions(gpus=24, **conditions), num_trials)
    return {name: value for name, value in found.items() if "seconds" not in name}


def test_a_simulation_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    first, same, other = (outcome(make_spec(), seed=seed, **STORMY) for seed in (1, 1, 2))

    assert first == same
    assert first != other


def test_every_trial_and_attempt_is_the_same_for_the_same_seed() -> None:
    assert trials(storm()) == trials(storm())


def trials(simulation: Simulation) -> list[TrialRecord]:
    return simulation.records.read().trials


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pruner", ["none", "successive_halving"])
def test_in_a_storm_every_trial_ends_once_and_no_epoch_is_trained_twice(pruner: str, seed: int) -> None:
    simulation = storm(seed, pruner=pruner)

    ended = trials(simulation)
    assert len(ended) == len({one.config_hash for one in ended}) == 100
    assert {one.id for one in ended} == {f"t{number:04d}" for number in range(100)}
    for one in ended:
        assert one.state not in (TrialState.RUNNING, TrialState.INTERRUPTED), one.id
        recorded = [epoch["epoch"] for attempt in one.attempts for epoch in attempt.epochs]
        assert recorded == list(range(1, len(recorded) + 1)), "each attempt goes on where the one before stopped"
        assert all(attempt.state is TrialState.INTERRUPTED for attempt in one.attempts[:-1])
        assert all(attempt.ended is not None for attempt in one.attempts)
        if one.state is TrialState.COMPLETE:
            assert len(recorded) == EPOCHS
    lost = Counter(attempt.reason for one in ended for attempt in one.attempts[:-1])
    assert lost.keys() == {"preempted", "worker lost", "driver lost", "out of memory"}
    failed = Counter(one.reason for one in ended if one.state is TrialState.FAILED)
    assert {"nan", "crash", "out of memory"} <= failed.keys() <= {*lost, "nan", "crash", "timeout"} - {"driver lost"}


def test_what_is_answered_is_what_the_records_say() -> None:
    simulation = Simulation(make_spec(), Conditions(gpus=24, **STORMY))
    found = simulation.run()

    ended = trials(simulation)
    attempts = [attempt for one in ended for attempt in one.attempts]
    assert found["trials"] == found["unique_configurations"] == 100
    assert found["complete"] + found["pruned"] + found["failed"] == 100
    assert (found["running"], found["infeasible"], found["duplicates"]) == (0, 0, 0)
    assert sum(found["failed_for"].values()) == found["failed"] > 0
    assert sum(found["lost_attempts"].values()) == len(attempts) - 100
    assert found["attempts"] == len(attempts)
    assert found["epochs_on_record_twice"] == 0
    assert found["finished_reason"] == "trials"
    assert found["best_valid_r2"] == max(one.valid_r2 for one in ended if one.valid_r2 is not None)
    assert found["best_reachable_r2"] <= found["optimum_r2"] == BEST_R2
    useful = sum(epoch["epoch_seconds"] for one in ended for epoch in one.epochs) / 3600
    assert found["gpu_hours_held"] - found["gpu_hours_lost"] == pytest.approx(useful)
    held = sum(attempt.seconds for attempt in attempts) / 3600
    assert found["gpu_hours_held"] >= 0.99 * held  # of an attempt whose driver died the end is not known
    assert found["gpu_hours_held"] / (24 * found["simulated_hours"]) <= found["utilisation_whole"] <= 1


def test_a_storm_changes_how_long_a_study_takes_and_not_how_many_configurations_it_tries() -> None:
    calm, stormy = outcome(make_spec(pruner="none"), **CALM), outcome(make_spec(pruner="none"), **STORMY)

    for count in ("trials", "unique_configurations", "epochs_on_record_twice", "running", "finished_reason"):
        assert calm[count] == stormy[count]
    assert calm["complete"] == calm["attempts"] == 100
    assert (calm["lost_attempts"], calm["failed_for"]) == ({}, {})
    assert calm["gpu_hours_lost"] == pytest.approx(100 * 15 / 3600)  # what a start takes
    assert stormy["attempts"] > 150
    assert stormy["simulated_hours"] > calm["simulated_hours"]
    assert stormy["gpu_hours_lost"] > calm["gpu_hours_lost"]


def test_a_configuration_reaches_the_same_in_a_storm_as_in_calm() -> None:
    calm = Simulation(make_spec(pruner="none"), Conditions(gpus=24, **CALM))
    calm.run()
    reached = {one.config_hash: one.valid_r2 for one in trials(calm)}
    again = [one for one in trials(storm(pruner="none")) if one.state is TrialState.COMPLETE]

    common = [one for one in again if one.config_hash in reached]
    assert common, "the first proposals at least, made before anything went wrong"
    assert all(one.valid_r2 == reached[one.config_hash] for one in common)


def test_a_cluster_whose_nodes_are_all_away_is_waited_for() -> None:
    found = outcome(make_spec(), 30, **CALM | {"node_hours": 0.2, "driver_kills": 1})
    alone = simulate(make_spec(), Conditions(gpus=2, **CALM | {"node_hours": 0.2, "driver_kills": 1}), 30)

    assert found["trials"] == alone["trials"] == 30
    assert alone["finished_reason"] == "trials"
    assert alone["lost_attempts"]["preempted"] > 3
    assert alone["running"] == 0


@pytest.mark.parametrize("gpus", [1, 3, 8, 11])
def test_no_more_trials_run_at_a_time_than_there_are_gpus(gpus: int) -> None:
    simulation = Simulation(make_spec(budget={"trials": 20, "minutes": 10}), Conditions(gpus=gpus, **CALM))
    found = simulation.run()

    starts = [(attempt.started, 1) for one in trials(simulation) for attempt in one.attempts]
    ends = [(attempt.ended, -1) for one in trials(simulation) for attempt in one.attempts]
    together = np.cumsum([change for _, change in sorted(starts + ends)])  # what ends at a time ends before
    assert together.max() == gpus
    assert found["utilisation"] == pytest.approx(1)


def test_gpus_are_busy_while_there_are_proposals_and_fall_idle_only_after_the_last() -> None:
    found = outcome(make_spec(), 200, **CALM)

    assert found["utilisation"] > 0.99
    assert 0.5 < found["utilisation_whole"] < found["utilisation"]


def test_gpus_wait_for_a_driver_whose_work_takes_time() -> None:
    spec, slow = make_spec(budget={"trials": 40, "minutes": 1e9}), Conditions(gpus=24, driver_takes_time=True, **CALM)
    simulation = Simulation(spec, slow)
    asked = simulation.policy.ask

    def ask_slowly() -> TrialRecord | None:
        simulation.now += 60.0
        return asked()

    simulation.policy.ask = ask_slowly  # type: ignore[method-assign]
    found = simulation.run()

    assert found["trials"] == 40
    assert found["simulated_hours"] >= 40 * 60 / 3600
    assert found["gpu_hours_held"] < found["simulated_hours"] * 24


def test_half_of_the_configurations_that_need_too_much_memory_fit_with_their_batches_in_parts() -> None:
    shares = CALM | {"crash_share": 0.2, "nan_share": 0.2, "memory_share": 0.4}
    simulation = Simulation(make_spec(pruner="none"), Conditions(gpus=24, **shares))
    found = simulation.run()

    large = [one for one in trials(simulation) if one.attempts[0].reason == "out of memory"]
    fitting = [one for one in large if one.state is TrialState.COMPLETE]
    assert len(large) == found["lost_attempts"]["out of memory"] == pytest.approx(40, abs=10)
    assert len(fitting) == pytest.approx(len(large) / 2, abs=10)
    assert found["failed_for"]["out of memory"] == len(large) - len(fitting)
    for one in large:
        assert [attempt.micro_batches for attempt in one.attempts] == [1, 2]
    assert found["failed_for"]["crash"] == pytest.approx(20, abs=10)
    assert found["failed_for"]["nan"] == pytest.approx(20, abs=10)
    nans = [one for one in trials(simulation) if one.reason == "nan"]
    assert all(len(one.attempts) == len(one.epochs) == 1 for one in nans)


def test_a_trial_that_hangs_holds_its_gpu_until_the_limit_and_fails() -> None:
    simulation = Simulation(
        make_spec(budget={"trials": 10, "minutes": 10, "trial_minutes": 20}),
        Conditions(gpus=24, **CALM | {"hang_share": 1.0}),
    )
    found = simulation.run()

    assert found["failed_for"] == {"timeout": 10}
    assert [one.seconds for one in trials(simulation)] == [1200.0] * 10


def test_the_search_comes_nearer_to_the_optimum_than_chance() -> None:
    tpe = simulate(make_spec(sampler="tpe"), Conditions(gpus=8, **CALM), 80)
    surface = Surface(make_spec(), seed=0)
    rng = np.random.default_rng(0)

    def by_chance() -> float:
        return surface.reachable(
            {
                "latent_dim": 2 ** rng.integers(3, 7),
                "encoder": rng.choice(["onehot", "embedding"]),
                "learning_rate": math.exp(rng.uniform(math.log(1e-4), math.log(1e-2))),
                "dropout": rng.uniform(0, 0.5),
            }
        )

    chance = [by_chance() for _ in range(500)]
    assert max(chance) <= BEST_R2
    assert tpe["best_reachable_r2"] > np.quantile(chance, 0.95) > np.median(chance)
    assert tpe["best_valid_r2"] > 0.9 * BEST_R2


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": "nsga2", "pruner": "none", "objectives": [{"metric": "valid_r2"}, {"metric": "epoch_seconds"}]},
        {
            "sampler": "tpe",
            "objectives": [{"metric": "valid_r2"}, {"metric": "epoch_seconds"}, {"metric": "parameters"}],
        },
        {
            "sampler": "tpe",
            "objectives": [{"metric": "valid_r2"}, {"metric": "epoch_seconds"}],
            "prune_on": "epoch_seconds",
        },
        {"sampler": "tpe", "pruner": "hyperband"},
        {"sampler": "random", "pruner": "median"},
        {"sampler": "gp", "pruner": "none", "budget": {"trials": 15, "minutes": 10}},
        {"constraints": ["num_latents * latent_dim <= 64"]},
        {"budget": {"trials": 60, "minutes": 10, "no_improvement": 10}},
    ],
    ids=["nsga2", "three objectives", "pruned on time", "hyperband", "median", "gp", "constraint", "no improvement"],
)
def test_every_kind_of_search_goes_through_a_storm(changes: dict[str, Any]) -> None:
    spec = make_spec(**{"budget": {"trials": 40, "minutes": 10}, **changes})
    simulation = Simulation(spec.model_copy(update={"arms": ()}), Conditions(gpus=8, **STORMY))
    found = simulation.run()

    ended = [one for one in trials(simulation) if one.state is not TrialState.INFEASIBLE]
    assert all(one.state is not TrialState.RUNNING for one in ended)
    assert found["epochs_on_record_twice"] == 0
    assert found["unique_configurations"] == found["trials"] + found["infeasible"]
    assert (found["infeasible"] > 0) == bool(changes.get("constraints"))
    if spec.budget.no_improvement is None:
        assert found["trials"] == spec.budget.trials
    else:
        assert found["finished_reason"] == "no improvement"
        assert found["trials"] < spec.budget.trials


def test_a_space_that_is_known_by_heart_ends_the_search_and_repeats_are_not_trained() -> None:
    spec = make_spec(search={"latent_dim": {"kind": "pow2", "low": 8, "high": 64}}, pruner="none", sampler="tpe")
    found = simulate(spec, Conditions(gpus=8, **CALM), 100)

    assert (found["trials"], found["finished_reason"]) == (4, "exhausted")
    assert found["duplicates"] > 0


@pytest.mark.parametrize("kept", ["memory", "disk"])
@pytest.mark.parametrize(
    "changes",
    [{"sampler": "tpe"}, {"pruner": "none", "objectives": [{"metric": "valid_r2"}, {"metric": "parameters"}]}],
    ids=["one objective", "two objectives"],
)
def test_in_the_end_storage_policy_and_records_say_the_same_of_every_trial(
    kept: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    spec = make_spec(**changes, constraints=["num_latents * latent_dim <= 128"], budget={"trials": 18, "minutes": 1e9})
    storage = InMemoryStorage() if kept == "memory" else RDBStorage(f"sqlite:///{tmp_path / 'optuna.db'}")
    times: list[Simulation] = []

    def clock() -> float:
        return times[0].clock() if times else 0.0

    records = MemoryRecords(tmp_path, clock) if kept == "memory" else Records(tmp_path, clock)
    simulation = Simulation(spec, Conditions(gpus=16, **STORMY), records, storage)
    times.append(simulation)
    simulation.run()

    durable = optuna.load_study(study_name=spec.name, storage=storage).trials
    searched = simulation.policy._study.trials
    assert [one.number for one in durable] == [one.number for one in searched] == list(range(len(durable)))
    for ours, theirs in zip(searched, durable, strict=True):
        for what in ("state", "params", "distributions", "values", "intermediate_values", "user_attrs", "system_attrs"):
            assert getattr(ours, what) == getattr(theirs, what), f"{what} of trial {ours.number}"
    recorded = {one.id: one for one in records.read().trials}
    repeats = [one for one in durable if DUPLICATE_OF in one.user_attrs]
    assert len(recorded) == len(durable) - len(repeats)
    for one in durable:
        if one not in repeats:
            agrees(one, recorded[f"t{one.number:04d}"], spec)


def agrees(told: FrozenTrial, trial: TrialRecord, spec: StudySpec) -> None:
    """Optuna's trial against the record."""
    states = {"complete": OptunaState.COMPLETE, "failed": OptunaState.FAIL}
    assert told.state is states.get(trial.state.value, OptunaState.PRUNED)
    assert told.user_attrs["raystudy.state"] == trial.state.value
    assert told.user_attrs["raystudy.reason"] == trial.explanation
    assert told.intermediate_values == {epoch["epoch"]: epoch["valid_r2"] for epoch in trial.epochs}
    if trial.state is TrialState.COMPLETE:
        assert told.values == [getattr(trial, objective.metric) for objective in spec.objectives]
    for name, value in told.params.items():
        expected = value if name in trial.config else 2**value
        assert trial.config[name.removeprefix("log2_")] == expected, name


def test_a_study_of_arms_alone_is_refused() -> None:
    spec = make_spec(search={}, arms=[{"name": "wide", "latent_dim": 64}])

    with pytest.raises(SpecError, match="no `search`, only arms"):
        simulate(spec, Conditions(gpus=8))


def test_the_number_of_trials_can_be_said_and_the_minutes_do_not_hold() -> None:
    spec = make_spec(budget={"trials": 10, "minutes": 0.001})

    assert simulate(spec, Conditions(gpus=8, **CALM))["trials"] == 10
    assert simulate(spec, Conditions(gpus=8, **CALM), 15)["trials"] == 15


@pytest.mark.parametrize("gpus", ["16", "3"])
def test_the_command_answers_with_strict_json(
    gpus: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["raystudy", "simulate", str(STUDY), "--trials", "60", "--gpus", gpus, "--json"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()

    assert not exit_.value.code

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found["trials"] == 60
    assert found["gpus"] == int(gpus)
    assert found["lost_attempts"]["driver lost"] > 0
    assert found["best_valid_r2"] > 0
    assert list(tmp_path.iterdir()) == [], "nothing is written"
