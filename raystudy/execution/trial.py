"""One trial in a Tune worker process (the executor for trials of one worker)."""

from __future__ import annotations

import gc
import json
import traceback
from pathlib import Path
from typing import Any

import torch
from ray import tune

from raystudy.errors import Infeasible, Reason, TrialFailed
from raystudy.execution.failures import TimeLimit, one_line, out_of_memory_told
from raystudy.execution.task import Task
from raystudy.training.loop import train
from raystudy.training.session import Metrics

EPOCH = "epoch_metrics"
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
    """Tune's function trainable.

    A failure is reported, not raised: Tune would try it again, which helps only where the worker itself was lost.
    """
    task = Task(**config)
    told = _train(task)
    gc.collect()  # the next trial in this process shall find what this one held, whatever ended it
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if told is not None:
        kind, reason, detail = told
        tune.report({kind: json.dumps({"reason": reason, "detail": detail})})


def _train(task: Task) -> tuple[str, str, str] | None:
    """None, or what is to be reported instead of a value: its kind, its reason in the record's words, and detail."""
    folder = Path(task.folder)
    with TimeLimit(folder, task.limit_seconds) as limit:
        session = TuneSession(folder, limit)
        try:
            with out_of_memory_told(session.device):
                train(task.job(), task.data(), session)
        except Infeasible as refusal:
            return REFUSAL, BACKEND_REFUSED, str(refusal)
        except TrialFailed as failure:
            return FAILURE, failure.reason, failure.detail
        except Exception as error:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "error.txt").write_text(traceback.format_exc())
            detail = f"{type(error).__name__}: {one_line(error)} (see {folder / 'error.txt'})"
            return FAILURE, Reason.CRASH, detail
    return None
