from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from raystudy.report.replicates import Sample, comparisons, detectable
from raystudy.report.verdict import verdict
from raystudy.tracking.records import Records, TrialState


def by_metric(records: Records, other: str, metric: str = "valid_r2"):
    found = [one for one in comparisons(records.read()) if (one.b, one.metric) == (other, metric)]
    assert len(found) == 1
    return found[0]


def fail(records: Records, trial_id: str) -> None:
    records.trial_ended(trial_id, TrialState.FAILED, "crash", "an error")


def test_seeds_get_the_plain_t_interval():
    values = [0.10, 0.14, 0.09, 0.13]
    low, high = Sample(values, num_folds=1).interval
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (low, high) == pytest.approx(expected)


def test_folds_get_the_corrected_resampled_interval():
    sample = Sample([0.10, 0.14, 0.09, 0.13, 0.12], num_folds=5)
    variance = np.var(sample.values, ddof=1) * (1 / 5 + 1 / 4)
    assert sample.half_width == pytest.approx(2.7764451 * math.sqrt(variance))
    plain = Sample(sample.values, num_folds=1)
    assert sample.half_width / plain.half_width == pytest.approx(1.5)


def test_seeds_of_a_fold_count_as_one():
    measured = {(fold, seed): fold + 0.1 * seed for fold in range(3) for seed in range(2)}
    assert Sample.of(measured, 3).values == pytest.approx([0.05, 1.05, 2.05])
    assert Sample.of({(0, 0): 1.0, (0, 1): 2.0}, 1).values == [1.0, 2.0]


@pytest.mark.parametrize("values", [[], [0.1]])
def test_fewer_than_two_units_have_no_interval(values):
    sample = Sample(values, num_folds=1)
    assert (sample.interval, sample.half_width, sample.detectable) == (None, None, None)


@pytest.mark.parametrize(("num_units", "promised"), [(3, 0.77), (5, 0.79), (10, 0.80)])
def test_a_difference_of_the_detectable_size_is_found_about_four_times_in_five(num_units, promised):
    random = np.random.default_rng(num_units)
    standard = random.normal(size=num_units)
    standard = (standard - standard.mean()) / standard.std(ddof=1)  # a spread of exactly 1
    true = Sample(standard.tolist(), num_folds=1).detectable
    drawn = random.normal(true, 1, size=(4000, num_units))
    found = [interval[0] > 0 or interval[1] < 0 for interval in (Sample(row.tolist(), 1).interval for row in drawn)]
    assert np.mean(found) == pytest.approx(promised, abs=0.025)


def test_the_corrected_interval_is_no_test_of_its_own_that_finds_more():
    """Without a difference, correlated folds reject about as often as said; the plain interval far too often."""
    random = np.random.default_rng(0)
    num_folds, shared = 5, 0.2  # correlation n_test / (n_test + n_train), as the correction takes it
    common = random.normal(size=(3000, 1)) * math.sqrt(shared)
    drawn = common + random.normal(size=(3000, num_folds)) * math.sqrt(1 - shared)

    def rejected(folds: int) -> float:
        intervals = [Sample(row.tolist(), folds).interval for row in drawn]
        return float(np.mean([low > 0 or high < 0 for low, high in intervals]))

    assert rejected(num_folds) == pytest.approx(0.05, abs=0.015)
    assert rejected(1) > 0.10


def test_finalists_and_baselines_are_compared_with_the_best_on_the_same_folds(fake_study):
    records = fake_study(num_finalists=2, folds=3, seeds=2)
    found = [(one.a, one.b, one.metric) for one in comparisons(records.read())]
    metrics = ("valid_r2", "test_r2")
    assert found == [("t0001", other, metric) for other in ("t0002", "ridge") for metric in metrics]
    ridge = by_metric(records, "ridge")
    values = [0.45 + 0.02 * fold - 0.005 - (0.31 + 0.01 * fold) for fold in range(3)]
    assert ridge.sample.values == pytest.approx(values)
    assert (ridge.sample.units, ridge.left_out) == ("folds", 0)
    other = by_metric(records, "t0002")
    assert other.sample.mean == pytest.approx(0.052)
    assert other.sample.interval[0] < 0.052 < other.sample.interval[1]


