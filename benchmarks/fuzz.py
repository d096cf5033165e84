"""Do files that no one checked ever break the reading of them? ``python -m benchmarks.fuzz --minutes 10``.

Coverage-guided (atheris, which is libFuzzer for Python; `pip install -e '.[fuzz]'`): each part begins with valid small
files, changes them at random and keeps what reaches new branches. What is allowed is a DataError or SpecError in words,
or genes that hold together; anything else is a finding, whose input is kept. The parts share the time:

``annotation``: GTF and GFF3 alone. ``genome``: the same with a genome and levels, up to the gene table, whose coding
sequences are held against the chromosome. ``genbank``, ``fasta``, ``levels``, ``csv``: such files. ``formula``: a text.

With ``--json``, one flat object: of each part ``..._runs``, ``..._branches`` and ``..._findings``. Exits with 1 where
there is a finding.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from raystudy.data.genes import GeneTable

CHROMOSOME = ("ACGATTGCCA" * 9 + "ATGGCTAAAGTTGGGTAATTGACA" * 3) * 4
"""648 bases; ATGGCTAAAGTTGGGTAA begins at 91 and every 24 bases from there, three times."""
GFF3 = """##gff-version 3
##sequence-region 1 1 648
1\tx\tregion\t1\t648\t.\t+\t.\tID=1;Is_circular=true
1\tx\tgene\t81\t120\t.\t+\t.\tID=gene:G1;Name=one;biotype=protein_coding
1\tx\tmRNA\t81\t120\t.\t+\t.\tID=transcript:T1;Parent=gene:G1
1\tx\texon\t81\t120\t.\t+\t.\tParent=transcript:T1
1\tx\tCDS\t91\t108\t.\t+\t0\tID=CDS:P1;Parent=transcript:T1;transl_table=11
1\tx\tgene\t115\t132\t.\t+\t.\tID=G2;locus_tag=G2
1\tx\tCDS\t115\t132\t.\t+\t0\tID=P2;Parent=G2;Note=a%20note
"""
GTF = """#!genome
1\tx\tgene\t81\t120\t.\t+\t.\tgene_id "G1"; gene_name "one";
1\tx\texon\t81\t100\t.\t+\t.\tgene_id "G1"; transcript_id "T1"; tag "basic";
1\tx\texon\t101\t120\t.\t+\t.\tgene_id "G1"; transcript_id "T1";
1\tx\tCDS\t91\t100\t.\t+\t0\tgene_id "G1"; transcript_id "T1"; protein_id "P1";
1\tx\tCDS\t101\t105\t.\t+\t2\tgene_id "G1"; transcript_id "T1";
1\tx\tstop_codon\t106\t108\t.\t+\t0\tgene_id "G1"; transcript_id "T1";
1\tx\tCDS\t115\t129\t.\t+\t0\tgene_id "G2"; transcript_id "T2"; tag "cds_end_NF";
"""
GENBANK = """LOCUS       X1                       648 bp    DNA     circular BCT 01-JAN-2000
DEFINITION  .
ACCESSION   X1
VERSION     X1.1
FEATURES             Location/Qualifiers
     source          1..648
                     /chromosome="1"
     CDS             join(91..99,100..108)
                     /locus_tag="G1"
                     /gene="one"
                     /translation="MAKVG"
     CDS             complement(115..132)
                     /locus_tag="G2"
                     /transl_table=11
