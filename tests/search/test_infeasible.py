"""Configurations that break a rule only together: found before they start, they end no study."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from raystudy.models.build import count_parameters
from raystudy.report.table import report_json
from raystudy.search.policy import Origin, SearchPolicy
from raystudy.study.reading import parse_spec
from raystudy.study.spec import StudySpec
from raystudy.tracking.records import Records, TrialRecord, TrialState

FAMILIES = {"kind": "categorical", "choices": ["dna_protein", "protein"]}
HALF_LIVES = {"kind": "categorical", "choices": ["concat", "none"]}
RATES = {"kind": "log", "low": 1e-4, "high": 1e-2}


def make_spec(**changes: Any) -> StudySpec:
    return parse_spec(
        {
            "name": "fake",
            "data": {"source": "synthetic", "window_bp": [300, 150], "max_protein": 300},
            "model": {"num_latents": 4, "queries_dim": 8},
            "search": {"family": FAMILIES, "half_life": HALF_LIVES, "learning_rate": RATES},
            "training": {"epochs": 2},
            "budget": {"trials": 6, "minutes": 10},
            "sampler": "random",
            "pruner": "none",
            **changes,
        }
    )


@pytest.fixture
def records(tmp_path: Path) -> Records:
    (tmp_path / "fake").mkdir()
    return Records(tmp_path / "fake")


def open_policy(records: Records, **changes: Any) -> SearchPolicy:
    return SearchPolicy(make_spec(**changes), records, time.time() + 3600)


def open_seeded(records: Records) -> SearchPolicy:
    """One whose first point breaks a rule."""
    policy = open_policy(records)
    policy.enqueue({"family": "protein", "half_life": "concat"}, Origin("seeded"))
    return policy


def train(policy: SearchPolicy, trial: TrialRecord) -> None:
    for epoch in (1, 2):
        policy.report(trial.id, {"epoch": epoch, "valid_r2": 0.1, "epoch_seconds": 0.01, "eval_seconds": 0.0})
    policy.end(trial.id, TrialState.COMPLETE)


def run_all(policy: SearchPolicy) -> list[TrialRecord]:
    ran = []
    while (trial := policy.ask()) is not None:
        ran.append(trial)
        train(policy, trial)
    return ran


def in_optuna(records: Records) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="fake", storage=f"sqlite:///{records.folder / 'optuna.db'}").get_trials()


def test_values_that_break_a_rule_only_together_are_an_infeasible_trial_and_the_search_goes_on(
    records: Records,
) -> None:
    ran = run_all(open_seeded(records))

    trials = records.read().trials
    refused = [trial for trial in trials if trial.state is TrialState.INFEASIBLE]
    assert len(ran) == 6, "an infeasible trial does not count against the budget"
    assert refused
    assert {trial.id for trial in trials} == {trial.id for trial in [*ran, *refused]}
    assert max(trial.id for trial in ran) > min(trial.id for trial in refused)
    for trial in trials:
        breaks = (trial.config["family"], trial.config.get("half_life")) == ("protein", "concat")
        assert (trial.state is TrialState.INFEASIBLE) is breaks
    for trial, theirs in zip(trials, in_optuna(records), strict=True):
        if trial in refused:
            assert (theirs.state, theirs.constraints) == (OptunaState.PRUNED, {"rule": 1.0})
            assert trial.reason == "rule"
            assert trial.detail == "family `protein` reads no half-life features; remove `half_life: concat`"
            assert trial.epochs == []
            assert len(trial.attempts) == 1
        else:
            assert (theirs.state, theirs.value, theirs.constraints) == (OptunaState.COMPLETE, 0.1, {})


def test_an_infeasible_trial_is_never_handed_out_and_leaves_nothing_running(records: Records) -> None:
    policy = open_policy(records)
    while (trial := policy.ask()) is not None:
        assert trial.parameters > 0
        assert policy.num_running == 1
        train(policy, trial)
    assert policy.num_running == 0
    assert open_policy(records).ask() is None, "taken up again there is nothing left to do"


def test_a_search_in_which_nothing_fits_together_ends(records: Records) -> None:
    search = {"encoder": {"kind": "categorical", "choices": ["embedding", "onehot"]}, "family": FAMILIES}
    policy = open_policy(records, search=search, budget={"trials": 1, "minutes": 10})
    policy.enqueue({"encoder": "embedding", "family": "protein"}, Origin("seeded"))

    while (trial := policy.ask()) is not None:
        policy.end(trial.id, TrialState.INFEASIBLE, "attention backend", "not on this machine")
    assert policy.finished_reason == "exhausted"
    assert {trial.state for trial in records.read().trials} == {TrialState.INFEASIBLE}
    refused = next(trial for trial in records.read().trials if trial.config["encoder"] == "embedding")
    assert (refused.state, refused.reason) == (TrialState.INFEASIBLE, "rule")
    assert "needs DNA in the convolution" in str(refused.detail)


def test_an_infeasible_trial_stands_in_the_report_with_the_configuration_that_was_sampled(records: Records) -> None:
    run_all(open_seeded(records))

    report = json.loads(json.dumps(report_json(records.read(), None), allow_nan=False))
    refused = next(trial for trial in report["trials"] if trial["state"] == "infeasible")
    assert (refused["config"]["family"], refused["config"]["half_life"]) == ("protein", "concat")
    assert refused["config"]["epochs"] == 2
    assert refused["valid_r2"] is None
    assert refused["reason"] == "rule"
    assert "half-life" in refused["detail"]


def test_listeners_hear_of_an_infeasible_trial(records: Records) -> None:
    heard: list[tuple[str, TrialState]] = []
    policy = SearchPolicy(
        make_spec(), records, time.time() + 3600, [lambda trial: heard.append((trial.id, trial.state))]
    )
    policy.enqueue({"family": "protein", "half_life": "concat"}, Origin("seeded"))
    run_all(policy)

    refused = [trial.id for trial in records.read().trials if trial.state is TrialState.INFEASIBLE]
    assert refused
    assert [name for name, state in heard if state is TrialState.INFEASIBLE] == refused


def test_a_driver_killed_between_recording_an_infeasible_trial_and_closing_it_closes_it_later(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        """Stands for the end of the driver."""

    def killed(*_: Any) -> None:
        raise Killed

    policy = open_seeded(records)
    monkeypatch.setattr(policy.records, "trial_ended", killed)
    with pytest.raises(Killed):
        policy.ask()
    monkeypatch.undo()
    assert records.read_trial("t0000").state is TrialState.RUNNING

    ran = run_all(open_seeded(records))

    assert "t0000" not in {trial.id for trial in ran}
    closed = records.read_trial("t0000")
    assert closed.state is TrialState.INFEASIBLE
    assert closed.reason == "rule"
    assert "half-life" in str(closed.detail)


WIDTHS = {"latent_dim": {"kind": "pow2", "low": 8, "high": 64}}


def parameters_of(width: int) -> int:
    model, _ = make_spec(search=WIDTHS).configure({"latent_dim": width})
    return count_parameters(model)


def test_a_network_with_too_many_parameters_is_infeasible_and_not_trained(records: Records) -> None:
    most = parameters_of(16)
    limited = {"trials": 10, "minutes": 10, "parameters": most}
    ran = run_all(open_policy(records, search=WIDTHS, budget=limited))

    trials = records.read().trials
    assert len(trials) == 4, "each width once"
    assert {trial.config["latent_dim"] for trial in ran} == {8, 16}
    refused = [trial for trial in trials if trial.config["latent_dim"] > 16]
    assert len(refused) == 2
    assert {trial.id for trial in ran} == {trial.id for trial in trials} - {trial.id for trial in refused}
    for trial in refused:
        number = parameters_of(trial.config["latent_dim"])
        assert trial.state is TrialState.INFEASIBLE
        assert trial.parameters == number
        assert trial.reason == "parameters"
        assert trial.detail == f"{number:,} parameters, and `budget.parameters` allows {most:,}"
        assert trial.epochs == []


def test_as_many_parameters_as_allowed_are_not_too_many(records: Records) -> None:
    policy = open_policy(records, search=WIDTHS, budget={"trials": 1, "minutes": 10, "parameters": parameters_of(32)})
    for width in (64, 32):
        policy.enqueue({"latent_dim": width}, Origin("seeded"))
    run_all(policy)

    assert [(trial.config["latent_dim"], trial.state) for trial in records.read().trials] == [
        (64, TrialState.INFEASIBLE),
        (32, TrialState.COMPLETE),
    ]


def test_a_trial_that_became_too_large_is_not_taken_up_again(records: Records) -> None:
    search = {"latent_dim": {"kind": "pow2", "low": 64, "high": 64}}
    assert open_policy(records, search=search).ask() is not None

    limited = {"trials": 12, "minutes": 10, "parameters": 100}
    assert open_policy(records, search=search, budget=limited).ask() is None
    assert {trial.state for trial in records.read().trials} == {TrialState.INFEASIBLE}
