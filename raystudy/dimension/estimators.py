"""The intrinsic dimension of a cloud of points, by four estimators that may each refuse to answer.

n points, d features. An estimator that cannot be trusted on the points gives a reason instead of a number,
and what was refused never enters the consensus.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raystudy.dimension.pairs import Floats, PairDistances, RefusalError, correlation_dimension, measure_pairs

MIN_POINTS = 50
MAX_TIED_FRACTION = 0.1  # Gaussian clouds rounded onto a grid keep their estimates within 10 % up to here


@dataclass(frozen=True)
class DimensionEstimate:
    """What each estimator found, and what they say together.

    ``consensus`` is the median and ``mean`` the mean of ``estimates``; ``interval`` spans the estimators
    (10th to 90th percentile) and the bootstrap of the consensus (likewise). All three are None where
    everything was refused. ``refused`` is estimator -> reason. ``seconds`` also has ``distances``, shared by
    three estimators, and ``bootstrap``. ``num_points`` are distinct; ``num_duplicates`` were dropped.
    """

    representation: str
    estimates: dict[str, float]
    consensus: float | None
    mean: float | None
    interval: tuple[float, float] | None
    refused: dict[str, str]
    seconds: dict[str, float]
    num_points: int
    num_duplicates: int

    def as_json(self) -> dict[str, Any]:
        """The contract's ``dimension`` JSON, without ``others``."""
        return asdict(self) | {"interval": None if self.interval is None else list(self.interval)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> DimensionEstimate:
        """The estimate that ``as_json`` wrote; other keys are ignored."""
        fields = {name: document[name] for name in cls.__dataclass_fields__}
        return cls(**fields | {"interval": None if fields["interval"] is None else tuple(fields["interval"])})


def estimate(
    points: NDArray[Any], representation: str = "", seed: int = 0, max_points: int = 2000, bootstrap: int = 10
) -> DimensionEstimate:
    """The intrinsic dimension of ``points`` [n, d] after exact duplicates are dropped.

    Distances are measured between all points. ``max_points`` limits what costs more: lPCA in more features
    than that, and each of the ``bootstrap`` resamples. A resample is half of the points (whose estimate
    varies as much around the whole's as the whole's around the truth), or fewer (which errs on the wide
    side), without replacement: repeated points have distance 0, which breaks every estimator. Points that
    are too few, equal or not finite are refused by all estimators; nothing is raised.
    Sources: Grassberger & Procaccia 1983; Facco et al. 2017 (TwoNN); Levina & Bickel 2004 (MLE); Fukunaga &
    Olsen 1971 (lPCA; here over the whole cloud, so a curved one counts the directions it bends into as well).
    """
    points = np.asarray(points)
    if not np.isfinite(points).all():
        num_bad = np.count_nonzero(~np.isfinite(points).all(axis=1))
        return _all_refused(representation, f"{num_bad} of {len(points)} points have values that are not finite", 0, 0)
    distinct = _distinct(points)
    num_duplicates = len(points) - len(distinct)
    if len(distinct) < MIN_POINTS:
        reason = (
            f"all {len(points)} points are the same"
            if len(distinct) == 1 and num_duplicates
            else f"only {len(distinct)} of {len(points)} points are distinct; at least {MIN_POINTS} must be"
        )
        return _all_refused(representation, reason, len(distinct), num_duplicates)

    import_module("skdim.id")  # 3 s of numba, which no estimator's time should include
    rng = np.random.default_rng(seed)
    found = _measure(distinct, ESTIMATORS, max_points, rng)
    values = list(found.estimates.values())
    started = perf_counter()
    resampled = []
    size = max(MIN_POINTS, min(len(distinct) // 2, max_points))
    for _ in range(bootstrap if values else 0):
        sample = distinct[rng.choice(len(distinct), size, replace=False)]
        again = _measure(sample, found.estimates, max_points, rng)
        if again.estimates:
            resampled.append(float(np.median(list(again.estimates.values()))))
    return DimensionEstimate(
        representation=representation,
        estimates=found.estimates,
        consensus=float(np.median(values)) if values else None,
        mean=float(np.mean(values)) if values else None,
        interval=_span(values, resampled),
        refused=found.refused,
        seconds=found.seconds | {"bootstrap": perf_counter() - started},
        num_points=len(distinct),
        num_duplicates=num_duplicates,
    )


@dataclass
class _Found:
    estimates: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def _measure(points: NDArray[Any], names: Iterable[str], max_points: int, rng: np.random.Generator) -> _Found:
    found = _Found()
    started = perf_counter()
    pairs = measure_pairs(points)
    found.seconds["distances"] = perf_counter() - started
    if len(points) > max_points and points.shape[1] > max_points:
        points = points[rng.choice(len(points), max_points, replace=False)]
    for name in names:
        started = perf_counter()
        try:
            # A lattice makes logarithms of 1 and divisions by them; what comes of that is refused.
            with np.errstate(divide="ignore", invalid="ignore"):
                found.estimates[name] = _trusted(ESTIMATORS[name](pairs, points), pairs)
        except RefusalError as refusal:
            found.refused[name] = str(refusal)
        found.seconds[name] = perf_counter() - started
    return found


def _trusted(value: float, pairs: PairDistances) -> float:
    if not math.isfinite(value):
        raise RefusalError("no finite value came out")
    if value <= 1:
        raise RefusalError(f"{value:.2f} is not above 1: a line or less, or points that lie in tight clumps")
    if pairs.tied_fraction > MAX_TIED_FRACTION:
        raise RefusalError(
            f"{value:.1f} is not to be trusted: for {pairs.tied_fraction:.0%} of the points the two nearest "
            f"others are exactly equally far (at most {MAX_TIED_FRACTION:.0%} may be): they sit on a lattice"
        )
    return value


def _correlation_integral(pairs: PairDistances, points: NDArray[Any]) -> float:
    return correlation_dimension(pairs)


def _two_nn(pairs: PairDistances, points: NDArray[Any]) -> float:
    from skdim.id import TwoNN

    return float(TwoNN(dist=True).fit(_apart(pairs.neighbors)[:, :2]).dimension_)


def _mle(pairs: PairDistances, points: NDArray[Any]) -> float:
    from skdim.id import MLE

    neighbors = _apart(pairs.neighbors)
    return float(MLE().fit(neighbors, precomputed_knn_arrays=(neighbors, None)).dimension_)


def _apart(neighbors: Floats) -> Floats:
    """The rows without a neighbour at distance 0; distinct points have one when rounding merges them."""
    apart = neighbors[neighbors[:, 0] > 0]
    if len(apart) < MIN_POINTS:
        raise RefusalError(f"only {len(apart)} of {len(neighbors)} points are measurably apart from all others")
    return apart


def _lpca(pairs: PairDistances, points: NDArray[Any]) -> float:
    from skdim.id import lPCA

    centred = points - points.mean(axis=0, dtype=np.float64)
    wide = centred.shape[1] > len(centred)
    spectrum = np.linalg.eigvalsh(centred @ centred.T if wide else centred.T @ centred)[::-1]
    num_directions = int(lPCA(fit_explained_variance=True).fit(np.append(spectrum, 0.0)).dimension_)
    if num_directions > len(points) / 2:
        raise RefusalError(f"{num_directions} directions in {len(points)} points: too few points to tell")
    return float(num_directions)


ESTIMATORS: dict[str, Callable[[PairDistances, NDArray[Any]], float]] = {
    "correlation_integral": _correlation_integral,
    "TwoNN": _two_nn,
    "MLE": _mle,
    "lPCA": _lpca,
}


def _distinct(points: NDArray[Any]) -> NDArray[Any]:
    first: dict[bytes, int] = {}
    for index, row in enumerate(points):
        row = row + 0.0  # -0.0 becomes 0.0: one value, one bit pattern
        first.setdefault(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), index)
    return points if len(first) == len(points) else points[list(first.values())]


def _span(values: list[float], resampled: list[float]) -> tuple[float, float] | None:
    if not values:
        return None
    ends = [np.percentile(group, [10, 90]) for group in (values, resampled) if group]
    return float(min(low for low, _ in ends)), float(max(high for _, high in ends))


def _all_refused(representation: str, reason: str, num_points: int, num_duplicates: int) -> DimensionEstimate:
    return DimensionEstimate(
        representation=representation,
        estimates={},
        consensus=None,
        mean=None,
        interval=None,
        refused=dict.fromkeys(ESTIMATORS, reason),
        seconds={},
        num_points=num_points,
        num_duplicates=num_duplicates,
    )
