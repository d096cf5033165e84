"""Each estimator on its own: what it answers, and when it refuses."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import skdim.id
from numpy.typing import NDArray

from raystudy.dimension import estimators
from raystudy.dimension.clouds import Cloud, RealCloud, SymbolCloud
from raystudy.dimension.estimators import ESTIMATORS, FAST, Estimator, Sample, ask, choose
from raystudy.dimension.pairs import RefusalError

Floats = NDArray[np.float64]


def normal(num_points: int, dimension: int, num_features: int | None = None, seed: int = 0) -> Floats:
    random = np.random.default_rng(seed)
    points = random.normal(size=(num_points, dimension))
    return points if num_features is None else points @ random.normal(size=(dimension, num_features))


def sample(points: Floats | Cloud, share: float = 1.0) -> Sample:
    cloud = RealCloud(points) if isinstance(points, np.ndarray) else points
    return Sample.of(cloud, np.random.default_rng(0), share)


@pytest.fixture(scope="module")
def six_dimensional() -> Sample:
    return sample(normal(400, 6, 20))


def test_eleven_estimators_are_asked_and_three_slow_ones_only_on_request() -> None:
    assert FAST == (
        "correlation_integral", "CorrInt", "TwoNN", "MLE", "MOM", "GRIDE", "MiND_ML", "lPCA", "TLE", "MADA", "FisherS",
    )  # fmt: skip
    assert set(ESTIMATORS) - set(FAST) == {"ESS", "DANCo", "PH"}
    assert all(ESTIMATORS[name].is_slow is (name not in FAST) for name in ESTIMATORS)


@pytest.mark.parametrize("name", FAST)
def test_every_estimator_finds_six_dimensions_within_a_third(name: str, six_dimensional: Sample) -> None:
    assert ask(name, six_dimensional) == pytest.approx(6, rel=1 / 3)


@pytest.mark.parametrize("name", ["TwoNN", "MLE", "MOM", "GRIDE", "lPCA", "TLE", "MADA", "FisherS", "CorrInt"])
@pytest.mark.parametrize("kind", ["counts", "values"])
def test_shared_distances_give_what_scikit_dimension_gives_alone(name: str, kind: str) -> None:
    points = 30 * normal(300, 6, 20, seed=3)
    points = np.rint(points) if kind == "counts" else points
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        neighbors = {"n_neighbors": 20} if name == "MOM" else {}  # which takes 100 unless said
        alone = getattr(skdim.id, name)().fit(points, **neighbors).dimension_
    assert ask(name, sample(points)) == pytest.approx(alone, rel=0.005 if name == "CorrInt" else 1e-3)


@pytest.mark.parametrize("name", ["TwoNN", "MLE", "CorrInt", "lPCA", "FisherS", "MADA"])
def test_sequences_give_what_one_hot_points_give(name: str) -> None:
    tokens = np.random.default_rng(4).integers(0, 4, (150, 900)).astype(np.uint8)
    tokens[:, 60:] = tokens[:1, 60:]  # not so many directions that FisherS gives up
    tokens[:, 60:200] = np.where(np.random.default_rng(5).random((150, 140)) < 0.1, 0, tokens[:, 60:200])
    points = (tokens[:, :, None] == np.arange(4)).reshape(150, -1).astype(np.float64)
    answers = []
    for cloud in (SymbolCloud(tokens), RealCloud(points)):
        try:
            answers.append(str(round(ask(name, sample(cloud)), 4)))
        except RefusalError as refusal:
            answers.append(str(refusal))
    assert answers[0] == answers[1]
    assert "could not compute" not in answers[0]


def test_corrint_of_sequences_is_exactly_that_of_one_hot_points() -> None:
    tokens = np.random.default_rng(6).integers(0, 4, (300, 400)).astype(np.uint8)
    points = (tokens[:, :, None] == np.arange(4)).reshape(300, -1).astype(np.float64)
    expected = skdim.id.CorrInt().fit(points).dimension_
    assert ask("CorrInt", sample(SymbolCloud(tokens))) == pytest.approx(expected, rel=1e-9)


def test_a_sample_has_all_distances_and_no_more_coordinates_than_can_be_borne(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(estimators, "MAX_POINTS", 80)
    monkeypatch.setattr(estimators, "MAX_SLOW_POINTS", 60)
    points = normal(200, 3)
    whole, half = sample(points), sample(points, share=0.5)
    assert [ESTIMATORS[name].num_points(whole) for name in ("MLE", "lPCA", "PH")] == [200, 80, 60]
    assert [ESTIMATORS[name].num_points(half) for name in ("MLE", "lPCA", "PH")] == [200, 40, 30]
    assert (whole.points.shape, whole.fewer_points.shape) == ((80, 3), (60, 3))
    assert len(whole.pairs.neighbors) == 200


def test_chosen_points_are_different_ones_in_their_order() -> None:
    values = np.arange(100.0)[:, None]
    few = choose(RealCloud(values), 30, np.random.default_rng(0))
    assert isinstance(few, RealCloud)
    assert len(few) == 30
    assert all(np.diff(few.values[:, 0]) > 0)
    cloud = RealCloud(values)
    assert choose(cloud, 100, np.random.default_rng(0)) is cloud


def test_a_cloud_of_eighteen_dimensions_is_not_capped_at_ten() -> None:
    points = normal(500, 18, seed=1)
    found = ask("MiND_ML", sample(points))
    assert 12 < found < 18
    assert skdim.id.MiND_ML().fit(points).dimension_ <= 10, "scikit-dimension's own limit"


def test_an_answer_at_its_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bounded:
        def __init__(self, D: int) -> None:  # as scikit-dimension calls it
            self.most = D

        def fit(self, points: Floats) -> Bounded:
            self.dimension_ = share * self.most
            return self

    monkeypatch.setattr(skdim.id, "MiND_ML", Bounded)
    share = 1.0
    with pytest.raises(RefusalError, match=r"^7\.0 is the most it could answer for 7 directions"):
        ask("MiND_ML", sample(normal(60, 7)))
    share = 0.9
    assert ask("MiND_ML", sample(normal(60, 7))) == pytest.approx(6.3)


def test_more_directions_than_points_can_tell_are_refused_by_lpca() -> None:
    with pytest.raises(RefusalError, match=r"^\d+ directions in 100 points: too few points to tell"):
        ask("lPCA", sample(normal(100, 300)))
    assert ask("lPCA", sample(normal(100, 40))) == 40


@pytest.mark.parametrize("name", FAST)
def test_points_that_are_all_equally_far_are_refused(name: str) -> None:
    for cloud in (RealCloud(np.eye(80)), SymbolCloud(np.eye(80, dtype=np.uint8))):
        with pytest.raises(RefusalError, match=r"."):
            ask(name, sample(cloud))


@pytest.mark.parametrize("name", ["TwoNN", "MLE", "MOM"])
def test_points_that_rounding_merges_are_refused_not_divided_by(name: str) -> None:
    clumps = np.repeat(normal(60, 3), 2, axis=0)
    clumps[1::2] += 1e-17 * np.arange(60)[:, None]
    with pytest.raises(RefusalError, match=r"^only \d+ of 120 points are measurably apart"):
        ask(name, sample(clumps))


@pytest.mark.parametrize("name", ["CorrInt", "MiND_ML", "lPCA"])
def test_a_line_is_refused_rather_than_made_a_width_of_one(name: str) -> None:
    with pytest.raises(RefusalError, match=r"is not above 1"):
        ask(name, sample(normal(300, 1, 5)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_value_that_is_not_finite_comes_out(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ESTIMATORS, "TwoNN", Estimator(lambda _: value, "pairs"))
    with pytest.raises(RefusalError, match="no finite value came out"):
        ask("TwoNN", sample(normal(60, 3)))


@pytest.mark.parametrize("value", [-5.0, 0.0, 0.3, 1.0])
def test_no_dimension_of_one_or_less_comes_out(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ESTIMATORS, "TwoNN", Estimator(lambda _: value, "pairs"))
    with pytest.raises(RefusalError, match=r"is not above 1"):
        ask("TwoNN", sample(normal(60, 3)))
    monkeypatch.setitem(ESTIMATORS, "TwoNN", Estimator(lambda _: 1.01, "pairs"))
    assert ask("TwoNN", sample(normal(60, 3))) == 1.01


@pytest.mark.parametrize(
    "error",
    [ValueError("a\nb " + 300 * "x"), np.linalg.LinAlgError("no"), ZeroDivisionError(), IndexError(), RuntimeError()],
    ids=lambda error: type(error).__name__,
)
def test_an_estimator_that_fails_refuses_in_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Sample) -> float:
        raise error

    monkeypatch.setitem(ESTIMATORS, "TwoNN", Estimator(fails, "pairs"))
    with pytest.raises(RefusalError, match=r"^scikit-dimension could not compute it \(.{0,200}\)$"):
        ask("TwoNN", sample(normal(60, 3)))


def test_no_warning_escapes() -> None:
    with warnings.catch_warnings(), np.errstate(all="warn"):
        warnings.simplefilter("error")
        simplex = sample(np.eye(80))
        for name in FAST:
            with pytest.raises(RefusalError):
                ask(name, simplex)


def test_a_slow_estimator_sees_few_points_and_answers_the_same_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimators, "MAX_SLOW_POINTS", 60)
    points = normal(200, 4, 10)
    found = ask("PH", sample(points))
    assert found == pytest.approx(4, rel=0.4)
    assert ask("PH", sample(points)) == found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ESS", "DANCo", "PH"])
def test_every_slow_estimator_finds_four_dimensions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimators, "MAX_SLOW_POINTS", 100)
    assert ask(name, sample(normal(200, 4, 10))) == pytest.approx(4, rel=0.25)
