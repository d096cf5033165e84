"""What the estimators say together about a cloud's intrinsic dimension, and how sure that is.

An estimator that cannot be trusted on the points gives a reason instead of a number, and what was refused never enters
the consensus.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import import_module
from time import perf_counter
from typing import Any

import numpy as np

from raystudy.dimension.clouds import Cloud, distinct
from raystudy.dimension.estimators import ESTIMATORS, FAST, MIN_POINTS, Sample, ask, choose
from raystudy.dimension.pairs import RefusalError, TooThinError, correlation_curve
from raystudy.errors import SpecError

MAX_CHANGE = 1.5
"""By what factor an estimate may differ between all points and half of them, or between two halves."""
MAX_TIED_FRACTION = 0.1  # Gaussian clouds rounded onto a grid keep their estimates within 10 % up to here
MIN_FLAGGED_FRACTION = 0.01
MAX_THIN, MIN_ANSWERS = 0.25, 0.5
"""What share of the estimators may find a dimension of 1 or less, and how many must be trusted for a consensus."""
NUM_RESAMPLES = 10
NUM_SLOW_RESAMPLES = 2


@dataclass(frozen=True)
class DimensionEstimate:
    """What each estimator found, and what they say together.

    ``consensus`` is the median and ``mean`` the mean of ``estimates``; ``interval`` spans the estimators (10th to 90th
    percentile) and the consensus of each resample (likewise). All three are None where everything was refused.
    ``spread`` is the 10th to 90th percentile of each estimator over the resamples: what half of the points say, which
    is mostly less than all say. ``refused`` is estimator -> reason. ``seconds`` also has ``distances`` and
    ``coordinates``, shared by several, and ``resamples``; the first use of an estimator compiles it. ``points`` is how
    many an estimator saw. ``num_points`` are distinct; ``num_duplicates`` were dropped. ``flags`` are what a reader
    should know of the points; ``curve`` is `correlation_curve`'s.
    """

    representation: str
    input: str
    estimates: dict[str, float]
    spread: dict[str, list[float]]
    consensus: float | None
    mean: float | None
    interval: list[float] | None
    refused: dict[str, str]
    seconds: dict[str, float]
    points: dict[str, int]
    num_points: int
    num_duplicates: int
    flags: list[str] = field(default_factory=list)
    curve: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The contract's ``dimension`` JSON, without ``others``."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> DimensionEstimate:
        """The estimate that ``as_json`` wrote; other keys are ignored."""
        return cls(**{name: document[name] for name in cls.__dataclass_fields__})


def estimate(
    cloud: Cloud,
    representation: str = "",
    input: str = "",
    seed: int = 0,
    also: Collection[str] = (),
    num_resamples: int = NUM_RESAMPLES,
) -> DimensionEstimate:
    """The intrinsic dimension of a cloud after exact duplicates are dropped.

    ``representation`` and ``input`` name the cloud. ``also`` names slow estimators to ask as well. A resample is half
    of the points (whose estimate varies as much around the whole's as the whole's around the truth), without
    replacement: repeated points have distance 0, which breaks every estimator. Points that are too few, equal or not
    finite are refused by all estimators. Raises SpecError on an unknown name in ``also``.
    """
    names = [*FAST, *_slow(also)]
    refuse_all = partial(_all_refused, representation, input, names)
    if num_bad := cloud.num_bad():
        return refuse_all(f"{num_bad} of {len(cloud)} points have values that are not finite")
    points = distinct(cloud)
    num_duplicates = len(cloud) - len(points)
    if len(points) < MIN_POINTS:
        reason = (
            f"all {len(cloud)} points are the same"
            if len(points) == 1 and len(cloud) > 1
            else f"only {len(points)} of {len(cloud)} points are distinct; at least {MIN_POINTS} must be"
        )
        return refuse_all(reason, len(points), num_duplicates)

    import_module("skdim.id")  # 3 s of numba, which no estimator's time should include
    rng = np.random.default_rng(seed)
    started = perf_counter()
    whole = Sample.of(points, rng)
    seconds = {"distances": perf_counter() - started}
    if (tied := whole.pairs.tied_fraction) > MAX_TIED_FRACTION:
        reason = (
            f"the points sit on a lattice: for {tied:.0%} of them the two nearest others are exactly equally far (at "
            f"most {MAX_TIED_FRACTION:.0%} may be)"
        )
        refused = refuse_all(reason, len(points), num_duplicates)
        return replace(refused, seconds=seconds, curve=correlation_curve(whole.pairs, None))
    found = _measure(whole, names)
    started = perf_counter()
    resampled = [_resample(points, found.estimates, number, rng) for number in range(num_resamples)]
    seconds |= found.seconds | {"resamples": perf_counter() - started}
    spread = _refuse_unstable(found, resampled)
    if len(found.estimates) < MIN_ANSWERS * len(names):
        found.refuse_rest(f"only {len(found.estimates)} of {len(names)} estimators can be trusted here")
        spread = {}
    values = list(found.estimates.values())
    consensus = float(np.median(values)) if values else None
    return DimensionEstimate(
        representation=representation,
        input=input,
        estimates=found.estimates,
        spread=spread,
        consensus=consensus,
        mean=float(np.mean(values)) if values else None,
        interval=_interval(found.estimates, resampled),
        refused=found.refused,
        seconds=seconds,
        points={name: ESTIMATORS[name].num_points(whole) for name in names},
        num_points=len(points),
        num_duplicates=num_duplicates,
        flags=_flags(whole, consensus),
        curve=correlation_curve(whole.pairs, found.estimates.get("correlation_integral")),
    )


@dataclass
class _Found:
    estimates: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def refuse_rest(self, reason: str) -> None:
        self.refused |= {name: f"{value:.3g}, but {reason}" for name, value in self.estimates.items()}
        self.estimates = {}


def _measure(sample: Sample, names: Collection[str]) -> _Found:
    found, num_thin = _Found(), 0
    started = perf_counter()
    with suppress(ArithmeticError, ValueError):  # an estimator that needs them fails by itself, and is refused
        _ = sample.points
    found.seconds["coordinates"] = perf_counter() - started
    for name in names:
        started = perf_counter()
        try:
            found.estimates[name] = ask(name, sample)
        except RefusalError as refusal:
            found.refused[name] = str(refusal)
            num_thin += isinstance(refusal, TooThinError)
        found.seconds[name] = perf_counter() - started
    if num_thin > MAX_THIN * len(names):  # what is left are only the errors upwards
        found.refuse_rest(f"{num_thin} of {len(names)} estimators find no more than 1")
    return found


def _resample(points: Cloud, names: Collection[str], number: int, rng: np.random.Generator) -> dict[str, float]:
    half = choose(points, max(MIN_POINTS, len(points) // 2), rng)
    asked = [name for name in names if number < NUM_SLOW_RESAMPLES or not ESTIMATORS[name].is_slow]
    return _measure(Sample.of(half, rng, share=0.5), asked).estimates


def _refuse_unstable(found: _Found, resampled: list[dict[str, float]]) -> dict[str, list[float]]:
    """The spread of each estimator over the resamples; those that change too much are moved to the refused ones."""
    spread = {}
    for name, value in list(found.estimates.items()) if resampled else []:
        values = [one[name] for one in resampled if name in one]
        num_asked = min(NUM_SLOW_RESAMPLES if ESTIMATORS[name].is_slow else math.inf, len(resampled))
        low, high = np.percentile(values or [math.nan], [10, 90]).tolist()
        if len(values) < num_asked / 2:
            changed = f"refused on {num_asked - len(values)} of {num_asked} halves of them"
        elif max(high, value) / min(low, value) > MAX_CHANGE:
            changed = f"{low:.4g} to {high:.4g} on halves of them (a factor of {MAX_CHANGE:g} is allowed)"
        else:
            spread[name] = [low, high]
            continue
        del found.estimates[name]
        found.refused[name] = f"unstable: {value:.4g} on all points, but {changed}"
    return spread


def _flags(sample: Sample, consensus: float | None) -> list[str]:
    flags = []
    tied, num_points = sample.pairs.tied_fraction, len(sample.cloud)
    if num_points < 2 * MIN_POINTS:
        flags.append(f"of fewer than {2 * MIN_POINTS} points each resample takes {MIN_POINTS}, and varies too little")
    if tied >= MIN_FLAGGED_FRACTION:
        flags.append(
            f"the points sit on a lattice, too fine to matter: for {tied:.1%} of them the two nearest others are "
            f"exactly equally far (refused above {MAX_TIED_FRACTION:.0%})"
        )
    most = 2 * math.log10(num_points)
    if consensus is not None and consensus > most:
        flags.append(
            f"{num_points:,} points show dimensions up to about {most:.1f} (2 log10 n, Eckmann & Ruelle 1992); beyond, "
            "estimates from distances are likely too low"
        )
    return flags


def _interval(estimates: dict[str, float], resampled: list[dict[str, float]]) -> list[float] | None:
    if not estimates:
        return None
    trusted = [[value for name, value in one.items() if name in estimates] for one in resampled]
    consensus = [float(np.median(values)) for values in trusted if values]
    ends = [np.percentile(group, [10, 90]) for group in (list(estimates.values()), consensus) if group]
    return [float(min(low for low, _ in ends)), float(max(high for _, high in ends))]


def _all_refused(
    representation: str, input: str, names: list[str], reason: str, num_points: int = 0, num_duplicates: int = 0
) -> DimensionEstimate:
    return DimensionEstimate(
        representation=representation,
        input=input,
        estimates={},
        spread={},
        consensus=None,
        mean=None,
        interval=None,
        refused=dict.fromkeys(names, reason),
        seconds={},
        points={},
        num_points=num_points,
        num_duplicates=num_duplicates,
    )


def _slow(names: Collection[str]) -> list[str]:
    slow = [name for name, estimator in ESTIMATORS.items() if estimator.is_slow]
    if unknown := [name for name in names if name not in slow]:
        raise SpecError(f"`also` names slow estimators ({', '.join(slow)}), but got {', '.join(unknown)}")
    return [name for name in slow if name in names]
