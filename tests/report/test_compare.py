from __future__ import annotations

import numpy as np
import pytest

from raystudy.report.compare import Pairs, best_finalist, predictions, r2_difference
from raystudy.report.verdict import verdict
from raystudy.tracking.predictions import write_predictions
from raystudy.tracking.records import Records, TrialRecord, TrialState


def levels(noise: float, num_genes: int = 200, seed: int = 1) -> dict[str, tuple[float, float]]:
    measured = np.random.default_rng(0).normal(size=num_genes)
    predicted = measured + noise * np.random.default_rng(seed).normal(size=num_genes)
    return {f"g{row}": (float(predicted[row]), float(measured[row])) for row in range(num_genes)}


def pairs(noise: float, **options: int) -> Pairs:
    return {"protein": levels(noise, **options)}


def add_replicate(records: Records, identity: str, valid_r2: float, state: TrialState = TrialState.COMPLETE) -> None:
    records.trial_started(TrialRecord(identity, {"latent_dim": 8}, "h", 10, 1, "sampled"))
    records.trial_epoch(identity, {"epoch": 1, "valid_r2": valid_r2, "epoch_seconds": 1.0})
    records.trial_ended(identity, state)


def test_the_interval_of_a_clear_difference_lies_on_one_side():
    low, high = r2_difference(pairs(0.2), pairs(0.9, seed=2))
    assert 0 < low < high


def test_the_interval_of_equals_holds_zero():
    low, high = r2_difference(pairs(0.5), pairs(0.5, seed=2))
    assert low < 0 < high
    assert r2_difference(pairs(0.5), pairs(0.5)) == (0.0, 0.0)


@pytest.mark.parametrize("targets", [("protein",), ("mrna", "protein")])
def test_the_interval_covers_the_true_difference_about_as_often_as_it_says(targets):
    covered = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        ours: Pairs = {}
        theirs: Pairs = {}
        for target in targets:  # levels of one gene go together, and so do what is left of them
            measured, wrong = random.normal(size=300), random.normal(size=300)
            for pairs_, noise in ((ours, 0.5), (theirs, 0.7)):
                predicted = measured + noise * (wrong + random.normal(size=300)) / np.sqrt(2)
                pairs_[target] = {str(row): (predicted[row], measured[row]) for row in range(300)}
        low, high = r2_difference(ours, theirs, resamples=400)
        covered += low <= 0.7**2 - 0.5**2 <= high
    assert 88 <= covered <= 100


def test_the_interval_of_two_targets_is_that_of_the_mean_of_their_differences():
    def shifted(better: float, worse: float) -> Pairs:
        return {"mrna": levels(better, seed=2), "protein": levels(worse, seed=3)}

    low, high = r2_difference(shifted(0.2, 0.9), shifted(0.9, 0.2))
    assert -0.25 < low < 0 < high < 0.25, "each is better once"
    ours, theirs = levels(0.2), levels(0.9, seed=2)
    twice = r2_difference({"mrna": ours, "protein": ours}, {"mrna": theirs, "protein": theirs})
    assert twice == pytest.approx(r2_difference({"mrna": ours}, {"mrna": theirs}))


def test_only_genes_and_targets_that_both_predicted_are_compared():
    ours, theirs = pairs(0.5), pairs(0.9, seed=2)
    more = ours | {"mrna": levels(5.0)}
    more["protein"] = more["protein"] | {"only ours": (1e6, 0.0)}
    assert r2_difference(more, theirs) == r2_difference(ours, theirs)


def test_genes_that_do_not_vary_say_nothing():
    same = {"protein": {"a": (0.1, 1.0), "b": (0.2, 1.0)}}
    assert r2_difference(same, same) == (-np.inf, np.inf)


def test_the_best_finalist_is_chosen_on_validation_even_where_another_tests_better(fake_study):
    records = fake_study()
    add_replicate(records, "t0003-r0", valid_r2=0.99)
    assert best_finalist(records.read()).trial == "t0003"
    assert "t0003-r0" not in records.read().test_scores


def test_a_finalist_is_the_mean_of_its_completed_replicates(fake_study):
    records = fake_study(finalist_r2=0.4)
    add_replicate(records, "t0001-r1", valid_r2=0.5)
    add_replicate(records, "t0001-r2", valid_r2=0.9, state=TrialState.FAILED)
    best = best_finalist(records.read())
    assert best.valid_r2 == pytest.approx(0.45)
    assert best.best_replicate.id == "t0001-r1"


def test_predictions_of_a_part_are_given_only_when_its_genes_are_measured(fake_study):
    records = fake_study()
    study = records.read()
    assert len(predictions(study, "ridge", "test")["protein"]) == 20
    assert predictions(study, "gbm", "test") is None
    parts = {"valid": np.array([0]), "test": np.array([1])}
    predicted, measured = np.array([[1.0, 3.0], [2.0, 4.0]]), np.array([[1.5, np.nan], [np.nan, np.nan]])
    write_predictions(records.folder, "ridge", np.array(["a", "b"]), parts, ["protein", "mrna"], predicted, measured)
    assert predictions(study, "ridge", "valid") == {"protein": {"a": (1.0, 1.5)}}
    assert predictions(study, "ridge", "test") is None


def test_predictions_of_two_targets_stand_apart(fake_study):
    study = fake_study(targets=("mrna", "protein")).read()
    found = predictions(study, "t0001-r0", "test")
    assert set(found) == {"mrna", "protein"}
    assert found["mrna"].keys() == found["protein"].keys()
    assert found["mrna"] != found["protein"]


def test_the_verdict_of_two_targets_says_that_it_speaks_of_their_mean(fake_study):
    said = verdict(fake_study(targets=("mrna", "protein")).read())
    assert said.endswith("Every R2 here is the mean over mrna and protein.")
    assert "95 % interval" in said
    assert "mean over" not in verdict(fake_study(name="one").read())


def test_the_verdict_says_plainly_when_the_baseline_is_better(fake_study):
    said = verdict(fake_study(ridge_noise=0.01).read())
    assert "favours the baseline ridge" in said
    assert "would hardly have changed that" in said


def test_the_verdict_says_when_the_difference_is_within_chance(fake_study):
    assert "could have turned it round" in verdict(fake_study(ridge_noise=0.45).read())


def test_the_verdict_of_a_study_under_way_says_that_the_test_is_sealed(fake_study):
    said = verdict(fake_study(opened=False).read())
    assert said.startswith("Not decided yet: the best of 5 trials so far is t0003")
    assert "sealed" in said


def test_the_verdict_between_training_the_finalist_and_opening_the_test_compares_on_validation(fake_study):
    records = fake_study(opened=False)
    add_replicate(records, "t0003-r0", valid_r2=0.25)
    said = verdict(records.read())
    assert "so far the baseline ridge leads" in said
    assert "still sealed" in said


def test_the_verdict_of_a_study_without_values_says_so(fake_study):
    assert verdict(fake_study(num_trials=0, opened=False).read()).startswith("Nothing can be said yet")


def test_the_verdict_without_predictions_does_not_claim_an_interval(fake_study):
    records = fake_study()
    (records.folder / "predictions" / "ridge.parquet").unlink()
    assert "how sure that is cannot be said" in verdict(records.read())
