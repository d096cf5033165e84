"""What each rule of homology finds, and what it costs: ``python -m benchmarks.homology``.

Three rules: ``kmer30`` (30 % of the shorter one's 6-mers in common, by which the built-in sources' families are made),
``kmer5`` (5 %), and ``mmseqs2`` (MMseqs2's alignments, and what ``kmer5`` finds), the last where MMseqs2 is installed.

``planted``: pairs of 80, 300 and 800 residues of which one is a mutant of the other, its residues changed one by one
(``single``) or with every other stretch of twelve kept (``stretches``), beside proteins that have no relative: how
many pairs each rule finds. ``yeast``: pairs of yeast's proteins that MMseqs2 aligns, by identity, how many of them the
6-mers link, and what a block split by the data's own families leaves between training and test genes. ``cost``: CPU
seconds and peak memory of families among simulated proteins, each rule in a process of its own.

With ``--json``, one flat object: ``planted_single_identity60_residues300_kmer5``, ``planted_unrelated_mmseqs2``,
``yeast_pairs_identity50``, ``yeast_pairs_identity50_kmer5``, ``yeast_with_relatives_kmer30``,
``yeast_test_genes_with_training_relatives_mmseqs2``, ``cost_kmer5_cpu_seconds`` and so on.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from enum import StrEnum
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.prepare import RESIDUES, Figures
from raystudy.data import mmseqs
from raystudy.data.encode import tokenize_protein
from raystudy.data.genes import Genes
from raystudy.data.homology import CLOSE_SHARED, DISTANT_SHARED, Pairs, families, families_of, linked_by_kmers
from raystudy.data.sources import prepare
from raystudy.data.splits import make_split
from raystudy.study.sections import SplitSpec

AMINO_ACIDS = tokenize_protein("ACDEFGHIKLMNPQRSTVWY", "the amino acids")
LENGTHS = (80, 300, 800)
IDENTITIES = {"single": (0.4, 0.5, 0.6, 0.7), "stretches": (0.5, 0.6, 0.7)}
"""Of planted pairs, by how they differ; where every other stretch is kept, no pair is below 50 %."""
STRETCH = 12
LEAST_CLOSE = 0.60
"""Identity from which a relative is counted as a close one."""
BANDS = range(int(100 * mmseqs.IDENTITY), 100, 10)
WINDOW_BP = (1_000, 500)
"""Of the block split, as search_spaces/yeast.yaml has it."""
FAMILY_SIZES, FAMILY_SHARES = (1, 2, 5, 20), (0.70, 0.15, 0.10, 0.05)
"""Of the simulated proteins' families, and how many are of each size: seven proteins of ten have a relative."""
SIMULATED_IDENTITY = (0.35, 0.95)

Proteins = list[NDArray[np.uint8]]


class Part(StrEnum):
    ALL = "all"
    PLANTED = "planted"
    YEAST = "yeast"
    COST = "cost"


def protein(random: np.random.Generator, num_residues: int) -> NDArray[np.uint8]:
    return random.choice(AMINO_ACIDS, num_residues)


