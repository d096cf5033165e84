"""How near every network comes to the best possible R2 where that is known: ``python -m benchmarks.ceiling``.

Each task plants a level that is a known function of exactly what the network reads, and adds noise; the R2 of the
function itself on the test genes is the ceiling. The network is trained by the package's own loop, its epoch chosen on
validation genes, and scored once on test genes.

Shapes: n genes, L window positions.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from Bio.Data.CodonTable import standard_dna_table
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import raystudy
from raystudy.data.batches import StudyData
from raystudy.data.encode import DNA_SYMBOLS, FEATURES, tokenize_dna
from raystudy.data.genes import Genes, GeneTable, Target, write_genes
from raystudy.data.splits import Split
from raystudy.study.model import XPRESSO_POOLS, ModelSpec, TrainingSpec
from raystudy.training.loop import Job, train
from raystudy.training.metrics import r2
from raystudy.training.selection import open_test
from raystudy.training.session import LocalSession

Floats = NDArray[np.float64]

LARGEST_GAP = 0.05
SIGNAL_SHARE = 0.8
"""Of a level's variance; the ceiling is near it, and differs with the noise that fell on the test genes."""
PARTS = {"train": 0.8, "valid": 0.08, "test": 0.12}
WINDOW_BP = (200, 100)
MOTIF, MOTIF_COPIES = "CACGTG", 5
SLOT_BP = XPRESSO_POOLS[0]
"""One copy at most in what Xpresso's largest-of-30 pools, for it cannot count what it has pooled."""
RESIDUES = (60, 100)

CODONS = {codon: residue for codon, residue in standard_dna_table.forward_table.items() if residue != "M"}
SIZES: dict[str, Any] = {
    "window_bp": WINDOW_BP, "max_protein": RESIDUES[1], "num_latents": 16, "latent_dim": 16, "token_dim": 16,
    "queries_dim": 12, "pool_size": 5, "dropout": 0.0,
}  # fmt: skip
"""Small, and without dropout: trainings with it stayed further below the ceiling (docs/log.md). What pooling would drop
as a tail no network could read; 20 divides both lengths."""


@dataclass(frozen=True)
class Task:
    """One way of reading a gene, what of it decides the level, and how long to train."""

    model: ModelSpec
    decided_by: tuple[str, ...]
    """Signals of `signals`, each with the same share."""
    num_genes: int = 12_000
    epochs: int = 7
    learning_rate: float = 2e-3


TASKS = {
    "dna": Task(ModelSpec(family="dna", **SIZES), ("motif", "gc", "half_life")),
    "dna_kmer": Task(ModelSpec(family="dna", encoder="kmer", **SIZES), ("motif", "gc", "half_life")),
    "protein": Task(ModelSpec(family="protein", **SIZES), ("residues",)),
    "protein_codon": Task(ModelSpec(family="protein", tokens="codon", **SIZES), ("residues", "codons")),
    "dna_protein": Task(ModelSpec(perceiver_input="protein", **SIZES), ("motif", "gc", "half_life", "residues")),
    "dna_protein_dna": Task(ModelSpec(perceiver_input="dna", **SIZES), ("gc", "half_life", "residues")),
    "xpresso": Task(
        ModelSpec(family="xpresso", window_bp=WINDOW_BP), ("motif", "half_life"), 16_000, epochs=10, learning_rate=3e-3
    ),
}


def make_genes(num_genes: int, decided_by: tuple[str, ...], seed: int) -> tuple[GeneTable, Floats]:
    """Genes whose protein level is a planted signal with noise, and the signal itself [n]."""
    rng = np.random.default_rng(seed)
    windows = np.stack([_window(rng) for _ in range(num_genes)])
    cds = _coding_sequences(rng, num_genes)
    proteins = ["".join(CODONS[codon] for codon in gene) for gene in cds]
    features = (rng.normal(size=(num_genes, len(FEATURES))) + np.arange(len(FEATURES))).astype(np.float32)
    found = signals(windows, cds, features)
    signal = _standard(sum((found[name] for name in decided_by), np.zeros(num_genes)))
    level = signal + rng.normal(0, np.sqrt(1 / SIGNAL_SHARE - 1), num_genes)
    starts = 1 + 1000 * np.arange(num_genes)
    table = GeneTable(
        source="benchmarks.ceiling",
        source_digests={},
        anchor=WINDOW_BP[0],
        gene_ids=[f"G{number:05d}" for number in range(num_genes)],
        symbols=[""] * num_genes,
        chroms=["chr1"] * num_genes,
        starts=starts,
        ends=starts + 299,
        strands=["+"] * num_genes,
        windows=windows,
        proteins=proteins,
        cds=["".join(gene) + "TAA" for gene in cds],
        features=features,
        targets={"protein": Target(level, "standard deviations of the signal")},
        family_ids=np.arange(num_genes),
    )
    return table, signal


