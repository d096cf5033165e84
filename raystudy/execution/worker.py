"""What each worker of a TorchTrainer does: the one training loop, and a finalist's predictions from its best epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train.torch import get_device

from raystudy.execution.failures import TimeLimit, lost_ranks_told, out_of_memory_told
from raystudy.execution.task import PREDICTIONS, Task
from raystudy.training import checkpoint
from raystudy.training.loop import train
from raystudy.training.reference import keep_test_epochs
from raystudy.training.session import Metrics
from raystudy.training.trained import TrainedModel

EPOCH = "epoch_metrics"


class TrainSession:
    """One of the workers that report to Ray Train."""

    def __init__(self, folder: Path, limit: TimeLimit) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = get_device()
        self.folder = folder
        self._limit = limit

    def report(self, metrics: Metrics) -> None:
        with self._limit.paused():  # Train keeps a worker waiting in here while its controller is busy
            ray.train.report({EPOCH: json.dumps(metrics)})  # Tune would flatten what is nested


def run_worker(config: dict[str, Any]) -> None:
    """Train as one of several workers; rank 0 writes a finalist's predictions for every gene beside its weights."""
    task = Task(**config)
    folder, rank = Path(task.folder), ray.train.get_context().get_world_rank()
    with TimeLimit(folder, task.limit_seconds, rank) as limit:
        session = TrainSession(folder, limit)
        with lost_ranks_told(limit), out_of_memory_told(session.device):
            data = task.data()
            train(task.job(), data, session, keep_test_epochs(data, session) if task.reference else None)
            if not task.predicts:
                return
            best = TrainedModel.load(session.folder / checkpoint.BEST, session.device)
            predicted = best.predict_inputs(data.inputs, session)
            if session.rank == 0:
                checkpoint.save(session.folder / PREDICTIONS, {"predicted": torch.from_numpy(predicted)}, {})
