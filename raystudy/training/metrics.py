"""How good predictions are. ``r2`` is the coefficient of determination, ``pearson_r2`` the squared correlation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.floating]


def scores(measured: Floats, predicted: Floats, targets: Sequence[str]) -> dict[str, float]:
    """Both measures, over the genes [n, K] whose level was measured: means over the targets, and each target's own."""
    by_target: dict[str, dict[str, float]] = {}
    for target, truth, guess in zip(targets, measured.T, predicted.T, strict=True):
        known = np.isfinite(truth)
        by_target[target] = {
            "r2": r2(truth[known], guess[known]),
            "pearson_r2": pearson_r2(truth[known], guess[known]),
            "spearman": spearman(truth[known], guess[known]),
        }
    found = {
        name: float(np.mean([one[name] for one in by_target.values()])) for name in ("r2", "pearson_r2", "spearman")
    }
    if len(targets) > 1:
        found |= {f"{name}_{target}": value for target, one in by_target.items() for name, value in one.items()}
    return found


def r2(measured: Floats, predicted: Floats) -> float:
    """1 - residual / total sum of squares, in (-inf, 1]; 0 is what the mean of ``measured`` reaches."""
    measured, predicted = measured.astype(np.float64), predicted.astype(np.float64)
    return float(1 - ((measured - predicted) ** 2).sum() / ((measured - measured.mean()) ** 2).sum())


def pearson_r2(measured: Floats, predicted: Floats) -> float:
    """Squared Pearson correlation, in [0, 1]; 0 for a constant prediction, which explains nothing."""
    if np.ptp(predicted) == 0:  # unlike the deviation, exact
        return 0.0
    return float(np.corrcoef(measured.astype(np.float64), predicted.astype(np.float64))[0, 1] ** 2)


def spearman(measured: Floats, predicted: Floats) -> float:
    """Rank correlation, in [-1, 1]; 0 for a constant prediction."""
    return 0.0 if np.ptp(predicted) == 0 else float(stats.spearmanr(measured, predicted).statistic)
