"""Which keys mattered, on surfaces where that is known."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from raystudy.search.importances import FEWEST_TRIALS, importances
from raystudy.study.spec import StudySpec
from raystudy.tracking.records import Attempt, TrialRecord, TrialState
from tests.search.cases import make_spec

SEARCH: dict[str, Any] = {
    "learning_rate": {"kind": "log", "low": 1e-4, "high": 1e-2},
    "dropout": {"kind": "float", "low": 0.0, "high": 0.4},
    "batch_size": {"kind": "pow2", "low": 16, "high": 128},
}


def trials_of(spec: StudySpec, values: Any, num: int = 40, **known: Any) -> list[TrialRecord]:
    """Trials at random points of the space; ``values`` gives what one reached from its configuration."""
    chance, found = random.Random(0), []  # noqa: S311 (no secret)
    for number in range(num):
        config = {
            "learning_rate": 10 ** chance.uniform(-4, -2),
            "dropout": chance.uniform(0, 0.4),
            "batch_size": 2 ** chance.randint(4, 7),
            "encoder": chance.choice(["onehot", "embedding"]),
            "embedding_dim": 2 ** chance.randint(3, 5),
        }
        chosen = {key: config[key] for key in spec.search}
        trial = TrialRecord(f"t{number:04d}", spec.applying(chosen), f"h{number}", 10, 1, "sampled", **known)
        epoch = {"epoch": 1, "valid_r2": values(config), "time": 1.0, "epoch_seconds": 1.0}
        trial.attempts.append(Attempt(1, 0.0, [epoch], state=TrialState.COMPLETE))
        found.append(trial)
    return found


@pytest.mark.parametrize(
    ("key", "surface"),
    [
        ("learning_rate", lambda config: -((math.log10(config["learning_rate"]) + 3) ** 2)),
        ("dropout", lambda config: -config["dropout"]),
        ("batch_size", lambda config: math.log2(config["batch_size"])),
    ],
)
def test_the_key_that_decides_comes_first_and_the_others_hardly_count(key: str, surface: Any) -> None:
    spec = make_spec(search=SEARCH)
    found = importances(spec, trials_of(spec, surface))

    assert found["refused"] is None
    assert found["num_trials"] == 40
    for evaluator in ("fanova", "ped_anova"):
        told = found[evaluator]
        assert next(iter(told)) == key
        assert set(told) == set(SEARCH), "by the names of the study file"
        assert told[key] > 0.7
        assert sum(told.values()) == pytest.approx(1)


def test_the_same_trials_give_the_same_numbers_again() -> None:
    spec = make_spec(search=SEARCH)
    trials = trials_of(spec, lambda config: config["dropout"])

    assert importances(spec, trials) == importances(spec, trials)


def test_too_few_trials_are_refused_with_their_number() -> None:
    spec = make_spec(search=SEARCH)
    found = importances(spec, trials_of(spec, lambda config: config["dropout"], FEWEST_TRIALS - 1))

    assert (found["fanova"], found["ped_anova"], found["num_trials"]) == (None, None, FEWEST_TRIALS - 1)
    assert f"{FEWEST_TRIALS - 1} trials are too few, at least {FEWEST_TRIALS}" in found["refused"]
    assert importances(spec, [])["refused"]


def test_as_many_trials_as_needed_are_enough() -> None:
    spec = make_spec(search=SEARCH)

    assert importances(spec, trials_of(spec, lambda config: config["dropout"], FEWEST_TRIALS))["refused"] is None


def test_trials_that_are_all_alike_are_refused() -> None:
    spec = make_spec(search=SEARCH)

    assert importances(spec, trials_of(spec, lambda _: 0.3))["refused"] == "every trial reached the same validation R2"


def test_arms_and_trials_without_a_value_do_not_count() -> None:
    spec = make_spec(search=SEARCH)
    arms = trials_of(spec, lambda config: config["dropout"], arm="wide")
    failed = trials_of(spec, lambda _: None)

    assert importances(spec, [*arms, *failed])["num_trials"] == 0


def test_keys_that_only_some_trials_have_are_left_out_and_the_others_are_judged() -> None:
    encoder = {"kind": "categorical", "choices": ["onehot", "embedding"]}
    width = {"kind": "pow2", "low": 8, "high": 32, "when": {"encoder": "embedding"}}
    spec = make_spec(search={**SEARCH, "encoder": encoder, "embedding_dim": width})
    found = importances(spec, trials_of(spec, lambda config: config["encoder"] == "embedding"))

    for evaluator in ("fanova", "ped_anova"):
        assert set(found[evaluator]) == {*SEARCH, "encoder"}
        assert next(iter(found[evaluator])) == "encoder"


def test_what_is_recorded_is_plain_json() -> None:
    spec = make_spec(search=SEARCH)
    found = importances(spec, trials_of(spec, lambda config: config["dropout"]))

    assert {type(value) for value in [*found["fanova"].values(), *found["ped_anova"].values()]} == {float}
    assert set(found) == {"fanova", "ped_anova", "num_trials", "basis", "refused"}
