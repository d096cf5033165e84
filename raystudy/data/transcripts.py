"""Coding transcripts as an annotation describes them: where their exons lie, and which one stands for its gene."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from raystudy.data.encode import Tokens, reverse_complement
from raystudy.errors import DataError

Intervals = tuple[tuple[int, int], ...]
"""1-based and inclusive, ascending, none touching or overlapping another. On a circular chromosome a last base beyond
its length lies past the origin."""

SHORTEST_INTRON_BP = 20
"""A smaller gap is a ribosomal frameshift, not an intron."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """A transcript that codes for a protein; ``strand`` is ``+`` or ``-``.

    ``cds`` lies within ``exons`` and holds the stop codon, also where the annotation (GTF) counts it apart.
    ``protein`` is the annotated translation, or empty; ``complete`` is False where the annotation says that an end
    of the coding sequence is not known. ``aliases`` are other names of the gene, for hints.
    """

    gene_id: str
    symbol: str
    transcript_id: str
    chrom: str
    strand: str
    exons: Intervals
    cds: Intervals
    protein: str = ""
    protein_id: str = ""
    genetic_code: int | None = None
    complete: bool = True
    aliases: tuple[str, ...] = ()

    @property
    def start(self) -> int:
        """The first base of the coding sequence on the chromosome, 1-based."""
        return self.cds[0][0]

    @property
    def end(self) -> int:
        """The last base of the coding sequence on the chromosome; beyond its length where it wraps."""
        return self.cds[-1][1]

    @property
    def cds_bp(self) -> int:
        return length_bp(self.cds)

    @property
    def utr5(self) -> Intervals:
        """What the exons have before the start codon; empty where the annotation shows none."""
        return self._before() if self.strand == "+" else self._after()

    @property
    def utr3(self) -> Intervals:
        """What the exons have after the stop codon; empty where the annotation shows none."""
        return self._after() if self.strand == "+" else self._before()

    @property
    def intron_bp(self) -> int:
        """Length of all introns, those in UTRs included."""
        return sum(_introns_bp(self.exons))

    @property
    def num_cds_junctions(self) -> int:
        """Exon junctions between two bases of the coding sequence."""
        return len(_introns_bp(self.cds))

    def _before(self) -> Intervals:
        return tuple((first, min(last, self.start - 1)) for first, last in self.exons if first < self.start)

    def _after(self) -> Intervals:
        return tuple((max(first, self.end + 1), last) for first, last in self.exons if last > self.end)


def length_bp(intervals: Intervals) -> int:
    """Bases in all intervals together."""
    return sum(last - first + 1 for first, last in intervals)


def _introns_bp(intervals: Intervals) -> list[int]:
    gaps_bp = [after[0] - before[1] - 1 for before, after in pairwise(intervals)]
    return [gap for gap in gaps_bp if gap >= SHORTEST_INTRON_BP]


def representative(transcripts: Iterable[Transcript]) -> list[Transcript]:
    """The one transcript that stands for each gene: chromosomes as first met, then by their first coding base.

    Of a gene's transcripts, those whose coding sequence is complete come first, then the longest coding sequence,
    the longest 5'UTR, the longest 3'UTR, and at last the id that sorts first.
    Source: Agarwal & Shendure, Cell Reports 2020 (complete ones first, and the id, are ours).
    """
    chromosomes: dict[str, int] = {}
    best: dict[str, tuple[tuple[bool, int, int, int, str], Transcript]] = {}
    for transcript in transcripts:
        chromosomes.setdefault(transcript.chrom, len(chromosomes))
        rank = (
            not transcript.complete,
            -transcript.cds_bp,
            -length_bp(transcript.utr5),
            -length_bp(transcript.utr3),
            transcript.transcript_id,
        )
        if transcript.gene_id not in best or rank < best[transcript.gene_id][0]:
            best[transcript.gene_id] = (rank, transcript)
    chosen = [transcript for _, transcript in best.values()]
    return sorted(chosen, key=lambda one: (chromosomes[one.chrom], one.start, one.end, one.gene_id))


def spliced(chromosome: Tokens, intervals: Intervals, strand: str, circular: bool) -> Tokens:
    """The bases of the intervals one after the other, in the gene's own direction: uint8 [their bases].

    On a circular chromosome intervals may go on past the origin. Raises DataError for bases that the chromosome has
    not, and for intervals that go around a circular one more than once.
    """
    length = len(chromosome)
    first, last = (intervals[0][0], intervals[-1][1]) if intervals else (1, 0)
    if first < 1 or last > (first + length - 1 if circular else length):
        raise DataError(
            f"The bases {first:,} to {last:,} do not lie on a {'circular' if circular else 'linear'} chromosome of "
            f"{length:,} bp. Give the annotation that belongs to this genome, or leave this gene out"
        )
    pieces = [np.take(chromosome, np.arange(first - 1, last), mode="wrap") for first, last in intervals]
    joined: Tokens = np.concatenate([chromosome[:0], *pieces])
    return joined if strand == "+" else reverse_complement(joined)
