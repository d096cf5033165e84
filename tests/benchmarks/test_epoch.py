"""The benchmark of epochs with tiny sizes; what it measures at full size is in its own table."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from benchmarks import epoch
from benchmarks.epoch import SMALL_SIZES, Setting


def command(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(epoch.main)
    return CliRunner().invoke(app, ["--small", "--genes", "24", "--batch", "8", "--rounds", "1", *arguments])


def test_an_epoch_takes_its_turn_with_the_naive_loop() -> None:
    done = command("--part", "epoch", "--workers", "0", "--json")

    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert all(math.isfinite(value) and value > 0 for value in figures.values())
    assert figures["epoch_ratio"] == pytest.approx(figures["naive_epoch_seconds"] / figures["epoch_seconds"])
    assert figures["genes_per_second"] == pytest.approx(24 / figures["epoch_seconds"])
    assert figures["naive_genes"] == 16  # a batch in each half that is counted


def test_growth_is_told_and_drawn(tmp_path: Path) -> None:
    plot = tmp_path / "growth.png"
    done = command("--part", "growth", "--plot", str(plot), "--json")

    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert all(math.isfinite(value) for value in figures.values())
    for name, lengths in (("window", SMALL_SIZES.windows), ("protein", SMALL_SIZES.proteins)):
        first, last = (figures[f"growth_{name}_{length}_seconds"] for length in (lengths[0], lengths[-1]))
        assert figures[f"growth_{name}_slope"] == pytest.approx(last / first / (lengths[-1] / lengths[0]))
    per_gene = [figures[f"growth_genes_{genes}_microseconds_per_gene"] for genes in SMALL_SIZES.genes]
    assert figures["growth_genes_200_over_100"] == pytest.approx(per_gene[1] / per_gene[0])
    assert np.asarray(Image.open(plot).convert("L")).std() > 0


@pytest.mark.parametrize(
    ("exponent", "constant", "slope", "last_over_mean"), [(1, 0, 1, 1), (1, 30, 0.25, 1), (2, 0, 5, 1.5)]
)
def test_growth_that_is_not_linear_shows(
    exponent: int, constant: int, slope: float, last_over_mean: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alternate(tasks: dict[str, Any], rounds: int, device: torch.device) -> dict[str, list[float]]:
        return {length: [constant + int(length) ** exponent] * rounds for length in tasks}

    monkeypatch.setattr(epoch, "alternate", alternate)
    monkeypatch.setattr(epoch, "ours", lambda setting, precision: None)
    setting = Setting.of("table1", 2, "cpu", small=True)

    found = epoch._step_growth("window", dict.fromkeys((2, 8, 10), setting), rounds=3)

    assert found["growth_window_slope"] == pytest.approx(slope)
    assert found["growth_window_last_over_mean"] == pytest.approx(last_over_mean)


def test_the_first_batch_is_opened_from_a_prepared_folder() -> None:
    done = command("--part", "first-batch", "--json")

    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert set(figures) == {"first_batch_seconds", "first_batch_genes"}
    assert 0 < figures["first_batch_seconds"] < 60


def test_a_plot_without_growth_is_refused_before_anything_is_measured() -> None:
    done = command("--part", "epoch", "--plot", "growth.png")

    assert done.exit_code == 2
    assert "growth" in done.output