def signals(windows: NDArray[np.uint8], cds: list[list[str]], features: NDArray[np.float32]) -> dict[str, Floats]:
    """What can decide a level, each a plain function of the gene with mean 0 and variance 1."""
    texts = ["".join(DNA_SYMBOLS[token] for token in window) for window in windows]
    strong = windows >= DNA_SYMBOLS.index("C")
    up, _ = WINDOW_BP
    effects = np.random.default_rng(0)  # of the task, not of the genes drawn for it
    residue_effect = dict(zip(sorted(set(CODONS.values())), effects.normal(size=19), strict=True))
    codon_effect = _within_residue(effects.normal(size=len(CODONS)))
    return {
        "motif": _standard(np.array([text.count(MOTIF) for text in texts])),
        "gc": _standard(strong[:, :up].mean(axis=1) - 0.5 * strong[:, up:].mean(axis=1)),
        "half_life": _standard(features @ np.array([1.0, -1.0, 0.5, 0.0, -0.5, 2.0, 0.0, 1.0])),
        "residues": _standard(np.array([np.mean([residue_effect[CODONS[codon]] for codon in gene]) for gene in cds])),
        "codons": _standard(np.array([np.mean([codon_effect[codon] for codon in gene]) for gene in cds])),
    }


def _within_residue(effects: Floats) -> dict[str, float]:
    """Effects that differ between the codons of one residue only, so that the residues alone tell nothing."""
    residues = np.array(list(CODONS.values()))
    for residue in np.unique(residues):
        effects[residues == residue] -= effects[residues == residue].mean()
    return dict(zip(CODONS, effects.tolist(), strict=True))


def _window(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Bases whose G+C content is the gene's own on either side of the anchor, with copies of the motif."""
    sides = []
    for length in WINDOW_BP:
        gc = rng.uniform(0.3, 0.7)
        weights = [gc / 2 if symbol in "CG" else (1 - gc) / 2 for symbol in DNA_SYMBOLS[1:]]
        sides.append(rng.choice(np.arange(1, 5, dtype=np.uint8), length, p=weights))
    window = np.concatenate(sides)
    slots = rng.permutation(len(window) // SLOT_BP)[: rng.integers(MOTIF_COPIES + 1)]
    for slot in slots:
        first = SLOT_BP * slot + rng.integers(SLOT_BP - len(MOTIF))
        window[first : first + len(MOTIF)] = tokenize_dna(MOTIF)
    return window


def _coding_sequences(rng: np.random.Generator, num_genes: int) -> list[list[str]]:
    """Codons of each gene; how often which residue and which of its codons is used varies along a few factors."""
    residues = np.unique(list(CODONS.values()), return_inverse=True)[1]
    names = np.array(list(CODONS))
    by_residue = rng.normal(0, 0.5, (4, residues.max() + 1))[:, residues]
    by_codon = rng.normal(0, 0.5, (4, len(names)))
    found = []
    for _ in range(num_genes):
        weights = np.exp(rng.normal(size=4) @ by_residue + rng.normal(size=4) @ by_codon)
        found.append(rng.choice(names, rng.integers(*RESIDUES, endpoint=True), p=weights / weights.sum()).tolist())
    return found


def _standard(values: NDArray[Any]) -> Floats:
    centred = np.asarray(values, dtype=np.float64) - np.mean(values)
    return centred / centred.std()


def measure(task: Task, folder: Path, device: str, seed: int, on_epoch: Any = None) -> dict[str, float]:
    """Train on a task's genes; ``r2`` on the test genes, the ``ceiling`` there, the ``gap``, and ``seconds``."""
    table, signal = make_genes(task.num_genes, task.decided_by, seed)
    genes = Genes.open(write_genes(table, folder / "genes"))
    order = np.random.default_rng(seed).permutation(task.num_genes)
    ends = np.cumsum([round(share * task.num_genes) for share in PARTS.values()])[:-1]
    train_rows, valid_rows, test_rows = (np.sort(part) for part in np.split(order, ends))
    split = Split("random", genes.hash, train_rows, valid_rows, test_rows, dropped={}, audit={})
    training = TrainingSpec(epochs=task.epochs, batch_size=32, learning_rate=task.learning_rate, precision="fp32")
    started = time.perf_counter()
    data = StudyData.of(genes, split, task.model, ("protein",))
    train(Job(task.model, training, seed), data, LocalSession(folder / "trial", on_epoch, device))
    predicted = raystudy.load(folder / "trial", device).predict(genes).to_numpy()
    seconds = time.perf_counter() - started
    reached = open_test(genes, ("protein",), split, {"network": predicted})["network"]["test_r2"]
    ceiling = r2(genes.target("protein")[test_rows], signal[test_rows])
    return {"r2": reached, "ceiling": ceiling, "gap": ceiling - reached, "seconds": seconds}


def main(
    family: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(TASKS)}; all by default.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Of the genes, the noise, the split and the training.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON document on stdout.")] = False,
) -> None:
    """Train every network on planted levels; exits with 1 where one stays more than 0.05 below the ceiling."""
    names = family or list(TASKS)
    if unknown := sorted(set(names) - set(TASKS)):
        raise typer.BadParameter(f"{', '.join(unknown)}: known are {', '.join(TASKS)}", param_hint="--family")
    table = Table("family", "R2 on test genes", "ceiling", "gap", "seconds", title="Planted levels")
    figures: dict[str, float] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for name in names:
            bar = progress.add_task(name, total=TASKS[name].epochs)
            with tempfile.TemporaryDirectory() as folder:
                found = measure(TASKS[name], Path(folder), device, seed, lambda _, bar=bar: progress.advance(bar))
            figures |= {f"{name}_{figure}": value for figure, value in found.items()}
            table.add_row(
                name, *(f"{found[figure]:.3f}" for figure in ("r2", "ceiling", "gap")), f"{found['seconds']:.0f}"
            )
    if as_json:
        typer.echo(json.dumps(figures))
    else:
        Console().print(table)
    if any(figures[f"{name}_gap"] > LARGEST_GAP for name in names):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
