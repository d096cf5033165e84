"""A finalist on Ray Train: the same loop on every worker that fits, then predictions from its best epoch."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import ray.train
import torch
from ray.exceptions import RayError
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from raystudy.errors import RaystudyError, Reason, TrialFailed
from raystudy.execution.capacity import bundle, nodes_of
from raystudy.execution.failures import (
    HUNG,
    TimeLimit,
    classify_loss,
    one_line,
    out_of_memory_told,
    timed_out,
    why_training_failed,
)
from raystudy.execution.task import Task
from raystudy.study.sections import ResourcesSpec
from raystudy.training import checkpoint
from raystudy.training.loop import train
from raystudy.training.reference import keep_test_epochs
from raystudy.training.session import Metrics
from raystudy.training.trained import TrainedModel

PREDICTIONS = "predictions.safetensors"


class TrainSession:
    """One of several workers that report to Ray Train."""

    def __init__(self, folder: Path) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = get_device()
        self.folder = folder

    def report(self, metrics: Metrics) -> None:
        ray.train.report(metrics)


def run_worker(config: dict[str, Any]) -> None:
    """Train one finalist as one of its workers; rank 0 writes its predictions for every gene beside its weights."""
    task = Task(**config)
    session = TrainSession(Path(task.folder))
    with (
        TimeLimit(session.folder, None if session.rank else task.limit_seconds),
        out_of_memory_told(session.device),
    ):
        data = task.data()
        train(task.job(), data, session, keep_test_epochs(data, session) if task.reference else None)
        best = TrainedModel.load(session.folder / checkpoint.BEST, session.device)
        predicted = best.predict_inputs(data.inputs, session)
        if session.rank == 0:
            checkpoint.save(session.folder / PREDICTIONS, {"predicted": torch.from_numpy(predicted)}, {})


def train_finalist(task: Task, num_workers: int, resources: ResourcesSpec, storage: Path) -> list[Metrics]:
    """Train on ``num_workers`` workers, going on from the last checkpoint; the metrics of every epoch.

    Raises TrialFailed when training fails for good, with the reason that its workers or Ray gave, and RaystudyError
    when the cluster has no node left.
    """
    timed_out(Path(task.folder))  # of an earlier session, which did not live to tell
    # Two ranks on parts of one GPU are refused by NCCL.
    alone = resources.model_copy(update={"gpus_per_worker": math.ceil(resources.gpus_per_worker)})
    trainer = TorchTrainer(
        run_worker,
        train_loop_config=task.as_json(),
        torch_config=TorchConfig(backend="nccl" if resources.gpus_per_worker else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=num_workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=bundle(alone if num_workers > 1 else resources),
        ),
        run_config=ray.train.RunConfig(
            name=task.trial_id,
            storage_path=str(storage.resolve()),
            # Ray would try a NaN again too; which failures are worth another attempt is for the caller to say.
            failure_config=ray.train.FailureConfig(
                max_failures=0, max_preemption_failures=0, controller_failure_limit=3
            ),
        ),
    )
    # In the main thread Ray Train would take over Ctrl-C, end the process with code 0, and not give it back.
    background = ThreadPoolExecutor(max_workers=1)
    try:
        background.submit(trainer.fit).result()
    except ray.train.TrainingFailedError as error:
        failure = why_training_failed(error)
        if timed_out(Path(task.folder)):
            failure = TrialFailed(
                Reason.TIMEOUT, f"it took longer than {task.limit_seconds:g} s, see {Path(task.folder) / HUNG}"
            )
        raise failure from error
    except RayError as error:  # Train's own process is gone, and perhaps all of Ray
        if not nodes_of(ray.nodes()):
            raise RaystudyError(
                f"{task.trial_id} cannot be trained any more: no node of the cluster is left. Everything so far is "
                "kept; the same command goes on when the machines are back"
            ) from None
        raise TrialFailed(classify_loss(str(error)), one_line(error)) from error
    finally:
        background.shutdown(wait=False)
    _, state = checkpoint.load(Path(task.folder) / checkpoint.LAST)
    history: list[Metrics] = state["history"]
    return history


def finalist_predictions(task: Task) -> npt.NDArray[np.float64]:
    """What `run_worker` predicted for every gene, in the labels' own units, [num_genes, K]."""
    tensors, _ = checkpoint.load(Path(task.folder) / PREDICTIONS)
    return tensors["predicted"].numpy()
