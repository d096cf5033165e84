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
ARMS = [
    {"name": "narrow", "latent_dim": 8},
    {"name": "diverging", "learning_rate": 0.99, "weight_decay": 1e30, "warmup": 0.0},
    {"name": "refused", "attention": "xformers"},
]


def test_a_study_of_trials_on_two_workers_tells_every_ending_apart(
    ray: tuple[Node, ...], data_folder: Path, tiny_study: Callable[..., Study], run: Callable[[Study], StudyRecord]
) -> None:
    document = tiny_study("two", data_folder, search={}, arms=ARMS, baselines=[], resources={"workers": 2})
    record = run({**document, "training": {"epochs": 3, "batch_size": 16, "attention": "sdpa"}})

    narrow, diverging, refused = record.trials
    assert [epoch["epoch"] for epoch in narrow.epochs] == [1, 2, 3]
    assert (narrow.state, narrow.global_batch) == (TrialState.COMPLETE, 32)
    assert (diverging.state, diverging.reason) == (TrialState.FAILED, "nan")
    assert str(diverging.detail).startswith("epoch 1")
    assert (refused.state, refused.reason) == (TrialState.INFEASIBLE, "attention backend")
    assert record.finalists[0].state is TrialState.COMPLETE
