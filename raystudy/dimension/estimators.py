"""Eleven estimators of the intrinsic dimension, and three slow ones, each of which may refuse to answer.

n points.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module

import numpy as np

from raystudy.dimension.clouds import Cloud, Floats
from raystudy.dimension.pairs import PairDistances, RefusalError, TooThinError, correlation_dimension, measure_pairs

MIN_POINTS = 50
MAX_POINTS, MAX_SLOW_POINTS = 2000, 500
"""For estimators that need the points themselves, and for the slow ones; half of that in a resample."""


@dataclass(frozen=True)
class Sample:
    """A cloud as the estimators see it: its distances, and the coordinates of as many points as they can bear."""

    cloud: Cloud
    pairs: PairDistances
    few: Cloud
    fewer: Cloud
    share: float
    seed: int

    @classmethod
    def of(cls, cloud: Cloud, rng: np.random.Generator, share: float = 1.0) -> Sample:
        """All of this cloud's points, and subsamples of ``share`` of the usual sizes."""
        few, fewer = (choose(cloud, int(share * limit), rng) for limit in (MAX_POINTS, MAX_SLOW_POINTS))
        return cls(cloud, measure_pairs(cloud), few, fewer, share, int(rng.integers(2**31)))

    @cached_property
    def points(self) -> Floats:
        return self.few.coordinates()

    @cached_property
    def fewer_points(self) -> Floats:
        return self.fewer.coordinates()


@dataclass(frozen=True)
class Estimator:
    """How to measure, and on what: all ``pairs`` of points, the coordinates of ``few``, or of ``fewer`` points."""

    measure: Callable[[Sample], float]
    sees: str = "few"

    @property
    def is_slow(self) -> bool:
        return self.sees == "fewer"

    def num_points(self, sample: Sample) -> int:
        return len({"pairs": sample.cloud, "few": sample.few, "fewer": sample.fewer}[self.sees])


def choose(cloud: Cloud, num_points: int, rng: np.random.Generator) -> Cloud:
    """As many points of the cloud, at random and in their order; all where it has no more."""
    if len(cloud) <= num_points:
        return cloud
    return cloud.take(np.sort(rng.choice(len(cloud), num_points, replace=False)))


def ask(name: str, sample: Sample) -> float:
    """One estimator's answer; RefusalError where it gives none, or none to be trusted.

    Ties make logarithms of 1 and divisions by them; what comes of that is refused.
    """
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = float(ESTIMATORS[name].measure(sample))
    except (ArithmeticError, ValueError, IndexError, RuntimeError) as error:
        raise RefusalError(f"scikit-dimension could not compute it ({' '.join(str(error).split())[:200]})") from None
    # What half of the points may say is bounded by what all may: else the bound itself would look like instability.
    return _trusted(value, round(ESTIMATORS[name].num_points(sample) / sample.share))


def _trusted(value: float, num_points: int) -> float:
    if not math.isfinite(value):
        raise RefusalError("no finite value came out")
    if value <= 1:
        raise TooThinError(f"{value:.3g} is not above 1: a line or less, or points that lie in tight clumps")
    if value > num_points / 2:
        raise RefusalError(f"{value:.4g} directions in {num_points} points: too few points to tell")
    return value


def _two_nn(sample: Sample) -> float:
    from skdim.id import TwoNN

    return float(TwoNN(dist=True).fit(_apart(sample.pairs.neighbors)[:, :2]).dimension_)


def _corr_int(sample: Sample) -> float:
    """scikit-dimension's CorrInt at its own two radii, but counted over all pairs in the pass already made."""
    smaller, larger = np.median(sample.pairs.neighbors[:, [9, 19]], axis=0)
    return sample.pairs.slope_between(float(smaller), float(larger))


def _local(name: str) -> Callable[[Sample], float]:
    """An estimator of scikit-dimension that reads nothing but each point's neighbours."""

    def measure(sample: Sample) -> float:
        neighbors = _apart(sample.pairs.neighbors)
        estimator = getattr(import_module("skdim.id"), name)()
        return float(estimator.fit(neighbors, precomputed_knn_arrays=(neighbors, None)).dimension_)

    return measure


