"""Optimizers, learning rates in each step, and the end of a training."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from raystudy.study.model import ModelSpec, TrainingSpec
from raystudy.study.patience import is_over
from raystudy.training.loop import train
from raystudy.training.optimisation import learning_rate, make_optimizer
from raystudy.training.session import LocalSession, Metrics
from tests.training.conftest import Tiny, make_job, run, without_times


def rate(step: int, num_steps: int, **training: Any) -> float:
    return learning_rate(step, num_steps, ModelSpec(), TrainingSpec(**{"learning_rate": 0.5, **training}))


def test_the_rate_rises_in_a_line_and_falls_along_half_a_cosine() -> None:
    rates = [rate(step, 100, warmup=0.2) for step in range(100)]

    assert rates[:20] == pytest.approx([0.5 * (step + 1) / 20 for step in range(20)])
    assert max(rates) == rates[19] == rates[20] == 0.5
    assert rates[60] == pytest.approx(0.25)
    assert all(later < earlier for earlier, later in pairwise(rates[20:]))
    assert 0 < rates[99] < 0.0005
    assert rate(0, 10, warmup=0.0) == 0.5, "without a warm-up it begins at its peak"
    assert rate(0, 1, warmup=0.15) == 0.5, "a single step is taken in full"
    assert 0 <= rate(3, 4, warmup=0.99) <= 0.5


def test_a_constant_rate_rises_and_stays() -> None:
    rates = [rate(step, 50, warmup=0.2, schedule="constant") for step in range(50)]

    assert rates[:10] == pytest.approx([0.05 * (step + 1) for step in range(10)])
    assert set(rates[10:]) == {0.5}


def test_the_published_rate_is_that_of_the_transformer_paper_with_the_tokens_width() -> None:
    rates = [rate(step, 1, schedule="transformer", learning_rate=0.001) for step in range(20_000)]

    assert rates[0] == pytest.approx(32**-0.5 * 8000**-1.5)
    assert int(np.argmax(rates)) + 1 == 8000
    assert rates[7999] == pytest.approx(32**-0.5 * 8000**-0.5)
    assert rates[15_999] == pytest.approx(rates[7999] / 2**0.5)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_an_optimizer_takes_the_step_that_its_definition_says(name: str) -> None:
    """One step from weight 2 with gradient 3, rate 0.1 and decay 0.5: with Adam a first step is the rate itself."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    optimizer = make_optimizer(layer, TrainingSpec(optimizer=name, learning_rate=0.1, weight_decay=0.5))
    layer.weight.grad = torch.full_like(layer.weight, 3.0)
    optimizer.step()

    expected = {"adam": 2 - 0.1, "adamw": 2 * (1 - 0.1 * 0.5) - 0.1, "sgd": 2 - 0.1 * (3 + 0.5 * 2)}
    assert float(layer.weight.detach()) == pytest.approx(expected[name], abs=1e-6)
    layer.weight.grad = torch.zeros_like(layer.weight)
    before = float(layer.weight.detach())
    optimizer.step()
    if name == "sgd":
        gradient = 0.9 * 4 + 0.5 * before
        assert float(layer.weight.detach()) == pytest.approx(before - 0.1 * gradient, abs=1e-6), "momentum 0.9"


@pytest.mark.parametrize(
    ("values", "over"),
    [([], False), ([0.1], False), ([0.3, 0.2, 0.1], True), ([0.3, 0.2], False), ([0.3, 0.3, 0.3], True),
     ([0.1, 0.1, 0.2], False), ([0.1, 0.2, 0.3, 0.4], False), ([0.1, 0.2, 0.3, 0.4, 0.5], True)],
)  # fmt: skip
def test_a_training_ends_with_its_epochs_or_its_patience(values: list[float], over: bool) -> None:
    assert is_over(values, epochs=5, patience=2) is over
    assert is_over([0.4, 0.3, 0.2, 0.1], epochs=5, patience=None) is False


def test_a_training_out_of_patience_stops_and_stays_stopped(tiny: Tiny, tmp_path: Path) -> None:
    """With a rate of next to nothing the first epochs are as good as any later one, to the last digits."""
    job = make_job(epochs=8, patience=1, learning_rate=0.5)
    reported = run(job, tiny.data, tmp_path)

    values = [epoch["valid_r2"] for epoch in reported]
    assert len(values) < 8
    assert values[-1] <= max(values[:-1])
    assert all(later > earlier for earlier, later in pairwise(values[:-1]))
    assert run(job, tiny.data, tmp_path) == reported, "taken up again it reports what it had, and trains nothing"


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_one_that_is_resumed_is_the_one_never_interrupted(optimizer: str, tiny: Tiny, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(metrics: Metrics) -> None:
        if metrics["epoch"] == 2:
            raise Killed

    job = make_job(epochs=3, optimizer=optimizer, schedule="constant", learning_rate=0.01)
    whole = run(job, tiny.data, tmp_path / "whole")
    with pytest.raises(Killed):
        train(job, tiny.data, LocalSession(tmp_path / "cut", kill))
    resumed = run(job, tiny.data, tmp_path / "cut")

    assert [without_times(one) for one in resumed] == [without_times(one) for one in whole]