ORIGIN
{sequence}//
"""
FASTA = f">1 a chromosome\n{CHROMOSOME}\n"
LEVELS = "gene_id\tTPM\nG1\t1.5\nG2\t0\nG3\tNA\n"
UP_BP = 20
FORMULAS = ("mrna=log10(TPM + 0.1)", "protein=log2(x) in ppm", "mrna_half_life = minutes")


def _sequence() -> str:
    lines = [CHROMOSOME[first : first + 60].lower() for first in range(0, len(CHROMOSOME), 60)]
    return "".join(f"{60 * number + 1:>9} {line}\n" for number, line in enumerate(lines))


SEEDS: dict[str, tuple[str, ...]] = {
    "annotation": (GFF3, GTF, f"{GFF3}##FASTA\n{FASTA}"),
    "genome": (GFF3, GTF, f"{GFF3}##FASTA\n{FASTA}"),
    "genbank": (GENBANK.format(sequence=_sequence()),),
    "fasta": (FASTA, ">a\nACGT\n\n>b c\r\nNNRY\n"),
    "levels": (LEVELS,),
    "csv": (LEVELS.replace("\t", ","), LEVELS.replace("\t", ",").replace("G1", '"G1"')),
    "formula": FORMULAS,
}


class Broken(Exception):
    """Genes that do not hold together."""


def harness(part: str, folder: Path) -> Callable[[bytes], None]:
    """What takes one input of this part; it raises what is a finding."""
    from raystudy.data.fasta import read_fasta
    from raystudy.data.findings import Findings
    from raystudy.data.genome.annotation import read_annotation
    from raystudy.data.genome.expression import parse_formulas, read_expression
    from raystudy.data.genome.genbank import read_genbank
    from raystudy.data.sources import genome
    from raystudy.errors import DataError, SpecError

    given, fasta, levels = (
        folder / ("given.csv" if part == "csv" else "given.tsv"),
        folder / "genome.fa",
        folder / "levels.tsv",
    )
    fasta.write_text(FASTA)
    levels.write_text(LEVELS)
    formulas = FORMULAS[:1]

    def table() -> None:
        made = genome.build(
            genome=[fasta],
            annotation=given,
            expression=levels,
            target=formulas,
            window_bp=(UP_BP, 10),
            homology="kmer",
        )
        if wrong := "; ".join(_wrong(made)):
            raise Broken(wrong)

    reading: dict[str, Callable[[], object]] = {
        "annotation": lambda: read_annotation(given, None, Findings()),
        "genome": table,
        "genbank": lambda: list(read_genbank([given], None, Findings())),
        "fasta": lambda: list(read_fasta(given)),
        "levels": lambda: read_expression(given, parse_formulas(formulas), None, Findings()),
        "csv": lambda: read_expression(given, parse_formulas(formulas), None, Findings()),
        "formula": lambda: parse_formulas([given.read_bytes().decode("latin-1")]),
    }

    def one(data: bytes) -> None:
        given.write_bytes(data)
        with suppress(DataError, SpecError):  # refused in words
            reading[part]()

    return one


def _wrong(table: GeneTable) -> Iterator[str]:
    """What does not hold of genes that were cut out of ``CHROMOSOME``."""
    for row, gene in enumerate(table.gene_ids):
        low, high, cds = int(table.starts[row]), int(table.ends[row]), table.cds[row]
        first, letters = (low, "ATCG") if table.strands[row] == "+" else (high, "TAGC")
        if cds[0] != "ATCG"[letters.index(CHROMOSOME[(first - 1) % len(CHROMOSOME)])]:
            yield f"{gene}: its coding sequence does not begin at its place"
        if table.windows[row][UP_BP] != "NATCG".index(cds[0]):
            yield f"{gene}: its window stands elsewhere"
        if not 3 <= len(cds) <= high - low + 1:
            yield f"{gene}: a coding sequence of {len(cds)} bases in {high - low + 1}"
        if "*" in table.proteins[row] or not table.proteins[row]:
            yield f"{gene}: a protein with a stop, or none"


CHILD = """
import sys, atheris
with atheris.instrument_imports(include=["raystudy.data"]):
    import raystudy.data.sources.genome
from pathlib import Path
from benchmarks.fuzz import harness
part, folder, *options = sys.argv[1:]
atheris.Setup([sys.argv[0], *options], harness(part, Path(folder)))
atheris.Fuzz()
"""


def fuzz(part: str, seconds: int, kept: Path) -> dict[str, int]:
    """Runs, branches reached and findings of one part; inputs that are findings stay in ``kept``."""
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="raystudy-") as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(SEEDS[part]):
            (corpus / str(number)).write_text(seed)
        options = [
            f"-max_total_time={seconds}",
            f"-artifact_prefix={kept}/{part}-",
            "-max_len=4096",
            "-print_final_stats=1",
        ]
        command = [sys.executable, "-c", CHILD, part, folder, *options, str(corpus)]
        done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603  # a command of ours
    branches = [int(found) for found in re.findall(r"\bcov: (\d+)", done.stderr)]
    runs = re.search(r"stat::number_of_executed_units:\s+(\d+)", done.stderr)
    if not branches:
        raise typer.BadParameter(f"the fuzzer did not start: {done.stderr.strip()[-500:]}")
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
    return {"runs": int(runs[1]) if runs else 0, "branches": branches[-1], "findings": int(done.returncode != 0)}


def main(
    minutes: Annotated[float, typer.Option(min=0.05, help="For all parts together.")] = 10,
    part: Annotated[list[str] | None, typer.Option(help=f"{', '.join(SEEDS)}; again for more.")] = None,
    out: Annotated[Path, typer.Option(help="Where inputs that are findings are kept.")] = Path(
        "studies/benchmarks/fuzz"
    ),
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Change valid files at random, as coverage guides, and look whether the reading of them breaks."""
    parts = part or list(SEEDS)
    if unknown := set(parts) - set(SEEDS):
        raise typer.BadParameter(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(SEEDS)}")
    figures: dict[str, int] = {}
    for one in parts:
        figures |= {f"{one}_{name}": value for name, value in fuzz(one, int(60 * minutes / len(parts)), out).items()}
    if as_json:
        print(json.dumps(figures))
    else:
        table = Table("part", "runs", "branches", "findings")
        for one in parts:
            table.add_row(one, *(f"{figures[f'{one}_{name}']:,}" for name in ("runs", "branches", "findings")))
        Console().print(table)
    if any(value for name, value in figures.items() if name.endswith("_findings")):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
