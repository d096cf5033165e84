from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import r2_score

from raystudy.data.genes import Genes
from raystudy.tracking.records import Attempt, TrialRecord, TrialState
from raystudy.training.selection import choose_finalists, open_test, selection_bias
from tests.training.conftest import Tiny


def trial(identity: str, *valid_r2: float | None, state: TrialState = TrialState.COMPLETE) -> TrialRecord:
    # Everything but the validation value speaks for the trials that are worse.
    epochs = [
        {"epoch": number, "valid_r2": value, "train_loss": 10 * (value or 0), "test_r2": -(value or 0)}
        for number, value in enumerate(valid_r2, start=1)
    ]
    return TrialRecord(identity, {}, "h", 1, 0, "sampled", attempts=[Attempt(1, 0.0, epochs, state)])


def test_finalists_have_the_best_validation_value_of_any_epoch_best_first() -> None:
    trials = [trial("t0000", 0.1, 0.2), trial("t0001", 0.5, 0.1), trial("t0002", 0.3, 0.4)]

    assert [one.id for one in choose_finalists(trials, 2)] == ["t0001", "t0002"]
    assert [one.id for one in choose_finalists(trials, 9)] == ["t0001", "t0002", "t0000"]


def test_negative_values_are_ordered_and_a_trial_without_a_value_is_never_chosen() -> None:
    trials = [trial("t0000", -0.5), trial("t0001"), trial("t0002", None, state=TrialState.FAILED), trial("t0003", -0.1)]

    assert [one.id for one in choose_finalists(trials, 4)] == ["t0003", "t0000"]


def test_a_pruned_trial_counts_with_what_it_reached_and_of_equals_the_first_is_chosen() -> None:
    trials = [trial("t0002", 0.4), trial("t0001", 0.4, state=TrialState.PRUNED), trial("t0000", 0.0)]

    assert [one.id for one in choose_finalists(trials, 2)] == ["t0001", "t0002"]


def test_choosing_reads_no_label(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def sealed(*_: object) -> None:
        raise AssertionError("a label was read")

    monkeypatch.setattr(Genes, "target", sealed)

    assert choose_finalists([trial("t0000", 0.1)], 1)


def test_the_test_scores_are_those_of_sklearn_on_the_test_genes_alone(tiny: Tiny) -> None:
    measured, test = tiny.genes.target("protein"), tiny.split.test
    predicted = noisy(measured[:, None], test)

    scores = open_test(tiny.genes, ("protein",), tiny.split, predicted)

    assert scores.keys() == predicted.keys()
    for name, score in scores.items():
        pair = measured[test], predicted[name][test, 0]
        assert score["test_r2"] == pytest.approx(r2_score(*pair))
        assert score["test_pearson_r2"] == pytest.approx(stats.pearsonr(*pair).statistic ** 2)
        assert score["test_spearman"] == pytest.approx(stats.spearmanr(*pair).statistic)
        assert score["num_genes"] == len(test)
    assert scores["a"]["test_r2"] > scores["b"]["test_r2"]


def test_each_level_is_scored_on_the_test_genes_that_have_it(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    targets, test = ("mrna", "protein"), tiny.split.test
    measured = np.stack([tiny.genes.target(target) for target in targets], axis=1)
    measured[test[:5], 0] = measured[test[0], 1] = np.nan
    monkeypatch.setattr(tiny.genes, "target", lambda name: measured[:, targets.index(name)])
    predicted = noisy(np.nan_to_num(measured), test)

    score = open_test(tiny.genes, targets, tiny.split, predicted)["a"]

    own = [r2_score(measured[rows, k], predicted["a"][rows, k]) for k, rows in enumerate((test[5:], test[1:]))]
    assert [score["test_r2_mrna"], score["test_r2_protein"]] == pytest.approx(own)
    assert score["test_r2"] == pytest.approx(np.mean(own))
    assert score["num_genes"] == len(test) - 1, "those with any of the levels"


def noisy(measured: np.ndarray[Any, Any], test: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """A good and a bad prediction of the test genes, and none of the others."""
    random = np.random.default_rng(0)
    predicted = {name: measured + noise * random.normal(size=measured.shape) for name, noise in (("a", 0.5), ("b", 2))}
    for values in predicted.values():
        values[np.setdiff1d(np.arange(len(measured)), test)] = np.nan
    return predicted


def by_epoch(truth: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Five epochs' predictions of one level, of r2 0, 0.75, -3, -1.25 and 0; all but the flat ones correlate fully."""
    centred = truth - truth.mean()
    flat = np.full_like(truth, truth.mean())
    return np.stack([flat, flat + 0.5 * centred, flat + 3 * centred, flat - 0.5 * centred, flat])[..., np.newaxis]


@pytest.mark.parametrize(("chosen", "r2", "pearson_r2"), [(1, 0.0, 0.0), (2, 0.75, 1.0), (3, -3.0, 1.0)])
def test_the_published_number_is_the_best_epochs_and_its_bias_what_the_chosen_one_lacks(
    chosen: int, r2: float, pearson_r2: float, tiny: Tiny
) -> None:
    predicted = by_epoch(tiny.genes.target("protein")[tiny.split.test])

    told = selection_bias(tiny.genes, ("protein",), tiny.split, predicted, chosen)

    assert told == {
        "test_r2_best_epoch": pytest.approx(0.75),
        "epoch_by_test_r2": 2,
        "selection_bias_r2": pytest.approx(0.75 - r2),
        "test_pearson_r2_best_epoch": pytest.approx(1.0),
        "epoch_by_test_pearson_r2": told["epoch_by_test_pearson_r2"],
        "selection_bias_pearson_r2": pytest.approx(1.0 - pearson_r2, abs=1e-12),
    }
    assert told["epoch_by_test_pearson_r2"] in (2, 3, 4), "equal but for rounding"


def test_the_bias_is_never_negative_and_0_where_validation_chose_the_best_epoch(tiny: Tiny) -> None:
    random = np.random.default_rng(0)
    targets, test = ("mrna", "protein"), tiny.split.test
    for _ in range(20):
        predicted = random.normal(size=(6, len(test), 2))
        for chosen in range(1, 7):
            told = selection_bias(tiny.genes, targets, tiny.split, predicted, chosen)
            for name in ("r2", "pearson_r2"):
                assert told[f"selection_bias_{name}"] >= 0
                assert (told[f"selection_bias_{name}"] == 0) == (told[f"epoch_by_test_{name}"] == chosen)


def test_the_epochs_are_scored_as_the_test_is(tiny: Tiny) -> None:
    targets, test = ("mrna", "protein"), tiny.split.test
    measured = np.stack([tiny.genes.target(target) for target in targets], axis=1)
    predicted = noisy(np.nan_to_num(measured), test)
    opened = open_test(tiny.genes, targets, tiny.split, predicted)
    epochs = np.stack([predicted[name][test] for name in ("b", "a")])

    told = selection_bias(tiny.genes, targets, tiny.split, epochs, chosen_epoch=1)

    for name in ("r2", "pearson_r2"):
        assert told[f"test_{name}_best_epoch"] == opened["a"][f"test_{name}"]
        assert told[f"selection_bias_{name}"] == opened["a"][f"test_{name}"] - opened["b"][f"test_{name}"]
