"""Coding transcripts as an annotation describes them: where their exons lie, and which one stands for its gene."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

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
    of the coding sequence is not known, ``is_decayed`` True where it says that the transcript makes no protein of the
    gene's (nonsense-mediated decay and the like). ``aliases`` are other names of the gene, for hints; ``gene_line`` is
    the id of the one line that the gene has in the annotation, or empty.
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
    is_decayed: bool = False
    aliases: tuple[str, ...] = ()
    gene_line: str = ""

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


def representative(transcripts: Iterable[Transcript]) -> list[list[Transcript]]:
    """The transcripts that may stand for each gene, best first; genes by their best ones' place.

    Chromosomes come as first met, then genes by their first coding base. Of a gene's transcripts, those whose coding
    sequence is complete come first, then the longest coding sequence, the longest 5'UTR, the longest 3'UTR, and at
    last the id that sorts first. Those that are decayed are there only where the gene has no other.
    Source: Agarwal & Shendure, Cell Reports 2020 (complete ones first, decayed ones not, and the id, are ours).
    """
    chromosomes: dict[str, int] = {}
    by_gene: dict[str, list[Transcript]] = {}
    for transcript in transcripts:
        chromosomes.setdefault(transcript.chrom, len(chromosomes))
        by_gene.setdefault(transcript.gene_id, []).append(transcript)
    ranked = [sorted([one for one in ones if not one.is_decayed] or ones, key=_rank) for ones in by_gene.values()]
    return sorted(ranked, key=lambda ones: (chromosomes[ones[0].chrom], ones[0].start, ones[0].end, ones[0].gene_id))


def _rank(transcript: Transcript) -> tuple[bool, int, int, int, str]:
    return (
        not transcript.complete,
        -transcript.cds_bp,
        -length_bp(transcript.utr5),
        -length_bp(transcript.utr3),
        transcript.transcript_id,
    )
