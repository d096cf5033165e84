"""Coding transcripts of a GTF or GFF3 file, of whatever flavour: Ensembl, GENCODE, RefSeq, SGD, Prokka, Bakta.

The two formats are told apart by how they write attributes, not by a file's name or first line. A coding transcript is
what has CDS lines: in GTF those of one ``gene_id`` and ``transcript_id``, in GFF3 those of one ``Parent``, which may be
the gene itself, or of one ``ID`` where there is no parent. ``stop_codon`` lines are added. In GFF3 CDS of different
``ID`` below one transcript are different proteins if they overlap or have several lines, else parts of one.
Where there are no exon lines, CDS and UTR lines are the exons. Parts that touch are one.

A line that cannot be read ends in a DataError (`raystudy.data.genome.lines` has the rules), as do a GTF line that
names no transcript, attributes of the other format, and a file without any coding transcript. Where only a transcript
is concerned it is left out, counted in the findings: with its gene where that has no other, else as a repair of the
gene. This befalls

* a pseudogene's CDS (``pseudo``, ``pseudogene``, a biotype or a type that says so);
* a ``Parent`` that no gene or transcript of the file is, that several lines are (but for the ``part`` of a gene that
  the origin of a circle splits), or that leads in a circle or to several genes;
* parts on several chromosomes or strands, and trans-splicing, whose order is not that of the chromosome;
* an unknown strand; exons that overlap; CDS outside its exons; a `transl_table` that is no number;
* coding parts that overlap (ribosomal slippage backwards): the bases read twice cannot be told in `Intervals`;
* a gene without the attribute that is to name it.

One-base gaps (slippage forwards) stay. A coding sequence is not `complete` where its attributes say so (``partial`` of
the CDS, the tags ``cds_start_NF`` and ``cds_end_NF``) or it begins within a codon (phase 1 or 2). On a circular
chromosome a transcript that is split at the origin is joined, counted as a repair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from raystudy.data.findings import Findings
from raystudy.data.genome.attributes import (
    TYPE,
    Attributes,
    aliases,
    first,
    gene_line,
    gene_name,
    is_complete,
    is_decayed,
    is_pseudogene,
    symbol,
    transcript_name,
)
from raystudy.data.genome.lines import Role
from raystudy.data.genome.parts import Coding, Gathered, Parts, Refused, Span, overlap
from raystudy.data.genome.transcripts import Intervals, Transcript
from raystudy.errors import DataError

MOST_LISTED = 12
"""How many feature types, reasons and attributes a message names."""

MOST_LETTERS = 40
"""Of each, and of an id."""


@dataclass(frozen=True)
class Annotation:
    """``transcripts``: all that code, in the order of the file; ``circular``: the chromosomes that it says are."""

    transcripts: list[Transcript]
    circular: frozenset[str]


def read_annotation(path: Path, gene_id: str | None, findings: Findings) -> Annotation:
    """The coding transcripts of a GTF or GFF3 file, plain or gzipped, each line read once.

    ``gene_id`` is the attribute that names a gene, or a database of its cross-references (``GeneID``), or ``symbol``;
    None takes the flavour's own: gene_id, else locus_tag, else the ID without its prefix, else Name.
    Raises DataError as the module says; ``findings`` counts what is left out or read otherwise than written.
    """
    gathered = Gathered(path)
    kept: list[Transcript] = []
    levels: list[Attributes] = []
    left_out: list[tuple[str, str, str]] = []
    for key, parts, coding in gathered.codings():
        gene = transcript = key[-1] or "without an id"  # until more is known
        try:
            levels = gathered.levels(key, coding)
            transcript = transcript_name(levels) or transcript
            gene = gene_name(levels, gene_id) or gene_name(levels, None) or transcript
            if is_pseudogene(levels):
                raise Refused("a pseudogene")
            if not gene_name(levels, gene_id):
                raise Refused(f"its gene has no {gene_id!r}" if gene_id else "nothing names its gene")
            wraps = _join_at_origin(parts, coding, gathered.circle_bp.get(parts.chrom, 0))
            read = _transcript(gene, transcript, levels, parts, coding)
            if wraps:
                findings.repair(
                    "parts on both sides of the origin of a circular chromosome joined", transcript[:MOST_LETTERS]
                )
            kept.append(read)
        except Refused as refused:
            left_out.append((gene, transcript, str(refused)))
    _count(left_out, {transcript.gene_id for transcript in kept}, findings)
    if not kept:
        raise _nothing(path, gathered.met, Counter(reason for *_, reason in left_out), levels)
    return Annotation(kept, frozenset(gathered.circle_bp))


def _transcript(
    gene_id: str, transcript_id: str, levels: Sequence[Attributes], parts: Parts, coding: Coding
) -> Transcript:
    """Raises Refused where what is written is not one coding sequence that can be told."""
    code = first(levels[::-1], "transl_table")
    if parts.scattered or "trans-splicing" in first(levels, "exception"):
        raise Refused("parts on several chromosomes or strands, or not in their order there (trans-splicing)")
    if parts.strand not in ("+", "-"):
        raise Refused("its strand is not known")
    if code and not (code.isdecimal() and len(code) <= 2):
        raise Refused("its transl_table is no number of a genetic code")
    exons, cds, phase = _structure(parts, coding)
    return Transcript(
        gene_id=gene_id,
        symbol=symbol(levels),
        transcript_id=transcript_id,
        chrom=parts.chrom,
        strand=parts.strand,
        exons=exons,
        cds=cds,
        protein=first(levels[-1:], "translation"),
        protein_id=first(levels[-1:], "protein_id"),
        genetic_code=int(code) if code else None,
        complete=phase == 0 and is_complete(levels),
        is_decayed=is_decayed(levels),
        aliases=aliases(levels, gene_id),
        gene_line=gene_line(levels),
    )


def _structure(parts: Parts, coding: Coding) -> tuple[Intervals, Intervals, int]:
    """Exons, CDS with its stop codon, and the phase at which translation begins."""
    exons = parts.of(Role.EXON)
    coding_parts = coding.parts()
    coded = [(start, end) for start, end, _ in coding_parts]
    if overlap(coded):
        raise Refused("its coding parts overlap (as in ribosomal slippage backwards)")
    if overlap(exons):
        raise Refused("its exons overlap")
    cds = _joined(coded + parts.of(Role.STOP))
    around = _joined(exons or [*cds, *parts.of(Role.UTR)])
    if _joined([*around, *cds]) != around:
        raise Refused("CDS outside its exons")
    whole = {exon: exon for exon in around}
    cds = tuple(whole.get(span, span) for span in cds)  # the same objects: a genome's take half a gigabyte
    return around, cds, coding_parts[0 if parts.strand == "+" else -1][2]


def _joined(spans: Sequence[Span]) -> Intervals:
    """The bases of all spans, as intervals of which none touches another."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)


