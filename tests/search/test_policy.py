"""The search policy, driven by hand: a trainer that only knows a formula, no Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from raystudy.models.build import count_parameters
from raystudy.search.policy import Origin, SearchPolicy, trial_id_of
from raystudy.study.model import ModelSpec, configure
from raystudy.study.spec import StudySpec, parse_spec
from raystudy.tracking.records import Records, TrialRecord, TrialState

EPOCHS = 3
SEARCH: dict[str, Any] = {
    "latent_dim": {"kind": "pow2", "low": 8, "high": 64},
    "encoder": {"kind": "categorical", "choices": ["onehot", "embedding"]},
    "learning_rate": {"kind": "log", "low": 1e-4, "high": 1e-2},
}
Value = Callable[[TrialRecord, int], float]


def make_spec(**changes: Any) -> StudySpec:
    return parse_spec(
        {
            "name": "fake",
            "data": {"source": "synthetic", "window_bp": [200, 100], "max_protein": 50},
            "model": {"num_latents": 4, "queries_dim": 8},
            "search": SEARCH,
            "training": {"epochs": EPOCHS},
            "budget": {"trials": 6, "minutes": 10},
            "pruner": "none",
            **changes,
        }
    )


def open_policy(folder: Path, ends_in: float = 3600, **changes: Any) -> SearchPolicy:
    """The study's policy as a driver that has just started would make it."""
    return SearchPolicy(make_spec(**changes), Records(folder), time.time() + ends_in)


def metrics(epoch: int, valid_r2: float, seconds: float = 0.01) -> dict[str, Any]:
    return {"epoch": epoch, "valid_r2": valid_r2, "epoch_seconds": seconds, "eval_seconds": 0.0}


def width_value(trial: TrialRecord, epoch: int) -> float:
    return trial.config["latent_dim"] / 100 + 0.01 * epoch


def train(policy: SearchPolicy, trial: TrialRecord, value: Value = width_value, until: int = EPOCHS) -> bool:
    """Run a trial to epoch ``until``, from its first as the loop replays it; True when it was stopped."""
    for epoch in range(1, until + 1):
        if policy.report(trial.id, metrics(epoch, value(trial, epoch))):
            return True
    if until == EPOCHS:
        policy.end(trial.id, TrialState.COMPLETE)
    return False


def run_all(policy: SearchPolicy, value: Value = width_value) -> list[TrialRecord]:
    ran = []
    while (trial := policy.ask()) is not None:
        ran.append(trial)
        train(policy, trial, value)
    return ran


