"""One trial of the search: in Tune's own worker process, or on workers of a TorchTrainer that this process starts."""

from __future__ import annotations

import gc
import json
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ray import get_runtime_context, tune
from ray.exceptions import RayError
from ray.train import UserCallback
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raystudy.errors import Infeasible, Reason, TrialFailed
from raystudy.execution.failures import TimeLimit, classify_loss, one_line, out_of_memory_told
from raystudy.execution.task import Task
from raystudy.execution.trainer import cancel_reservation, train_on_workers
from raystudy.execution.worker import EPOCH
from raystudy.study.sections import ResourcesSpec
from raystudy.training.loop import train
from raystudy.training.session import Metrics

POLL_SECONDS = 0.5
FAILURE = "failure"
REFUSAL = "refusal"
BACKEND_REFUSED = "attention backend"


class TuneSession:
    """A single worker that reports to Ray Tune."""

    rank = 0
    world_size = 1

    def __init__(self, folder: Path, limit: TimeLimit) -> None:
        self.folder = folder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._limit = limit

    def report(self, metrics: Metrics) -> None:
        with self._limit.paused():  # Tune keeps a worker waiting in here while its driver is busy, or has stopped it
            tune.report({EPOCH: json.dumps(metrics)})  # Tune would flatten what is nested


def run_trial(config: dict[str, Any]) -> None:
    """Tune's function trainable of the ``inprocess`` executor: the training loop is in this very process."""
    task = Task(**config)
    _tell_failures(partial(_train, task), Path(task.folder))
    gc.collect()  # the next trial in this process shall find what this one held, whatever ended it
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def run_nested_trial(config: dict[str, Any], resources: dict[str, Any], storage: str) -> None:
    """Tune's function trainable of the ``torch_trainer`` executor; this process waits for the workers and passes on."""
    task, asked = Task(**config), ResourcesSpec(**resources)
    _tell_failures(partial(_train_on_workers, task, asked, Path(storage)), Path(task.folder))


class PassOn(UserCallback):
    """Hands each epoch from Train's controller, a process of its own, to the trial's.

    Not Ray's `TuneReportCallback`: its queue is emptied by the very thread that it can block, and a trial whose last
    epoch came while the driver was busy would never end.
    """

    def __init__(self, epochs: Queue) -> None:
        self._epochs = epochs

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        # Of rank 0; waits until the one before is taken, so that no trial runs ahead.
        self._epochs.put((run_context.run_id, metrics[0]))


def _train_on_workers(task: Task, resources: ResourcesSpec, storage: Path) -> None:
    # On the head, as this process and the training's controller are, not on a machine that may be taken away.
    here = NodeAffinitySchedulingStrategy(get_runtime_context().get_node_id(), soft=False)
    epochs = Queue(maxsize=1, actor_options={"num_cpus": 0, "scheduling_strategy": here})
    with ThreadPoolExecutor(max_workers=1) as background:
        training = background.submit(train_on_workers, task, task.workers, resources, storage, [PassOn(epochs)])
        try:
            while not (training.done() and epochs.empty()):
                with suppress(Empty):
                    run_id, metrics = epochs.get(timeout=POLL_SECONDS)
                    try:
                        tune.report(metrics)
                    except SystemExit:  # how Tune ends a trial; this process is killed in a moment
                        cancel_reservation(run_id)
                        raise
        except RayError as error:  # the queue's process is gone
            raise TrialFailed(classify_loss(str(error)), one_line(error)) from error
        training.result()


def _train(task: Task) -> None:
    folder = Path(task.folder)
    with TimeLimit(folder, task.limit_seconds) as limit:
        session = TuneSession(folder, limit)
        with out_of_memory_told(session.device):
            train(task.job(), task.data(), session)


def _tell_failures(run: Callable[[], None], folder: Path) -> None:
    """Report what ``run`` raises, in the record's words.

    Raised from here, Tune would try it again, which helps only where the worker itself was lost.
    """
    try:
        run()
        return
    except Infeasible as refusal:
        kind, reason, detail = REFUSAL, BACKEND_REFUSED, str(refusal)
    except TrialFailed as failure:
        kind, reason, detail = FAILURE, failure.reason, failure.detail
    except Exception as error:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.txt").write_text(traceback.format_exc())
        kind, reason = FAILURE, Reason.CRASH
        detail = f"{type(error).__name__}: {one_line(error)} (see {folder / 'error.txt'})"
    tune.report({kind: json.dumps({"reason": reason, "detail": detail})})
