"""The estimators together, on clouds of known dimension and on clouds that nothing should be said about."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from raystudy.data.encode import kmer_counts, tokenize_dna
from raystudy.dimension import consensus, estimators
from raystudy.dimension.clouds import RealCloud, SymbolCloud
from raystudy.dimension.consensus import DimensionEstimate, estimate
from raystudy.dimension.estimators import ESTIMATORS, FAST, Estimator, Sample
from raystudy.errors import SpecError
from tests.dimension.cases import (
    CLOUD,
    DIMENSIONS,
    MANIFOLDS,
    SEEDS,
    Points,
    Random,
    assert_refused,
    assert_sound,
    fake,
    linear,
    measured,
    real,
)


@MANIFOLDS
@pytest.mark.parametrize("seed", SEEDS)
def test_the_consensus_is_within_a_fifth_of_the_truth(manifold: Callable[[Random, int], Points], seed: int) -> None:
    found = measured(manifold, seed)
    assert_sound(found)
    assert found.consensus == pytest.approx(DIMENSIONS[manifold], rel=0.2)
    assert found.consensus == np.median(list(found.estimates.values()))
    assert found.mean == np.mean(list(found.estimates.values()))
    assert any("likely too low" in flag for flag in found.flags) == (found.consensus > 2 * np.log10(600))
    assert found.points == dict.fromkeys(FAST, 600)


def test_the_interval_holds_the_truth_nearly_always_and_the_consensus_always() -> None:
    held = []
    for manifold, dimension in DIMENSIONS.items():
        for seed in SEEDS:
            found = measured(manifold, seed)
            assert found.interval is not None
            assert found.consensus is not None
            low, high = found.interval
            assert low <= found.consensus <= high
            assert high < 2 * low, "wide enough to hold anything is no interval"
            held.append(low <= dimension <= high)
    assert sum(held) >= 7


@MANIFOLDS
def test_the_interval_spans_the_estimators_and_the_resamples(manifold: Callable[[Random, int], Points]) -> None:
    found = measured(manifold, 0)
    low, high = np.percentile(list(found.estimates.values()), [10, 90])
    assert found.interval is not None
    assert found.interval[0] <= low < high <= found.interval[1]
    assert found.spread.keys() == found.estimates.keys()
    assert all(0 < below <= above for below, above in found.spread.values())
    changes = {name: max(found.spread[name][1], value) / min(found.spread[name][0], value) for name, value in
               found.estimates.items()}  # fmt: skip
    assert max(changes.values()) <= consensus.MAX_CHANGE


def test_resamples_widen_the_interval_where_the_estimators_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consensus, "FAST", ("TwoNN", "MLE"))
    for name in ("TwoNN", "MLE"):
        answer = Estimator(lambda sample: 5.0 if len(sample.cloud) == 200 else 4.0, "pairs")
        monkeypatch.setitem(ESTIMATORS, name, answer)
    cloud = real(linear(np.random.default_rng(0), 200))
    assert estimate(cloud, num_resamples=3).interval == [4.0, 5.0]
    assert estimate(cloud, num_resamples=0).interval == [5.0, 5.0]


def test_the_same_seed_gives_the_same_answer_and_the_points_stay(quick: tuple[str, ...]) -> None:
    points = linear(np.random.default_rng(2), 200)
    before = points.copy()
    first, second, third = (estimate(real(points), seed=seed) for seed in (5, 5, 6))
    assert (first.estimates, first.interval, first.spread) == (second.estimates, second.interval, second.spread)
    assert first.spread != third.spread
    assert first.estimates == third.estimates, "all points are seen whatever the seed"
    np.testing.assert_array_equal(points, before)


def test_duplicates_are_dropped_and_counted(quick: tuple[str, ...]) -> None:
    points = linear(np.random.default_rng(4), 300)
    points[0, 0] = 0.0
    copies = points[:40].copy()
    copies[0, 0] = -0.0
    once = estimate(real(points), num_resamples=0)
    twice = estimate(real(np.vstack([points, copies])), num_resamples=0)
    assert (once.num_points, once.num_duplicates) == (300, 0)
    assert (twice.num_points, twice.num_duplicates) == (300, 40)
    assert twice.estimates == once.estimates
    assert twice.estimates.keys() == set(quick)


def test_constant_points_are_refused() -> None:
    for cloud in (real(np.full((200, 8), 3.5)), SymbolCloud(np.ones((200, 8), dtype=np.uint8))):
        found = estimate(cloud, "onehot", "both")
        assert_refused(found, "all 200 points are the same")
        assert (found.num_points, found.num_duplicates) == (1, 199)
        assert (found.representation, found.input) == ("onehot", "both")


def test_all_duplicates_are_refused() -> None:
    points = np.repeat(linear(np.random.default_rng(5), 20), 30, axis=0)
    assert_refused(estimate(real(points)), "only 20 of 600 points are distinct; at least 50 must be")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    points = linear(np.random.default_rng(6), 100)
    points[[3, 7], [0, 1]] = bad
    assert_refused(estimate(real(points)), "2 of 100 points have values that are not finite")


@pytest.mark.parametrize("num_points", [0, 1, 49])
def test_fewer_than_fifty_points_are_refused(num_points: int) -> None:
    found = estimate(real(linear(np.random.default_rng(7), num_points)))
    assert_refused(found, f"only {num_points} of {num_points} points are distinct; at least 50 must be")


def test_fifty_points_are_answered() -> None:
    found = estimate(real(linear(np.random.default_rng(8), 50, dimension=4)), num_resamples=1)
    assert_sound(found)
    assert found.consensus == pytest.approx(4, rel=0.3)


@pytest.mark.parametrize("length", [8, 40])
def test_one_hot_ties_leave_no_consensus(length: int) -> None:
    tokens = np.random.default_rng(9).integers(0, 4, (400, length)).astype(np.uint8)
    found = estimate(SymbolCloud(tokens), num_resamples=1)
    assert_sound(found)
    assert all("the points sit on a lattice: for " in reason for reason in found.refused.values())
    assert (found.consensus, found.flags) == (None, [])
    assert found.curve is not None, "there is still a curve to look at"
    assert found.curve["fitted_slope"] is None


def test_a_simplex_where_all_distances_are_equal_is_refused() -> None:
    found = estimate(real(np.eye(80)))
    assert_sound(found)
    assert (found.consensus, found.curve) == (None, None)


def test_a_line_is_not_made_a_width_of_one() -> None:
    for seed in range(4):
        points = np.random.default_rng(seed).normal(size=(300, 1)) @ np.ones((1, 5))
        found = estimate(real(points), num_resamples=1)
        assert_sound(found)
        assert found.consensus is None, "what is left above 1 are only the errors upwards"
        assert sum("not above 1" in reason for reason in found.refused.values()) >= 3


def test_more_directions_than_points_can_tell_are_left_out_of_the_consensus() -> None:
    found = estimate(real(np.random.default_rng(11).normal(size=(100, 300))), num_resamples=0)
    assert_sound(found)
    assert all("too few points" in found.refused[name] for name in ("lPCA", "TwoNN", "MiND_ML"))
    assert all(value <= 50 for value in found.estimates.values())


def test_points_that_rounding_merges_leave_nothing_to_trust() -> None:
    random = np.random.default_rng(12)
    clumps = np.repeat(random.normal(size=(60, 3)), 2, axis=0)
    clumps[1::2] += 1e-15 * random.random((60, 3))
    found = estimate(real(clumps), num_resamples=2)
    assert_sound(found)
    assert "measurably apart" in found.refused["TwoNN"]


def test_a_fine_lattice_is_flagged_and_not_refused(quick: tuple[str, ...]) -> None:
    found = estimate(real(np.rint(10 * np.random.default_rng(1).normal(size=(500, 6)))), num_resamples=1)
    assert found.consensus == pytest.approx(6, rel=0.2)
    assert "lattice" in found.flags[0]
    assert "1.8% of them" in found.flags[0]
    assert "2 log10 n" in found.flags[1], "500 points cannot show 6 dimensions without bias"


@pytest.mark.parametrize(("least", "flagged"), [(0.018, True), (0.019, False)])
def test_a_few_ties_by_chance_are_not_flagged(
    least: float, flagged: bool, quick: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consensus, "MIN_FLAGGED_FRACTION", least)
    points = np.rint(10 * np.random.default_rng(1).normal(size=(500, 6)))  # 1.8 % have ties
    assert any("lattice" in flag for flag in estimate(real(points), num_resamples=0).flags) is flagged


def test_large_clouds_are_thinned_for_coordinates_and_not_for_distances(
    quick: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimators, "MAX_POINTS", 60)
    found = estimate(real(linear(np.random.default_rng(14), 150)), num_resamples=1)
    assert (found.points["lPCA"], found.points["MLE"]) == (60, 150)
    assert found.estimates["lPCA"] == 5


def test_a_name_that_is_no_slow_estimator_is_refused() -> None:
    for name in ("DANCO", "TwoNN"):
        with pytest.raises(SpecError, match=rf"`also` names slow estimators \(ESS, DANCo, PH\), but got {name}"):
            estimate(CLOUD, also=["PH", name])


def test_slow_estimators_are_asked_on_request_only_and_on_two_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def answer(sample: Sample) -> float:
        asked.append(len(sample.fewer))
        return 5.5

    fake(monkeypatch, lambda _: 5.0)
    monkeypatch.setitem(ESTIMATORS, "DANCo", Estimator(answer, "fewer"))
    monkeypatch.setattr(estimators, "MAX_SLOW_POINTS", 80)
    assert "DANCo" not in estimate(CLOUD, num_resamples=1).points
    assert asked == []
    found = estimate(CLOUD, also=["DANCo"], num_resamples=5)
    assert asked == [80, 40, 40]
    assert found.estimates["DANCo"] == 5.5
    assert found.spread["DANCo"] == [5.5, 5.5]
    assert found.points["DANCo"] == 80
    assert found.consensus == np.median([5.0, 5.5, found.estimates["MLE"]])


def test_a_slow_estimator_really_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consensus, "FAST", ("TwoNN",))
    monkeypatch.setattr(estimators, "MAX_SLOW_POINTS", 80)
    found = estimate(CLOUD, also=["PH"], num_resamples=1)
    assert found.estimates["PH"] == pytest.approx(5, rel=0.4)


def test_a_refused_cloud_names_the_slow_estimators_too() -> None:
    found = estimate(real(np.zeros((60, 2))), also=["PH"])
    assert found.refused.keys() == {*FAST, "PH"}


def test_no_warning_escapes() -> None:
    with warnings.catch_warnings(record=True) as escaped:
        warnings.simplefilter("always")
        estimate(real(np.eye(80)), num_resamples=1)
        estimate(real(linear(np.random.default_rng(15), 100).astype(np.float32)), num_resamples=1)
    assert [str(one.message) for one in escaped] == []


def test_json_keeps_the_whole_estimate() -> None:
    found = measured(linear, 0)
    document = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert document.keys() == {
        "representation", "input", "estimates", "spread", "consensus", "mean", "interval", "refused", "seconds",
        "points", "num_points", "num_duplicates", "flags", "curve",
    }  # fmt: skip
    assert document["seconds"].keys() == {"distances", "coordinates", *FAST, "resamples"}
    assert document["curve"]["fitted_slope"] == document["estimates"]["correlation_integral"]
    assert DimensionEstimate.from_json(document) == found
    assert DimensionEstimate.from_json({**document, "others": {}, "window_bp": [1, 2]}) == found
    refused = estimate(real(np.zeros((100, 2))))
    assert DimensionEstimate.from_json(json.loads(json.dumps(refused.as_json()))) == refused


def test_yeast_windows_give_what_was_measured_independently() -> None:
    table = Path(__file__).parents[2] / "../shared/data/yeast_genes.parquet"
    if not table.exists():
        pytest.skip("the yeast table is not beside the project")
    texts = pq.read_table(table, columns=["dna_m1000_p500"]).column(0).to_pylist()
    counts = kmer_counts(np.stack([tokenize_dna(text) for text in texts]), 3)
    found = estimate(RealCloud(counts), num_resamples=0)
    assert (found.num_points, found.num_duplicates) == (5932, 51)
    expected = {"correlation_integral": 17.6, "TwoNN": 23.0, "MLE": 22.9, "lPCA": 24.0}
    assert {name: found.estimates[name] for name in expected} == pytest.approx(expected, rel=0.15)


def test_a_coarse_lattice_is_refused_and_a_fine_one_is_not(quick: tuple[str, ...]) -> None:
    fine, coarse = (np.rint(steps * np.random.default_rng(1).normal(size=(500, 6))) for steps in (10, 2))
    assert estimate(real(fine), num_resamples=0).consensus == pytest.approx(6, rel=0.2)
    found = estimate(real(coarse))
    assert found.consensus is None
    assert all("lattice" in reason for reason in found.refused.values())
