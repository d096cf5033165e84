"""The pass over all pairs, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from raystudy.dimension import pairs as pairs_module
from raystudy.dimension.pairs import PairDistances, RefusalError, correlation_dimension, measure_pairs


def brute_force_neighbors(points: NDArray[np.float64], num_neighbors: int) -> NDArray[np.float64]:
    return np.sort(squareform(pdist(points)), axis=1)[:, 1 : num_neighbors + 1]


def test_counts_of_a_lattice_equal_brute_force_at_every_distance() -> None:
    points = np.random.default_rng(0).integers(0, 6, (150, 8)).astype(np.float32)
    squares, counts = np.unique(np.rint(pdist(points) ** 2), return_counts=True)
    pairs = measure_pairs(points)
    np.testing.assert_array_equal(pairs.counts, counts)
    np.testing.assert_allclose(pairs.radii, np.sqrt(squares), rtol=5e-4)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_correlation_integral_equals_brute_force_whatever_the_unit(scale: float) -> None:
    points = scale * (100 + np.random.default_rng(1).normal(size=(200, 7)))
    distances, pairs = pdist(points), measure_pairs(points)
    assert pairs.counts.sum() == len(distances)
    within = np.cumsum(pairs.counts)
    for index in range(0, len(pairs.radii), 500):
        radius = pairs.radii[index]
        assert (distances < radius * 0.9995).sum() <= within[index] <= (distances < radius * 1.0005).sum()


@pytest.mark.parametrize("kind", ["counts", "values"])
def test_neighbours_equal_brute_force_when_the_blocks_are_small(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    points = random.poisson(4, (130, 9)) if kind == "counts" else random.normal(size=(130, 9))
    monkeypatch.setattr(pairs_module, "_BLOCK_DISTANCES", 130 * 7)
    pairs = measure_pairs(points, num_neighbors=5)
    np.testing.assert_allclose(pairs.neighbors, brute_force_neighbors(points, 5), rtol=1e-6)
    assert pairs.counts.sum() == 130 * 129 / 2


def test_the_points_are_left_as_they_were() -> None:
    points = np.random.default_rng(3).normal(size=(60, 4))
    before = points.copy()
    measure_pairs(points)
    np.testing.assert_array_equal(points, before)


def test_the_slope_is_that_of_a_straight_line_through_the_brute_force_integral() -> None:
    points = np.random.default_rng(4).normal(size=(400, 6))
    distances = np.sort(pdist(points))
    low, high = int(len(distances) / 400), int(len(distances) * 10 / 400)
    fractions = np.arange(1, len(distances) + 1) / len(distances)
    equal_steps = np.unique(np.geomspace(low, high, 40).astype(int))
    slope, _ = np.polyfit(np.log(distances[equal_steps]), np.log(fractions[equal_steps]), 1)
    assert correlation_dimension(measure_pairs(points)) == pytest.approx(slope, rel=0.03)


def test_ties_are_counted_as_ties() -> None:
    random = np.random.default_rng(5)
    assert measure_pairs(random.normal(size=(100, 3))).tied_fraction == 0
    assert measure_pairs(np.eye(100)).tied_fraction == 1
    assert measure_pairs(random.permutation(np.indices((10, 10)).reshape(2, -1).T) / 7).tied_fraction == 1


def test_few_distances_are_refused_as_a_lattice() -> None:
    with pytest.raises(RefusalError, match=r"only 0 different distances .* lattice"):
        correlation_dimension(measure_pairs(np.eye(100)))


def test_a_slope_that_changes_within_the_region_is_refused() -> None:
    radii = np.geomspace(0.01, 1, 2000)
    fractions = np.where(radii < 0.1, 0.002 * (radii / 0.1) ** 2, 0.002 * (radii / 0.1) ** 9).clip(0, 1)
    counts = np.diff(np.round(fractions * 1e9), prepend=0).astype(np.int64)
    pairs = PairDistances(radii[counts > 0], counts[counts > 0], neighbors=np.ones((4000, 2)))
    with pytest.raises(RefusalError, match=r"no scaling: the slope goes from 2\.0 to"):
        correlation_dimension(pairs)
