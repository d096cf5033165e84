"""How right, how fast and how large the intrinsic dimension is: ``python -m benchmarks.dimension``.

``full``: every pair of 16,000 windows of 10,500 bp, and all estimators with their resamples. ``counter``: our count of
near pairs against scikit-dimension's CorrInt at the same two radii. ``manifolds``: every estimator, the consensus and
its interval on clouds of known dimension, over 20 seeds; dimensions of 20 and more are there to show where it fails.

With ``--json``, one flat object: ``full_...`` and ``counter_...`` as in their tables, and of each manifold
``..._consensus`` (mean), ``..._consensus_sd``, ``..._largest_error`` (of the consensus, as a share of the truth) and
``..._covered`` (in what share of the seeds the interval held the truth), all over the seeds that were answered and null
where none was, and ``..._refused`` (how many were not).
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from raystudy.dimension.clouds import RealCloud, SymbolCloud
from raystudy.dimension.consensus import DimensionEstimate, estimate
from raystudy.dimension.estimators import FAST, MIN_POINTS
from raystudy.dimension.pairs import measure_pairs

Floats = NDArray[np.float64]
Figures = dict[str, float | None]
"""None where the points were refused."""
NUM_COLUMNS = 4
"""Manifolds that one table of estimators shows beside each other."""
TABLE_WIDTH = 120
err = Console(stderr=True)


class Part(StrEnum):
    FULL = "full"
    COUNTER = "counter"
    MANIFOLDS = "manifolds"


def linear(rng: np.random.Generator, dimension: int, num_points: int) -> Floats:
    """A Gaussian cloud in a flat subspace of 20 dimensions, or twice its own where that is more."""
    return rng.normal(size=(num_points, dimension)) @ rng.normal(size=(dimension, max(20, 2 * dimension)))


def sphere(rng: np.random.Generator, dimension: int, num_points: int) -> Floats:
    """The surface of a ball of one dimension more."""
    points = rng.normal(size=(num_points, dimension + 1))
    return points / np.linalg.norm(points, axis=1)[:, None]


def curved(rng: np.random.Generator, dimension: int, num_points: int) -> Floats:
    """A cube rolled up along 128 directions, in 256 dimensions."""
    angles = rng.random((num_points, dimension)) @ rng.normal(size=(dimension, 128))
    return np.hstack([np.sin(angles), np.cos(angles)])


def swiss_roll(rng: np.random.Generator, dimension: int, num_points: int) -> Floats:
    """A rolled-up rectangle; ``dimension`` is 2."""
    turn = 1.5 * np.pi * (1 + 2 * rng.random(num_points))
    return np.column_stack([turn * np.cos(turn), 21 * rng.random(num_points), turn * np.sin(turn)])


MANIFOLDS: dict[str, tuple[Callable[[np.random.Generator, int, int], Floats], int]] = {
    "linear_5": (linear, 5),
    "linear_10": (linear, 10),
    "linear_20": (linear, 20),
    "linear_40": (linear, 40),
    "linear_100": (linear, 100),
    "sphere_5": (sphere, 5),
    "curved_10": (curved, 10),
    "swiss_roll_2": (swiss_roll, 2),
}


def windows(rng: np.random.Generator, num_windows: int, length: int) -> NDArray[np.uint8]:
    """Random DNA of which every tenth window is a copy of the one before it with a fifth of its bases redrawn."""
    tokens = rng.integers(1, 5, (num_windows, length), dtype=np.uint8)
    for copy in range(1, num_windows, 10):
        kept = rng.random(length) > 0.2
        tokens[copy, kept] = tokens[copy - 1, kept]
    return tokens


def measure_full(num_windows: int, length: int) -> Figures:
    """Seconds and peak memory of this process; call it first, for the peak is that of everything before."""
    cloud = SymbolCloud(windows(np.random.default_rng(0), num_windows, length))
    started = time.perf_counter()
    found = estimate(cloud, "onehot", "dna")
    return {
        "num_windows": num_windows,
        "length_bp": length,
        "pairs_seconds": found.seconds["distances"],
        "seconds": time.perf_counter() - started,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "correlation_integral": found.estimates.get("correlation_integral"),
    }


def measure_counter(num_windows: int, length: int) -> Figures:
    """Ours counts all pairs at all radii; scikit-dimension's counts at two, of the one-hot points written out."""
    from skdim.id import CorrInt

    tokens = windows(np.random.default_rng(1), num_windows, length)
    measure_pairs(SymbolCloud(tokens[:100]))  # compiles
    took = []
    for _ in range(3):  # theirs takes long enough to be measured once
        started = time.perf_counter()
        pairs = measure_pairs(SymbolCloud(tokens))
        smaller, larger = np.median(pairs.neighbors[:, [9, 19]], axis=0)
        ours = pairs.slope_between(float(smaller), float(larger))
        took.append(time.perf_counter() - started)
    our_seconds = float(np.median(took))
    points = (tokens[:, :, None] == np.arange(1, 5, dtype=np.uint8)).reshape(num_windows, -1).astype(np.float32)
    started = time.perf_counter()
    theirs = float(CorrInt().fit(points).dimension_)
    their_seconds = time.perf_counter() - started
    return {
        "num_windows": num_windows,
        "length_bp": length,
        "ours": ours,
        "scikit_dimension": theirs,
        "our_seconds": our_seconds,
        "scikit_dimension_seconds": their_seconds,
        "speed_ratio": their_seconds / our_seconds,
        "value_ratio": ours / theirs,
    }


