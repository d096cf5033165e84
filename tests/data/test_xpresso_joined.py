"""Proteins and levels joined to what was published with Xpresso."""

from __future__ import annotations

import gzip
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from raystudy.data.genes import Genes, GeneTable, write_genes
from raystudy.data.sources import xpresso
from raystudy.data.splits import make_split
from raystudy.errors import DataError, SpecError
from raystudy.study.sections import SplitSpec
from tests.data.xpresso_cases import ALL_GENES, COUNTS, published, write

build = partial(xpresso.build, homology="kmer")  # the embedded engine: as fast as these few proteins allow
FORMULA = "protein=log10(ppm) in ppm"
ONE, OTHER = "MAGICALWANDS", "MKKLLVVSSTTRREE"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("published") / "files", published())


def ensembl(number: int, gene: str, sequence: str) -> str:
    """A record as Ensembl writes it."""
    header = f"ENSP{number:011d}.2 pep chromosome:GRCh38:1:1:9:1 gene:{gene}.5 transcript:ENST{number:011d}.1"
    return f">{header} gene_symbol:ABC description:gene of [Source:HGNC]\n{sequence[:9]}\n{sequence[9:]}\n"


def protein_of(row: int) -> str:
    """Every gene's own; each differs from the others in a tail longer than what any two share."""
    random = np.random.default_rng(row)
    return "M" + "".join(random.choice(list("ACDEFGHIKLNPQRSTVWY"), 40))


def fasta(folder: Path, records: str | None = None) -> Path:
    text = "".join(ensembl(row, gene, protein_of(row)) for row, gene in enumerate(ALL_GENES))
    path = folder / "pep.fa"
    path.write_text(text if records is None else records)
    return path


def levels(folder: Path, rows: list[str] | None = None) -> Path:
    written = [f"{gene}.11\t{10 + row}" for row, gene in enumerate(ALL_GENES)] if rows is None else rows
    path = folder / "levels.tsv"
    path.write_text("\n".join(["gene_id\tppm", *written, ""]))
    return path


def joined(files: Path, proteins: Path, table: Path, target: str = FORMULA) -> GeneTable:
    return build(files=files, proteins=proteins, expression=table, target=[target])


def test_proteins_and_levels_are_joined_by_ensembl_id_without_its_version(files: Path, tmp_path: Path) -> None:
    found = joined(files, fasta(tmp_path), levels(tmp_path))

    assert list(found.gene_ids) == ALL_GENES
    assert list(found.proteins) == [protein_of(row) for row in range(32)]
    assert found.targets["protein"].values == pytest.approx(np.log10(10 + np.arange(32)))
    assert list(found.targets) == ["mrna", "protein"]
    assert found.targets["protein"].unit == "log10(ppm), in ppm"
    assert "families" not in found.notes, "with proteins they are known"
    assert set(found.source_digests) == {"train.h5", "valid.h5", "test.h5", "pep.fa", "levels.tsv"}


def test_genes_without_a_protein_or_a_level_are_dropped_and_counted_and_parts_shrink(
    files: Path, tmp_path: Path
) -> None:
    records = "".join(ensembl(row, gene, protein_of(row)) for row, gene in enumerate(ALL_GENES) if row != 0)
    rows = [f"{gene}\t{'' if row == 13 else row}" for row, gene in enumerate(ALL_GENES) if row != 1]

    found = joined(files, fasta(tmp_path, records), levels(tmp_path, rows))

    gone = [0, 1, 13]
    assert list(found.gene_ids) == [gene for row, gene in enumerate(ALL_GENES) if row not in gone]
    assert found.notes["published_split"] == {"train": 10, "valid": 9, "test": 10}
    dropped = found.notes["findings"]["dropped"]
    assert dropped["no protein in pep.fa"] == {"count": 1, "examples": [ALL_GENES[0]]}
    assert dropped["no level in levels.tsv"] == {"count": 2, "examples": [ALL_GENES[1], ALL_GENES[13]]}
    everyone = build(files=files)
    assert np.array_equal(found.windows, np.delete(everyone.windows, gone, axis=0))
    assert np.array_equal(found.features, np.delete(everyone.features, gone, axis=0))
    assert np.array_equal(found.targets["mrna"].values, np.delete(everyone.targets["mrna"].values, gone))


def test_of_several_proteins_the_longest_is_taken_then_that_with_the_first_id(files: Path, tmp_path: Path) -> None:
    gene = ALL_GENES[4]
    records = ensembl(9, gene, "MSHORT") + ensembl(8, gene, OTHER) + ensembl(7, gene, OTHER[::-1] + "*")
    records += ensembl(6, gene, OTHER + "*LONGER")

    found = build(files=files, proteins=fasta(tmp_path, f"{records}>{ALL_GENES[5]}\n{ONE}\n"))

    assert list(found.proteins) == [OTHER[::-1], ONE]
    [(reason, counted)] = found.notes["findings"]["repaired"].items()
    assert reason == "a protein with a stop inside is left aside"
    assert counted == {"count": 1, "examples": [f"{gene} ENSP{6:011d}.2"]}


