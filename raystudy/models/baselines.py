"""Non-neural baselines: what a network has to beat to be worth its training.

Shapes: n genes, F features, K targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score

from raystudy.data.batches import FeatureScale, cut_proteins
from raystudy.data.encode import NUM_SYMBOLS, composition, kmer_counts
from raystudy.data.genes import Genes
from raystudy.data.splits import Split
from raystudy.study.model import Input, ModelSpec

Floats = npt.NDArray[np.floating]
KMERS = (1, 2, 3, 4)
RIDGE_PENALTIES = np.logspace(0, 5, 16)
BOOSTING_ROUNDS = 400


def counted_features(genes: Genes, networks: Sequence[ModelSpec]) -> Floats:
    """What can be counted in the same inputs that these networks read, no more and no less, float32 [n, F].

    DNA gives k-mer frequencies (k = 1-4) of the bases that any of them reads, a protein its amino-acid fractions and
    its log length, its codons their fractions besides; half-life features stand as they are, NaN where missing.
    """
    inputs = frozenset[Input]().union(*(model.inputs for model in networks))
    parts: list[Floats] = []
    if "dna" in inputs:
        read = [model.window_bp for model in networks if "dna" in model.inputs]
        windows = genes.windows((max(up for up, _ in read), max(down for _, down in read)))
        parts += [kmer_counts(windows, k) / windows.shape[1] for k in KMERS]
    if "half_life" in inputs:
        parts.append(genes.features)
    if {"protein", "codon"} & inputs:
        longest = max(model.max_protein for model in networks if {"protein", "codon"} & model.inputs)
        residues, offsets = cut_proteins(genes.protein_tokens, genes.protein_offsets, longest)
        parts += [composition(residues, offsets), np.log10(np.maximum(np.diff(offsets), 1))[:, None]]
        if "codon" in inputs:
            parts.append(composition(*cut_proteins(*genes.codons, longest), NUM_SYMBOLS["codon"]))
    return np.hstack(parts)


def ridge(features: Floats, labels: Floats, split: Split) -> Floats:
    """Ridge regression; the penalty is the one with the least leave-one-out error on the training genes.

    A missing feature stands at the training genes' mean, and an indicator beside it says so; trees read it as it is.
    """
    missing = np.isnan(features)
    in_part = missing[:, missing.any(axis=0) & ~missing.all(axis=0)]
    features = np.hstack([features, np.unique(in_part, axis=1)])  # a table lacks all of a gene's values, or none
    standardised = FeatureScale.fit(features, split.train).apply(features)
    train = split.train[np.isfinite(labels[split.train])]
    return RidgeCV(RIDGE_PENALTIES).fit(standardised[train], labels[train]).predict(standardised)


def boosting(features: Floats, labels: Floats, split: Split) -> Floats:
    """Gradient-boosted trees; the number of rounds is chosen on the validation genes, as a network's epoch is."""
    train, valid = (part[np.isfinite(labels[part])] for part in (split.train, split.valid))
    model = HistGradientBoostingRegressor(
        max_iter=BOOSTING_ROUNDS, learning_rate=0.05, l2_regularization=1.0, early_stopping=False, random_state=0
    ).fit(features[train], labels[train])
    scores = [r2_score(labels[valid], predicted) for predicted in model.staged_predict(features[valid])]
    return next(islice(model.staged_predict(features), int(np.argmax(scores)), None))


BASELINES: dict[str, Callable[[Floats, Floats, Split], Floats]] = {"ridge": ridge, "gbm": boosting}
"""Name -> standardised predictions [n] for all genes, from features [n, F] and the open labels [n] of one target."""


def fit_baseline(name: str, features: Floats, labels: Floats, split: Split) -> Floats:
    """Standardised predictions [n, K] for all genes from the open labels [n, K], one model a target.

    Features that no training gene has are left out.
    """
    known = np.isfinite(features[split.train]).any(axis=0)
    columns = [BASELINES[name](features[:, known], column, split) for column in labels.T]
    return np.stack(columns, axis=1)
