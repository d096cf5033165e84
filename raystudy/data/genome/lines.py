"""The lines of a GTF or GFF3 file that say where genes lie, one at a time, each checked.

Every line that is neither empty nor a comment must have 9 columns. The lines that are used (genes, transcripts, exons,
CDS, stop codons, UTRs) must also have a sequence id, whole numbers with ``1 <= start <= end`` and a strand that the
formats know, and a CDS the phase 0, 1, 2 or ``.``. Where one has not, the file is refused: what else is wrong with it
cannot be told.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple, NoReturn
from urllib.parse import unquote

from raystudy.data.files import lines
from raystudy.errors import DataError

MOST_DIGITS = 12  # of a coordinate: far above any chromosome, and below what 64 bits hold

_UTRS = {"five_prime_utr", "three_prime_utr", "utr", "5utr", "3utr"}
_PARENT_KIND = re.compile(r"(gene|rna|transcript|gene_segment|transposable_element|reading_frame)$", re.IGNORECASE)
_CIRCULAR = "Is_circular=true"


class Role(IntEnum):
    """What a line says of genes."""

    NONE = 0
    PARENT = 1
    """It is a gene or a transcript."""
    EXON = 2
    CODING = 3
    STOP = 4
    UTR = 5
    CIRCLE = 6
    """It is a circular chromosome."""


class Feature(NamedTuple):
    """A line: ``kind`` is its type as written, ``first`` and ``last`` are 1-based and inclusive, ``phase`` 0 if unsaid.

    ``strand`` is ``+``, ``-``, ``.`` or ``?``; ``attributes`` is the last column, as it is written.
    """

    line: int
    role: Role
    kind: str
    chrom: str
    strand: str
    first: int
    last: int
    phase: int
    attributes: str


def features(path: Path, met: Counter[str]) -> Iterator[Feature]:
    """The features that say something of genes, and circular chromosomes; ``met`` counts all lines by their type.

    Sequences embedded in GFF3 end the annotation. Raises DataError, with the line's number, for a line against the
    rules above, and where the file cannot be read.
    """
    roles: dict[str, Role] = {}
    chroms: dict[str, str] = {}
    for number, line in lines(path, "an annotation"):
        if line.startswith("#"):
            if line.startswith("##FASTA"):
                return
            continue
        columns = line.split("\t")
        if len(columns) != 9:
            if met and line.startswith(">"):
                return
            if line.strip() and not line.startswith(("track ", "browser ")):
                _refuse_columns(path, number, line)
            continue
        chrom, _, kind, start, end, _, strand, phase, attributes = columns
        met[kind] += 1
        role = roles.get(kind)
        if role is None:
            role = roles[kind] = _role(kind)
        if role is Role.NONE:
            if _CIRCULAR not in attributes:
                continue
            role = Role.CIRCLE
        if not (start.isdecimal() and end.isdecimal() and max(len(start), len(end)) <= MOST_DIGITS):
            what = f"start {start[:20]!r} and end {end[:20]!r}"
            refuse(path, number, f"whole numbers of at most {MOST_DIGITS} digits must stand there, but got {what}")
        first, last = int(start), int(end)
        if not 1 <= first <= last:
            refuse(path, number, f"`1 <= start <= end` must hold, but got start {first} and end {last}")
        if strand not in ("+", "-", ".", "?"):
            refuse(path, number, f"the strand is {strand[:20]!r}, but must be '+', '-', '.' or '?'")
        if role is Role.CODING and phase not in ("0", "1", "2", "."):
            refuse(path, number, f"the phase of a CDS is {phase[:20]!r}, but must be 0, 1, 2 or '.'")
        if chrom not in chroms:
            if not chrom.strip():
                refuse(path, number, "the sequence id (first column) is empty")
            chroms[chrom] = unquote(chrom)
        yield Feature(
            number,
            role,
            kind,
            chroms[chrom],
            strand,
            first,
            last,
            int(phase) if role is Role.CODING and phase != "." else 0,
            attributes,
        )


def refuse(path: Path, number: int, what: str) -> NoReturn:
    """Raise DataError for the line ``number``."""
    raise DataError(
        f"{path}, line {number}: {what}. Correct that line, or get the annotation (GTF or GFF3) anew from where it came"
    )


def _role(kind: str) -> Role:
    named = {"cds": Role.CODING, "exon": Role.EXON, "stop_codon": Role.STOP} | dict.fromkeys(_UTRS, Role.UTR)
    return named.get(kind.lower(), Role.PARENT if _PARENT_KIND.search(kind) else Role.NONE)


def _refuse_columns(path: Path, number: int, line: str) -> NoReturn:
    """Say what the file may be instead of GTF or GFF3."""
    num_columns = line.count("\t") + 1
    hint = ""
    if line.startswith(">"):
        hint = "; this looks like FASTA, not like an annotation"
    elif line.startswith("LOCUS "):
        hint = "; this looks like GenBank, not like GTF or GFF3"
    elif num_columns == 1 and len(line.split()) >= 9:
        hint = "; it has spaces in place of tabs"
    refuse(
        path,
        number,
        f"{line[:60]!r} has {num_columns} tab-separated column{'s' * (num_columns > 1)} rather than 9{hint}",
    )