def measure_manifolds(num_points: int, num_seeds: int) -> dict[str, list[DimensionEstimate]]:
    """What is found on each manifold, seed by seed."""
    found: dict[str, list[DimensionEstimate]] = {}
    for name, (make, dimension) in MANIFOLDS.items():
        found[name] = []
        for seed in track(range(num_seeds), description=name, console=err, disable=not err.is_terminal):
            cloud = RealCloud(make(np.random.default_rng(seed), dimension, num_points))
            found[name].append(estimate(cloud, seed=seed))
    return found


def consensus_figures(truth: int, ones: list[DimensionEstimate]) -> Figures:
    """How right the consensus and its interval are on one manifold, over the seeds that were answered."""
    values = [one.consensus for one in ones if one.consensus is not None]
    holds = [one.interval[0] <= truth <= one.interval[1] for one in ones if one.interval is not None]
    return {
        "consensus": float(np.mean(values)) if values else None,
        "consensus_sd": float(np.std(values)) if values else None,
        "largest_error": max(abs(value / truth - 1) for value in values) if values else None,
        "covered": float(np.mean(holds)) if holds else None,
        "refused": len(ones) - len(values),
    }


def consensus_table(figures: dict[str, Figures], title: str) -> Table:
    table = Table(
        "manifold", "truth", "consensus", "± sd", "largest error", "interval holds it", "refused", title=title
    )
    formats = {"consensus": ".2f", "consensus_sd": ".2f", "largest_error": ".0%", "covered": ".0%", "refused": "d"}
    for name, row in figures.items():
        shown = ("-" if (value := row[key]) is None else format(value, how) for key, how in formats.items())
        table.add_row(name, str(MANIFOLDS[name][1]), *shown)
    return table


def estimator_tables(found: dict[str, list[DimensionEstimate]]) -> Iterator[Table]:
    names = list(found)
    for first in range(0, len(names), NUM_COLUMNS):
        columns = names[first : first + NUM_COLUMNS]
        table = Table("estimator", *columns, title="mean ± standard deviation (seeds that were refused)")
        for estimator in FAST:
            table.add_row(estimator, *(_spread([one.estimates.get(estimator) for one in found[of]]) for of in columns))
        yield table


def _spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    text = f"{np.mean(known):.2f} ± {np.std(known):.2f}" if known else "-"
    return text + (f" ({len(values) - len(known)})" if len(known) < len(values) else "")


def main(
    part: Annotated[list[Part] | None, typer.Option(help="What to measure; everything by default.")] = None,
    full_windows: Annotated[int, typer.Option(min=MIN_POINTS, help="Windows of the full size.")] = 16_000,
    counter_windows: Annotated[int, typer.Option(min=MIN_POINTS, help="Windows of the comparison.")] = 8_000,
    counter_bp: Annotated[int, typer.Option(help="Their length.")] = 1_500,
    points: Annotated[int, typer.Option(min=MIN_POINTS, help="Points of a manifold.")] = 1_000,
    seeds: Annotated[int, typer.Option(min=1, help="Clouds of each manifold.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON document on stdout.")] = False,
) -> None:
    """Measure, in an order that keeps the peak memory of the full size its own."""
    wanted = part or list(Part)
    figures: Figures = {}
    console = Console(stderr=as_json)
    console.width = max(console.width, TABLE_WIDTH)
    if Part.FULL in wanted:
        figures |= _shown("full", measure_full(full_windows, 10_500), console)
    if Part.COUNTER in wanted:
        figures |= _shown("counter", measure_counter(counter_windows, counter_bp), console)
    if Part.MANIFOLDS in wanted:
        found = measure_manifolds(points, seeds)
        rows = {name: consensus_figures(MANIFOLDS[name][1], ones) for name, ones in found.items()}
        console.print(consensus_table(rows, f"{points} points, {seeds} seeds"), *estimator_tables(found))
        figures |= {f"{name}_{key}": value for name, row in rows.items() for key, value in row.items()}
    if as_json:
        print(json.dumps(figures, allow_nan=False))


def _shown(name: str, figures: Figures, console: Console) -> Figures:
    table = Table(name, "")
    for key, value in figures.items():
        table.add_row(
            key, "refused" if value is None else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
        )
    console.print(table)
    return {f"{name}_{key}": value for key, value in figures.items()}


if __name__ == "__main__":
    typer.run(main)
