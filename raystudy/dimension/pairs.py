"""One pass over all pairs of points: how many lie within each radius, and how far each point's neighbours are.

n points, k neighbours, m occupied bins. What a distance-based estimator needs comes out of this pass, so no distance
is computed twice and no distance matrix is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raystudy.dimension.clouds import Block, Cloud, Floats

NUM_NEIGHBORS = 20
MIN_RADII = 10
MAX_SLOPE_RATIO = 2.0
REGION_RULE = (
    "from C = 1/n, where a point has one neighbour on average (nearer ones are mostly homologs, or windows that "
    "overlap), to C = 0.01 (or 10/n where that is more), before the edges of the cloud bend the curve"
)

_BLOCK_DISTANCES = 2**22
_SHIFT = 13  # keeps 10 bits of a float32's mantissa: bins 0.1 % wide in the squared distance
_TIE = 1e-6
_CURVE_POINTS = 60
_SLOPE_STEPS = 3  # on each side


class RefusalError(Exception):
    """An estimator's reason for not answering; it never leaves this room."""


class TooThinError(RefusalError):
    """A dimension of 1 or less."""


@dataclass(frozen=True)
class PairDistances:
    """What ``measure_pairs`` found.

    ``radii`` float64 [m], ascending: each occurring distance where the cloud has a step, else the middle of each
    occupied bin, at most 0.05 % off; ``counts`` int64 [m]: the unordered pairs there; ``neighbors`` float64 [n, k],
    ascending: the distances of the k nearest others.
    """

    radii: Floats
    counts: NDArray[np.int64]
    neighbors: Floats

    @cached_property
    def fractions(self) -> Floats:
        """The correlation integral C at each of ``radii``, [m]; of the pairs tied at the radius itself half count."""
        return (np.cumsum(self.counts) - self.counts / 2) / self.counts.sum()

    @cached_property
    def tied_fraction(self) -> float:
        """Points whose first two neighbours are equally far: 0 in a continuum, large on a lattice."""
        first, second = self.neighbors[:, 0], self.neighbors[:, 1]
        return float(np.mean(second - first <= _TIE * second))

    @property
    def region(self) -> tuple[float, float]:
        """The scaling region, as fractions of all pairs (`REGION_RULE`)."""
        num_points = len(self.neighbors)
        return 1 / num_points, min(max(0.01, 10 / num_points), 0.5)

    def slope_between(self, smaller: float, larger: float) -> float:
        """Slope of log C over log r between two radii, the pairs nearer than each counted exactly.

        RefusalError where the radii or the counts do not differ, as ties can make them.
        """
        nearer = [int(self.counts[self.radii < radius].sum()) for radius in (smaller, larger)]
        if not 0 < smaller < larger or not 0 < nearer[0] < nearer[1]:
            raise RefusalError(
                f"{nearer[0]} and {nearer[1]} pairs are nearer than {smaller:.4g} and {larger:.4g}: ties leave no slope"
            )
        return float(np.log(nearer[1] / nearer[0]) / np.log(larger / smaller))


