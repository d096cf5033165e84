"""Trials on several workers: each a TorchTrainer inside of Tune, on a real Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raystudy.execution.capacity import Node
from raystudy.tracking.records import StudyRecord, TrialState

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

Study = dict[str, Any]
NARROW = {"name": "narrow", "latent_dim": 8}
DIVERGING = {"name": "diverging", "learning_rate": 0.99, "weight_decay": 1e30, "warmup": 0.0}
REFUSED = {"name": "refused", "attention": "xformers"}


@pytest.fixture
def run_on_two(
    ray: tuple[Node, ...], data_folder: Path, tiny_study: Callable[..., Study], run: Callable[[Study], StudyRecord]
) -> Callable[..., StudyRecord]:
    def run_arms(*arms: Study, **changes: Any) -> StudyRecord:
        document = tiny_study(
            "two", data_folder, search={}, arms=list(arms), baselines=[], pruner="none", resources={"workers": 2}
        )
        training = {"epochs": 3, "batch_size": 16, "attention": "sdpa"}
        return run({**document, "training": training, **changes})

    return run_arms


def test_a_trial_and_a_finalist_are_trained_on_two_workers_each(run_on_two: Callable[..., StudyRecord]) -> None:
    record = run_on_two(NARROW)

    for trained in (record.trials[0], record.finalists[0]):
        assert (trained.state, trained.global_batch) == (TrialState.COMPLETE, 32)
        assert [(epoch["epoch"], epoch["workers"]) for epoch in trained.epochs] == [(1, 2), (2, 2), (3, 2)]


@pytest.mark.slow
def test_what_a_rank_fails_of_and_what_it_refuses_are_told_apart(run_on_two: Callable[..., StudyRecord]) -> None:
    _, diverging, refused = run_on_two(NARROW, DIVERGING, REFUSED).trials

    assert (diverging.state, diverging.reason) == (TrialState.FAILED, "nan")
    assert str(diverging.detail).startswith("epoch 1")
    assert (refused.state, refused.reason) == (TrialState.INFEASIBLE, "attention backend")


@pytest.mark.slow
def test_a_pruned_elastic_trial_makes_room_for_the_next(run_on_two: Callable[..., StudyRecord]) -> None:
    """The grid's order is that of its seed: the one that learns comes first."""
    rates = {"learning_rate": {"kind": "categorical", "choices": [1e-9, 1e-3, 2e-9]}}
    training = {"epochs": 8, "batch_size": 16, "attention": "sdpa"}
    changes = {"sampler": "grid", "pruner": "successive_halving", "resources": {"workers": [1, 2]}}
    record = run_on_two(NARROW, search=rates, training=training, **changes)

    _, learning, *others = record.trials
    assert learning.state is TrialState.COMPLETE
    assert [trial.state for trial in others] == [TrialState.PRUNED, TrialState.PRUNED]
    waited = others[1].epochs[0]["time"] - (others[0].attempts[0].ended or 0)
    assert waited < 60, "the workers of a trial that was stopped are free at once"
