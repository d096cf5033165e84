"""What a trial tells Tune and what Tune makes of it, on its way to the policy and the records; Ray is not started."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from raystudy.errors import Infeasible, Reason, TrialFailed
from raystudy.execution import trial as worker
from raystudy.execution.searcher import PolicyScheduler, PolicySearcher
from raystudy.execution.task import Task
from raystudy.search.policy import SearchPolicy
from raystudy.study.reading import parse_spec
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
        assert (trial.state, trial.reason, trial.detail) == (TrialState.INFEASIBLE, "attention backend", reason)
        assert not (study.records.trial_folder(trial_id) / "error.txt").exists(), "it is no crash"
    assert study.records.read_trial(trained).state is TrialState.COMPLETE
    storage = f"sqlite:///{study.records.folder / 'optuna.db'}"
    *told, last = optuna.load_study(study_name="fake", storage=storage).trials
    assert len(told) >= len(refused)  # and as often as one of them was proposed again
    assert {one.state for one in told} == {OptunaState.PRUNED}
    assert all(any(excess > 0 for excess in one.constraints.values()) for one in told)
    assert last.state is OptunaState.COMPLETE
    assert all(excess <= 0 for excess in last.constraints.values())


def test_a_failure_and_a_crash_are_failed_and_not_infeasible(study: Study) -> None:
    def diverge(*_: Any) -> None:
        raise TrialFailed(Reason.NAN, "epoch 1")

    def crash(*_: Any) -> None:
        raise RuntimeError("no such column")

    states = {name: study.records.read_trial(study.run(name, one)) for name, one in (("a", diverge), ("b", crash))}

    assert {trial.state for trial in states.values()} == {TrialState.FAILED}
    assert (states["a"].reason, states["a"].detail) == ("nan", "epoch 1")
    assert states["b"].reason == "crash"
    assert str(states["b"].detail).startswith("RuntimeError: no such column (see ")
    assert (study.records.trial_folder(states["b"].id) / "error.txt").exists()


def test_out_of_memory_is_tried_once_more_with_its_batches_in_parts(study: Study) -> None:
    micro_batches = []

    def fill(job: Any, *_: Any) -> None:
        micro_batches.append(job.micro_batches)
        raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")

    first, second = study.run("a", fill), study.run("b", fill)
    other = study.run("c", lambda _job, _data, session: session.report(EPOCH))

    assert first == second != other
    assert micro_batches == [1, 2]
    trial = study.records.read_trial(first)
    assert (trial.state, trial.reason, trial.micro_batches) == (TrialState.FAILED, "out of memory", 2)
    assert "Tried to allocate 20 GiB" in str(trial.detail)


def test_a_process_that_is_gone_is_handed_out_again_by_tune_as_another_trial_of_its_own(
    study: Study, tmp_path: Path
) -> None:
    said = tmp_path / "error.txt"
    said.write_text("The actor died unexpectedly before finishing this task. The actor died because its node has died.")
    config = study.searcher.suggest("a")
    assert isinstance(config, dict)
    study.scheduler.on_trial_result(None, SimpleNamespace(config=config), {"epoch_metrics": json.dumps(EPOCH)})
    study.scheduler.on_trial_error(None, SimpleNamespace(config=config, error_file=str(said)))
    study.searcher.on_trial_complete("a", error=True)

    again = study.searcher.suggest("b")

    assert isinstance(again, dict)
    assert again["trial_id"] == config["trial_id"]
    (lost, running) = study.records.read_trial(config["trial_id"]).attempts
    assert (lost.state, lost.reason) == (TrialState.INTERRUPTED, "preempted")
    assert running.state is TrialState.RUNNING


def test_the_searcher_waits_while_anything_runs_and_ends_the_search_when_nothing_does(study: Study) -> None:
    study.searcher._max_concurrent = 9
    for name in ("a", "b", "c"):
        study.run(name, lambda _job, _data, session: session.report(EPOCH))
    assert isinstance(study.searcher.suggest("d"), dict)

    assert study.searcher.suggest("e") is None, "the space has 4 widths, and the last may be lost yet"
    assert study.policy.finished_reason == "exhausted"
    study.searcher.on_trial_complete("d", {})
    assert study.searcher.suggest("f") == "FINISHED"
