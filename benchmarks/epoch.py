"""How long an epoch takes, how that grows, and how soon training begins: ``python -m benchmarks.epoch``.

``epoch``: one training epoch by `raystudy.training.loop.train`, as its users have it (precision and attention `auto`),
and the naive loop: `benchmarks.naive.NaivePerceiver` in eager fp32 with a `DataLoader`, over the same genes or, being
slow, over ``naive_genes`` of them, half before and half after ours, from which ``naive_epoch_seconds`` is scaled up.
The first naive batch of each half, in which workers start and kernels are chosen, is not counted, nor is a short
training of ours before, nor what our loop alone does between epochs: recomputing BatchNorm's averages. Proteins are as
long as yeast's.

``growth``: time per gene of an epoch with a small network, where the data's path weighs most, for more and more genes;
and seconds of a step of the network in question for longer windows, and for longer proteins (all of one length, beside
a short window). ``growth_genes_A_over_B`` is the time per gene among A genes over that among B: 1 is linear.
``growth_window_slope`` and ``growth_protein_slope`` are the time at the longest over that at the shortest, divided by
the ratio of their lengths: linear is 1, less is better, since what does not depend on the length is in both.
``growth_window_last_over_mean`` and its like are free of that: what a symbol more costs between the two longest over
what it costs between the shortest and the longest; 1 is linear, more would be growing faster.

``first-batch``: seconds from opening a prepared folder, checked against its digests, and its split to the first batch
of tensors on the device, as a trial begins. The folder is made beforehand, so its files are in the system's cache.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import Figures, alternate, made_genes, wait_for, yeast_lengths
from benchmarks.naive import NaivePerceiver, loader
from benchmarks.step import SMALL, Setting, ours
from raystudy.data.batches import StudyData, training_batches
from raystudy.data.encode import PROTEIN_SYMBOLS
from raystudy.data.genes import Genes, write_genes
from raystudy.data.sources import synthetic
from raystudy.data.splits import Split, make_split
from raystudy.study.model import PRESETS, ModelSpec, TrainingSpec
from raystudy.study.sections import SplitSpec
from raystudy.training.loop import Job, full_precision, resolve_precision, train
from raystudy.training.optimisation import ADAM_BETAS
from raystudy.training.session import LocalSession

SEED, PRESET, NUM_VALID = 3, "table1", 64
TARGETS = PRESETS[PRESET].targets
COUNTED_BATCHES = 6
"""That the naive loop is timed on where it has a CPU only."""
OPENINGS = 3
TINY = {**SMALL, "num_latents": 4, "latent_dim": 8, "queries_dim": 8}
AMINO_ACIDS = np.array(list(PROTEIN_SYMBOLS[1:21]))
SHORT_WINDOW = (300, 200)


class Part(StrEnum):
    ALL = "all"
    EPOCH = "epoch"
    GROWTH = "growth"
    FIRST_BATCH = "first-batch"


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    genes: tuple[int, ...] = (1000, 3000, 10_000, 30_000, 100_000)
    windows: tuple[int, ...] = (1500, 3000, 6000, 10_500, 21_000)
    proteins: tuple[int, ...] = (125, 250, 500, 1000, 2000, 4000, 6000)
    opened: int = 16_000
    """Genes of the prepared folder."""
    gone_through: int = 10_000
    """Genes that the epochs of fewer genes go through together."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the network, where they are not the preset's."""


SMALL_SIZES = Sizes((100, 200), (500, 1000, 4000), (20, 200, 2000), 200, 200, SMALL)


def epoch_seconds(model: ModelSpec, data: StudyData, batch: int, epochs: int, device: torch.device) -> list[float]:
    """Of each epoch, as `train` measures them."""
    seconds: list[float] = []
    with tempfile.TemporaryDirectory(prefix="raystudy-") as folder:
        session = LocalSession(Path(folder), lambda metrics: seconds.append(metrics["epoch_seconds"]), str(device))
        train(Job(model, TrainingSpec(epochs=epochs, batch_size=batch), SEED), data, session)
    return seconds


def naive_rate(
    model: ModelSpec, data: StudyData, batch: int, counted_batches: int, workers: int, device: torch.device
) -> tuple[float, int]:
    """Genes a second of the naive loop, and how many were counted."""
    torch.manual_seed(SEED)
    network = NaivePerceiver(model, len(data.targets)).to(device).train()
    training = TrainingSpec()
    optimizer = torch.optim.AdamW(
        network.parameters(), training.learning_rate, ADAM_BETAS, weight_decay=training.weight_decay
    )
    rows = np.resize(data.split.train, (1 + counted_batches) * batch)
    counted, started, total = 0, 0.0, 0.0
    for number, given in enumerate(loader(data, rows, batch, workers, shuffle=True)):
        *reads, labels_BK = (tensor.to(device) for tensor in given)
        optimizer.zero_grad(set_to_none=True)
        loss = F.mse_loss(network(*reads), labels_BK)
        torch.autograd.backward(loss)
        optimizer.step()
        total += loss.item()  # which also waits for a GPU
        counted += len(labels_BK) if number else 0
        started = started or time.perf_counter()
    return counted / (time.perf_counter() - started), counted


