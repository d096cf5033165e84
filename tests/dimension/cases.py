"""Clouds of known dimension, and what holds of every estimate."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from raystudy.dimension import consensus
from raystudy.dimension.clouds import RealCloud
from raystudy.dimension.consensus import DimensionEstimate, estimate
from raystudy.dimension.estimators import ESTIMATORS, FAST, Estimator, Sample

Points = NDArray[np.float64]
Random = np.random.Generator


def linear(random: Random, num_points: int, dimension: int = 5) -> Points:
    return random.normal(size=(num_points, dimension)) @ random.normal(size=(dimension, 20))


def sphere(random: Random, num_points: int) -> Points:
    points = random.normal(size=(num_points, 6))
    return points / np.linalg.norm(points, axis=1)[:, None]


def curved(random: Random, num_points: int) -> Points:
    angles = random.random((num_points, 10)) @ random.normal(size=(10, 128))
    return np.hstack([np.sin(angles), np.cos(angles)])


def swiss_roll(random: Random, num_points: int) -> Points:
    turn = 1.5 * np.pi * (1 + 2 * random.random(num_points))
    return np.column_stack([turn * np.cos(turn), 21 * random.random(num_points), turn * np.sin(turn)])


DIMENSIONS: dict[Callable[[Random, int], Points], int] = {linear: 5, sphere: 5, curved: 10, swiss_roll: 2}
SEEDS = (0, 1)
MANIFOLDS = pytest.mark.parametrize("manifold", DIMENSIONS, ids=lambda manifold: manifold.__name__)


@cache
def measured(manifold: Callable[[Random, int], Points], seed: int) -> DimensionEstimate:
    return estimate(RealCloud(manifold(np.random.default_rng(seed), 600)), seed=seed, num_resamples=2)


def real(points: Points) -> RealCloud:
    return RealCloud(points)


def assert_sound(found: DimensionEstimate) -> None:
    """Every estimator answers above 1 or says why not, and the JSON is strict."""
    assert set(found.estimates) | set(found.refused) == set(FAST)
    assert not set(found.estimates) & set(found.refused)
    assert all(math.isfinite(value) and value > 1 for value in found.estimates.values())
    assert all(found.refused.values())
    assert (found.consensus is None) is (found.interval is None) is (found.mean is None) is (not found.estimates)
    json.dumps(found.as_json(), allow_nan=False)


def assert_refused(found: DimensionEstimate, reason: str) -> None:
    assert_sound(found)
    assert (found.estimates, found.spread, found.curve) == ({}, {}, None)
    assert (found.consensus, found.mean, found.interval) == (None, None, None)
    assert set(found.refused.values()) == {reason}


def fake(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Sample], float], sees: str = "pairs") -> None:
    monkeypatch.setattr(consensus, "FAST", ("TwoNN", "MLE"))
    monkeypatch.setitem(ESTIMATORS, "TwoNN", Estimator(answer, sees))


CLOUD = RealCloud(linear(np.random.default_rng(13), 120))
