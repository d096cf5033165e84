"""Intervals from validation residuals, and whether they hold on other genes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raystudy.errors import DataError
from raystudy.report.compare import Pairs
from raystudy.report.conformal import half_widths, mean_predictions, measured_coverage
from raystudy.tracking.predictions import write_predictions
from raystudy.tracking.records import Records


def pairs(errors: np.ndarray, target: str = "protein") -> Pairs:
    return {target: {f"g{number}": (float(error), 0.0) for number, error in enumerate(errors)}}


def test_the_half_width_is_the_residual_of_the_finite_sample_rank() -> None:
    errors = np.array([3, -1, 7, -9, 5, 2, -4, 6, -8], float)

    assert half_widths(pairs(errors), 0.9) == {"protein": 9.0}, "ceil(10 * 0.9) = 9, the largest of nine"
    assert half_widths(pairs(errors), 0.8) == {"protein": 8.0}
    assert half_widths(pairs(errors), 0.75) == {"protein": 8.0}, "ceil(7.5) = 8"


def test_too_few_genes_for_a_coverage_are_refused_with_how_many_it_needs() -> None:
    with pytest.raises(DataError, match=r"8 validation genes.*coverage 0\.9, which needs 9"):
        half_widths(pairs(np.ones(8)), 0.9)


@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_new_genes_like_those_of_the_residuals_are_covered_as_often_as_asked(coverage: float) -> None:
    random, covered, rounds, num_genes = np.random.default_rng(0), 0.0, 400, 60
    for _ in range(rounds):
        errors = random.standard_t(3, 2 * num_genes)  # whatever their distribution
        width = half_widths(pairs(errors[:num_genes]), coverage)
        covered += measured_coverage(pairs(errors[num_genes:]), width)["protein"]["coverage"] / rounds

    expected = np.ceil((num_genes + 1) * coverage) / (num_genes + 1)
    assert covered == pytest.approx(expected, abs=0.01)


def test_the_coverages_interval_is_the_exact_binomial_one() -> None:
    errors = np.array([0.5] * 18 + [2.0] * 2)

    found = measured_coverage(pairs(errors), {"protein": 1.0})["protein"]

    assert (found["num_covered"], found["num_genes"], found["coverage"]) == (18, 20, 0.9)
    assert found["interval"] == pytest.approx((0.683, 0.988), abs=5e-4)  # Clopper-Pearson, published tables


def test_each_gene_is_averaged_over_those_that_have_it_in_that_part(tmp_path: Path) -> None:
    ids, measured = np.array(["a", "b", "c", "d"]), np.zeros((4, 1))
    for name, valid, level in (("t-r0", [0, 1], 1.0), ("t-r1", [0, 1], 3.0), ("t-r2", [2], 5.0)):
        rows = {"train": [row for row in range(3) if row not in valid], "valid": valid, "test": [3]}
        parts = {part: np.array(one) for part, one in rows.items()}
        write_predictions(tmp_path, name, ids, parts, ["protein"], np.full((4, 1), level), measured)
    record, names = Records(tmp_path).read(), ["t-r0", "t-r1", "t-r2"]

    assert mean_predictions(record, names, "valid") == {"protein": {"a": (2.0, 0.0), "b": (2.0, 0.0), "c": (5.0, 0.0)}}
    assert mean_predictions(record, names, "test") == {"protein": {"d": (3.0, 0.0)}}
    assert mean_predictions(record, [*names, "t-r3"], "test") is None


def test_sealed_genes_have_no_mean_prediction(fake_study: Callable[..., Records]) -> None:
    record = fake_study(opened=False).read()

    assert mean_predictions(record, ["t0001-r0"], "test") is None