def measure_pairs(cloud: Cloud, num_neighbors: int = NUM_NEIGHBORS) -> PairDistances:
    """Distances of all n(n-1)/2 pairs of a cloud (n > ``num_neighbors``), 4 million at a time."""
    num_points = len(cloud)
    bins = np.zeros(0, dtype=np.int64)
    nearest = np.empty((num_points, num_neighbors), dtype=np.float32)
    rows = max(1, _BLOCK_DISTANCES // num_points)
    for first in range(0, num_points, rows):
        block = slice(first, min(first + rows, num_points))
        squares = cloud.squares(block)
        found = np.bincount(_bin(squares, cloud.step).ravel(), minlength=len(bins))
        found[: len(bins)] += bins
        bins = found
        own = np.arange(len(squares))
        bins -= np.bincount(_bin(squares[own, first + own], cloud.step), minlength=len(bins))
        squares[own, first + own] = np.inf  # a point is no neighbour of itself
        nearest[block] = np.sort(np.partition(squares, num_neighbors - 1)[:, :num_neighbors])
    occupied = np.flatnonzero(bins)
    return PairDistances(
        radii=cloud.unit * np.sqrt(_middle(occupied, cloud.step)),
        counts=bins[occupied] // 2,  # each pair was met twice
        neighbors=cloud.unit * np.sqrt(nearest.astype(np.float64)),
    )


def _bin(squares: Block, step: float | None) -> NDArray[Any]:
    """The number of each squared distance's bin: a float32's bit pattern grows as its logarithm."""
    return squares.view(np.uint32) >> _SHIFT if step is None else (squares / np.float32(step)).astype(np.int32)


def _middle(bins: NDArray[np.int64], step: float | None) -> Floats:
    if step is not None:
        return bins.astype(np.float64) * step
    lower, upper = ((edge << _SHIFT).astype(np.uint32).view(np.float32) for edge in (bins, bins + 1))
    return (lower.astype(np.float64) + upper.astype(np.float64)) / 2


def correlation_dimension(pairs: PairDistances) -> float:
    """Slope of log C(r) over log r in the scaling region (Grassberger & Procaccia, Physica D 1983).

    Least squares over 24 equal steps of log C within the region. Raises RefusalError when the region holds fewer than
    ``MIN_RADII`` different distances (a lattice), or when the slopes of its two halves differ by more than a factor of
    ``MAX_SLOPE_RATIO`` (nothing scales there).
    """
    low, high = pairs.region
    num_radii = np.count_nonzero((pairs.fractions >= low) & (pairs.fractions <= high))
    if num_radii < MIN_RADII:
        raise RefusalError(
            f"only {num_radii} different distances lie in the scaling region ({low:.1g} <= C <= {high:.1g}), "
            f"fewer than {MIN_RADII}: the points sit on a lattice"
        )
    log_r, log_c = _curve(pairs, np.geomspace(low, high, 24))
    lower, upper = _slope(log_r[:12], log_c[:12]), _slope(log_r[12:], log_c[12:])
    if not 1 / MAX_SLOPE_RATIO <= lower / upper <= MAX_SLOPE_RATIO:
        raise RefusalError(
            f"no scaling: the slope goes from {lower:.1f} to {upper:.1f} within the region "
            f"({low:.1g} <= C <= {high:.1g}), more than a factor of {MAX_SLOPE_RATIO:g}"
        )
    return _slope(log_r, log_c)


def correlation_curve(pairs: PairDistances, fitted_slope: float | None) -> dict[str, Any] | None:
    """The correlation integral for drawing: 60 radii in equal steps of log C, with the local slope at each.

    A local slope is that of the straight line through the 7 points around it; None where they lie at one radius, and
    at the ends. None instead of a curve where all pairs are equally far.
    """
    positive = pairs.radii > 0
    if np.count_nonzero(positive) < 2:
        return None
    first = pairs.fractions[positive][0]
    log_r, log_c = _curve(pairs, np.geomspace(first, pairs.fractions[-1], _CURVE_POINTS))
    slopes: list[float | None] = [None] * _CURVE_POINTS
    for middle in range(_SLOPE_STEPS, _CURVE_POINTS - _SLOPE_STEPS):
        around = slice(middle - _SLOPE_STEPS, middle + _SLOPE_STEPS + 1)
        if np.ptp(log_r[around]) > 0:
            slopes[middle] = _slope(log_r[around], log_c[around])
    region = np.array(pairs.region)
    return {
        "radius": np.exp(log_r).tolist(),
        "fraction": np.exp(log_c).tolist(),
        "slope": slopes,
        "region_fraction": region.tolist(),
        "region_radius": np.exp(_curve(pairs, region)[0]).tolist(),
        "fitted_slope": fitted_slope,
        "rule": REGION_RULE,
    }


def _curve(pairs: PairDistances, fractions: Floats) -> tuple[Floats, Floats]:
    """Logarithms of the radii at which C has these values, and of the values."""
    positive = pairs.radii > 0
    log_c = np.log(fractions)
    return np.interp(log_c, np.log(pairs.fractions[positive]), np.log(pairs.radii[positive])), log_c


def _slope(x: Floats, y: Floats) -> float:
    x_centred = x - x.mean()
    return float(x_centred @ y / (x_centred @ x_centred))
