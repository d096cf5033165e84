from __future__ import annotations

import numpy as np
import pytest

from raystudy.report.compare import Pairs, r2_interval
from raystudy.report.intervals import gene_intervals
from raystudy.tracking.predictions import predictions_path


def levels(num_genes: int, noise: float, seed: int = 0) -> Pairs:
    """Of genes whose true R2 is 1 - noise^2."""
    random = np.random.default_rng(seed)
    measured = random.normal(size=num_genes)
    predicted = measured + noise * random.normal(size=num_genes)
    return {"protein": {f"g{row}": (predicted[row], measured[row]) for row in range(num_genes)}}


def test_an_interval_is_what_resampling_the_genes_one_by_one_gives():
    pairs = levels(40, 0.6)
    predicted, measured = np.array(list(pairs["protein"].values())).T
    random = np.random.default_rng(1)
    values = []
    for _ in range(2000):
        drawn = random.integers(0, 40, size=40)
        truth = measured[drawn]
        values.append(1 - ((predicted[drawn] - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
    assert r2_interval([pairs]) == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.03)


def test_an_interval_covers_the_true_r2_about_as_often_as_it_says():
    covered = 0
    for seed in range(100):
        low, high = r2_interval([levels(300, 0.6, seed)], resamples=400)
        covered += low <= 1 - 0.6**2 <= high
    assert 88 <= covered <= 100


def test_the_same_predictions_have_the_same_interval_every_time():
    assert r2_interval([levels(50, 0.5)]) == r2_interval([levels(50, 0.5)])


def test_replicates_are_averaged_on_the_same_genes():
    pairs = levels(60, 0.5)
    assert r2_interval([pairs, pairs]) == pytest.approx(r2_interval([pairs]))
    noisy = levels(60, 0.5, seed=1)
    between = sorted([r2_interval([pairs])[0], r2_interval([noisy])[0]])
    assert between[0] < r2_interval([pairs, noisy])[0]


def test_replicates_of_different_genes_each_count_by_their_own():
    one = levels(60, 0.5)
    other = {"protein": {f"other {gene}": pair for gene, pair in one["protein"].items()}}
    low, high = r2_interval([one])
    both = r2_interval([one, other])
    assert low < both[0] < both[1] < high, "twice as many genes are surer"


def test_genes_that_do_not_vary_have_no_interval():
    assert r2_interval([{"protein": {"a": (0.1, 1.0), "b": (0.2, 1.0)}}]) is None


def test_finalists_and_baselines_have_an_interval_around_their_r2(fake_study):
    study = fake_study(num_finalists=2, seeds=2).read()
    found = gene_intervals(study)
    assert set(found) == {"t0001", "t0002", "ridge"}
    for name, scored in (("ridge", ["ridge"]), ("t0001", ["t0001-r0", "t0001-r1"])):
        low, high = found[name]["test_r2"]
        assert low < np.mean([study.test_scores[one]["test_r2"] for one in scored]) < high


def test_sealed_genes_have_no_interval(fake_study):
    study = fake_study().read()
    study.events = [line for line in study.events if line["event"] != "test_opened"]
    found = gene_intervals(study)
    assert found["t0001"]["test_r2"] is None
    assert found["t0001"]["valid_r2"] is not None


def test_an_interval_of_some_replicates_only_is_none(fake_study):
    records = fake_study(seeds=2)
    predictions_path(records.folder, "t0001-r1").unlink()
    assert gene_intervals(records.read())["t0001"] == {"valid_r2": None, "test_r2": None}
