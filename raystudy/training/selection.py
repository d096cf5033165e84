"""Choosing on validation, and the one place where test labels are read.

Everything is chosen (configuration, epoch, penalty, rounds) on the validation genes. Then `open_test` scores what was
predicted before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from raystudy.data.genes import Genes
from raystudy.data.splits import Split
from raystudy.tracking.records import TrialRecord, TrialState
from raystudy.training.metrics import scores

Floats = npt.NDArray[np.floating]


def choose_finalists(trials: Sequence[TrialRecord], count: int) -> list[TrialRecord]:
    """The ``count`` trials with the best validation R2, best first; pruned ones count with what they reached."""
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    scored = [trial for trial in trials if trial.valid_r2 is not None and trial.state in ended]
    return sorted(scored, key=lambda trial: (-(trial.valid_r2 or 0.0), trial.id))[:count]


def open_test(
    genes: Genes, targets: Sequence[str], split: Split, predicted: Mapping[str, Floats]
) -> dict[str, dict[str, Any]]:
    """Read the test labels and score each model's predictions (own units, [num_genes, K]) on them, by name."""
    measured = np.stack([genes.target(target)[split.test] for target in targets], axis=1)
    num_genes = int(np.isfinite(measured).any(axis=1).sum())
    return {
        name: {
            **{f"test_{key}": value for key, value in scores(measured, values[split.test], targets).items()},
            "num_genes": num_genes,
        }
        for name, values in predicted.items()
    }
