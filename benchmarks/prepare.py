"""How long preparing data takes, and how much memory: ``python -m benchmarks.prepare``.

``yeast``: the built-in source from archives that are in the cache. ``genome``: a simulated genome of 3 Gb with 20,000
genes of several transcripts each, both strands, introns and UTRs, as FASTA, GTF and TSV, through `raystudy prepare
genome` as a user would call it. Both run in processes of their own; the peak of memory is the largest process's.

With ``--json``, one flat object: ``yeast_seconds``, ``yeast_peak_gb``, ``yeast_genes``, and the same of ``genome``,
with ``genome_bases`` and ``genome_annotation_lines``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, TextIO

import numpy as np
import typer
from Bio.Data.CodonTable import standard_dna_table
from rich.console import Console
from rich.table import Table

NUM_CHROMOSOMES = 24
BASES = np.frombuffer(b"ACGT", np.uint8)
COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")
CODONS = np.array([codon.encode() for codon in sorted(standard_dna_table.forward_table)])
LINE = 60
NUM_EXONS, INTRON_BP = 9, (500, 6_000)
UTR5_BP, UTR3_BP = 200, 1_000
RESIDUES = (5.9, 0.6, 60, 3_000)
"""Mean and standard deviation of the logarithm, least, most: a median of 365."""
LEVELS = "{gene}\t{level:.4f}\n"

Figures = dict[str, float]


class Part(StrEnum):
    ALL = "all"
    YEAST = "yeast"
    GENOME = "genome"


def write_genome(folder: Path, num_bases: int, num_genes: int, isoforms: int, seed: int = 0) -> int:
    """``genome.fa``, ``genes.gtf`` and ``levels.tsv`` in the folder; how many lines the annotation has."""
    random = np.random.default_rng(seed)
    num_lines = 0
    with (
        (folder / "genome.fa").open("wb") as fasta,
        (folder / "genes.gtf").open("w") as gtf,
        (folder / "levels.tsv").open("w") as levels,
    ):
        levels.write("gene_id\tTPM\n")
        for number, genes in enumerate(np.array_split(np.arange(num_genes), NUM_CHROMOSOMES), start=1):
            bases = BASES[random.integers(0, 4, num_bases // NUM_CHROMOSOMES // LINE * LINE, dtype=np.uint8)]
            room = len(bases) // max(1, len(genes))
            for place, gene in enumerate(genes):
                name = f"SIM{gene:06d}"
                num_lines += _plant(random, bases, place * room, room, f"{number}\tsimulated", name, isoforms, gtf)
                levels.write(LEVELS.format(gene=name, level=random.lognormal(2, 1.5)))
            fasta.write(f">{number} simulated\n".encode())
            newlines = np.full((len(bases) // LINE, 1), ord("\n"), np.uint8)
            np.hstack([bases.reshape(-1, LINE), newlines]).tofile(fasta)
    return num_lines


def _plant(
    random: np.random.Generator,
    bases: np.ndarray,
    first: int,
    room: int,
    chrom: str,
    gene: str,
    isoforms: int,
    gtf: TextIO,
) -> int:
    """Write a gene into the chromosome and its transcripts into the annotation; how many lines those are."""
    mean, deviation, least, most = RESIDUES
    num_codons = int(np.clip(random.lognormal(mean, deviation), least, most))
    coding = b"ATG" + b"".join(random.choice(CODONS, num_codons)) + b"TAA"
    spliced = BASES[random.integers(0, 4, UTR5_BP)].tobytes() + coding + BASES[random.integers(0, 4, UTR3_BP)].tobytes()
    inside = np.sort(random.choice(np.arange(UTR5_BP + 3, len(spliced) - UTR3_BP - 3), NUM_EXONS - 1, replace=False))
    cuts = [0, *inside.tolist(), len(spliced)]
    introns = random.integers(*INTRON_BP, NUM_EXONS - 1)
    scale = min(1.0, 0.8 * (room - len(spliced)) / introns.sum())
    starts = np.cumsum([0, *(introns * scale).astype(int)]) + cuts[:-1]  # of the exons, in the gene's direction
    length = int(starts[-1]) + cuts[-1] - cuts[-2]
    at, plus = first + (room - length) // 2, bool(random.integers(2))
    for start, (left, right) in zip(starts, pairwise(cuts), strict=True):
        piece = spliced[left:right]
        low = at + int(start) if plus else at + length - int(start) - len(piece)
        bases[low : low + len(piece)] = np.frombuffer(piece if plus else piece[::-1].translate(COMPLEMENT), np.uint8)
    lines = list(_lines(starts, cuts, len(coding), at, length, plus, chrom, gene, isoforms))
    gtf.writelines(lines)
    return len(lines)


def _lines(
    starts: np.ndarray,
    cuts: list[int],
    coding_bp: int,
    at: int,
    length: int,
    plus: bool,
    chrom: str,
    gene: str,
    isoforms: int,
) -> Iterator[str]:
    """The gene's lines: the transcript of all exons last, the others end earlier and without a stop codon."""
    strand = "+" if plus else "-"

    def line(kind: str, start: int, end: int, more: str = "") -> str:
        """Of [start, end) in the gene's direction, from 0."""
        low, high = (at + start + 1, at + end) if plus else (at + length - end + 1, at + length - start)
        return f'{chrom}\t{kind}\t{low}\t{high}\t.\t{strand}\t.\tgene_id "{gene}";{more}\n'

    yield line("gene", 0, length)
    stop = UTR5_BP + coding_bp - 3
    for fewer in reversed(range(isoforms)):
        transcript = f' transcript_id "{gene}.{fewer}";' + (' tag "cds_end_NF";' if fewer else "")
        last = NUM_EXONS - 1 - fewer
        yield line("transcript", 0, int(starts[last]) + cuts[last + 1] - cuts[last], transcript)
        for number in range(last + 1):
            shift = int(starts[number]) - cuts[number]
            left, right = cuts[number], cuts[number + 1]
            yield line("exon", left + shift, right + shift, transcript)
            if max(left, UTR5_BP) < min(right, stop):
                yield line("CDS", max(left, UTR5_BP) + shift, min(right, stop) + shift, transcript)
            if left <= stop and stop + 3 <= right:
                yield line("stop_codon", stop + shift, stop + 3 + shift, transcript)