def test_a_baseline_on_the_test_is_that_of_the_same_fold(fake_study):
    records = fake_study(folds=2)
    scores = records.read().test_scores
    ours = [scores[f"t0001-r{fold}"]["test_r2"] - scores[f"ridge-fold{fold}"]["test_r2"] for fold in range(2)]
    scores["ridge"]["test_r2"] = 99.0
    assert by_metric(records, "ridge", "test_r2").sample.values == pytest.approx(ours)


def test_with_one_fold_the_baselines_own_value_serves_every_seed(fake_study):
    records = fake_study(seeds=3)
    ridge = by_metric(records, "ridge")
    assert ridge.sample.values == pytest.approx([0.15, 0.14, 0.13])
    assert ridge.sample.units == "seeds"
    assert "not the choice of genes" in ridge.verdict


def test_a_failed_replicate_is_left_out_and_counted(fake_study):
    records = fake_study(num_finalists=2, folds=2, seeds=2)
    fail(records, "t0002-r1")
    found = by_metric(records, "t0002")
    assert found.left_out == 1
    assert len(found.sample.values) == 2, "its fold has another seed"
    assert found.sample.values[0] == pytest.approx(0.05), "the pair of the first seed alone"
    fail(records, "t0002-r0")
    found = by_metric(records, "t0002")
    assert (found.left_out, len(found.sample.values), found.sample.interval) == (2, 1, None)
    assert "no interval" in found.verdict


def test_models_without_a_common_unit_are_said_not_to_be_comparable(fake_study):
    records = fake_study(num_finalists=2)
    fail(records, "t0002-r0")
    found = by_metric(records, "t0002").summary()
    assert (found["difference"], found["interval"], found["detectable"]) == (None, None, None)
    assert (found["num_units"], found["left_out"]) == (0, 1)
    assert "never measured on the same fold and seed" in found["verdict"]


def test_a_sealed_study_is_compared_on_validation_only(fake_study):
    records = fake_study(seeds=2)
    log = records.folder / "study.jsonl"
    lines = [line for line in log.read_text().splitlines() if "test_opened" not in line]
    log.write_text("\n".join(lines) + "\n")
    assert [one.metric for one in comparisons(records.read())] == ["valid_r2"]
    said = verdict(records.read())
    assert "So far t0001 is better than ridge" in said
    assert said.endswith("The test genes are still sealed.")


def test_what_cannot_be_told_apart_says_what_could_have_been_seen(fake_study):
    found = by_metric(fake_study(folds=3, finalist_r2=0.30), "ridge")
    assert found.sample.interval[0] <= 0 <= found.sample.interval[1]
    assert "cannot be told apart" in found.verdict
    assert f"about {found.sample.detectable:.3f} to be seen 4 times in 5" in found.verdict


def test_the_worse_of_two_is_named_whichever_it_is(fake_study):
    found = by_metric(fake_study(folds=3, finalist_r2=0.05), "ridge")
    assert found.verdict.startswith("ridge is better than t0001 (-0.2")


def test_the_verdict_of_replicates_is_the_paired_comparison(fake_study):
    said = verdict(fake_study(folds=3, seeds=2).read())
    assert "(means of 6 replicates)" in said
    assert "The best baseline, ridge, reaches 0.320 and " in said, "its mean over the same folds"
    assert "95 % interval +" in said
    assert "over 3 folds with the same test genes" in said
    assert "over the choice of genes" in said, "which folds with one test part do not cover"


def test_one_replicate_keeps_the_interval_over_the_test_genes(fake_study):
    records = fake_study()
    assert by_metric(records, "ridge").sample.interval is None
    said = verdict(records.read())
    assert "replicates" not in said
    assert "other test genes would hardly have changed that" in said
    assert detectable(records.read()) == []


def test_the_detectable_difference_is_said_for_each_measure(fake_study):
    validation, test = detectable(fake_study(num_finalists=2, folds=3).read())
    assert validation.startswith("With 3 folds, a true difference of about 0.0")
    assert validation.endswith("in validation R2 is seen 4 times in 5.")
    assert "in test R2" in test


def test_comparisons_are_strict_json(fake_study):
    for options in ({}, {"seeds": 2}, {"folds": 2, "num_finalists": 2}):
        study = fake_study(name=f"s{len(options)}", **options).read()
        for one in comparisons(study):
            summary = json.loads(json.dumps(one.summary(), allow_nan=False))
            assert {"a", "b", "metric", "difference", "interval", "units", "num_units", "detectable", "verdict"} <= set(
                summary
            )
