"""What a trial tells Tune and what Tune makes of it, on its way to the policy and the records; Ray is not started."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from raystudy.errors import Infeasible, TrialFailed
from raystudy.execution import trial as worker
from raystudy.execution.searcher import PolicyScheduler, PolicySearcher
from raystudy.execution.task import Task
from raystudy.search.policy import SearchPolicy
from raystudy.study.spec import parse_spec
from raystudy.tracking.records import Records, TrialState

SPEC = parse_spec(
    {
        "name": "fake",
        "data": {"source": "synthetic", "window_bp": [200, 100], "max_protein": 50},
        "model": {"num_latents": 4, "queries_dim": 8},
        "search": {"latent_dim": {"kind": "pow2", "low": 8, "high": 64}},
        "training": {"epochs": 2},
        "budget": {"trials": 6, "minutes": 10},
        "pruner": "none",
    }
)
EPOCH = {"epoch": 1, "valid_r2": 0.25, "epoch_seconds": 1.5, "eval_seconds": 0.5, "precision": "bf16"}


class Study:
    """The policy and its two adapters; `run` is one trial as Tune would run it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.records = Records(folder)
        self.policy = SearchPolicy(SPEC, self.records, time.time() + 3600)
        self.searcher = PolicySearcher(
            self.policy, lambda trial: Task.of(trial, SPEC, self.records, folder), max_concurrent=1
        )
        self.scheduler = PolicyScheduler(self.policy)
        self.patch = monkeypatch
        self.patch.setattr(Task, "data", lambda _: None)

    def run(self, tune_id: str, train: Any) -> str:
        """Our name of the trial, after Tune passed on what it reported."""
        reported: list[dict[str, Any]] = []
        self.patch.setattr(worker, "train", train)
        self.patch.setattr(worker.tune, "report", reported.append)
        config = self.searcher.suggest(tune_id)
        assert isinstance(config, dict)
        worker.run_trial(config)
        results = [worker.tune.utils.flatten_dict(one) for one in reported]  # as Tune does
        for result in results:
            self.scheduler.on_trial_result(None, SimpleNamespace(config=config), result)
        self.searcher.on_trial_complete(tune_id, results[-1])
        return str(config["trial_id"])


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    folder = tmp_path / "fake"
    folder.mkdir()
    return Study(folder, monkeypatch)


def test_an_epoch_is_on_record_as_the_loop_reported_it(study: Study) -> None:
    reported = EPOCH | {"attention": {"perceiver.cross": "sdpa", "head": "math"}}

    trial = study.records.read_trial(study.run("a", lambda _job, _data, session: session.report(reported)))

    assert trial.state is TrialState.COMPLETE
    assert [{key: value for key, value in epoch.items() if key != "time"} for epoch in trial.epochs] == [reported]


def test_a_metric_that_is_no_number_is_null_on_record(study: Study) -> None:
    def train(_job: Any, _data: Any, session: Any) -> None:
        session.report(EPOCH | {"train_loss": float("nan"), "attention": {}})

    trial = study.records.read_trial(study.run("a", train))

    assert (trial.epochs[0]["train_loss"], trial.valid_r2) == (None, 0.25)


@pytest.mark.parametrize("epochs", [0, 1])
def test_what_the_worker_refuses_is_infeasible_with_its_reason_and_the_search_goes_on(
    study: Study, epochs: int
) -> None:
    reason = "attention `xformers` cannot be used: it is not installed"

    def refuse(_job: Any, _data: Any, session: Any) -> None:
        for _ in range(epochs):  # of an earlier attempt, on a machine that had it
            session.report(EPOCH | {"attention": {"head": "xformers"}})
        raise Infeasible(reason)

    refused = [study.run(name, refuse) for name in ("a", "b")]
    trained = study.run("c", lambda _job, _data, session: session.report(EPOCH | {"attention": {}}))

    for trial_id in refused:
        trial = study.records.read_trial(trial_id)
        assert (trial.state, trial.reason) == (TrialState.INFEASIBLE, reason)
        assert not (study.records.trial_folder(trial_id) / "error.txt").exists(), "it is no crash"
    assert study.records.read_trial(trained).state is TrialState.COMPLETE
    storage = f"sqlite:///{study.records.folder / 'optuna.db'}"
    told = [one.state for one in optuna.load_study(study_name="fake", storage=storage).trials]
    assert told == [OptunaState.FAIL, OptunaState.FAIL, OptunaState.COMPLETE]


def test_a_failure_and_a_crash_are_failed_and_not_infeasible(study: Study) -> None:
    def diverge(*_: Any) -> None:
        raise TrialFailed("nan", "epoch 1")

    def crash(*_: Any) -> None:
        raise RuntimeError("out of memory")

    states = {name: study.records.read_trial(study.run(name, one)) for name, one in (("a", diverge), ("b", crash))}

    assert {trial.state for trial in states.values()} == {TrialState.FAILED}
    assert states["a"].reason == "nan: epoch 1"
    assert str(states["b"].reason).startswith("crash: RuntimeError: out of memory")
    assert (study.records.trial_folder(states["b"].id) / "error.txt").exists()
