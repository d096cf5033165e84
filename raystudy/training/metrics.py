"""How good predictions are. ``r2`` is the coefficient of determination, ``pearson_r2`` the squared correlation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.floating]


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
