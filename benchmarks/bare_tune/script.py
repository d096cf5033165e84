"""What is played under both systems: the curve of a trial, what befalls it, and the diary that tells the truth."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SLOTS = 2
"""Trials at a time."""
BROKEN, SECOND = 0.5, 0.25
"""Values of x whose trials may end otherwise than the rest."""
BROKEN_EPOCH = 3
LOW, HIGH = 0.2, 0.8
MAX_WIDTH = 32
"""Wider configurations are not to be trained."""
ENDED = "ended"
"""Marks in the folder that a driver was ended on purpose."""


def curve(x: float, epoch: int, overfitted: bool = False) -> float:
    """Validation R2 after an epoch: towards x, and if overfitted falling again after the third."""
    return x * (1 - 0.5**epoch) - 0.1 * max(0, epoch - 3) * overfitted


@dataclass(frozen=True)
class Run:
    """One session of a driver, and what its trials do."""

    folder: Path = Path()
    ending: str = "complete"
    num_trials: int = 4
    """That Tune is asked for in this session."""
    total: int | None = None
    """Trials of all sessions together, where that is another number; it is what raystudy is asked for."""
    epochs: int = 4
    space: str = "x"
    points: tuple[dict[str, float], ...] = ({"x": BROKEN},)
    early_stopping: bool = False
    several: bool = False
    """Objectives: R2 up and seconds down."""
    constrained: bool = False
    max_failures: int = 0
    seconds: float | None = None
    end_driver: tuple[int, int] | None = None
    """After how many results, and by which signal."""
    restore: bool = False
    name: str = "run"
    seed: int = 0

    def ending_at(self, x: float, epoch: int) -> str | None:
        """What befalls the trial in this epoch."""
        others = {"killed": "crash", "timeout": "timeout"}
        ending = self.ending if x == BROKEN else others.get(self.ending) if x == SECOND else None
        return ending if epoch == BROKEN_EPOCH else None

    def r2(self, x: float, epoch: int) -> float:
        """What the trial reports after an epoch."""
        if self.ending == "nan" and x == BROKEN and epoch >= BROKEN_EPOCH:
            return math.nan
        return curve(x, epoch, self.ending == "overfitted")

    def once(self, event: str) -> bool:
        """True when it is asked for the first time, by any process."""
        mark = self.folder / event
        first = not mark.exists()
        mark.touch()
        return first


class DriverEnd:
    """Ends the driver, its own process, once, at a result in the middle."""

    def __init__(self, run: Run) -> None:
        self._run, self._num_results = run, 0

    def result(self) -> None:
        self._num_results += 1
        if self._run.end_driver is not None:
            after, by = self._run.end_driver
            if self._num_results >= after and self._run.once(ENDED):
                os.kill(os.getpid(), by)


def storage_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'optuna.db'}"


def note_epoch(folder: Path, config: dict[str, Any], epoch: int) -> None:
    """A line of the diary; epoch 0: a worker was given what it must not train."""
    _append(folder / "diary.jsonl", {"config": config, "epoch": epoch})


def note_rungs(folder: Path, held: int) -> None:
    """How many entries the rungs of this driver's early stopping hold when a result comes in."""
    _append(folder / "rungs.jsonl", [os.getpid(), held])


def _append(path: Path, line: Any) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
