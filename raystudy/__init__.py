"""raystudy: how well expression can be predicted from sequence, and which architecture does it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raystudy.training.exported import Ensemble
    from raystudy.training.trained import TrainedModel

__version__ = "0.1.0"


def load(path: str | Path, device: str = "cpu") -> TrainedModel | Ensemble:
    """A trained model from its checkpoint, from the folder of a trial or finalist, or from an export.

    An export of several members is an `Ensemble`. Nothing is unpickled. Raises DataError where it is none of these.
    """
    from raystudy.training.exported import is_export, load_export
    from raystudy.training.trained import TrainedModel

    return load_export(Path(path), device) if is_export(Path(path)) else TrainedModel.load(Path(path), device)
