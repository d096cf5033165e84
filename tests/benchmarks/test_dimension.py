"""The benchmark of the intrinsic dimension with tiny sizes; what it measures at full size is in its own tables."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from typing import Any

import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from benchmarks import dimension
from benchmarks.dimension import MANIFOLDS, TABLE_WIDTH
from raystudy.dimension.clouds import RealCloud
from raystudy.dimension.consensus import estimate
from raystudy.dimension.estimators import FAST

KEYS = ("consensus", "consensus_sd", "largest_error", "covered", "refused")


def command(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(dimension.main)
    return CliRunner().invoke(app, arguments)


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_every_tenth_window_is_a_relative_of_the_one_before_it() -> None:
    tokens = dimension.windows(np.random.default_rng(0), 40, 2_000)
    differing = (tokens[1:] != tokens[:-1]).mean(axis=1)
    relatives = np.arange(1, 40) % 10 == 1

    assert (tokens.min(), tokens.max()) == (1, 4)
    assert differing[relatives] == pytest.approx(0.15, abs=0.05)  # of a fifth redrawn, a quarter comes out the same
    assert differing[~relatives] == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize("name", ["linear_5", "linear_10", "linear_20", "linear_40", "linear_100"])
def test_a_flat_cloud_has_its_dimension_and_room_around_it(name: str) -> None:
    make, truth = MANIFOLDS[name]
    points = make(np.random.default_rng(0), truth, 250)

    assert np.linalg.matrix_rank(points) == truth
    assert points.shape == (250, max(20, 2 * truth))


def test_our_count_is_scikit_dimensions_at_the_same_radii() -> None:
    figures = dimension.measure_counter(num_windows=300, length=200)

    assert figures["value_ratio"] == pytest.approx(1, abs=1e-3)
    assert figures["speed_ratio"] == pytest.approx(figures["scikit_dimension_seconds"] / figures["our_seconds"])
    assert all(isinstance(value, int | float) for value in figures.values())


def test_the_full_size_says_its_seconds_and_its_memory() -> None:
    figures = dimension.measure_full(num_windows=200, length=150)

    assert figures["peak_gb"] > 0
    assert 0 < figures["pairs_seconds"] < figures["seconds"]
    assert (figures["num_windows"], figures["length_bp"]) == (200, 150)
    assert figures["correlation_integral"] is None  # windows this short sit on a lattice


def test_the_command_answers_the_manifolds_as_strict_json(monkeypatch: pytest.MonkeyPatch) -> None:
    some = {name: MANIFOLDS[name] for name in ("linear_5", "linear_40")}
    monkeypatch.setattr(dimension, "MANIFOLDS", some)

    found = command("--part", "manifolds", "--points", "200", "--seeds", "1", "--json")

    assert found.exit_code == 0, found.output
    figures = strict(found.stdout)
    assert set(figures) == {f"{name}_{key}" for name in some for key in KEYS}
    assert figures["linear_5_consensus"] == pytest.approx(5, rel=0.3)
    assert figures["linear_5_largest_error"] == pytest.approx(abs(figures["linear_5_consensus"] / 5 - 1))
    assert (figures["linear_5_refused"], figures["linear_5_consensus_sd"]) == (0, 0)
    assert all(figures[f"{name}_covered"] in (0, 1) for name in some)


def test_seeds_that_were_refused_are_counted_and_left_out() -> None:
    known = estimate(RealCloud(np.random.default_rng(0).normal(size=(60, 5))), num_resamples=0)
    ones = [
        replace(known, consensus=4.0, interval=[3.0, 6.0]),
        replace(known, consensus=6.5, interval=[6.0, 7.0]),
        estimate(RealCloud(np.full((60, 5), 1.0))),
    ]

    figures = dimension.consensus_figures(5, ones)

    assert figures == {
        "consensus": 5.25,
        "consensus_sd": 1.25,
        "largest_error": pytest.approx(0.3),
        "covered": 0.5,
        "refused": 1,
    }
    assert dimension.consensus_figures(5, ones[2:]) == dict.fromkeys(KEYS[:-1]) | {"refused": 1}


def test_the_tables_hold_every_manifold_and_estimator_without_a_broken_line() -> None:
    known = estimate(RealCloud(np.random.default_rng(0).normal(size=(60, 5))), num_resamples=0)
    wide = replace(known, consensus=100.0, estimates=dict.fromkeys(FAST, 123.456))
    off = replace(known, consensus=90.0, estimates=dict.fromkeys(FAST, 99.9))
    refused = replace(known, consensus=None, interval=None, estimates={})
    found = {name: [wide, off, *[refused] * 10] for name in MANIFOLDS} | {"swiss_roll_2": [refused]}
    rows = {name: dimension.consensus_figures(MANIFOLDS[name][1], ones) for name, ones in found.items()}
    console = Console(width=TABLE_WIDTH, file=StringIO())

    console.print(dimension.consensus_table(rows, "title"), *dimension.estimator_tables(found))

    words = console.file.getvalue().replace("┃", "│").replace("│", " ").split()
    assert {name: words.count(name) for name in MANIFOLDS} == dict.fromkeys(MANIFOLDS, 2)
    assert {name: words.count(name) for name in FAST} == dict.fromkeys(FAST, 2)
    assert console.file.getvalue().count("111.68 ± 11.78 (10)") == len(FAST) * (len(MANIFOLDS) - 1)
