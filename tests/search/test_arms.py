"""Arms: named configurations beside what is sampled, each with a network of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna.trial import TrialState as OptunaState

from raystudy.models.build import count_parameters
from raystudy.study.model import configure
from raystudy.tracking.records import Records, TrialState
from tests.search.cases import (
    ARMS,
    EPOCHS,
    enqueue_arms,
    in_optuna,
    open_policy,
    run_all,
    train,
)


def test_a_study_of_arms_runs_each_once_and_ends(folder: Path) -> None:
    policy = open_policy(folder, search={}, arms=ARMS)
    enqueue_arms(policy)
    ran = run_all(policy)
    again = open_policy(folder, search={}, arms=ARMS)
    enqueue_arms(again)

    assert [(trial.arm, trial.config["latent_dim"], trial.origin) for trial in ran] == [
        ("wide", 64, "arm"),
        ("narrow", 8, "arm"),
    ]
    assert again.ask() is None


def test_arms_of_different_families_carry_their_own_configuration_and_parameters(folder: Path) -> None:
    arms: list[dict[str, Any]] = [
        {"name": "both"},
        {"name": "protein", "family": "protein"},
        {"name": "codon", "tokens": "codon"},
        {"name": "published", "preset": "dnaperceiver", "window_bp": [200, 100], "pool_size": 10},
    ]
    data = {"source": "synthetic", "window_bp": [200, 100], "max_protein": 300}
    policy = open_policy(folder, search={}, arms=arms, data=data)
    enqueue_arms(policy)
    ran = {trial.arm: trial for trial in run_all(policy, lambda *_: 0.5)}

    assert len({trial.parameters for trial in ran.values()}) == len(arms)
    for arm in policy.spec.arms:
        model, training = policy.spec.configure(arm.overrides)
        assert ran[arm.name].parameters == count_parameters(model, 1)
        assert configure(ran[arm.name].config) == (model, training), "the record alone gives the network back"
    families = [ran[name].config["family"] for name in ("both", "protein", "published")]
    assert families == ["dna_protein", "protein", "dna"]
    assert (ran["published"].config["pool_size"], ran["published"].config["queries_dim"]) == (10, 64)
    assert ran["protein"].config.get("half_life", "none") == "none"


def test_a_network_of_two_targets_has_an_output_for_each(folder: Path) -> None:
    one = open_policy(folder, search={}, arms=ARMS)
    (folder.parent / "two").mkdir()
    two = open_policy(folder.parent / "two", search={}, arms=ARMS, target=["mrna", "protein"])
    counts = []
    for policy in (one, two):
        enqueue_arms(policy)
        trial = policy.ask()
        assert trial is not None
        counts.append(trial.parameters)

    assert counts[1] - counts[0] == 2 * 8 + 1, "a row over query and summary, and a bias"


def test_arms_are_never_pruned_and_sampled_trials_are(folder: Path) -> None:
    changes: dict[str, Any] = {"arms": ARMS, "pruner": "successive_halving", "budget": {"trials": 12, "minutes": 10}}
    policy = open_policy(folder, **changes)
    enqueue_arms(policy)
    arms = [policy.ask(), policy.ask()]
    run_all(policy, lambda trial, epoch: 1 / (1 + int(trial.id[1:])) + 0.01 * epoch)
    for arm in arms:  # worse than everything before them
        assert arm is not None
        assert not train(policy, arm, lambda *_: -1.0)

    trials = Records(folder).read().trials
    assert [trial.state for trial in trials if trial.arm] == [TrialState.COMPLETE] * 2
    pruned = [trial for trial in trials if trial.state is TrialState.PRUNED]
    assert pruned
    for trial in pruned:
        theirs = in_optuna(folder)[int(trial.id[1:])]
        assert theirs.state is OptunaState.PRUNED
        assert trial.reason == "successive_halving"
        assert len(trial.epochs) < EPOCHS
        assert theirs.value == trial.epochs[-1]["valid_r2"]


def test_what_arms_reach_does_not_keep_the_sampler_from_seeing_the_others_together(folder: Path) -> None:
    policy = open_policy(folder, arms=ARMS, budget={"trials": 14, "minutes": 10})
    enqueue_arms(policy)
    run_all(policy)

    study = policy._study
    space = study.sampler.infer_relative_search_space(study, study.get_trials()[-1])
    assert set(space) == {"log2_latent_dim", "encoder", "learning_rate"}
