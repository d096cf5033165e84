"""Non-neural baselines on counted features: what a Perceiver has to beat to be worth its training.

Shapes: n genes, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score

from raystudy.data.batches import StudyData, standardise
from raystudy.data.encode import composition, kmer_counts

Floats = npt.NDArray[np.floating]
KMERS = (1, 2, 3, 4)
RIDGE_PENALTIES = np.logspace(0, 5, 16)
BOOSTING_ROUNDS = 400


def counted_features(data: StudyData) -> Floats:
    """k-mer frequencies (k = 1-4) of the window, half-life features, amino-acid fractions, log protein length, [n, F].

    The same window, features and proteins that the networks read. Missing half-life features stay NaN; one that no
    training gene has is left out.
    """
    kmers = [kmer_counts(data.windows_NL, k) / data.windows_NL.shape[1] for k in KMERS]
    amino_acids = composition(data.residues, data.residue_offsets)
    length = np.log10(np.maximum(data.protein_lengths, 1))[:, None]
    known = np.isfinite(data.raw_half_life_NH[data.split.train]).any(axis=0)
    return np.hstack([*kmers, data.raw_half_life_NH[:, known], amino_acids, length])


def ridge(features: Floats, data: StudyData) -> Floats:
    """Ridge regression; the penalty is the one with the least leave-one-out error on the training genes."""
    train = data.split.train
    standardised = standardise(features, train)
    model = RidgeCV(RIDGE_PENALTIES).fit(standardised[train], data.labels[train])
    return model.predict(standardised)


def boosting(features: Floats, data: StudyData) -> Floats:
    """Gradient-boosted trees; the number of rounds is chosen on the validation genes, as a network's epoch is."""
    train, valid = data.split.train, data.split.valid
    model = HistGradientBoostingRegressor(
        max_iter=BOOSTING_ROUNDS, learning_rate=0.05, l2_regularization=1.0, early_stopping=False, random_state=0
    ).fit(features[train], data.labels[train])
    scores = [r2_score(data.labels[valid], predicted) for predicted in model.staged_predict(features[valid])]
    return next(islice(model.staged_predict(features), int(np.argmax(scores)), None))


BASELINES: dict[str, Callable[[Floats, StudyData], Floats]] = {"ridge": ridge, "gbm": boosting}
"""Name -> standardised predictions [n] for all genes, from features and the train and valid labels."""
