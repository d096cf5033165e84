"""The bases of a chromosome's genes, and what its name says."""

from __future__ import annotations

import numpy as np
import pytest

from raystudy.data.encode import tokenize_dna
from raystudy.data.genome.loci import Chromosome, bare_name, is_mitochondrial, text_of
from raystudy.data.genome.transcripts import Intervals, length_bp

LINE = Chromosome("chr1", tokenize_dna("AACCGGTTNA"), False, [])
CIRCLE = Chromosome("chrM", LINE.tokens, True, [])


@pytest.mark.parametrize(
    ("intervals", "strand", "chromosome", "expected"),
    [
        (((1, 2),), "+", LINE, "AA"),
        (((3, 4), (7, 9)), "+", LINE, "CCTTN"),
        (((3, 4), (7, 9)), "-", LINE, "NAAGG"),
        (((1, 10),), "+", LINE, "AACCGGTTNA"),
        ((), "-", LINE, ""),
        (((8, 13),), "+", CIRCLE, "TNAAAC"),
        (((8, 13),), "-", CIRCLE, "GTTTNA"),
        (((9, 9), (12, 13)), "+", CIRCLE, "NAC"),
        (((11, 13),), "+", CIRCLE, "AAC"),
        (((3, 12),), "+", CIRCLE, "CCGGTTNAAA"),
    ],
)
def test_bases_are_those_of_the_gene_in_its_own_direction(
    intervals: Intervals, strand: str, chromosome: Chromosome, expected: str
) -> None:
    found = chromosome.bases(intervals, strand)

    assert text_of(found) == expected
    assert found.dtype == np.uint8
    assert len(found) == length_bp(intervals)


@pytest.mark.parametrize(
    ("intervals", "chromosome", "is_held"),
    [
        (((1, 10),), LINE, True),
        (((9, 11),), LINE, False),
        (((0, 2),), LINE, False),
        (((3, 12),), CIRCLE, True),
        (((3, 13),), CIRCLE, False),
        (((3, 4), (9, 13)), CIRCLE, False),
        (((11, 12),), CIRCLE, False),
    ],
)
def test_a_circle_is_gone_around_once_and_a_line_ends(
    intervals: Intervals, chromosome: Chromosome, is_held: bool
) -> None:
    assert chromosome.holds(intervals) == is_held


def test_the_chromosome_stays_as_it_is() -> None:
    before = LINE.tokens.copy()
    LINE.bases(((2, 5),), "+")[:] = 0

    assert (before == LINE.tokens).all()


@pytest.mark.parametrize(("name", "bare"), [("chr1", "1"), ("Chromosome 2", "2"), ("chrM", "mt"), ("MT", "mt")])
def test_names_of_chromosomes_are_alike_but_for_their_prefix(name: str, bare: str) -> None:
    assert bare_name(name) == bare


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        *((name, True) for name in ("MT", "M", "chrM", "chrMT", "chrmt", "Mt", "Mito", "mitochondrion", "MtDNA")),
        *((name, True) for name in ("mitochondrion_genome", "dmel_mitochondrion_genome")),
        *((name, False) for name in ("1", "chrX", "chromosome", "NC_012920.1", "mt1", "scaffold_mt")),
    ],
)
def test_mitochondria_are_known_by_their_usual_names(name: str, is_one: bool) -> None:
    assert is_mitochondrial(name) == is_one
