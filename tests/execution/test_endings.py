"""How trials and finalists end in real workers of a real Ray: hung, out of memory, killed, with a loss that is NaN.

What goes wrong is done inside the worker: the function that Ray sends there is replaced by one defined in a test,
which travels by value and calls the real one.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayError
from rich.console import Console

from raystudy.errors import RaystudyError, StudyFailed, TrialFailed
from raystudy.execution import trainer, tuner
from raystudy.execution.capacity import Node
from raystudy.execution.failures import HUNG
from raystudy.execution.task import Task
from raystudy.finalists import train_finalists
from raystudy.materials import Materials
from raystudy.progress import Progress
from raystudy.search.policy import Origin, SearchPolicy
from raystudy.study.reading import parse_spec
from raystudy.study.sections import ResourcesSpec
from raystudy.study.space import canonical_hash
from raystudy.tracking.records import Records, TrialRecord, TrialState

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

LIMIT_SECONDS = 25
ARMS = {"hangs": 8, "needs too much memory": 16, "goes well": 32}
"""Names of the arms, and their latent widths, by which a worker knows them."""


@pytest.fixture
def materials(tiny_study: Callable[..., dict[str, Any]], data_folder: Path, studies: Path) -> Callable[..., Materials]:
    """Opens the tiny study with ``changes`` to its file."""

    def open_study(**changes: Any) -> Materials:
        spec = parse_spec(tiny_study("endings", data_folder, baselines=[], **changes))
        (studies / spec.name).mkdir(parents=True)
        return Materials.open(spec, Records(studies / spec.name), None)

    return open_study


def search(study: Materials, capacity: tuple[Node, ...]) -> dict[str | None, TrialRecord]:
    """Run the search alone, of arms alone; its trials by arm."""
    policy = SearchPolicy(study.spec, study.records, ends=math.inf, clock=time.time)
    for arm in study.spec.arms:
        policy.enqueue({}, Origin("arm", arm=arm.name))
    tuner.search(study.spec, study.records, policy, study.data_folder, capacity)
    return {trial.arm: trial for trial in study.records.read().trials}


def test_a_trial_that_hangs_fails_and_one_out_of_memory_goes_on_in_parts_beside_one_that_goes_well(
    materials: Callable[..., Materials], ray: tuple[Node, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = materials(
        search={},
        arms=[{"name": name, "latent_dim": width} for name, width in ARMS.items()],
        budget={"trials": 3, "minutes": 5, "trial_minutes": LIMIT_SECONDS / 60},
    )
    hanging, large = ARMS["hangs"], ARMS["needs too much memory"]

    def run_trial(config: dict[str, Any]) -> None:
        import torch

        from raystudy.execution import trial
        from raystudy.training import loop

        def train(job: Any, data: Any, session: Any) -> None:
            if job.model.latent_dim == hanging:
                time.sleep(600)
            if job.model.latent_dim == large and job.micro_batches == 1:
                torch.empty(10**15)
            loop.train(job, data, session)

        trial.train = train
        trial.run_trial(config)

    monkeypatch.setattr(tuner, "run_trial", run_trial)
    trials = search(study, ray)

    assert trials.keys() == ARMS.keys()
    hung, in_parts, well = (trials[arm] for arm in ARMS)
    assert (hung.state, hung.reason, len(hung.attempts)) == (TrialState.FAILED, "timeout", 1)
    assert f"longer than {LIMIT_SECONDS} s" in str(hung.detail)
    assert "time.sleep" not in str(hung.detail)
    assert "train" in (study.records.trial_folder(hung.id) / HUNG).read_text()
    assert LIMIT_SECONDS <= hung.seconds < LIMIT_SECONDS + 60
    assert hung.epochs == []
    assert [(one.state, one.reason, one.micro_batches) for one in in_parts.attempts] == [
        (TrialState.INTERRUPTED, "out of memory", 1),
        (TrialState.COMPLETE, None, 2),
    ]
    assert "you tried to allocate 4000000000000000 bytes" in str(in_parts.attempts[0].detail)
    assert [epoch["micro_batches"] for epoch in in_parts.epochs] == [2, 2, 2]
    assert (well.state, len(well.attempts), len(well.epochs)) == (TrialState.COMPLETE, 1, 3)


def test_a_storage_that_takes_no_more_ends_the_search_in_its_own_words_and_the_trial_can_go_on(
    materials: Callable[..., Materials], ray: tuple[Node, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> bool:
        raise RaystudyError("Optuna's storage takes no more")

    monkeypatch.setattr(SearchPolicy, "report", refuse)
    study = materials(search={}, arms=[{"name": "one"}], budget={"trials": 1, "minutes": 5})

    with pytest.raises(RaystudyError, match=r"^Optuna's storage takes no more$"):
        search(study, ray)

    (trial,) = study.records.read().trials
    assert (trial.state, trial.attempts[-1].state) == (TrialState.RUNNING, TrialState.INTERRUPTED)


def searched(study: Materials, **values: Any) -> TrialRecord:
    """Put a trial on record as a search would have left it, the one to be retrained."""
    config = study.spec.merge({"latent_dim": 8, "encoder": "onehot", "half_life": "concat", **values})
    trial = TrialRecord("t0000", config, canonical_hash(config), 1000, 7, "sampled", global_batch=config["batch_size"])
    study.records.trial_started(trial)
    study.records.trial_epoch(trial.id, {"epoch": 1, "valid_r2": 0.3, "epoch_seconds": 1.0, "eval_seconds": 0.1})
    study.records.trial_ended(trial.id, TrialState.COMPLETE)
    return trial


def retrain(study: Materials, capacity: tuple[Node, ...]) -> TrialRecord:
    with Progress(Console(stderr=True)) as progress:
        train_finalists(study, capacity, progress)
    (finalist,) = study.records.read().finalists
    return finalist


@pytest.mark.slow
def test_a_finalist_whose_worker_is_killed_goes_on_after_the_epochs_that_it_had(
    materials: Callable[..., Materials], ray: tuple[Node, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, died = materials(), tmp_path / "died"
    searched(study, learning_rate=0.003)

    def run_worker(config: dict[str, Any]) -> None:
        from raystudy.execution import worker

        class Mortal(worker.TrainSession):
            def report(self, metrics: dict[str, Any]) -> None:
                super().report(metrics)
                if self.rank == 0 and metrics["epoch"] == 2 and not died.exists():
                    died.write_text(json.dumps(metrics))
                    os.kill(os.getpid(), signal.SIGKILL)

        worker.TrainSession = Mortal
        worker.run_worker(config)

    monkeypatch.setattr(trainer, "run_worker", run_worker)
    finalist = retrain(study, ray[:1])

    assert [(one.state, one.reason) for one in finalist.attempts] == [
        (TrialState.INTERRUPTED, "worker lost"),
        (TrialState.COMPLETE, None),
    ]
    assert [epoch["epoch"] for one in finalist.attempts for epoch in one.epochs] == [1, 2, 3]
    trained = json.loads(died.read_text())
    for name in ("train_loss", "valid_r2", "epoch_seconds"):
        assert finalist.epochs[1][name] == trained[name], "the epoch that the dead worker had trained"
    assert (study.records.folder / "predictions" / f"{finalist.id}.parquet").exists()


@pytest.mark.slow
def test_a_finalist_with_a_loss_that_is_not_finite_fails_at_once_and_names_it(
    materials: Callable[..., Materials], ray: tuple[Node, ...]
) -> None:
    study = materials(training={"epochs": 3, "batch_size": 32, "attention": "sdpa", "precision": "fp32"})
    searched(study, weight_decay=1e30)

    with pytest.raises(StudyFailed, match=r"t0000-r0: nan: epoch 1: training loss (nan|inf).*same command tries again"):
        retrain(study, ray)

    (finalist,) = study.records.read().finalists
    assert [(one.state, one.reason, len(one.epochs)) for one in finalist.attempts] == [(TrialState.FAILED, "nan", 0)]


@pytest.mark.parametrize(
    ("nodes", "error", "said"),
    [
        ([], RaystudyError, r"^t0000-r0 cannot be trained any more: no node of the cluster is left\. .*same command"),
        ([{"Alive": False, "Resources": {}}], RaystudyError, "no node of the cluster is left"),
        ([{"Alive": True, "Resources": {"CPU": 2.0}}], TrialFailed, "^worker lost: .*worker process has died"),
    ],
)
def test_a_finalist_whose_train_controller_died_is_lost_and_without_any_node_the_study_ends(
    nodes: list[dict[str, Any]],
    error: type[RaystudyError],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fit() -> None:
        raise RayError("The actor is dead because its worker process has died.")

    def make_trainer(*_: Any, run_config: Any, **__: Any) -> SimpleNamespace:
        failures = run_config.failure_config
        assert (failures.max_failures, failures.max_preemption_failures) == (0, 0), "another attempt is for us to say"
        return SimpleNamespace(fit=fit)

    monkeypatch.setattr(trainer, "TorchTrainer", make_trainer)
    monkeypatch.setattr(trainer.ray, "nodes", lambda: nodes)
    task = Task("t0000-r0", {}, 1, str(tmp_path), "", "", ("protein",), 1, 1, 64, 1, True, False, None)

    with pytest.raises(error, match=said):
        trainer.train_finalist(task, 1, ResourcesSpec(), tmp_path)
