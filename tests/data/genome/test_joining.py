"""Ids of a user's table and of an annotation: versions, other names, and why they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from raystudy.data.findings import Findings
from raystudy.data.genome.joining import Rows, without_version
from raystudy.data.genome.transcripts import Transcript
from raystudy.errors import DataError


def transcript(gene_id: str, **names: str) -> Transcript:
    given = {"symbol": "", "transcript_id": "", **names}
    return Transcript(gene_id, chrom="1", strand="+", exons=((1, 9),), cds=((1, 9),), **given)  # type: ignore[arg-type]


GENES = [
    transcript(f"ENSG{number:011d}", symbol=f"SYM{number}", transcript_id=f"ENST{number:011d}", protein_id=f"P{number}")
    for number in range(20)
]


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("ENSG00000141510.16", "ENSG00000141510"),
        ("ENSMUSG00000000001.5_2", "ENSMUSG00000000001"),
        ("NP_414542.1", "NP_414542"),
        ("DAA06918.1", "DAA06918"),
        ("F52H2.2", "F52H2.2"),
        ("AT1G01010.1", "AT1G01010.1"),
        ("YAL001C", "YAL001C"),
        ("ENSG00000182378.15_PAR_Y", "ENSG00000182378.15_PAR_Y"),
    ],
)
def test_versions_are_told_from_names_with_a_point(name: str, bare: str) -> None:
    assert without_version(name) == bare


def test_versions_on_either_side_are_taken_away_and_counted() -> None:
    findings = Findings()
    rows = Rows(Path("levels.tsv"), ["ENSG00000000001.4", "ENSG00000000002", "OTHER"])
    versioned = [*GENES[:2], transcript("ENSG00000000002.7")]

    rows.check(versioned, findings)

    assert [rows.row(gene.gene_id) for gene in versioned] == [None, 0, 1]
    assert findings.repaired == {
        "joined with levels.tsv without the version suffix": ["ENSG00000000001", "ENSG00000000002.7"]
    }
    assert findings.unmatched == {"ids of levels.tsv without a usable coding gene": ["OTHER"]}
    assert not findings.dropped, "no gene was left out"


def test_two_versions_of_one_gene_are_refused_but_an_exact_id_wins() -> None:
    rows = Rows(Path("levels.tsv"), ["ENSG00000000001.4", "ENSG00000000001.5"])

    assert rows.row("ENSG00000000001.5") == 1
    with pytest.raises(DataError, match="one gene, 'ENSG00000000001', but for their version"):
        rows.row("ENSG00000000001")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (
            [f"SYM{n}" for n in range(20)],
            "20 are symbols of genes .'SYM0' is of 'ENSG00000000000'.: give `--gene-id sy",
        ),
        ([f"ENST{n:011d}.3" for n in range(20)], "20 are transcripts' ids .*one row a gene"),
        ([f"P{n}" for n in range(20)], "20 are proteins' ids"),
        ([f"ensg{n:011d}" for n in range(20)], "20 differ in upper and lower case only .'ensg00000000000' is 'ENSG"),
        ([f"XYZ{n}" for n in range(20)], "its ids are like 'XYZ0', the annotation's gene ids like 'ENSG00000000000'"),
    ],
)
def test_ids_that_do_not_match_are_refused_with_their_cause(ids: list[str], message: str) -> None:
    with pytest.raises(DataError, match=f"only 0 of the 20 ids of levels.tsv .*{message}"):
        Rows(Path("levels.tsv"), ids).check(GENES, Findings())


def test_other_names_of_genes_are_found_among_the_aliases() -> None:
    genes = [Transcript(f"b{n}", "", "", "1", "+", ((1, 9),), ((1, 9),), aliases=(f"ECK{n}",)) for n in range(20)]

    with pytest.raises(DataError, match=r"other names of genes \('ECK0' is of 'b0'\)"):
        Rows(Path("levels.tsv"), [f"ECK{n}" for n in range(20)]).check(genes, Findings())