def in_optuna(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """What Optuna's storage says, read afresh."""
    return optuna.load_study(study_name="fake", storage=f"sqlite:///{folder / 'optuna.db'}").get_trials()


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "studies" / "fake"
    path.mkdir(parents=True)
    return path


def test_records_and_optuna_tell_the_same_story(folder: Path) -> None:
    ran = run_all(open_policy(folder))

    assert len(ran) == 6
    recorded, known = Records(folder).read().trials, in_optuna(folder)
    assert [trial.id for trial in recorded] == [trial_id_of(one.number) for one in known]
    for trial, theirs in zip(recorded, known, strict=True):
        assert trial.state is TrialState.COMPLETE
        assert theirs.state is OptunaState.COMPLETE
        assert theirs.value == trial.valid_r2 == pytest.approx(width_value(trial, EPOCHS))
        assert theirs.intermediate_values == {e["epoch"]: e["valid_r2"] for e in trial.epochs}
        assert 2 ** theirs.params["log2_latent_dim"] == trial.config["latent_dim"]
        assert theirs.params["learning_rate"] == trial.config["learning_rate"]
        assert theirs.params["encoder"] == trial.config["encoder"]


def test_a_proposal_is_a_whole_configuration_with_its_parameter_count(folder: Path) -> None:
    policy = open_policy(folder)
    trial = policy.ask()

    assert trial is not None
    model = ModelSpec(**{key: value for key, value in trial.config.items() if key in ModelSpec.model_fields})
    assert (model.num_latents, trial.config["epochs"], trial.origin, trial.arm) == (4, EPOCHS, "sampled", None)
    assert (model.window_bp, model.max_protein) == ((200, 100), 50)
    assert trial.parameters == count_parameters(model, 1)
    assert trial.global_batch == trial.config["batch_size"]
    assert Records(folder).read_trial(trial.id).config == trial.config


def test_the_best_epoch_is_told_and_not_the_last(folder: Path) -> None:
    policy = open_policy(folder)
    trial = policy.ask()
    assert trial is not None
    train(policy, trial, lambda _, epoch: {1: 0.1, 2: 0.5, 3: 0.3}[epoch])

    assert in_optuna(folder)[0].value == 0.5


def enqueue_points(policy: SearchPolicy) -> None:
    for width in (16, 32):
        policy.enqueue({"latent_dim": width}, Origin("seeded", provenance={"from": "kmer3"}))


def test_seeded_points_come_first_and_once_however_often_the_study_is_taken_up(folder: Path) -> None:
    policy = open_policy(folder)
    enqueue_points(policy)
    enqueue_points(policy)
    first = policy.ask()
    assert first is not None
    train(policy, first)
    for _ in range(2):
        policy = open_policy(folder)
        enqueue_points(policy)
    run_all(policy)

    trials = Records(folder).read().trials
    assert [trial.origin for trial in trials] == ["seeded"] * 2 + ["sampled"] * 4
    assert [trial.config["latent_dim"] for trial in trials[:2]] == [16, 32]
    assert in_optuna(folder)[0].user_attrs["provenance"] == {"from": "kmer3"}
    assert len(in_optuna(folder)) == 6


ARMS = [{"name": "wide", "latent_dim": 64}, {"name": "narrow", "latent_dim": 8}]


def enqueue_arms(policy: SearchPolicy) -> None:
    for arm in policy.spec.arms:
        policy.enqueue({}, Origin("arm", arm=arm.name))


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

    study = optuna.load_study(
        study_name="fake", storage=f"sqlite:///{folder / 'optuna.db'}", sampler=policy._study.sampler
    )
    space = study.sampler.infer_relative_search_space(study, study.get_trials()[-1])
    assert set(space) == {"log2_latent_dim", "encoder", "learning_rate"}


def test_a_failed_trial_is_told_as_failed_with_its_reason_and_does_not_block(folder: Path) -> None:
    policy = open_policy(folder)
    trial = policy.ask()
    assert trial is not None
    policy.end(trial.id, TrialState.FAILED, "nan: epoch 1")

    assert in_optuna(folder)[0].state is OptunaState.FAIL
    kept = Records(folder).read_trial(trial.id)
    assert (kept.state, kept.reason, kept.valid_r2) == (TrialState.FAILED, "nan: epoch 1", None)
    assert len(run_all(policy)) == 5, "it counts against the budget of trials"


def test_a_closed_trial_stays_as_it_is(folder: Path) -> None:
    policy = open_policy(folder)
    trial = policy.ask()
    assert trial is not None
    policy.end(trial.id, TrialState.PRUNED, "budget")
    policy.end(trial.id, TrialState.COMPLETE)

    assert Records(folder).read_trial(trial.id).state is TrialState.PRUNED


def test_a_trial_left_running_is_proposed_first_with_the_epochs_it_had(folder: Path) -> None:
    policy = open_policy(folder)
    done, left = policy.ask(), policy.ask()
    assert done is not None
    assert left is not None
    train(policy, done)
    train(policy, left, until=2)

    again = open_policy(folder)
    assert again.num_running == 0
    resumed = again.ask()
    assert resumed is not None
    assert resumed.id == left.id
    assert (resumed.config, resumed.seed) == (left.config, left.seed)
    assert [epoch["epoch"] for epoch in resumed.epochs] == [1, 2]
    assert again.num_running == 1
    train(again, resumed)
    run_all(again)

    record = Records(folder).read_trial(left.id)
    assert record.state is TrialState.COMPLETE
    assert [[epoch["epoch"] for epoch in attempt.epochs] for attempt in record.attempts] == [[1, 2], [3]]
    assert len(Records(folder).read().trials) == 6
    assert [one.state for one in in_optuna(folder)] == [OptunaState.COMPLETE] * 6
    assert in_optuna(folder)[1].intermediate_values.keys() == {1, 2, 3}


def test_the_budget_of_trials_holds_over_all_sessions(folder: Path) -> None:
    for _ in range(4):
        policy = open_policy(folder)
        for _ in range(2):
            trial = policy.ask()
            if trial is not None:
                train(policy, trial)

    assert len(Records(folder).read().trials) == 6
    assert open_policy(folder).ask() is None
    assert len(run_all(open_policy(folder, budget={"trials": 8, "minutes": 10}))) == 2, "a larger budget goes on"


def test_after_the_deadline_nothing_starts_and_what_runs_is_stopped(folder: Path) -> None:
    policy = open_policy(folder, ends_in=0)
    trial = policy.ask()
    assert trial is not None, "without one trained epoch a study would have nothing to say"
    assert policy.report(trial.id, metrics(1, 0.3))
    record = Records(folder).read_trial(trial.id)
    assert (record.state, record.reason, record.valid_r2) == (TrialState.PRUNED, "budget", 0.3)
    assert in_optuna(folder)[0].state is OptunaState.PRUNED
    assert policy.ask() is None


def test_the_search_leaves_time_to_retrain_every_finalist(folder: Path) -> None:
    # The slowest epoch takes 100 s: a finalist needs 3 of these and the time to start.
    assert not open_policy(folder, ends_in=300).out_of_time
    policy = open_policy(folder)
    trial = policy.ask()
    assert trial is not None
    policy.report(trial.id, metrics(1, 0.3, seconds=100))

    assert open_policy(folder, ends_in=300).out_of_time
    assert not open_policy(folder, ends_in=400).out_of_time
    assert open_policy(folder, ends_in=400, finalists=2).out_of_time


class Killed(Exception):
    """Stands for the end of the driver."""


def killed(*_: Any, **__: Any) -> None:
    raise Killed


def test_a_driver_killed_before_recording_a_proposal_loses_only_that(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = open_policy(folder)
    enqueue_points(policy)
    monkeypatch.setattr(policy.records, "trial_started", killed)
    with pytest.raises(Killed):
        policy.ask()
    again = open_policy(folder)
    enqueue_points(again)
    ran = run_all(again)

    assert [trial.config["latent_dim"] for trial in ran if trial.origin == "seeded"].count(16) == 1
    assert {trial.config["latent_dim"] for trial in ran if trial.origin == "seeded"} == {16, 32}
    assert len(ran) == 6
    states = [one.state for one in in_optuna(folder)]
    assert states[0] is OptunaState.FAIL
    assert states[1:] == [OptunaState.COMPLETE] * 6


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED])
def test_a_driver_killed_before_telling_optuna_an_ending_tells_it_later(
    folder: Path, state: TrialState, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = open_policy(folder)
    trial = policy.ask()
    assert trial is not None
    train(policy, trial, until=2)
    monkeypatch.setattr(policy, "_tell", killed)
    with pytest.raises(Killed):
        policy.end(trial.id, state, "why")
    assert in_optuna(folder)[0].state is OptunaState.RUNNING

    open_policy(folder)

    expected = {"complete": OptunaState.COMPLETE, "pruned": OptunaState.PRUNED, "failed": OptunaState.FAIL}[state]
    assert in_optuna(folder)[0].state is expected
    assert Records(folder).read_trial(trial.id).state is state


def test_a_driver_killed_before_optuna_knew_an_epoch_makes_it_known_when_the_trial_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = open_policy(folder)
    trial = policy.ask()
    assert trial is not None
    train(policy, trial, until=1)
    monkeypatch.setattr(policy._storage, "set_trial_intermediate_value", killed)
    with pytest.raises(Killed):
        policy.report(trial.id, metrics(2, 0.4))
    monkeypatch.undo()

    again = open_policy(folder)
    resumed = again.ask()
    assert resumed is not None
    train(again, resumed, lambda one, epoch: 0.4 if epoch == 2 else width_value(one, epoch))

    assert in_optuna(folder)[0].intermediate_values.keys() == {1, 2, 3}
    assert [epoch["epoch"] for epoch in Records(folder).read_trial(trial.id).epochs] == [1, 2, 3]


def test_a_lost_worker_is_another_attempt_at_the_same_trial(folder: Path) -> None:
    policy = open_policy(folder)
    trial = policy.ask()
    assert trial is not None
    train(policy, trial, until=1)
    policy.interrupted(trial.id, "worker lost")
    train(policy, trial)

    record = Records(folder).read_trial(trial.id)
    assert [(attempt.state, attempt.reason) for attempt in record.attempts] == [
        (TrialState.FAILED, "worker lost"),
        (TrialState.COMPLETE, None),
    ]
    assert len(record.epochs) == EPOCHS
    assert policy.num_running == 0
    assert in_optuna(folder)[0].state is OptunaState.COMPLETE


def test_a_configuration_that_comes_again_gets_another_seed(folder: Path) -> None:
    search = {"encoder": {"kind": "categorical", "choices": ["onehot"]}}
    ran = run_all(open_policy(folder, search=search))

    assert len({trial.config_hash for trial in ran}) == 1
    assert len({trial.seed for trial in ran}) == len(ran) == 6


def test_the_same_study_run_again_from_nothing_proposes_the_same(tmp_path: Path) -> None:
    def proposals(name: str) -> list[tuple[str, int]]:
        folder = tmp_path / name
        folder.mkdir()
        return [(trial.config_hash, trial.seed) for trial in run_all(open_policy(folder))]

    assert proposals("a") == proposals("b")


def test_listeners_hear_of_every_change_as_it_is_recorded(folder: Path) -> None:
    heard: list[tuple[str, TrialState, int]] = []
    spec = make_spec(budget={"trials": 1, "minutes": 10})

    def listen(trial: TrialRecord) -> None:
        heard.append((trial.id, trial.state, len(trial.epochs)))

    run_all(SearchPolicy(spec, Records(folder), time.time() + 3600, [listen]))

    running = [("t0000", TrialState.RUNNING, epochs) for epochs in range(EPOCHS + 1)]
    assert heard == [*running, ("t0000", TrialState.COMPLETE, EPOCHS)]
