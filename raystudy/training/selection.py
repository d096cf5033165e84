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
from raystudy.training.metrics import pearson_r2, r2, spearman

Floats = npt.NDArray[np.floating]


def choose_finalists(trials: Sequence[TrialRecord], count: int) -> list[TrialRecord]:
    """The ``count`` trials with the best validation R2, best first; pruned ones count with what they reached."""
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    scored = [trial for trial in trials if trial.valid_r2 is not None and trial.state in ended]
    return sorted(scored, key=lambda trial: (-(trial.valid_r2 or 0.0), trial.id))[:count]


def open_test(genes: Genes, target: str, split: Split, predicted: Mapping[str, Floats]) -> dict[str, dict[str, Any]]:
    """Read the test labels and score each model's predictions (own unit, [num_genes]) on them, by name."""
    measured = genes.target(target)[split.test]
    return {
        name: {
            "test_r2": r2(measured, values[split.test]),
            "test_pearson_r2": pearson_r2(measured, values[split.test]),
            "test_spearman": spearman(measured, values[split.test]),
            "num_genes": len(measured),
        }
        for name, values in predicted.items()
    }
