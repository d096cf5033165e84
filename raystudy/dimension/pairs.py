"""One pass over all pairs of points: how many lie within each radius, and where each point's neighbours are.

n points, d features, k neighbours, m occupied bins. Everything a distance-based estimator needs comes out of
this pass, so no distance is computed twice and no distance matrix is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NUM_NEIGHBORS = 20
MIN_RADII = 10
MAX_SLOPE_RATIO = 2.0

_BLOCK_DISTANCES = 2**22
_SHIFT = 13  # keeps 10 bits of a float32's mantissa: bins 0.1 % wide in the squared distance
_NUM_BINS = 2 ** (31 - _SHIFT)
_TIE = 1e-6


class RefusalError(Exception):
    """An estimator's reason for not answering; it never leaves this room."""


@dataclass(frozen=True)
class PairDistances:
    """What ``measure_pairs`` found.

    ``radii`` float64 [m], ascending: the middle of each occupied bin, at most 0.05 % wide; ``counts`` int64
    [m]: the unordered pairs in it; ``neighbors`` float64 [n, k], ascending: the k nearest others' distances.
    """

    radii: Floats
    counts: NDArray[np.int64]
    neighbors: Floats

    @cached_property
    def fractions(self) -> Floats:
        """The correlation integral C at each of ``radii``, [m]; of the pairs in the bin itself half count."""
        return (np.cumsum(self.counts) - self.counts / 2) / self.counts.sum()

    @cached_property
    def tied_fraction(self) -> float:
        """Points whose first two neighbours are equally far: 0 in a continuum, large on a lattice."""
        first, second = self.neighbors[:, 0], self.neighbors[:, 1]
        return float(np.mean(second - first <= _TIE * second))


def measure_pairs(points: NDArray[Any], num_neighbors: int = NUM_NEIGHBORS) -> PairDistances:
    """Distances of all n(n-1)/2 pairs of ``points`` [n, d] (n > ``num_neighbors``), 4 million at a time.

    A float32's bit pattern grows as its logarithm, so the upper bits of a squared distance are the number of
    its bin. Counts and one-hot points are measured without any rounding, hence with their ties intact.
    """
    x, unit = _measurable(points)
    num_points = len(x)
    squares = np.einsum("nd,nd->n", x, x)
    bins = np.zeros(_NUM_BINS, dtype=np.int64)
    nearest = np.empty((num_points, num_neighbors), dtype=np.float32)
    rows = max(1, _BLOCK_DISTANCES // num_points)
    for first in range(0, num_points, rows):
        block = slice(first, min(first + rows, num_points))
        distances = squares[block, None] + squares - 2 * (x[block] @ x.T)
        distances = np.maximum(distances, 0).astype(np.float32, copy=False)
        own = np.arange(len(distances))
        distances[own, first + own] = np.inf  # a point is no pair with itself
        bins += np.bincount((distances.view(np.uint32) >> _SHIFT).ravel(), minlength=_NUM_BINS)
        nearest[block] = np.sort(np.partition(distances, num_neighbors - 1)[:, :num_neighbors])
    occupied = np.flatnonzero(bins)[:-1]  # the last one holds the infinities
    edges = [_lower_edge(occupied), _lower_edge(occupied + 1)]
    return PairDistances(
        radii=unit * np.sqrt(np.mean(edges, axis=0)),
        counts=bins[occupied] // 2,  # each pair was met twice
        neighbors=unit * np.sqrt(nearest.astype(np.float64)),
    )


def _measurable(points: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Points whose squared distances float32 can hold, and the length that 1 stands for in them."""
    points = points.astype(np.result_type(points, np.float32), copy=False)
    if np.array_equal(points, np.rint(points)) and 4 * np.einsum("nd,nd->n", points, points).max() < 2**24:
        return points.astype(np.float32, copy=False), 1.0
    wide = points - points.mean(axis=0, dtype=np.float64)
    unit = float(np.abs(wide).max())
    wide /= unit
    spread = float(np.sqrt(np.einsum("nd,nd->n", wide, wide).mean()))
    return wide / spread, unit * spread


def _lower_edge(bins: NDArray[np.int64]) -> Floats:
    return (bins << _SHIFT).astype(np.uint32).view(np.float32).astype(np.float64)


def correlation_dimension(pairs: PairDistances) -> float:
    """Slope of log C(r) over log r in the scaling region (Grassberger & Procaccia, Physica D 1983).

    Scaling region: from C = 1/n, where a point has one neighbour on average, up to C = 0.01, or 10/n where
    that is more, before the cloud's edges bend the curve. Least squares over 24 equal steps of log C.
    Raises RefusalError when the region holds fewer than ``MIN_RADII`` different distances (a lattice), or when the
    slopes of its two halves differ by more than a factor of ``MAX_SLOPE_RATIO`` (nothing scales there).
    """
    num_points = len(pairs.neighbors)
    low, high = 1 / num_points, min(max(0.01, 10 / num_points), 0.5)
    num_radii = np.count_nonzero((pairs.fractions >= low) & (pairs.fractions <= high))
    if num_radii < MIN_RADII:
        raise RefusalError(
            f"only {num_radii} different distances lie in the scaling region ({low:.1g} <= C <= {high:.1g}), "
            f"fewer than {MIN_RADII}: the points sit on a lattice"
        )
    log_c = np.linspace(np.log(low), np.log(high), 24)
    log_r = np.interp(log_c, np.log(pairs.fractions), np.log(pairs.radii))
    lower, upper = _slope(log_r[:12], log_c[:12]), _slope(log_r[12:], log_c[12:])
    if not 1 / MAX_SLOPE_RATIO <= lower / upper <= MAX_SLOPE_RATIO:
        raise RefusalError(
            f"no scaling: the slope goes from {lower:.1f} to {upper:.1f} within the region "
            f"({low:.1g} <= C <= {high:.1g}), more than a factor of {MAX_SLOPE_RATIO:g}"
        )
    return _slope(log_r, log_c)


def _slope(x: Floats, y: Floats) -> float:
    x_centred = x - x.mean()
    return float(x_centred @ y / (x_centred @ x_centred))
