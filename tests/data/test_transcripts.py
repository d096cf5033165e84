"""Where a transcript's parts lie, which one stands for a gene, and the bases of a part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raystudy.data.encode import DNA_SYMBOLS, Tokens, tokenize_dna
from raystudy.data.transcripts import Intervals, Transcript, length_bp, representative, spliced
from raystudy.errors import DataError

# UTRs of 10 + 31 bp before and 50 bp after; an intron in the 5'UTR and one in the CDS, where a base is skipped too.
FORWARD = Transcript(
    gene_id="G1",
    symbol="",
    transcript_id="T1",
    chrom="1",
    strand="+",
    exons=((101, 110), (201, 260), (301, 400)),
    cds=((232, 260), (301, 310), (312, 350)),
)
REVERSE = replace(FORWARD, strand="-")


def text_of(tokens: Tokens) -> str:
    return "".join(DNA_SYMBOLS[token] for token in tokens)


def test_a_transcript_knows_its_ends_its_utrs_and_its_introns() -> None:
    assert (FORWARD.start, FORWARD.end, FORWARD.cds_bp) == (232, 350, 29 + 10 + 39)
    assert FORWARD.utr5 == ((101, 110), (201, 231))
    assert FORWARD.utr3 == ((351, 400),)
    assert FORWARD.intron_bp == 90 + 40
    assert FORWARD.num_cds_junctions == 1, "a base that is skipped is a frameshift"


def test_on_the_other_strand_only_the_utrs_change_places() -> None:
    assert REVERSE.utr5 == FORWARD.utr3
    assert REVERSE.utr3 == FORWARD.utr5
    assert (REVERSE.start, REVERSE.end, REVERSE.intron_bp) == (FORWARD.start, FORWARD.end, FORWARD.intron_bp)


def test_without_utrs_in_the_annotation_there_are_none() -> None:
    bare = replace(FORWARD, exons=FORWARD.cds)

    assert bare.utr5 == bare.utr3 == ()
    assert bare.intron_bp == 40


@pytest.mark.parametrize(("gap_bp", "num_junctions"), [(1, 0), (19, 0), (20, 1)])
def test_a_gap_below_20_bp_is_no_intron(gap_bp: int, num_junctions: int) -> None:
    parts = ((1, 9), (10 + gap_bp, 30 + gap_bp))
    transcript = replace(FORWARD, exons=parts, cds=parts)

    assert transcript.num_cds_junctions == num_junctions
    assert transcript.intron_bp == gap_bp * num_junctions


def variant(transcript_id: str, cds: Intervals, exons: Intervals, complete: bool = True) -> Transcript:
    return replace(FORWARD, transcript_id=transcript_id, cds=cds, exons=exons, complete=complete)


BY_RANK = [
    variant("Z", ((20, 40),), ((10, 50),)),
    variant("A", ((20, 38),), ((5, 50),)),  # a shorter coding sequence
    variant("B", ((20, 38),), ((6, 90),)),  # a shorter 5'UTR
    variant("C", ((20, 38),), ((6, 80),)),  # a shorter 3'UTR
    variant("D", ((20, 38),), ((6, 80),)),  # an id that sorts later
    variant("Y", ((20, 99),), ((1, 200),), complete=False),
]


@pytest.mark.parametrize("first", range(len(BY_RANK)))
def test_the_representative_follows_the_stated_rule_whatever_the_order(first: int) -> None:
    for transcripts in (BY_RANK[first:], BY_RANK[first:][::-1]):
        assert representative(transcripts) == [BY_RANK[first]]


def test_genes_come_in_genome_order_with_chromosomes_as_first_met() -> None:
    genes = [
        replace(FORWARD, gene_id="late", chrom="X", cds=((500, 600),)),
        replace(FORWARD, gene_id="other", chrom="2"),
        replace(FORWARD, gene_id="early", chrom="X", cds=((9, 20),)),
    ]

    assert [gene.gene_id for gene in representative(genes)] == ["early", "late", "other"]
    assert representative([]) == []


CHROMOSOME = tokenize_dna("AACCGGTTNA")


@pytest.mark.parametrize(
    ("intervals", "strand", "circular", "expected"),
    [
        (((1, 2),), "+", False, "AA"),
        (((3, 4), (7, 9)), "+", False, "CCTTN"),
        (((3, 4), (7, 9)), "-", False, "NAAGG"),
        (((1, 10),), "+", False, "AACCGGTTNA"),
        ((), "-", False, ""),
        (((8, 13),), "+", True, "TNAAAC"),
        (((8, 13),), "-", True, "GTTTNA"),
        (((9, 9), (12, 13)), "+", True, "NAC"),
        (((11, 13),), "+", True, "AAC"),
        (((3, 12),), "+", True, "CCGGTTNAAA"),
    ],
)
def test_spliced_bases_are_those_of_the_gene_in_its_own_direction(
    intervals: Intervals, strand: str, circular: bool, expected: str
) -> None:
    found = spliced(CHROMOSOME, intervals, strand, circular)

    assert text_of(found) == expected
    assert found.dtype == np.uint8
    assert len(found) == length_bp(intervals)


@pytest.mark.parametrize(
    ("intervals", "circular"),
    [(((9, 11),), False), (((0, 2),), False), (((11, 12),), False), (((3, 13),), True), (((3, 4), (9, 13)), True)],
)
def test_bases_that_the_chromosome_has_not_are_refused(intervals: Intervals, circular: bool) -> None:
    with pytest.raises(DataError, match=r"do not lie on a (linear|circular) chromosome of 10 bp"):
        spliced(CHROMOSOME, intervals, "+", circular)


def test_the_chromosome_stays_as_it_is() -> None:
    before = CHROMOSOME.copy()
    spliced(CHROMOSOME, ((2, 5),), "+", False)[:] = 0

    assert (before == CHROMOSOME).all()
