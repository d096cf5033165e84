"""One trial in a Tune worker process (the executor for trials of one worker)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ray import tune

from raystudy.errors import TrialFailed
from raystudy.execution.task import Task
from raystudy.training.loop import train
from raystudy.training.session import Metrics

FAILURE = "failure"


class TuneSession:
    """A single worker that reports to Ray Tune."""

    rank = 0
    world_size = 1

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def report(self, metrics: Metrics) -> None:
        tune.report(metrics)


def run_trial(config: dict[str, Any]) -> None:
    """Tune's function trainable. A failure that has a name is reported, not raised: Tune would only try it again."""
    task = Task(**config)
    try:
        train(task.job(), task.data(), TuneSession(Path(task.folder)))
    except TrialFailed as failure:
        tune.report({FAILURE: failure.reason, "detail": str(failure)})
