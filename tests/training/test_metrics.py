from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import r2_score

from raystudy.training.metrics import pearson_r2, r2, scores, spearman

RANDOM = np.random.default_rng(0)
MEASURED = RANDOM.normal(3, 2, 200)
PREDICTED = 0.6 * MEASURED + RANDOM.normal(0, 1, 200)


def test_the_numbers_are_those_of_sklearn_and_scipy() -> None:
    assert r2(MEASURED, PREDICTED) == pytest.approx(r2_score(MEASURED, PREDICTED))
    assert pearson_r2(MEASURED, PREDICTED) == pytest.approx(stats.pearsonr(MEASURED, PREDICTED).statistic ** 2)
    assert spearman(MEASURED, PREDICTED) == pytest.approx(stats.spearmanr(MEASURED, PREDICTED).statistic)


def test_r2_and_squared_correlation_are_two_things() -> None:
    doubled = 2 * MEASURED + 5

    assert pearson_r2(MEASURED, doubled) == pytest.approx(1)
    assert r2(MEASURED, doubled) < 0
    assert pearson_r2(MEASURED, -MEASURED) == pytest.approx(1)
    assert r2(MEASURED, MEASURED) == 1


def test_a_constant_prediction_explains_nothing_and_warns_of_nothing() -> None:
    constant = np.full(200, MEASURED.mean())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert r2(MEASURED, constant) == pytest.approx(0)
        assert pearson_r2(MEASURED, constant) == 0
        assert spearman(MEASURED, constant) == 0


def test_sums_are_kept_in_double_precision() -> None:
    offset = (MEASURED + 1e4).astype(np.float32), (PREDICTED + 1e4).astype(np.float32)

    assert r2(*offset) == pytest.approx(r2_score(MEASURED, PREDICTED), abs=1e-3)


def test_the_scores_of_several_levels_are_means_and_each_levels_own_over_the_genes_that_have_it() -> None:
    measured, predicted = np.stack([MEASURED, -MEASURED], axis=1), np.stack([PREDICTED, 3 - MEASURED], axis=1)
    measured[:150, 1] = np.nan

    found = scores(measured, predicted, ("mrna", "protein"))

    expected = {
        "r2_mrna": r2_score(MEASURED, PREDICTED),
        "r2_protein": r2_score(-MEASURED[150:], 3 - MEASURED[150:]),
        "pearson_r2_mrna": stats.pearsonr(MEASURED, PREDICTED).statistic ** 2,
        "pearson_r2_protein": 1.0,
        "spearman_mrna": stats.spearmanr(MEASURED, PREDICTED).statistic,
        "spearman_protein": 1.0,
    }
    means = {
        name: (expected[f"{name}_mrna"] + expected[f"{name}_protein"]) / 2 for name in ("r2", "pearson_r2", "spearman")
    }
    assert found == pytest.approx({**expected, **means})


def test_the_scores_of_one_level_carry_no_name() -> None:
    found = scores(MEASURED[:, None], PREDICTED[:, None], ("protein",))

    assert found == {
        "r2": r2(MEASURED, PREDICTED),
        "pearson_r2": pearson_r2(MEASURED, PREDICTED),
        "spearman": spearman(MEASURED, PREDICTED),
    }