@pytest.mark.parametrize(
    "header",
    [
        "ENSP00000000001.3|ENST00000000001.4|{gene}.7|OTTHUMG00000000001.1|OTTHUMT1|ABC-201|ABC|326",
        "{gene}.7|ENST00000000001.4",
        "{gene}",
        "{gene}.7 any other words",
        "P12345 reviewed gene:{gene}.7",
    ],
)
def test_a_gene_is_found_in_headers_of_several_makers(header: str, files: Path, tmp_path: Path) -> None:
    records = "".join(f">{header.format(gene=gene)}\n{protein_of(row)}\n" for row, gene in enumerate(ALL_GENES))

    assert list(build(files=files, proteins=fasta(tmp_path, records)).proteins) == [
        protein_of(row) for row in range(32)
    ]


def test_gzipped_proteins_give_the_same(files: Path, tmp_path: Path) -> None:
    path = tmp_path / "pep.fa.gz"
    path.write_bytes(gzip.compress(fasta(tmp_path).read_bytes()))

    assert build(files=files, proteins=path).proteins == build(files=files, proteins=fasta(tmp_path)).proteins


def test_genes_of_one_protein_are_a_family_and_a_published_split_that_parts_it_says_so(
    files: Path, tmp_path: Path
) -> None:
    twins = (0, 12, 22)  # one in each part
    records = "".join(ensembl(row, gene, protein_of(0 if row in twins else row)) for row, gene in enumerate(ALL_GENES))

    genes = Genes.open(write_genes(build(files=files, proteins=fasta(tmp_path, records)), tmp_path / "data"))

    assert len(set(genes.family_ids[list(twins)].tolist())) == 1
    assert len(set(genes.family_ids.tolist())) == 30
    split = make_split(genes, SplitSpec(by="published"), (7000, 3500), np.ones(32, bool))
    for found in split.audit.values():
        assert found == {"window_overlaps": None, "family_members": 1, "protein_similarity": 1.0}
    assert split.dropped == {"no_label": 0}


def test_another_mrna_level_takes_the_place_of_the_published_one(files: Path, tmp_path: Path) -> None:
    found = build(files=files, expression=levels(tmp_path), target=["mrna=log10(ppm + 0.1) in TPM"])

    assert found.targets["mrna"].values == pytest.approx(np.log10(10.1 + np.arange(32)))
    assert found.targets["mrna"].unit == "log10(ppm + 0.1), in TPM"
    assert found.notes["published_split"] == COUNTS


@pytest.mark.parametrize(("table", "target"), [(True, []), (False, [FORMULA])])
def test_a_table_and_its_targets_go_together(table: bool, target: list[str], files: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="go together"):
        build(files=files, expression=levels(tmp_path) if table else None, target=target)


def test_other_genes_proteins_are_refused_with_both_kinds_of_ids(files: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"pep.fa has 0 of the 32 genes.*like 'TP53', theirs like '{ALL_GENES[0]}'"):
        build(files=files, proteins=fasta(tmp_path, f">TP53\n{ONE}\n"))


def test_other_genes_levels_are_refused_with_both_kinds_of_ids(files: Path, tmp_path: Path) -> None:
    rows = [f"SYMBOL{row}\t{row}" for row in range(32)]

    with pytest.raises(DataError, match=f"levels.tsv has 0 of the 32 genes.*'SYMBOL0', theirs like '{ALL_GENES[0]}'"):
        joined(files, fasta(tmp_path), levels(tmp_path, rows))


def test_a_symbol_that_is_no_residue_is_refused_with_file_and_gene(files: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"pep.fa: the protein of {ALL_GENES[4]}: '1' at position 3"):
        build(files=files, proteins=fasta(tmp_path, ensembl(1, ALL_GENES[4], "MA1ICAL") * 2))


@pytest.mark.parametrize(("text", "said"), [("", "pep.fa"), ("no fasta\n", "pep.fa is no FASTA file")])
def test_a_file_that_is_no_fasta_is_refused(text: str, said: str, files: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        build(files=files, proteins=fasta(tmp_path, text))


def test_nothing_is_written_of_no_genes(files: Path, tmp_path: Path) -> None:
    proteins = fasta(tmp_path, ensembl(1, ALL_GENES[4], ONE) + ensembl(1, ALL_GENES[5], ONE))
    rows = [f"{ALL_GENES[8]}\t3", f"{ALL_GENES[9]}\t3"]

    with pytest.raises(DataError, match=r"no gene is left of the 32.*no protein in pep.fa.*'count': 30"):
        joined(files, proteins, levels(tmp_path, rows))