def _apart(neighbors: Floats) -> Floats:
    """The rows without a neighbour at distance 0; distinct points have one when rounding merges them."""
    apart = neighbors[neighbors[:, 0] > 0]
    if len(apart) < MIN_POINTS:
        raise RefusalError(f"only {len(apart)} of {len(neighbors)} points are measurably apart from all others")
    return apart


def _global(name: str) -> Callable[[Sample], float]:
    """An estimator of scikit-dimension on coordinates."""

    def measure(sample: Sample) -> float:
        return float(getattr(import_module("skdim.id"), name)().fit(sample.points).dimension_)

    return measure


def _slow_global(name: str) -> Callable[[Sample], float]:
    def measure(sample: Sample) -> float:
        estimator = getattr(import_module("skdim.id"), name)(random_state=sample.seed)
        return float(estimator.fit(sample.fewer_points).dimension_)

    return measure


def _mada(sample: Sample) -> float:
    """On the distances already known: of points in many dimensions, MADA would measure them slowly."""
    from skdim.id import MADA

    distances = sample.few.unit * np.sqrt(sample.few.squares(slice(0, len(sample.few))).astype(np.float64))
    np.fill_diagonal(distances, 0)
    neighbors = distances[:, :20]  # asked for, and not read
    return float(MADA(DM=True).fit(distances, precomputed_knn_arrays=(neighbors, None)).dimension_)


def _mind_ml(sample: Sample) -> float:
    """MiND_MLk, with the largest answer it may give (10 unless said) beyond what these points could have."""
    from skdim.id import MiND_ML

    most = min(sample.points.shape)
    value = float(MiND_ML(D=most).fit(sample.points).dimension_)
    if value > 0.99 * most:
        raise RefusalError(f"{value:.1f} is the most it could answer for {most} directions")
    return value


def _lpca(sample: Sample) -> float:
    """Directions that hold the variance of the whole cloud: a curved one counts those it bends into as well."""
    from skdim.id import lPCA

    centred = sample.points - sample.points.mean(axis=0)
    spectrum = np.linalg.eigvalsh(centred.T @ centred)[::-1]  # a quarter of the time of what lPCA does itself
    return float(lPCA(fit_explained_variance=True).fit(np.append(spectrum, 0.0)).dimension_)


ESTIMATORS: dict[str, Estimator] = {
    "correlation_integral": Estimator(lambda sample: correlation_dimension(sample.pairs), "pairs"),
    "CorrInt": Estimator(_corr_int, "pairs"),
    "TwoNN": Estimator(_two_nn, "pairs"),
    "MLE": Estimator(_local("MLE"), "pairs"),
    "MOM": Estimator(_local("MOM"), "pairs"),
    "GRIDE": Estimator(_global("GRIDE")),
    "MiND_ML": Estimator(_mind_ml),
    "lPCA": Estimator(_lpca),
    "TLE": Estimator(_global("TLE")),
    "MADA": Estimator(_mada),
    "FisherS": Estimator(_global("FisherS")),
    "ESS": Estimator(_slow_global("ESS"), "fewer"),
    "DANCo": Estimator(_slow_global("DANCo"), "fewer"),
    "PH": Estimator(_slow_global("PH"), "fewer"),
}
"""Sources: Grassberger & Procaccia 1983 (both correlation dimensions); Facco et al. 2017 (TwoNN); Levina & Bickel 2004
(MLE); Amsaleg et al. 2018 (MOM) and 2019 (TLE); Denti et al. 2022 (GRIDE); Rozza et al. 2012 (MiND_ML); Fukunaga &
Olsen 1971 (lPCA); Farahmand et al. 2007 (MADA); Albergante et al. 2019 (FisherS); Johnsson et al. 2015 (ESS); Ceruti
et al. 2014 (DANCo); Schweinhart 2020 (PH). All that look at neighbours look at 20, or two."""
FAST = tuple(name for name, estimator in ESTIMATORS.items() if not estimator.is_slow)
