"""Where a transcript's parts lie, and which one stands for a gene."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raystudy.data.genome.transcripts import Intervals, Transcript, representative

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
        assert representative(transcripts) == [BY_RANK[first:]]


def test_a_decayed_transcript_stands_for_a_gene_only_where_there_is_no_other() -> None:
    decayed = replace(BY_RANK[0], is_decayed=True)
    incomplete = BY_RANK[-1]

    assert representative([decayed, BY_RANK[1], incomplete]) == [[BY_RANK[1], incomplete]]
    assert representative([decayed, incomplete]) == [[incomplete]]
    assert representative([decayed]) == [[decayed]]


def test_genes_come_in_genome_order_with_chromosomes_as_first_met() -> None:
    genes = [
        replace(FORWARD, gene_id="late", chrom="X", cds=((500, 600),)),
        replace(FORWARD, gene_id="other", chrom="2"),
        replace(FORWARD, gene_id="early", chrom="X", cds=((9, 20),)),
    ]

    assert [gene.gene_id for [gene] in representative(genes)] == ["early", "late", "other"]
    assert representative([]) == []
