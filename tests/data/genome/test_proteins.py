"""Proteins of genes: given by the annotation or a FASTA, or translated, and compared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from raystudy.data.genome.proteins import agree, missing_ends, translated, unrelated
from raystudy.data.sources.genome import build
from raystudy.errors import DataError
from tests.data.genome.cases import MadeGenome, dropped, edit, make_genome, plain_gene, put

Options = dict[str, Any]


@pytest.fixture
def made() -> MadeGenome:
    return make_genome(4)


@pytest.mark.parametrize(
    "header",
    [
        ">{gene}",
        ">{gene}.t1 some words",
        ">P{gene}.2 pep chromosome:made gene:{gene} transcript:{gene}.t1 gene_biotype:protein_coding",
        ">lcl|made_prot_{gene}x_1 [gene=abc] [locus_tag={gene}] [protein=some words]",
        ">PROT{gene}|{gene}.t1|{gene}|-|400",
    ],
)
def test_given_proteins_are_found_by_the_ids_in_their_headers(made: MadeGenome, tmp_path: Path, header: str) -> None:
    fasta = tmp_path / "proteins.fa"
    fasta.write_text("".join(f"{header.format(gene=gene.gene_id)}\n{gene.protein}*\n" for gene in made.genes))

    table = build(**made.write(tmp_path, "gff3"), proteins=fasta)

    assert table.notes["proteins"] == {"FASTA": 10}
    assert table.notes["translation"] == {"agree": 10, "differ": 0, "not compared": 0, "examples": []}
    assert table.proteins == [gene.protein for gene in made.genes]


@pytest.mark.parametrize(
    ("protein", "reason"),
    [
        ("MACDEFGHIKLMNPQRSTVWY", "a given protein that has nothing of its coding sequence"),
        ("{}*AAA", "a stop inside its given protein"),
        ("{}1", "a given protein with symbols that are no residue's"),
    ],
)
def test_a_given_protein_that_is_none_is_counted_out(
    made: MadeGenome, tmp_path: Path, protein: str, reason: str
) -> None:
    gene = made.genes[3]
    options = made.write(tmp_path, "gff3")
    attribute = f"translation={protein.format(gene.protein)}"
    edit(tmp_path / "genes.gff3", lambda text: text.replace("ID=G003.p1;", f"ID=G003.p1;{attribute};"))

    assert dropped(build(**options)) == {reason: ["G003"]}


def test_a_given_protein_that_differs_keeps_its_gene_and_is_counted(made: MadeGenome, tmp_path: Path) -> None:
    gene = plain_gene(made)
    given = gene.protein[:-1] + "W"
    fasta = tmp_path / "proteins.fa"
    fasta.write_text(f">{gene.gene_id}\n{given}\n")
    put(made, gene, 2, "TGA")

    table = build(**made.write(tmp_path, "gff3"), proteins=fasta)

    assert table.proteins[table.gene_ids.index(gene.gene_id)] == given
    assert table.notes["translation"] == {
        "agree": 0,
        "differ": 1,
        "not compared": 9,
        "examples": [gene.gene_id],
    }


def test_several_different_proteins_of_one_id_are_not_chosen_from(made: MadeGenome, tmp_path: Path) -> None:
    first, second = made.genes[:2]
    fasta = tmp_path / "proteins.fa"
    fasta.write_text(f">a gene:G000\n{first.protein}\n>b gene:G000\nMACD\n>c gene:G001\n{second.protein}\n")

    table = build(**made.write(tmp_path, "gff3"), proteins=fasta)

    assert table.notes["proteins"] == {"translated": 9, "FASTA": 1}


def test_the_genetic_code_is_the_annotations_or_the_given_one(tmp_path: Path) -> None:
    made = make_genome(3, codons={"W": ["TGA"]})
    options = made.write(tmp_path, "gff3")

    with pytest.raises(DataError, match=r"do not belong together: of 10 .*code than 1, by .*`--genetic-code`"):
        build(**options)
    assert build(**options, genetic_code=4).proteins == [gene.protein for gene in made.genes]

    edit(tmp_path / "genes.gff3", lambda text: re.sub("(ID=.*p1);", r"\1;transl_table=4;", text))
    table = build(**options)
    assert table.proteins == [gene.protein for gene in made.genes]

    edit(tmp_path / "genes.gff3", lambda text: text.replace("transl_table=4;", "transl_table=11;"))
    with pytest.raises(DataError, match=r"do not belong together.*code than 11, by"):
        build(**options)


@pytest.mark.parametrize(
    ("cds", "code", "protein"),
    [
        ("ATGTGGTAA", 1, "MW"),
        ("GTGTGGTAA", 11, "MW"),
        ("GTGTGGTAA", 1, "VW"),
        ("ATGTGATAG", 1, "M*"),
        ("ATGTGATAG", 4, "MW"),
        ("ATGNGGTGA", 1, "MX"),
        ("ATGTGAGGGTGA", 27, "MWG"),  # the last TGA ends the protein, the other is tryptophan
        ("ATGTGGT", 1, "MW"),
        ("TAA", 1, ""),
        ("", 1, ""),
    ],
)
def test_coding_sequences_are_translated_by_their_code(cds: str, code: int, protein: str) -> None:
    assert translated(cds, code) == protein


def test_gtg_under_code_1_says_which_code_may_be_meant() -> None:
    assert missing_ends("GTGTGGTAA", 11) == []
    assert missing_ends("ATGTGGTAA", 1) == []
    [said] = missing_ends("GTGTGGTAA", 1)
    assert "GTG" in said
    assert "--genetic-code 11" in said
    assert missing_ends("GCGTGGTAC", 1) == ["begins without a start codon", "ends without a stop codon"]


def test_a_file_that_does_not_begin_with_a_record_is_refused(made: MadeGenome, tmp_path: Path) -> None:
    fasta = tmp_path / "proteins.fa"
    fasta.write_text("MACD\n>G000\nMACD\n")

    with pytest.raises(DataError, match=r"proteins\.fa is no FASTA file: it begins with 'MACD'"):
        build(**made.write(tmp_path, "gff3"), proteins=fasta)


def test_a_protein_agrees_differs_or_is_of_something_else() -> None:
    assert agree("MAUC", "MA*C")
    assert not agree("MAAC", "MA*C")
    assert not agree("MAC", "MACC")
    assert unrelated("MACDEFGHIKL", "MWWWWWWWWWWWWWWW")
    assert not unrelated("MACDEFGHIKL", "WWACDEFGWW")
    assert not unrelated("MACD", "W")  # too short to tell
