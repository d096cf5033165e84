"""The search policy, driven by hand: a trainer that only knows a formula, no Ray."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState as OptunaState

from raystudy.errors import Reason
from raystudy.models.build import count_parameters
from raystudy.search.policy import Origin, SearchPolicy, trial_id_of
from raystudy.search.stopping import Budget
from raystudy.study.model import ModelSpec
from raystudy.tracking.records import Records, TrialRecord, TrialState
from tests.search.cases import (
    EPOCHS,
    ask,
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
    policy.end(trial.id, TrialState.FAILED, Reason.NAN, "epoch 1")

    told = in_optuna(folder)[0]
    assert (told.state, told.user_attrs["raystudy.reason"]) == (OptunaState.FAIL, "nan: epoch 1")
    kept = Records(folder).read_trial(trial.id)
    assert (kept.state, kept.reason, kept.detail, kept.valid_r2) == (TrialState.FAILED, "nan", "epoch 1", None)
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
    assert [(attempt.state, attempt.reason) for attempt in record.attempts] == [
        (TrialState.INTERRUPTED, "driver lost"),
        (TrialState.COMPLETE, None),
    ]
    assert record.attempts[0].ended == record.attempts[0].epochs[-1]["time"], "its last sign of life"
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
    def ends(ends_in: float, **spec: Any) -> bool:
        opened = time.time()
        budget = Budget(make_spec(**spec), opened + ends_in, lambda: opened)
        for trial in Records(folder).read().trials:
            budget.count(trial)
        return budget.enough == "minutes"

    assert not ends(300)
    policy = open_policy(folder)
    policy.report(ask(policy).id, metrics(1, 0.3, seconds=100))

    assert ends(300)
    assert not ends(400)
    assert ends(400, finalists=2)
    assert ends(400, replicates={"seeds": 2})


class Killed(Exception):
    """Stands for the end of the driver."""


def killed(*_: Any, **__: Any) -> None:
    raise Killed


def test_a_driver_killed_before_recording_a_proposal_does_not_lose_it(
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

    assert [trial.config["latent_dim"] for trial in ran if trial.origin == "seeded"] == [16, 32]
    assert [trial.id for trial in ran] == [trial_id_of(number) for number in range(6)], "the first one was adopted"
    assert [one.state for one in in_optuna(folder)] == [OptunaState.COMPLETE] * 6


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
    monkeypatch.setattr(policy._optuna, "set_epoch", killed)
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
    assert policy.lost(trial.id, Reason.WORKER_LOST)
    assert policy.num_running == 0
    again = ask(policy)
    assert (again.id, again.seed) == (trial.id, trial.seed)
    train(policy, again)

    record = Records(folder).read_trial(trial.id)
    assert [(attempt.state, attempt.reason) for attempt in record.attempts] == [
        (TrialState.INTERRUPTED, "worker lost"),
        (TrialState.COMPLETE, None),
    ]
    assert len(record.epochs) == EPOCHS
    assert policy.num_running == 0
    assert in_optuna(folder)[0].state is OptunaState.COMPLETE


def test_a_configuration_that_comes_again_is_no_second_trial_and_its_value_is_told(folder: Path) -> None:
    policy = open_policy(folder, sampler="random", search={"batch_size": {"kind": "pow2", "low": 16, "high": 32}})
    for origin in ("seeded", "warm", "sampled"):
        policy.enqueue({"batch_size": 16}, Origin(origin))
    first = ask(policy)
    train(policy, first)
    run_all(policy)

    ran = Records(folder).read()
    assert [trial.config["batch_size"] for trial in ran.trials] == [16, 32]
    assert {trial.state for trial in ran.trials} == {TrialState.COMPLETE}
    events = ran.every("duplicate")
    assert [(event["number"], event["of"]) for event in events[:2]] == [(1, "t0000"), (2, "t0000")]
    known = in_optuna(folder)
    assert len(known) == len(ran.trials) + len(events)
    for event in events:
        original = known[int(event["of"].removeprefix("t"))]
        told = known[event["number"]]
        assert (told.state, told.value) == (OptunaState.COMPLETE, original.value)
        assert told.user_attrs["duplicate_of"] == event["of"]
    assert policy.finished_reason == "exhausted"


def test_a_driver_killed_between_marking_a_duplicate_and_recording_it_counts_it_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"budget": {"trials": 2, "minutes": 10}}
    policy = open_policy(folder, **changes)
    for origin in ("seeded", "warm"):
        policy.enqueue({"latent_dim": 16, "encoder": "onehot", "learning_rate": 0.001}, Origin(origin))
    train(policy, ask(policy))
    monkeypatch.setattr(policy.records, "append", killed)
    with pytest.raises(Killed):
        policy.ask()
    assert in_optuna(folder)[1].user_attrs["duplicate_of"] == "t0000"

    run_all(open_policy(folder, **changes))

    record = Records(folder).read()
    assert [trial.id for trial in record.trials] == ["t0000", "t0002"]
    assert [(event["number"], event["of"]) for event in record.every("duplicate")] == [(1, "t0000")]
    assert in_optuna(folder)[1].state is OptunaState.COMPLETE


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