def relative(
    random: np.random.Generator, original: NDArray[np.uint8], identity: float, how: str = "single"
) -> NDArray[np.uint8]:
    """A mutant with this share of the residues left as they are, to the residue."""
    may_change = np.arange(len(original))
    if how == "stretches":
        may_change = may_change[may_change // STRETCH % 2 == 0]
    changed = random.permutation(may_change)[: round((1 - identity) * len(original))]
    number = np.searchsorted(AMINO_ACIDS, original[changed])  # of the amino acid, whose tokens ascend
    mutant = original.copy()
    mutant[changed] = AMINO_ACIDS[(number + random.integers(1, len(AMINO_ACIDS), len(changed))) % len(AMINO_ACIDS)]
    return mutant


def simulated(num_proteins: int, seed: int = 0) -> Proteins:
    """Families of mutants of one ancestor each, as long as proteins are."""
    random, proteins = np.random.default_rng(seed), Proteins()
    mean, deviation, least, most = RESIDUES
    while len(proteins) < num_proteins:
        ancestor = protein(random, int(np.clip(random.lognormal(mean, deviation), least, most)))
        size = int(random.choice(FAMILY_SIZES, p=FAMILY_SHARES))
        members = [relative(random, ancestor, random.uniform(*SIMULATED_IDENTITY)) for _ in range(size - 1)]
        proteins += [ancestor, *members]
    return proteins[:num_proteins]


def packed(proteins: Proteins) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return np.concatenate(proteins), np.cumsum([0, *map(len, proteins)], dtype=np.int64)


def linked(tokens: NDArray[np.uint8], offsets: NDArray[np.int64], aligned: Pairs | None) -> dict[str, list[Pairs]]:
    """The pairs that each rule calls similar."""
    distant = linked_by_kmers(tokens, offsets, min_shared=DISTANT_SHARED)
    rules = {"kmer30": [linked_by_kmers(tokens, offsets, min_shared=CLOSE_SHARED)], "kmer5": [distant]}
    return rules if aligned is None else rules | {"mmseqs2": [aligned, distant]}


def relatives_of_each(family_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    return (np.bincount(family_ids) - 1)[family_ids]


def planted(num_pairs: int, num_unrelated: int, seed: int = 0) -> Figures:
    """How many pairs of each kind are in one family, and how many unrelated proteins are in any but their own."""
    random, proteins = np.random.default_rng(seed), Proteins()
    first_rows = dict[str, NDArray[np.int64]]()
    for how, identities in IDENTITIES.items():
        for identity, num_residues in product(identities, LENGTHS):
            kind = f"{how}_identity{identity * 100:.0f}_residues{num_residues}"
            first_rows[kind] = len(proteins) + 2 * np.arange(num_pairs)
            for _ in range(num_pairs):
                original = protein(random, num_residues)
                proteins += [original, relative(random, original, identity, how)]
    unrelated = len(proteins) + np.arange(num_unrelated)
    proteins += [protein(random, int(length)) for length in random.choice(LENGTHS, num_unrelated)]
    tokens, offsets = packed(proteins)
    aligned = mmseqs.similar_pairs(tokens, offsets) if mmseqs.installed() else None
    figures: Figures = {"planted_pairs_of_each": num_pairs, "planted_unrelated": num_unrelated}
    for rule, pairs in linked(tokens, offsets, aligned).items():
        family_ids = families_of(pairs, len(proteins))
        for kind, rows in first_rows.items():
            figures[f"planted_{kind}_{rule}"] = int((family_ids[rows] == family_ids[rows + 1]).sum())
        figures[f"planted_unrelated_{rule}"] = int((relatives_of_each(family_ids)[unrelated] > 0).sum())
    return figures


def natural(genes: Genes) -> Figures:
    """Of a prepared genome, the figures that are called yeast's."""
    tokens, offsets, num_proteins = genes.protein_tokens, genes.protein_offsets, genes.num_genes
    labelled = np.any([np.isfinite(genes.target(target)) for target in genes.targets], axis=0)
    split = make_split(genes, SplitSpec(), WINDOW_BP, labelled)
    figures: Figures = {"yeast_proteins": num_proteins, "yeast_test_genes": len(split.test)}
    aligned = None
    if mmseqs.installed():
        left, right, identity = mmseqs.alignments(tokens, offsets)
        aligned = left, right
    rules = linked(tokens, offsets, aligned)
    for rule, pairs in rules.items():
        family_ids = families_of(pairs, num_proteins)
        figures[f"yeast_with_relatives_{rule}"] = int((relatives_of_each(family_ids) > 0).sum())
        related = np.isin(family_ids[split.test], family_ids[split.train])
        figures[f"yeast_test_genes_with_training_relatives_{rule}"] = int(related.sum())
    if aligned is None:
        return figures
    is_close = identity >= LEAST_CLOSE
    in_training = np.isin(right, split.train) & is_close
    close = np.isin(split.test, left[in_training])
    figures[f"yeast_test_genes_with_training_relatives_identity{100 * LEAST_CLOSE:.0f}"] = int(close.sum())
    pair, largest = _each_once(left, right, identity, num_proteins)
    for band in BANDS:
        here = pair[(largest >= band / 100) & (largest < (band + 10) / 100 if band + 10 < 100 else largest <= 1)]
        figures[f"yeast_pairs_identity{band}"] = len(here)
        for rule in ("kmer30", "kmer5"):
            [(one, other)] = rules[rule]
            figures[f"yeast_pairs_identity{band}_{rule}"] = int(np.isin(here, one * num_proteins + other).sum())
    return figures


def _each_once(
    left: NDArray[np.int64], right: NDArray[np.int64], identity: NDArray[np.float64], num_proteins: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pairs of two proteins as one number each, and the larger identity of their alignments either way round."""
    apart = left != right
    low, high = np.minimum(left, right)[apart], np.maximum(left, right)[apart]
    pair, number = np.unique(low * num_proteins + high, return_inverse=True)
    largest = np.zeros(len(pair))
    np.maximum.at(largest, number, identity[apart])
    return pair, largest


def cost(rule: str, num_proteins: int) -> Figures:
    """CPU seconds and peak memory of families among simulated proteins, in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        found = process.submit(_cost, rule, num_proteins).result()
    return {f"cost_{rule}_{name}": value for name, value in found.items()}


def _cost(rule: str, num_proteins: int) -> Figures:
    tokens, offsets = packed(simulated(num_proteins))
    before = _cpu_seconds()
    family_ids = families(tokens, offsets, min_shared=DISTANT_SHARED, engine="mmseqs2" if rule == "mmseqs2" else "kmer")
    return {
        "proteins": num_proteins,
        "with_relatives": int((relatives_of_each(family_ids) > 0).sum()),
        "cpu_seconds": _cpu_seconds() - before,
        "peak_gb": max(one.ru_maxrss for one in _usage()) / 2**20,
    }


def _cpu_seconds() -> float:
    return sum(one.ru_utime + one.ru_stime for one in _usage())


def _usage() -> list[resource.struct_rusage]:
    """Of this process and of the programs it ran."""
    return [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]


def main(
    part: Annotated[Part, typer.Option(help="What to measure.")] = Part.ALL,
    data: Annotated[Path | None, typer.Option(help="A prepared folder to read for yeast, which is else made.")] = None,
    proteins: Annotated[int, typer.Option(min=2, help="Simulated, for what the 6-mers cost.")] = 20_000,
    mmseqs_proteins: Annotated[int, typer.Option(min=2, help="Simulated, for what MMseqs2 costs.")] = 3_000,
    small: Annotated[bool, typer.Option("--small", help="Few simulated proteins, to see that all runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with the figures as JSON on stdout.")] = False,
) -> None:
    """Measure what each rule of homology finds among planted and yeast's proteins, and what it costs."""
    figures: Figures = {}
    if not mmseqs.installed():
        Console(stderr=True).print("MMseqs2 is not installed: what needs it is left out.")
    if part in (Part.ALL, Part.COST):  # before the others, whose memory a new process begins with
        figures |= cost("kmer5", 200 if small else proteins)
        if mmseqs.installed():
            figures |= cost("mmseqs2", 200 if small else mmseqs_proteins)
    if part in (Part.ALL, Part.PLANTED):
        figures |= planted(*(2, 20) if small else (10, 1_000))
    if part in (Part.ALL, Part.YEAST):
        with tempfile.TemporaryDirectory(prefix="raystudy-") as folder:
            figures |= natural(Genes.open(data) if data else prepare("yeast", Path(folder, "data")))
    if as_json:
        print(json.dumps(figures))
        return
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.2f}" if isinstance(value, float) else f"{value:,}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
