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
    measured = _test_labels(genes, targets, split)
    num_genes = int(np.isfinite(measured).any(axis=1).sum())
    return {
        name: {
            **{f"test_{key}": value for key, value in scores(measured, values[split.test], targets).items()},
            "num_genes": num_genes,
        }
        for name, values in predicted.items()
    }


def selection_bias(
    genes: Genes, targets: Sequence[str], split: Split, by_epoch: Floats, chosen_epoch: int
) -> dict[str, float | int]:
    """What a finalist would score at the epoch that is best on the test genes, as published work often reports it.

    ``by_epoch`` holds each epoch's predictions of the test genes (own units, [epochs, num_test, K]), ``chosen_epoch``
    (from 1) is the one that validation chose. ``selection_bias_*`` is by how much the best epoch's measure exceeds
    that one's, so never below 0. Call it where the test is opened, and choose nothing by it.
    """
    measured = _test_labels(genes, targets, split)
    by_measure: dict[str, list[float]] = {"r2": [], "pearson_r2": []}
    for predicted in by_epoch:
        found = scores(measured, predicted, targets)
        for name, values in by_measure.items():
            values.append(found[name])
    told: dict[str, float | int] = {}
    for name, values in by_measure.items():
        best = int(np.argmax(values))  # the first of equals
        told[f"test_{name}_best_epoch"] = values[best]
        told[f"epoch_by_test_{name}"] = best + 1
        told[f"selection_bias_{name}"] = values[best] - values[chosen_epoch - 1]
    return told


def _test_labels(genes: Genes, targets: Sequence[str], split: Split) -> npt.NDArray[np.float64]:
    return np.stack([genes.target(target)[split.test] for target in targets], axis=1)
