"""The search policy, driven by hand: a trainer that only knows a formula, no Ray."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState as OptunaState

from raystudy.models.build import count_parameters
from raystudy.search.policy import Origin, SearchPolicy, trial_id_of
from raystudy.study.model import ModelSpec
from raystudy.tracking.records import Records, TrialRecord, TrialState
from tests.search.cases import (
    EPOCHS,
    in_optuna,
    make_spec,
    metrics,
    open_policy,
    run_all,
    train,
    width_value,
)


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
