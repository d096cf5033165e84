"""GenBank files: chromosomes with the coding transcripts that are annotated on them, one record in memory at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TextIO

from Bio import BiopythonParserWarning, SeqIO
from Bio.SeqFeature import ExactPosition, SeqFeature
from Bio.SeqRecord import SeqRecord

from raystudy.data.files import open_text
from raystudy.data.findings import Findings
from raystudy.data.genome.loci import Chromosome, tokens_of
from raystudy.data.genome.transcripts import SHORTEST_INTRON_BP, Intervals, Transcript
from raystudy.errors import DataError, RaystudyError

_TORN = ("Premature end of file", "Expected sequence length")
_UNREADABLE_LOCATION = "setting feature location to None"  # the CDS itself is then counted
_GENE = ("locus_tag", "gene")
_ALIASES = (*_GENE, "gene_synonym", "old_locus_tag", "protein_id")


def read_genbank(paths: Sequence[Path], gene_id: str | None, findings: Findings) -> Iterator[Chromosome]:
    """Each record as a chromosome under its accession, with all coding transcripts; files plain or gzipped.

    ``gene_id`` is the qualifier that names genes (``symbol`` stands for ``gene``, ``GeneID`` and the like are found
    in ``db_xref``): by default the locus tag, else the gene's symbol.
    Raises DataError where a file cannot be read, holds no record or no sequence, or a record comes twice.
    """
    seen: dict[str, Path] = {}
    for path in paths:
        before = len(seen)
        with open_text(path, "GenBank") as text:
            for record in _records(path, text, findings):
                name = next(one for one in (record.id, record.name, path.name) if one and not one.startswith("<"))
                if name in seen:
                    raise DataError(f"{path}: the record {name!r} is in {seen[name]} already. Give each only once")
                seen[name] = path
                if not record.seq.defined:
                    raise DataError(
                        f"{path}: the record {name!r} has no sequence, only references to others (CONTIG). Download "
                        "it in full (GenBank with parts)"
                    )
                yield chromosome(record, name, gene_id, findings, f"{path}: the record {name}")
        if len(seen) == before:
            raise DataError(f"{path} holds no GenBank record (which begins with a line LOCUS). Give a GenBank file")


def chromosome(
    record: SeqRecord, name: str, gene_id: str | None, findings: Findings, what: str = "the record"
) -> Chromosome:
    """The record's sequence and coding transcripts under this name; ``what`` is what messages call it.

    Raises DataError on what is no base.
    """
    is_circular = record.annotations.get("topology") == "circular"
    mrnas: dict[str, list[tuple[Intervals, str]]] = {}
    for feature in (one for one in record.features if one.type == "mRNA"):
        key, exons = _qualifier(feature, _GENE), _located(feature, len(record), is_circular)
        if key and isinstance(exons, tuple):  # among those of no gene each CDS would be sought
            mrnas.setdefault(key, []).append((exons, _qualifier(feature, ["transcript_id"])))
    transcripts = []
    for feature in (one for one in record.features if one.type == "CDS"):
        gene, cds = _gene_id(feature, gene_id), _located(feature, len(record), is_circular)
        if "pseudo" in feature.qualifiers or "pseudogene" in feature.qualifiers:
            findings.drop("a pseudogene", gene or str(feature.location))
        elif isinstance(cds, str):
            findings.drop(cds, gene or str(feature.location))
        elif not gene:
            findings.drop(f"no {gene_id or ' and no '.join(_GENE)} to call the gene by", str(feature.location))
        else:
            of_gene = mrnas.get(_qualifier(feature, _GENE), [])
            behind_origin = tuple((first + len(record), last + len(record)) for first, last in cds)
            places = [(one, place) for one in of_gene for place in (cds, behind_origin) if _fit(one[0], place)]
            (exons, transcript_id), cds = places[0] if places else ((cds, ""), cds)
            if places:
                of_gene.remove((exons, transcript_id))  # the gene's next splice form has its own
            transcripts.append(_transcript(feature, gene, name, cds, exons, transcript_id))
    return Chromosome(name, tokens_of(str(record.seq), what), is_circular, transcripts)


def _records(path: Path, text: TextIO, findings: Findings) -> Iterator[SeqRecord]:
    """What Biopython reads, with its warnings counted, and DataError for whatever it stumbles on."""
    records = SeqIO.parse(text, "genbank")
    while True:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", BiopythonParserWarning)
                record = next(records, None)
        except (RaystudyError, OSError, EOFError):
            raise  # `open_text` says what it is
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"{path} cannot be read as GenBank ({reason:.200}). Check that it is whole, and GenBank's flat format"
            ) from error
        for message in (" ".join(str(one.message).split()) for one in caught if one.category is BiopythonParserWarning):
            if message.startswith(_TORN):
                raise DataError(f"{path} is torn, or was edited ({message}). Get it again")
            if _UNREADABLE_LOCATION not in message:
                findings.repair("a GenBank line that is not by the format's rules", f"{message:.100} ({path.name})")
        if record is None:
            return
        yield record


def _located(feature: SeqFeature, length: int, is_circular: bool) -> Intervals | str:
    """Where it lies, 1-based; or, as a text, why that cannot be used.

    Past the origin of a circular chromosome coordinates go on beyond its length. Parts that touch become one.
    """
    if feature.location is None:
        return "a location that cannot be read"
    if "trans_splicing" in feature.qualifiers or len({part.strand for part in feature.location.parts}) > 1:
        return "spliced from several transcripts (trans-splicing)"
    if any(part.ref is not None for part in feature.location.parts):
        return "a part of it lies in another record"
    intervals: list[tuple[int, int]] = []
    for part in feature.location.parts[:: feature.location.strand or 1]:
        first, last = int(part.start) + 1, int(part.end)
        if last < first:
            return "a location without a base"
        if intervals and first < intervals[0][0] and is_circular:
            first, last = first + length, last + length
        if intervals and first <= intervals[-1][1]:
            return "parts that overlap or are not in order (a backward frameshift)"
        if intervals and first == intervals[-1][1] + 1:
            first = intervals.pop()[0]
        intervals.append((first, last))
    return tuple(intervals)


def _fit(exons: Intervals, cds: Intervals) -> bool:
    """Whether a transcript with these exons can hold this coding sequence: the same introns within it."""
    start, end = cds[0][0], cds[-1][1]
    within = tuple((max(first, start), min(last, end)) for first, last in exons if last >= start and first <= end)
    return _without_frameshifts(within) == _without_frameshifts(cds)


def _without_frameshifts(intervals: Intervals) -> list[int]:
    """Both ends of it, and of each of its introns."""
    gaps = [(before[1], after[0]) for before, after in pairwise(intervals)]
    introns = [end for gap in gaps if gap[1] - gap[0] > SHORTEST_INTRON_BP for end in gap]
    return [intervals[0][0], *introns, intervals[-1][1]] if intervals else []


def _transcript(
    feature: SeqFeature, gene_id: str, chrom: str, cds: Intervals, exons: Intervals, transcript_id: str
) -> Transcript:
    location, code = feature.location, _qualifier(feature, ["transl_table"])
    has_exact_ends = all(isinstance(end, ExactPosition) for part in location.parts for end in (part.start, part.end))
    symbol, protein_id = _qualifier(feature, ["gene"]), _qualifier(feature, ["protein_id"])
    names = [one for name in _ALIASES for text in feature.qualifiers.get(name, []) for one in text.split("; ")]
    names += [text.partition(":")[2] for text in feature.qualifiers.get("db_xref", [])]
    return Transcript(
        gene_id=gene_id,
        symbol=symbol,
        transcript_id=transcript_id or protein_id,
        chrom=chrom,
        strand="+" if location.strand == 1 else "-",
        exons=exons,
        cds=cds,
        protein="".join(_qualifier(feature, ["translation"]).split()),
        protein_id=protein_id,
        genetic_code=int(code) if code.isdecimal() else None,
        complete=has_exact_ends and _qualifier(feature, ["codon_start"]) in ("", "1"),
        aliases=tuple(dict.fromkeys(one for one in names if one not in ("", gene_id, symbol, protein_id))),
    )


def _gene_id(feature: SeqFeature, gene_id: str | None) -> str:
    if gene_id is None or gene_id == "symbol":
        return _qualifier(feature, _GENE if gene_id is None else ["gene"])
    references = (text.partition(":") for text in feature.qualifiers.get("db_xref", []))
    return _qualifier(feature, [gene_id]) or next((name for kind, _, name in references if kind == gene_id), "")


def _qualifier(feature: SeqFeature, names: Iterable[str]) -> str:
    """The first of these qualifiers that it has, or empty."""
    return next((text.strip() for name in names for text in feature.qualifiers.get(name, []) if text.strip()), "")
