"""What the training loop knows about where it runs: its rank, its device, its folder, and whom to tell.

`LocalSession` runs anywhere that PyTorch does; the ones for Ray stand in execution/.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

Metrics = dict[str, Any]


class Session(Protocol):
    """One worker's surroundings. Every rank calls `report` after every epoch."""

    rank: int
    world_size: int
    device: torch.device
    folder: Path
    """Where checkpoints stand; the same for all ranks, and for the next attempt at the same trial."""

    def report(self, metrics: Metrics) -> None: ...


class LocalSession:
    """A single process; ``on_epoch`` is called with each epoch's metrics."""

    rank = 0
    world_size = 1

    def __init__(self, folder: Path, on_epoch: Callable[[Metrics], None] | None = None, device: str = "cpu") -> None:
        self.folder = folder
        self.device = torch.device(device)
        self._on_epoch = on_epoch

    def report(self, metrics: Metrics) -> None:
        if self._on_epoch is not None:
            self._on_epoch(metrics)
