"""The estimators on clouds of known dimension, and on clouds that nothing should be said about."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from skdim.id import MLE, TwoNN, lPCA

from raystudy.data.encode import kmer_counts, tokenize_dna
from raystudy.dimension.estimators import ESTIMATORS, DimensionEstimate, estimate

Points = NDArray[np.float64]


def linear(random: np.random.Generator, dimension: int, num_points: int) -> Points:
    return random.normal(size=(num_points, dimension)) @ random.normal(size=(dimension, 20))


def sphere(random: np.random.Generator, dimension: int, num_points: int) -> Points:
    points = random.normal(size=(num_points, dimension + 1))
    return points / np.linalg.norm(points, axis=1)[:, None]


def curved(random: np.random.Generator, dimension: int, num_points: int) -> Points:
    angles = random.random((num_points, dimension)) @ random.normal(size=(dimension, 32))
    return np.hstack([np.sin(angles), np.cos(angles)])


def swiss_roll(random: np.random.Generator, dimension: int, num_points: int) -> Points:
    assert dimension == 2
    turn = 1.5 * np.pi * (1 + 2 * random.random(num_points))
    return np.column_stack([turn * np.cos(turn), 21 * random.random(num_points), turn * np.sin(turn)])


def assert_refused(found: DimensionEstimate, reason: str) -> None:
    assert found.estimates == {}
    assert (found.consensus, found.mean, found.interval) == (None, None, None)
    assert set(found.refused) == set(ESTIMATORS)
    assert all(reason in why for why in found.refused.values())


def assert_sound(found: DimensionEstimate) -> None:
    """Every estimator answers above 1 or says why not, and the JSON is strict."""
    assert set(found.estimates) | set(found.refused) == set(ESTIMATORS)
    assert not set(found.estimates) & set(found.refused)
    assert all(math.isfinite(value) and value > 1 for value in found.estimates.values())
    assert all(found.refused.values())
    json.dumps(found.as_json(), allow_nan=False)


@pytest.mark.parametrize("manifold", [linear, sphere, curved], ids=lambda manifold: manifold.__name__)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_five_dimensions_are_found_within_a_fifth(manifold, seed: int) -> None:
    found = estimate(manifold(np.random.default_rng(seed), 5, 1000), seed=seed, bootstrap=0)
    assert_sound(found)
    assert found.consensus == pytest.approx(5, rel=0.2)
    assert found.consensus == np.median(list(found.estimates.values()))
    assert found.mean == np.mean(list(found.estimates.values()))


@pytest.mark.parametrize(("manifold", "dimension"), [(linear, 10), (curved, 10), (swiss_roll, 2), (sphere, 2)])
def test_other_dimensions_are_found_within_a_quarter(manifold, dimension: int) -> None:
    found = estimate(manifold(np.random.default_rng(0), dimension, 1000), bootstrap=0)
    assert found.consensus == pytest.approx(dimension, rel=0.25)


def test_the_interval_holds_the_truth_and_the_consensus() -> None:
    points = sphere(np.random.default_rng(1), 5, 600)
    found = estimate(points)
    assert found.interval is not None
    low, high = found.interval
    assert low <= 5 <= high
    assert found.consensus is not None
    assert low <= found.consensus <= high
    without = estimate(points, bootstrap=0).interval
    assert without is not None
    assert low <= without[0] < without[1] <= high


def test_the_same_seed_gives_the_same_answer_and_the_points_stay() -> None:
    points = linear(np.random.default_rng(2), 4, 200)
    before = points.copy()
    first, second = estimate(points, seed=5), estimate(points, seed=5)
    assert (first.estimates, first.interval) == (second.estimates, second.interval)
    assert first.interval != estimate(points, seed=6).interval
    np.testing.assert_array_equal(points, before)


@pytest.mark.parametrize("integers", [True, False], ids=["counts", "values"])
def test_shared_distances_give_what_scikit_dimension_gives_alone(integers: bool) -> None:
    points = 1000 * linear(np.random.default_rng(3), 6, 300)
    points = np.rint(points / 30) if integers else points
    found = estimate(points, bootstrap=0)
    expected = {"TwoNN": TwoNN(), "MLE": MLE(), "lPCA": lPCA()}
    for name, estimator in expected.items():
        with np.errstate(divide="ignore", invalid="ignore"):
            alone = estimator.fit(points).dimension_
        assert found.estimates[name] == pytest.approx(alone, rel=1e-4), name


def test_duplicates_are_dropped_and_counted() -> None:
    points = linear(np.random.default_rng(4), 5, 300)
    points[0, 0] = 0.0
    copies = points[:40].copy()
    copies[0, 0] = -0.0
    once, twice = estimate(points, bootstrap=0), estimate(np.vstack([points, copies]), bootstrap=0)
    assert (once.num_points, once.num_duplicates) == (300, 0)
    assert (twice.num_points, twice.num_duplicates) == (300, 40)
    assert twice.estimates == once.estimates


def test_constant_points_are_refused() -> None:
    found = estimate(np.full((200, 8), 3.5))
    assert_refused(found, "all 200 points are the same")
    assert (found.num_points, found.num_duplicates) == (1, 199)


def test_all_duplicates_are_refused() -> None:
    points = np.repeat(linear(np.random.default_rng(5), 3, 20), 30, axis=0)
    assert_refused(estimate(points), "only 20 of 600 points are distinct")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    points = linear(np.random.default_rng(6), 3, 100)
    points[[3, 7], [0, 1]] = bad
    assert_refused(estimate(points), "2 of 100 points have values that are not finite")


@pytest.mark.parametrize("num_points", [0, 1, 49])
def test_fewer_than_fifty_points_are_refused(num_points: int) -> None:
    assert_refused(estimate(linear(np.random.default_rng(7), 3, num_points)), "at least 50")


def test_fifty_points_are_answered() -> None:
    found = estimate(linear(np.random.default_rng(8), 4, 50))
    assert_sound(found)
    assert found.consensus == pytest.approx(4, rel=0.3)


@pytest.mark.parametrize("length", [8, 40])
def test_one_hot_ties_are_refused_and_what_they_would_have_said_is_shown(length: int) -> None:
    symbols = np.random.default_rng(9).integers(0, 4, (400, length))
    found = estimate((symbols[:, :, None] == np.arange(4)).reshape(400, -1).astype(np.float32))
    assert_refused(found, "lattice")
    assert "is not to be trusted" in found.refused["TwoNN"]


def test_a_simplex_where_all_distances_are_equal_is_refused() -> None:
    found = estimate(np.eye(80, dtype=np.float32))
    assert found.consensus is None
    assert_sound(found)


def test_a_line_is_refused_rather_than_made_a_width_of_one() -> None:
    found = estimate(np.random.default_rng(10).normal(size=(300, 1)) @ np.ones((1, 5)))
    assert_sound(found)
    assert "not above 1" in found.refused["lPCA"]


def test_more_directions_than_points_can_tell_are_refused_and_left_out_of_the_consensus() -> None:
    found = estimate(np.random.default_rng(11).normal(size=(100, 300)), bootstrap=2)
    assert "too few points" in found.refused["lPCA"]
    assert found.consensus == np.median([found.estimates[name] for name in found.estimates])
    assert_sound(found)


def test_points_that_rounding_merges_are_refused_not_divided_by() -> None:
    random = np.random.default_rng(12)
    clumps = np.repeat(random.normal(size=(60, 3)), 2, axis=0)
    clumps[1::2] += 1e-15 * random.random((60, 3))
    assert_sound(estimate(clumps))


def test_wide_points_are_subsampled_for_lpca() -> None:
    points = np.random.default_rng(13).normal(size=(150, 4)) @ np.random.default_rng(14).normal(size=(4, 120))
    found = estimate(points, max_points=60, bootstrap=1)
    assert found.estimates["lPCA"] == 4


def test_yeast_windows_give_what_was_measured_independently() -> None:
    table = Path(__file__).parents[2] / "../shared/data/yeast_genes.parquet"
    if not table.exists():
        pytest.skip("the yeast table is not beside the project")
    texts = pq.read_table(table, columns=["dna_m1000_p500"]).column(0).to_pylist()
    found = estimate(kmer_counts(np.stack([tokenize_dna(text) for text in texts]), 3), bootstrap=0)
    assert (found.num_points, found.num_duplicates) == (5932, 51)
    expected = {"correlation_integral": 17.6, "TwoNN": 23.0, "MLE": 22.9, "lPCA": 24.0}
    assert found.estimates == pytest.approx(expected, rel=0.15)


def test_no_warning_escapes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate(np.eye(80, dtype=np.float32))
        estimate(linear(np.random.default_rng(15), 3, 100).astype(np.float32), bootstrap=1)


def test_json_keeps_the_whole_estimate() -> None:
    found = estimate(linear(np.random.default_rng(16), 3, 100), representation="kmer3", bootstrap=1)
    document = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert {"representation", "estimates", "consensus", "mean", "interval", "refused", "seconds"} <= set(document)
    assert set(document["seconds"]) == {"distances", *ESTIMATORS, "bootstrap"}
    assert DimensionEstimate.from_json(document) == found
    refused = estimate(np.zeros((100, 2)))
    assert DimensionEstimate.from_json(refused.as_json()) == refused
