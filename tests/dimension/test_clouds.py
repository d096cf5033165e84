"""Points known by their distances, against the points written out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist

from raystudy.dimension.clouds import Cloud, RealCloud, SymbolCloud, distinct

Floats = NDArray[np.float64]


def written_out(tokens: NDArray[np.uint8]) -> Floats:
    return (tokens[:, :, None] == np.arange(23)).reshape(len(tokens), -1).astype(np.float64)


def sequences(num_points: int = 60, length: int = 37) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 5, (num_points, length)).astype(np.uint8)


def normal(num_points: int, num_features: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).normal(size=(num_points, num_features))


CLOUDS: dict[str, tuple[Cloud, Floats]] = {
    "symbols": (SymbolCloud(sequences()), written_out(sequences())),
    "symbols, shorter than they are many": (SymbolCloud(sequences(90, 6)), written_out(sequences(90, 6))),
    "counts": (RealCloud(np.rint(5 * normal(60, 9)).astype(np.float32)), np.rint(5 * normal(60, 9))),
    "values": (RealCloud(normal(60, 9)), normal(60, 9)),
    "values far away": (RealCloud(1e6 + normal(60, 9)), 1e6 + normal(60, 9)),
    "tiny values": (RealCloud(1e-30 * normal(60, 9)), 1e-30 * normal(60, 9)),
    "huge values": (RealCloud(1e30 * normal(60, 9)), 1e30 * normal(60, 9)),
    "more features than points": (RealCloud(normal(40, 300)), normal(40, 300)),
    "more counts than points": (RealCloud(np.rint(9 * normal(40, 300))), np.rint(9 * normal(40, 300))),
    "more features than points in few directions": (
        RealCloud(normal(40, 3) @ normal(3, 300, seed=2)),
        normal(40, 3) @ normal(3, 300, seed=2),
    ),
}  # fmt: skip


@pytest.fixture(params=CLOUDS)
def cloud_and_points(request: pytest.FixtureRequest) -> tuple[Cloud, Floats]:
    return CLOUDS[request.param]


def test_distances_are_those_of_the_points_written_out(cloud_and_points: tuple[Cloud, Floats]) -> None:
    cloud, points = cloud_and_points
    for rows in (slice(0, len(points)), slice(7, 19), slice(len(points) - 1, len(points))):
        squares = cloud.squares(rows)
        assert squares.dtype == np.float32
        expected = cdist(points[rows], points)
        found = cloud.unit * np.sqrt(squares.astype(np.float64))
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * expected.max())


def test_coordinates_have_all_the_distances(cloud_and_points: tuple[Cloud, Floats]) -> None:
    cloud, points = cloud_and_points
    coordinates = cloud.coordinates()
    assert coordinates.dtype == np.float64
    assert coordinates.shape[0] == len(points)
    assert coordinates.shape[1] <= len(points)
    expected = pdist(points)
    # squared distances are float32: 1e-7 of the cloud's size, which is more of a near pair
    np.testing.assert_allclose(pdist(coordinates), expected, rtol=1e-5)
    assert np.abs(pdist(coordinates) - expected).max() < 1e-6 * expected.max()
    np.testing.assert_allclose(coordinates.mean(axis=0), 0, atol=1e-7 * expected.max())


def test_taking_points_keeps_their_distances(cloud_and_points: tuple[Cloud, Floats]) -> None:
    cloud, points = cloud_and_points
    rows = np.array([5, 3, 30, 31])
    taken = cloud.take(rows)
    assert len(taken) == 4
    assert taken.row_bytes(0) == cloud.row_bytes(5)
    expected = cdist(points[rows], points[rows])
    found = taken.unit * np.sqrt(taken.squares(slice(0, 4)).astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * expected.max())


def test_squared_distances_of_counts_are_whole_numbers_and_of_sequences_twice_the_mismatches() -> None:
    counts = np.random.default_rng(3).poisson(30, (80, 64)).astype(np.float32)
    expected = np.rint(cdist(counts, counts) ** 2)
    np.testing.assert_array_equal(RealCloud(counts).squares(slice(0, 80)), expected)
    tokens = sequences()
    symbols = SymbolCloud(tokens)
    mismatches = (tokens[:, None] != tokens).sum(axis=2)
    np.testing.assert_array_equal(symbols.squares(slice(0, 60)), 2 * mismatches)
    assert (symbols.step, symbols.unit, RealCloud(counts).step) == (2.0, 1.0, None)


def test_counts_too_large_for_whole_float32_squares_still_have_their_distances() -> None:
    counts = np.random.default_rng(3).poisson(30_000, (50, 8)).astype(np.float32)
    cloud = RealCloud(counts)
    found = cloud.unit * np.sqrt(cloud.squares(slice(0, 50)).astype(np.float64))
    expected = cdist(counts.astype(np.float64), counts.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * expected.max())


def test_the_points_are_left_as_they_were() -> None:
    values = normal(50, 4)
    before = values.copy()
    cloud = RealCloud(values)
    cloud.squares(slice(0, 50))
    cloud.coordinates()[:] = 0
    np.testing.assert_array_equal(values, before)


def test_each_point_stays_once_in_the_order_of_its_first_appearance() -> None:
    values = np.array([[1.0, 2], [3, 4], [1, 2], [5, 6], [3, 4]])
    kept = distinct(RealCloud(values))
    assert isinstance(kept, RealCloud)
    np.testing.assert_array_equal(kept.values, [[1, 2], [3, 4], [5, 6]])
    tokens = np.array([[1, 2], [2, 1], [1, 2]], dtype=np.uint8)
    symbols = distinct(SymbolCloud(tokens))
    assert isinstance(symbols, SymbolCloud)
    np.testing.assert_array_equal(symbols.tokens, [[1, 2], [2, 1]])


def test_without_copies_the_cloud_is_the_same_one() -> None:
    cloud = RealCloud(normal(20, 2))
    assert distinct(cloud) is cloud


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_minus_zero_is_zero(kind: type[np.floating]) -> None:
    assert len(distinct(RealCloud(np.array([[0.0, 1], [-0.0, 1], [0.0, -1]], dtype=kind)))) == 2


def test_points_with_values_that_are_not_finite_are_counted_once_each() -> None:
    values = normal(10, 3)
    values[2, 1], values[4], values[7, 0] = np.nan, np.inf, -np.inf
    assert RealCloud(values).num_bad() == 3
    assert SymbolCloud(sequences()).num_bad() == 0
