"""One trial in a Tune worker process (the executor for trials of one worker)."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import torch
from ray import tune

from raystudy.errors import Infeasible, TrialFailed
from raystudy.execution.task import Task
from raystudy.training.loop import train
from raystudy.training.session import Metrics

EPOCH = "epoch_metrics"
FAILURE = "failure"
REFUSAL = "refusal"


class TuneSession:
    """A single worker that reports to Ray Tune."""

    rank = 0
    world_size = 1

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def report(self, metrics: Metrics) -> None:
        tune.report({EPOCH: json.dumps(metrics)})  # Tune would flatten what is nested


def run_trial(config: dict[str, Any]) -> None:
    """Tune's function trainable.

    A failure is reported, not raised: Tune would try it again, which helps only where the worker itself was lost.
    """
    task = Task(**config)
    folder = Path(task.folder)
    try:
        train(task.job(), task.data(), TuneSession(folder))
    except Infeasible as refusal:
        tune.report({REFUSAL: str(refusal)})
    except TrialFailed as failure:
        tune.report({FAILURE: str(failure)})
    except Exception as error:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.txt").write_text(traceback.format_exc())
        tune.report({FAILURE: f"crash: {type(error).__name__}: {error} (see {folder / 'error.txt'})"})