def measure_epoch(sizes: Sizes, genes: int, batch: int, workers: int, device: torch.device) -> Figures:
    model = ModelSpec(**{"preset": PRESET, **sizes.settings})
    data = made_genes(model, genes, NUM_VALID, TARGETS, seed=SEED)
    steps = -(-genes // batch)
    counted_batches = max(1, (steps if device.type == "cuda" else min(steps, COUNTED_BATCHES)) // 2)
    with full_precision():
        halves = [naive_rate(model, data, batch, counted_batches, workers, device)]
    few = replace(data, split=replace(data.split, train=data.split.train[: 2 * batch]))
    epoch_seconds(model, few, batch, 1, device)
    (seconds,) = epoch_seconds(model, data, batch, 1, device)
    with full_precision():
        halves.append(naive_rate(model, data, batch, counted_batches, workers, device))
    naive_seconds = statistics.mean(genes / rate for rate, _ in halves)
    return {
        "epoch_seconds": seconds,
        "naive_epoch_seconds": naive_seconds,
        "epoch_ratio": naive_seconds / seconds,
        "epoch_genes": genes,
        "naive_genes": sum(counted for _, counted in halves),
        "genes_per_second": genes / seconds,
    }


def measure_growth(sizes: Sizes, batch: int, rounds: int, device: torch.device) -> Figures:
    figures: Figures = {}
    tiny = ModelSpec(**{"preset": PRESET, **TINY})
    per_gene = []
    for genes in sizes.genes:
        data = made_genes(tiny, genes, NUM_VALID, TARGETS, seed=SEED)
        seconds = epoch_seconds(tiny, data, batch, 1 + sizes.gone_through // genes, device)
        per_gene.append(
            statistics.median(seconds[1:] or seconds) / genes
        )  # beside many, a first epoch's extra is little
        figures[f"growth_genes_{genes}_microseconds_per_gene"] = 1e6 * per_gene[-1]
    figures[f"growth_genes_{sizes.genes[-1]}_over_{sizes.genes[0]}"] = per_gene[-1] / per_gene[0]
    together = batch if device.type == "cuda" else min(batch, 8)
    by_window = {
        length: Setting(_model(sizes, _window(length), 6000), TARGETS, together, str(device))
        for length in sizes.windows
    }
    by_protein = {
        length: Setting(_model(sizes, SHORT_WINDOW, length), TARGETS, together, str(device), (length,) * together)
        for length in sizes.proteins
    }
    for name, settings in (("window", by_window), ("protein", by_protein)):
        figures |= _step_growth(name, settings, rounds)
    return figures


def _model(sizes: Sizes, window_bp: tuple[int, int], max_protein: int) -> ModelSpec:
    return ModelSpec(**{"preset": PRESET, **sizes.settings, "window_bp": window_bp, "max_protein": max_protein})


def _window(length: int) -> tuple[int, int]:
    """Two thirds of it before the anchor, as published."""
    return (length - length // 3, length // 3)


def _step_growth(name: str, settings: dict[int, Setting], rounds: int) -> Figures:
    device = next(iter(settings.values())).device
    precision = resolve_precision("auto", device)
    tasks = {str(length): ours(setting, precision) for length, setting in settings.items()}
    seconds = {int(length): statistics.median(times) for length, times in alternate(tasks, rounds, device).items()}
    short, *_, before, long = sorted(seconds)
    whole, last = ((seconds[long] - seconds[other]) / (long - other) for other in (short, before))
    return {
        **{f"growth_{name}_{length}_seconds": value for length, value in seconds.items()},
        f"growth_{name}_slope": (seconds[long] / seconds[short]) / (long / short),
        f"growth_{name}_last_over_mean": last / whole,
    }


def measure_first_batch(sizes: Sizes, batch: int, device: torch.device) -> Figures:
    model = ModelSpec(**{"preset": PRESET, **sizes.settings})
    with tempfile.TemporaryDirectory(prefix="raystudy-") as name:
        folder, split_path = Path(name) / "genes", Path(name) / "split.json"
        table = synthetic.build(SEED, sizes.opened, 16, model.window_bp)
        random = np.random.default_rng(SEED)
        lengths = yeast_lengths(sizes.opened, random)  # its own proteins are short
        proteins = ["".join(random.choice(AMINO_ACIDS, length)) for length in lengths]
        genes = Genes.open(write_genes(replace(table, proteins=proteins), folder))
        make_split(genes, SplitSpec(), model.window_bp, np.ones(genes.num_genes, bool)).save(split_path, genes)
        del table, genes
        seconds = [_open(model, folder, split_path, batch, device) for _ in range(OPENINGS)]
    return {"first_batch_seconds": statistics.median(seconds), "first_batch_genes": sizes.opened}


def _open(model: ModelSpec, folder: Path, split_path: Path, batch: int, device: torch.device) -> float:
    started = time.perf_counter()
    genes = Genes.open(folder)
    data = StudyData.of(genes, Split.load(split_path, genes), model, TARGETS)
    rows, _ = next(training_batches(data.split.train, batch, 0, 1, SEED))
    data.inputs.batch(data.inputs.by_length(rows), device)
    data.labels_of(rows, device)
    wait_for(device)
    return time.perf_counter() - started


def draw(figures: Figures, path: Path) -> None:
    """How time grows, in three panels: dashed is what is exactly linear, from the last point."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = (
        ("genes", "microseconds_per_gene", "genes of an epoch", "µs per gene"),
        ("window", "seconds", "window (bp)", "s per step"),
        ("protein", "seconds", "protein (residues)", "s per step"),
    )
    drawn, axes = plt.subplots(1, len(panels), figsize=(12, 3.6), layout="constrained")
    for axis, (name, unit, x_label, y_label) in zip(axes, panels, strict=True):
        start, end = f"growth_{name}_", f"_{unit}"
        points = {
            int(key.removeprefix(start).removesuffix(end)): value
            for key, value in figures.items()
            if key.startswith(start) and key.endswith(end)
        }
        xs, ys = np.array(sorted(points)), np.array([points[x] for x in sorted(points)])
        axis.plot(xs, ys, "o-", color="tab:blue")
        linear = np.full_like(ys, ys[-1]) if name == "genes" else ys[-1] * xs / xs[-1]
        axis.plot(xs, linear, "--", color="grey", linewidth=1)
        axis.set(xlabel=x_label, ylabel=y_label, ylim=(0, 1.1 * max(ys)))
        if name == "genes":
            axis.set_xscale("log")
    drawn.savefig(path, dpi=150)
    plt.close(drawn)


def main(
    genes: Annotated[int, typer.Option(min=2, help="Of the epoch.")] = 2000,
    batch: Annotated[int, typer.Option(min=2, help="Genes of a step.")] = 128,
    device: Annotated[str, typer.Option(help="cpu, or cuda.")] = "cpu",
    part: Annotated[Part, typer.Option(help="What to measure.")] = Part.ALL,
    rounds: Annotated[int, typer.Option(min=1, help="Of each step whose growth is measured.")] = 3,
    workers: Annotated[int, typer.Option(min=0, help="Of the naive loop's DataLoader.")] = 2,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of PyTorch on the CPU; as it chooses unless said.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Where to draw how time grows.")] = None,
    small: Annotated[bool, typer.Option("--small", help="Tiny sizes, to try the command.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with the figures as JSON on stdout.")] = False,
) -> None:
    """Measure an epoch against the naive loop, how time grows, and the way to the first batch."""
    if threads:
        torch.set_num_threads(threads)
    if plot and part not in (Part.ALL, Part.GROWTH):
        raise typer.BadParameter(f"--plot draws growth, which --part {part} leaves out; use --part growth or all")
    sizes, on = SMALL_SIZES if small else Sizes(), torch.device(device)
    figures: Figures = {}
    if part in (Part.ALL, Part.FIRST_BATCH):
        figures |= measure_first_batch(sizes, batch, on)
    if part in (Part.ALL, Part.EPOCH):
        figures |= measure_epoch(sizes, genes, batch, workers, on)
    if part in (Part.ALL, Part.GROWTH):
        figures |= measure_growth(sizes, batch, rounds, on)
    if plot:
        draw(figures, plot)
    if as_json:
        print(json.dumps(figures))
        return
    table = Table("figure", "value", title=f"on {device}, {torch.get_num_threads()} threads, batch {batch}")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.4g}" if isinstance(value, float) else f"{value:,}")
    Console().print(table)
    if "naive_genes" in figures:
        print(f"The naive epoch is scaled from {figures['naive_genes']} genes to {figures['epoch_genes']}.")


if __name__ == "__main__":
    typer.run(main)