def _join_at_origin(parts: Parts, coding: Coding, circle_bp: int) -> bool:
    """Put what lies behind the origin after what lies before it, where parts end at the last base and begin at the
    first; whether that was so. The widest gap is what the transcript does not span."""
    if not circle_bp:
        return False
    spans = _joined([*parts.of(Role.EXON), *((start, end) for start, end, _ in coding.parts())])
    if len(spans) < 2 or spans[0][0] != 1 or spans[-1][1] != circle_bp:
        return False
    _, last_behind = max((after[0] - before[1], before[1]) for before, after in pairwise(spans))
    for flat in (parts.flat, coding.flat):
        for place in range(0, len(flat), 3):
            if flat[place + 1] <= last_behind:
                flat[place] += circle_bp
                flat[place + 1] += circle_bp
    return True


def _count(left_out: Sequence[tuple[str, str, str]], stays: set[str], findings: Findings) -> None:
    """A gene counts once, for the reason that befell its first transcript."""
    gone: set[str] = set()
    for gene, transcript, reason in left_out:
        if gene in stays:
            findings.repair(f"a transcript left out of a gene that stays: {reason}", transcript[:MOST_LETTERS])
        elif gene not in gone:
            findings.drop(reason, gene[:MOST_LETTERS])
            gone.add(gene)


def _nothing(path: Path, met: Counter[str], reasons: Counter[str], levels: Sequence[Attributes]) -> DataError:
    """What to say of an annotation without a coding transcript; ``levels`` are those of any."""
    listed = [f"{kind[:MOST_LETTERS]} ({number:,})" for kind, number in met.most_common(MOST_LISTED)]
    types = f"the types of its features are {', '.join(listed)}" if met else "it holds no feature"
    why = [f"{reason} ({number:,})" for reason, number in reasons.most_common(MOST_LISTED)]
    keys = list(dict.fromkeys(key[:MOST_LETTERS] for level in levels for key in level if key != TYPE))[:MOST_LISTED]
    return DataError(
        f"{path} has no coding transcript that could be read: {types}"
        + (f". Left out: {'; '.join(why)}" if why else "")
        + ". Give GTF or GFF3 with `CDS` lines that name their gene"
        + (f"; `--gene-id` chooses by which attribute, here of {', '.join(keys)}" if keys else "")
    )
