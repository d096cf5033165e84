"""raystudy: how well expression can be predicted from sequence, and which architecture does it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raystudy.training.trained import TrainedModel

__version__ = "0.1.0"


def load(path: str | Path, device: str = "cpu") -> TrainedModel:
    """A trained model from its checkpoint or from the folder of a trial or finalist; see `TrainedModel`."""
    from raystudy.training.trained import TrainedModel

    return TrainedModel.load(Path(path), device)
