"""How far off predictions were on genes that had no part in the training, as an interval around new ones.

Pairs are target -> gene -> (predicted, measured), in the labels' own units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from scipy.stats import binomtest

from raystudy.errors import DataError
from raystudy.report.compare import Pairs, predictions
from raystudy.tracking.records import JsonObject, StudyRecord


def mean_predictions(record: StudyRecord, identities: Sequence[str], part: str) -> Pairs | None:
    """Each gene's mean over those that have it in this part of their split; None where one has no predictions.

    In ``valid`` that is the mean over the seeds of the one fold that validates the gene, in ``test`` over everything.
    """
    gathered: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for identity in identities:
        found = predictions(record, identity, part)
        if found is None:
            return None
        for target, levels in found.items():
            for gene, pair in levels.items():
                gathered.setdefault(target, {}).setdefault(gene, []).append(pair)
    return {
        target: {gene: (fmean(predicted for predicted, _ in pairs), pairs[0][1]) for gene, pairs in levels.items()}
        for target, levels in gathered.items()
    } or None


def half_widths(out_of_fold: Pairs, coverage: float) -> dict[str, float]:
    """By measured target, what to add to and take from a prediction so that this share of genes lies between.

    The ceil((n + 1) coverage)-th smallest of the n absolute residuals, which covers a new gene with at least that
    probability where it is exchangeable with these and the model did not see them: split conformal prediction, Lei et
    al. 2018, Distribution-free predictive inference for regression, JASA 113. Residuals of several folds around the
    mean of their models are the cross-validated form, for which the bound holds only where the folds' models are alike;
    see CV+ in Barber et al. 2021, Predictive inference with the jackknife+, Annals of Statistics 49.

    Raises DataError where there are too few genes for so large a coverage.
    """
    found = {}
    for target, levels in out_of_fold.items():
        residuals = sorted(abs(predicted - measured) for predicted, measured in levels.values())
        rank = math.ceil((len(residuals) + 1) * coverage - 1e-9)
        if rank > len(residuals):
            raise DataError(
                f"{len(residuals)} validation genes have a {target} level, too few for an interval at coverage "
                f"{coverage:g}, which needs {math.ceil(coverage / (1 - coverage) - 1e-9)}; ask for a smaller --coverage"
            )
        found[target] = residuals[max(rank, 1) - 1]
    return found


def measured_coverage(opened: Pairs, half_width: dict[str, float]) -> dict[str, JsonObject]:
    """By target with a half-width, how many genes lie within, and the exact 95 % binomial interval of their share.

    Source: Clopper and Pearson 1934, Biometrika 26. Genes of one family or neighbourhood are not independent, so the
    true interval is somewhat wider.
    """
    found = {}
    for target in opened.keys() & half_width.keys():
        levels = opened[target]
        covered = sum(abs(predicted - measured) <= half_width[target] for predicted, measured in levels.values())
        interval = binomtest(covered, len(levels)).proportion_ci(0.95, method="exact")
        found[target] = {
            "num_genes": len(levels),
            "num_covered": covered,
            "coverage": covered / len(levels),
            "interval": (float(interval.low), float(interval.high)),
        }
    return found
