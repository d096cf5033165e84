"""The pass over all pairs, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform
from skdim.id import CorrInt

from raystudy.dimension import pairs as pairs_module
from raystudy.dimension.clouds import RealCloud, SymbolCloud
from raystudy.dimension.pairs import (
    PairDistances,
    RefusalError,
    correlation_curve,
    correlation_dimension,
    measure_pairs,
)

Floats = NDArray[np.float64]


def normal(num_points: int, num_features: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(num_points, num_features))


def sequences(num_points: int = 150, length: int = 90) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 4, (num_points, length)).astype(np.uint8)


def one_hot(tokens: NDArray[np.uint8]) -> Floats:
    return (tokens[:, :, None] == np.arange(4)).reshape(len(tokens), -1).astype(np.float64)


def brute_force_neighbors(points: Floats, num_neighbors: int) -> Floats:
    return np.sort(squareform(pdist(points)), axis=1)[:, 1 : num_neighbors + 1]


def pairs_of(radii: Floats, counts: NDArray[np.int64], num_points: int) -> PairDistances:
    return PairDistances(radii, counts, neighbors=np.tile([1.0, 2.0], (num_points, 1)))


def test_counts_of_sequences_are_exact_at_every_distance() -> None:
    tokens = sequences()
    mismatches = np.rint(90 * pdist(tokens, "hamming"))
    expected, counts = np.unique(mismatches, return_counts=True)
    pairs = measure_pairs(SymbolCloud(tokens))
    np.testing.assert_array_equal(pairs.counts, counts)
    np.testing.assert_array_equal(pairs.radii, np.sqrt(2 * expected))
    np.testing.assert_array_equal(pairs.neighbors, brute_force_neighbors(one_hot(tokens), 20))
    below = np.array([(mismatches < one).sum() + (mismatches == one).sum() / 2 for one in expected])
    np.testing.assert_allclose(pairs.fractions, below / len(mismatches), rtol=1e-12)


def test_counts_of_a_lattice_equal_brute_force_at_every_distance() -> None:
    points = np.random.default_rng(0).integers(0, 6, (150, 8)).astype(np.float32)
    squares, counts = np.unique(np.rint(pdist(points) ** 2), return_counts=True)
    pairs = measure_pairs(RealCloud(points))
    np.testing.assert_array_equal(pairs.counts, counts)
    np.testing.assert_allclose(pairs.radii, np.sqrt(squares), rtol=5e-4)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_correlation_integral_equals_brute_force_whatever_the_unit(scale: float) -> None:
    points = scale * (100 + normal(200, 7, seed=1))
    distances, pairs = pdist(points), measure_pairs(RealCloud(points))
    assert pairs.counts.sum() == len(distances)
    within = np.cumsum(pairs.counts)
    for index in range(0, len(pairs.radii), 500):
        radius = pairs.radii[index]
        assert (distances < radius * 0.9995).sum() <= within[index] <= (distances < radius * 1.0005).sum()


@pytest.mark.parametrize("kind", ["counts", "values", "sequences"])
def test_neighbours_equal_brute_force_when_the_blocks_are_small(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    points = random.poisson(4, (130, 9)).astype(float) if kind == "counts" else random.normal(size=(130, 9))
    cloud: RealCloud | SymbolCloud = RealCloud(points)
    if kind == "sequences":
        cloud, points = SymbolCloud(sequences(130)), one_hot(sequences(130))
    whole = measure_pairs(cloud)
    monkeypatch.setattr(pairs_module, "_BLOCK_DISTANCES", 130 * 7)
    pairs = measure_pairs(cloud, num_neighbors=5)
    np.testing.assert_allclose(pairs.neighbors, brute_force_neighbors(points, 5), rtol=1e-6)
    assert pairs.counts.sum() == 130 * 129 / 2
    np.testing.assert_allclose(pairs.neighbors, whole.neighbors[:, :5], rtol=1e-6)


def test_the_slope_is_that_of_a_straight_line_through_the_brute_force_integral() -> None:
    points = normal(400, 6, seed=4)
    distances = np.sort(pdist(points))
    low, high = int(len(distances) / 400), int(len(distances) * 10 / 400)
    fractions = np.arange(1, len(distances) + 1) / len(distances)
    equal_steps = np.unique(np.geomspace(low, high, 40).astype(int))
    slope, _ = np.polyfit(np.log(distances[equal_steps]), np.log(fractions[equal_steps]), 1)
    assert correlation_dimension(measure_pairs(RealCloud(points))) == pytest.approx(slope, rel=0.03)


@pytest.mark.parametrize(
    ("num_points", "region"),
    [(50, (1 / 50, 0.2)), (500, (1 / 500, 0.02)), (1000, (1 / 1000, 0.01)), (6000, (1 / 6000, 0.01))],
)
def test_the_region_goes_from_one_neighbour_to_ten_or_a_hundredth(num_points: int, region: tuple[float, float]) -> None:
    pairs = pairs_of(np.ones(1), np.ones(1, dtype=np.int64), num_points)
    assert pairs.region == pytest.approx(region)


@pytest.mark.parametrize("kind", ["sequences", "values"])
def test_the_slope_between_two_radii_is_what_scikit_dimension_gives(kind: str) -> None:
    tokens, points = sequences(200, 300), normal(300, 6, seed=3)
    cloud: RealCloud | SymbolCloud = RealCloud(points)
    if kind == "sequences":
        cloud, points = SymbolCloud(tokens), one_hot(tokens)
    pairs = measure_pairs(cloud)
    smaller, larger = np.median(pairs.neighbors[:, [9, 19]], axis=0)
    alone = CorrInt(k1=10, k2=20).fit(points).dimension_
    found = pairs.slope_between(float(smaller), float(larger))
    assert found == pytest.approx(alone, rel=1e-9 if kind == "sequences" else 0.005)


def test_pairs_at_a_radius_itself_are_not_nearer_than_it() -> None:
    pairs = pairs_of(np.array([1.0, 2, 3]), np.array([4, 4, 100]), 60)
    assert pairs.slope_between(2, 3) == pytest.approx(np.log(8 / 4) / np.log(3 / 2))


@pytest.mark.parametrize(("smaller", "larger"), [(2.0, 2.0), (2.2, 2.8), (1.0, 3.0), (0.0, 2.0), (3.0, 2.0)])
def test_ties_leave_no_slope(smaller: float, larger: float) -> None:
    pairs = pairs_of(np.array([1.0, 2, 3]), np.array([4, 4, 100]), 60)
    with pytest.raises(RefusalError, match=r"^\d+ and \d+ pairs are nearer than .*ties leave no slope"):
        pairs.slope_between(smaller, larger)


def test_ties_are_counted_as_ties() -> None:
    grid = np.random.default_rng(5).permutation(np.indices((10, 10)).reshape(2, -1).T) / 7
    assert measure_pairs(RealCloud(normal(100, 3))).tied_fraction == 0
    assert measure_pairs(RealCloud(np.eye(100))).tied_fraction == 1
    assert measure_pairs(RealCloud(grid)).tied_fraction == 1
    assert pairs_of(np.ones(1), np.ones(1, dtype=np.int64), 60).tied_fraction == 0


def test_few_distances_are_refused_as_a_lattice() -> None:
    with pytest.raises(RefusalError, match=r"only 0 different distances .* lattice"):
        correlation_dimension(measure_pairs(RealCloud(np.eye(100))))


@pytest.mark.parametrize("num_radii", [9, 10])
def test_ten_different_distances_in_the_region_are_enough(num_radii: int) -> None:
    inside = np.geomspace(0.0012, 0.0098, num_radii)
    fractions = np.concatenate([[0.0005], inside, [0.5]])
    below = np.round(fractions * 10**9)  # half of each radius's own pairs count
    counts, so_far = [], 0.0
    for one in below:
        counts.append(int(2 * (one - so_far)))
        so_far += counts[-1]
    counts.append(10**9 - int(so_far))
    radii = np.concatenate([fractions, [1.0]]) ** (1 / 6)
    pairs = pairs_of(radii, np.array(counts), num_points=1000)
    np.testing.assert_allclose(pairs.fractions[1:-2], inside, rtol=1e-6)
    if num_radii < 10:
        with pytest.raises(RefusalError, match=r"only 9 different distances"):
            correlation_dimension(pairs)
    else:
        assert correlation_dimension(pairs) == pytest.approx(6, rel=1e-3)


def test_a_slope_that_changes_within_the_region_is_refused() -> None:
    radii = np.geomspace(0.01, 1, 2000)
    fractions = np.where(radii < 0.1, 0.002 * (radii / 0.1) ** 2, 0.002 * (radii / 0.1) ** 9).clip(0, 1)
    counts = np.diff(np.round(fractions * 1e9), prepend=0).astype(np.int64)
    pairs = PairDistances(radii[counts > 0], counts[counts > 0], neighbors=np.ones((4000, 2)))
    with pytest.raises(RefusalError, match=r"no scaling: the slope goes from 2\.0 to"):
        correlation_dimension(pairs)


@pytest.mark.parametrize(
    "cloud", [RealCloud(normal(300, 5)), SymbolCloud(sequences(300, 500))], ids=["values", "tokens"]
)
def test_the_curve_rises_and_has_no_slope_at_its_ends(cloud: RealCloud | SymbolCloud) -> None:
    pairs = measure_pairs(cloud)
    curve = correlation_curve(pairs, 5.5)
    assert curve is not None
    assert curve.keys() == {
        "radius", "fraction", "slope", "region_fraction", "region_radius", "fitted_slope", "rule",
    }  # fmt: skip
    radius, fraction, slope = curve["radius"], curve["fraction"], curve["slope"]
    assert len(radius) == len(fraction) == len(slope) == 60
    assert all(np.diff(radius) >= 0)
    assert radius[0] < radius[-1]
    assert all(np.diff(fraction) > 0)
    assert fraction[0] > 0
    assert fraction[-1] <= 1
    assert slope[:3] == slope[-3:] == [None] * 3
    assert all(one is None or one > 0 for one in slope)
    assert sum(one is not None for one in slope) > 40
    assert curve["region_fraction"] == pytest.approx(list(pairs.region))
    assert radius[0] <= curve["region_radius"][0] < curve["region_radius"][1] <= radius[-1]
    assert curve["fitted_slope"] == 5.5
    assert curve["rule"] == pairs_module.REGION_RULE
    assert all(isinstance(one, float) for key in ("radius", "fraction", "region_radius") for one in curve[key])


def test_the_curve_is_the_correlation_integral_and_its_local_slope() -> None:
    radii = np.geomspace(0.1, 1, 4000)
    counts = np.diff(np.round(1e12 * radii**7), prepend=0).astype(np.int64)
    curve = correlation_curve(pairs_of(radii, counts, 1000), None)
    assert curve is not None
    np.testing.assert_allclose(curve["fraction"][10:], np.array(curve["radius"][10:]) ** 7, rtol=0.01)
    np.testing.assert_allclose(np.array(curve["slope"][10:-10], dtype=float), 7, rtol=0.01)
    assert curve["region_radius"] == pytest.approx([0.001 ** (1 / 7), 0.01 ** (1 / 7)], rel=0.005)
    assert curve["fitted_slope"] is None


def test_where_many_pairs_lie_at_one_radius_there_is_no_local_slope() -> None:
    curve = correlation_curve(pairs_of(np.array([1.0, 2.0]), np.array([10, 10**6]), 1000), None)
    assert curve is not None
    known = [one for one in curve["slope"] if one is not None]
    assert all(np.isfinite(known))
    flat = correlation_curve(pairs_of(np.array([0.0, 1, 2]), np.array([10, 10, 10**6]), 1000), None)
    assert flat is not None
    assert np.isfinite([*flat["radius"], *flat["fraction"], *flat["region_radius"]]).all()


def test_points_that_are_all_equally_far_have_no_curve() -> None:
    assert correlation_curve(measure_pairs(RealCloud(np.eye(80))), None) is None
    assert correlation_curve(measure_pairs(SymbolCloud(np.eye(80, dtype=np.uint8))), None) is None