def measure(*arguments: str) -> Figures:
    """Seconds, peak memory and genes of one `raystudy prepare` in a process of its own."""
    program = "from raystudy.cli import main; main()"
    with tempfile.TemporaryDirectory(prefix="raystudy-") as folder:
        command = [sys.executable, "-c", program, "prepare", *arguments, "--out", f"{folder}/data", "--json"]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603  # a command of ours
        answer = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise typer.Exit(1)
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "peak_gb": usage.ru_maxrss / 2**20, "genes": json.loads(answer)["num_genes"]}


def main(
    part: Annotated[Part, typer.Option(help="What to measure.")] = Part.ALL,
    bases: Annotated[int, typer.Option(min=10_000_000, help="Of the simulated genome.")] = 3_000_000_000,
    genes: Annotated[int, typer.Option(min=NUM_CHROMOSOMES)] = 20_000,
    isoforms: Annotated[int, typer.Option(min=1, max=NUM_EXONS)] = 4,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure how long `raystudy prepare` takes and how much memory."""
    from raystudy.data.sources import yeast
    from raystudy.data.sources.index import fetch

    figures: Figures = {}
    if part in (Part.ALL, Part.YEAST):
        for archive in (yeast.GENOME, yeast.LEVELS, yeast.ACCESSIONS):
            fetch(archive)  # the download is not what is measured
        figures |= {f"yeast_{name}": value for name, value in measure("yeast").items()}
    if part in (Part.ALL, Part.GENOME):
        with tempfile.TemporaryDirectory(prefix="raystudy-") as folder:
            num_lines = write_genome(Path(folder), bases, genes, isoforms)
            files = {"genome": "genome.fa", "annotation": "genes.gtf", "expression": "levels.tsv"}
            given = [word for option, name in files.items() for word in (f"--{option}", f"{folder}/{name}")]
            found = measure("genome", *given, "--target", "mrna=log10(TPM + 0.1)")
        figures |= {f"genome_{name}": value for name, value in found.items()}
        figures |= {"genome_bases": bases, "genome_annotation_lines": num_lines}
    if as_json:
        print(json.dumps(figures))
        return
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.2f}" if isinstance(value, float) else f"{value:,}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
