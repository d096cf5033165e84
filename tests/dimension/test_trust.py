"""Which answers are trusted: stable ones, and enough of them."""

from __future__ import annotations

import numpy as np
import pytest

from raystudy.dimension.consensus import estimate
from raystudy.dimension.estimators import ESTIMATORS, FAST, Estimator, Sample
from raystudy.dimension.pairs import RefusalError
from tests.dimension.cases import (
    CLOUD,
    assert_sound,
    fake,
    linear,
    real,
)


@pytest.mark.parametrize(("on_halves", "is_stable"), [(6.7, True), (6.6, False), (14.9, True), (15.2, False)])
def test_an_estimate_that_changes_by_half_on_half_of_the_points_is_refused(
    on_halves: float, is_stable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, lambda sample: 10.0 if len(sample.cloud) == 120 else on_halves)
    found = estimate(CLOUD, num_resamples=3)
    assert ("TwoNN" in found.estimates) is ("TwoNN" in found.spread) is is_stable
    assert found.interval is not None
    if is_stable:
        assert found.spread["TwoNN"] == [on_halves, on_halves]
    else:
        reason = found.refused["TwoNN"]
        assert reason.startswith(f"unstable: 10 on all points, but {on_halves:.1f} to {on_halves:.1f} on halves")
        assert found.consensus == found.estimates["MLE"], "what was refused is not in the consensus"
        assert found.interval[1] < 6, "nor in the interval"


@pytest.mark.parametrize(("num_refused", "is_trusted"), [(2, True), (3, False)])
def test_an_estimator_that_refuses_most_halves_is_refused(
    num_refused: int, is_trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def answer(sample: Sample) -> float:
        asked.append(len(sample.cloud))
        if len(asked) in range(2, 2 + num_refused):
            raise RefusalError("not today")
        return 5.0

    fake(monkeypatch, answer)
    found = estimate(CLOUD, num_resamples=4)
    assert asked == [120, 60, 60, 60, 60]
    assert ("TwoNN" in found.estimates) is is_trusted
    if not is_trusted:
        assert found.refused["TwoNN"] == "unstable: 5 on all points, but refused on 3 of 4 halves of them"


def test_an_estimator_that_fails_is_refused_and_the_others_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Sample) -> float:
        raise ValueError("array must not contain infs")

    fake(monkeypatch, fails)
    found = estimate(CLOUD, num_resamples=1)
    assert found.refused == {"TwoNN": "scikit-dimension could not compute it (array must not contain infs)"}
    assert found.estimates.keys() == {"MLE"}
    assert found.consensus == found.estimates["MLE"]


def test_a_consensus_needs_half_of_the_estimators(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_: Sample) -> float:
        raise RefusalError("not today")

    for name in FAST[:6]:
        monkeypatch.setitem(ESTIMATORS, name, Estimator(silent, "pairs"))
    found = estimate(real(linear(np.random.default_rng(3), 200)), num_resamples=0)
    assert_sound(found)
    assert (found.consensus, found.interval) == (None, None)
    assert found.refused["TLE"].endswith("but only 5 of 11 estimators can be trusted here")


def test_a_half_is_not_refused_for_what_the_whole_may_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FAST:
        monkeypatch.setitem(ESTIMATORS, name, Estimator(lambda sample: 45.0, "pairs"))
    found = estimate(real(linear(np.random.default_rng(3), 100)), num_resamples=3)
    assert found.estimates == dict.fromkeys(FAST, 45.0), "45 of 100 points, and 45 of 50 in a half"


def test_fewer_than_a_hundred_points_are_flagged() -> None:
    for num_points, flagged in ((99, True), (100, False)):
        found = estimate(real(linear(np.random.default_rng(8), num_points, dimension=3)), num_resamples=1)
        assert any("resample" in flag for flag in found.flags) is flagged
