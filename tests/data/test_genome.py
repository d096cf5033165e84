"""Genomes that users bring: which genes are left out and why, where windows stand, what is refused before writing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystudy.data.encode import FEATURES
from raystudy.data.genes import Genes, write_genes
from raystudy.data.sources.genome import build
from raystudy.errors import DataError, SpecError
from tests.data.genome.cases import WINDOW, MadeGene, MadeGenome, dropped, edit, make_genome, plain_gene, put, repaired

Options = dict[str, Any]


@pytest.fixture
def made() -> MadeGenome:
    return make_genome(4)


# what the table says of itself


def test_notes_say_what_the_table_was_made_of(made: MadeGenome, tmp_path: Path) -> None:
    table = build(**made.write(tmp_path, "gff3"), name="made")

    assert (table.source, table.anchor) == ("made", WINDOW[0])
    files = {"genome": ["genome.fa"], "annotation": ["genes.gff3"], "expression": ["levels.tsv"]}
    assert table.notes["files"] == files
    assert sorted(table.source_digests) == ["genes.gff3", "genome.fa", "levels.tsv"]
    assert table.notes["anchor"] == "start codon"
    assert (table.notes["genetic_code"], table.notes["homology"]["engine"]) == ([1], "k-mers")
    assert table.notes["targets"] == {"mrna": "log10(TPM + 0.1)"} == {"mrna": table.targets["mrna"].unit}
    assert "circular" not in table.notes
    assert Genes.open(write_genes(table, tmp_path / "out")).num_genes == 10


def test_two_files_of_one_name_are_told_apart(made: MadeGenome, tmp_path: Path) -> None:
    options = made.write(tmp_path, "gff3")
    whole = (tmp_path / "genome.fa").read_text()
    second = whole.index(">chrB")
    parts = [tmp_path / name / "part.fa" for name in "ab"]
    for path, content in zip(parts, (whole[:second], whole[second:]), strict=True):
        path.parent.mkdir()
        path.write_text(content)

    table = build(**{**options, "genome": parts})

    assert table.notes["files"]["genome"] == ["part.fa", "part.fa (2)"]
    assert len(set(table.source_digests.values())) == 4
    assert len(table.gene_ids) == 10


def test_a_gene_without_a_level_is_counted_but_links_its_family(tmp_path: Path) -> None:
    left, right = "ACDEFGHIKLWYACDEFGHI", "WVTSRQPNMLWVYTSRQPNM"
    made = make_genome(2, proteins=[f"M{left}", f"M{left}{right}", f"M{right}", "MKLIFGHEDCAYTRNQPLKVV"])
    made.genes[1].level = None

    table = build(**made.write(tmp_path, "gtf"))

    assert table.gene_ids == ["G000", "G002", "G003"]
    assert dropped(table) == {"no expression value": ["G001"]}
    assert table.family_ids[0] == table.family_ids[1] != table.family_ids[2]


def test_what_the_annotation_does_not_show_is_missing_and_not_zero(made: MadeGenome, tmp_path: Path) -> None:
    for gene in made.genes:
        gene.exons = gene.cds

    table = build(**made.write(tmp_path, "gff3"))

    missing = {name for name, column in zip(FEATURES, table.features.T, strict=True) if np.isnan(column).all()}
    assert missing == {"utr5_length", "utr3_length", "utr5_gc", "utr3_gc"}
    assert np.isfinite(table.features[:, [FEATURES.index("cds_gc"), FEATURES.index("intron_length")]]).all()


# genes that are left out


def swap_strand(made: MadeGenome, gene: MadeGene) -> None:
    gene.strand = "-"


def shift_frame(made: MadeGenome, gene: MadeGene) -> None:
    gene.cds = [(gene.cds[0][0], gene.cds[0][1] + 1)]


def plant_stop(made: MadeGenome, gene: MadeGene) -> None:
    put(made, gene, 2, "TGA")


def plant_unknown(made: MadeGenome, gene: MadeGene) -> None:
    put(made, gene, 2, "Rac")


def cut_short(made: MadeGenome, gene: MadeGene) -> None:
    gene.cds = gene.exons = [(last := len(made.chromosomes[gene.chrom]), last + 8)]


def leave_nothing(made: MadeGenome, gene: MadeGene) -> None:
    gene.cds = [(gene.cds[0][1] - 2, gene.cds[0][1])]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (swap_strand, "a stop codon inside its coding sequence, and no protein given"),
        (shift_frame, "a coding sequence that is no multiple of three bases, and no protein given"),
        (plant_stop, "a stop codon inside its coding sequence, and no protein given"),
        (plant_unknown, "unknown bases (N) in its coding sequence, and no protein given"),
        (cut_short, "bases beyond the end of its chromosome"),
        (leave_nothing, "an empty protein"),
    ],
)
def test_a_gene_that_cannot_be_translated_is_counted_out(
    made: MadeGenome, tmp_path: Path, change: Callable[[MadeGenome, MadeGene], None], reason: str
) -> None:
    gene = plain_gene(made)
    change(made, gene)

    table = build(**made.write(tmp_path, "gff3"))

    assert dropped(table) == {reason: [gene.gene_id]}
    assert len(table.gene_ids) == 9


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ("partial=true", "an incomplete coding sequence: the annotation does not know both its ends"),
        ("transl_table=99", "an unknown genetic code (transl_table)"),
    ],
)
def test_a_gene_whose_annotation_says_so_is_counted_out(
    made: MadeGenome, tmp_path: Path, attributes: str, reason: str
) -> None:
    options = made.write(tmp_path, "gff3")
    edit(tmp_path / "genes.gff3", lambda text: text.replace("ID=G003.p1;", f"ID=G003.p1;{attributes};"))

    assert dropped(build(**options)) == {reason: ["G003"]}


@pytest.mark.parametrize("other", ["G001", "G008"])  # on the same chromosome, on another
def test_an_id_of_two_genes_is_counted_out(made: MadeGenome, tmp_path: Path, other: str) -> None:
    options = made.write(tmp_path, "genbank")
    edit(tmp_path / "genome.gb", lambda text: text.replace(f'"{other}"', '"G003"'))

    table = build(**options)

    [reason] = [reason for reason in dropped(table) if "several places" in reason]
    assert "leave those sequences out of `--genome`" in reason
    assert dropped(table)[reason] == ["G003"]
    assert len(table.gene_ids) == 8


def test_a_chromosome_that_the_genome_lacks_is_counted_gene_by_gene(made: MadeGenome, tmp_path: Path) -> None:
    options = made.write(tmp_path, "gff3")
    edit(tmp_path / "genome.fa", lambda text: text[: text.index(">chrB")])

    table = build(**options)

    assert len(table.gene_ids) == 5
    assert dropped(table)["on a chromosome that is not in the genome"][0] == "G005 on chrB"


def test_a_gene_of_the_chromosome_that_is_there_stays_and_others_are_counted_once(
    made: MadeGenome, tmp_path: Path
) -> None:
    options = made.write(tmp_path, "gtf")
    edit(tmp_path / "genome.fa", lambda text: text[: text.index(">chrB")])
    copies = [("G000", "chrB"), ("G009", "chrC")]
    edit(
        tmp_path / "genes.gtf",
        lambda text: (
            text
            + "".join(
                f'{chrom}\tx\tCDS\t1\t9\t.\t+\t0\tgene_id "{gene}"; transcript_id "{gene}.{number}";\n'
                for gene, chrom in copies
                for number in (7, 8)
            )
        ),
    )

    table = build(**options)

    assert table.gene_ids == [f"G00{number}" for number in range(5)]
    absent = table.notes["findings"]["dropped"]["on a chromosome that is not in the genome"]
    assert absent["count"] == 5
    assert [one.split()[0] for one in absent["examples"]] == [f"G00{number}" for number in range(5, 10)]


@pytest.mark.parametrize(("there", "repair"), [("A", "A is chrA"), ("CHRA", "CHRA is chrA"), ("chrA", "")])
def test_a_prefix_of_chromosome_names_is_repaired_and_counted(
    made: MadeGenome, tmp_path: Path, there: str, repair: str
) -> None:
    options = made.write(tmp_path, "gtf")
    edit(tmp_path / "genome.fa", lambda text: text.replace(">chrA", f">{there}"))

    table = build(**options)

    assert len(table.gene_ids) == 10
    assert list(repaired(table).values()) == [[repair]] * bool(repair)


# what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"genbank": [Path("a.gb")]}, "but got both"),
        ({"genome": (), "annotation": None}, "but got neither"),
        ({"annotation": None}, "FASTA alone"),
        ({"window_bp": (10, 0)}, "`window_bp`"),
        ({"anchor": "TSS"}, "`anchor` is cds"),
        ({"genetic_code": 7}, "no genetic code 7"),
        ({"homology": "blast"}, "blast"),
        ({"target": []}, "no target is given"),
        ({"tss": Path("levels.tsv"), "anchor": "cds"}, "`anchor` is cds"),
    ],
)
def test_options_that_do_not_fit_are_refused(made: MadeGenome, tmp_path: Path, options: Options, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(**{**made.write(tmp_path, "gff3"), **options})


def renamed(text: str) -> str:
    return text.replace(">chrA", ">scaffold_1").replace(">chrB", ">scaffold_2")


def of_another(text: str) -> str:
    other = make_genome(99, num_genes=12)
    return "".join(f">{chrom}\n{bases}\n" for chrom, bases in other.chromosomes.items())


def by_symbol(text: str) -> str:
    return text.replace("\nG", "\nsym")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("genome.fa", renamed, "no chromosome of the annotation is in the genome.*'chrA'.*'scaffold_2'.*`chr1`"),
        ("genome.fa", of_another, "do not belong together: of 10 coding sequences"),
        ("genome.fa", lambda text: text + ">A\nACGT\n", "two sequences of the genome are 'chrA': 'chrA' and 'A'"),
        ("genome.fa", lambda text: text.replace("ACG", "A*G"), "not a DNA symbol"),
        ("genome.fa", lambda text: "", "genome.fa"),
        ("genome.fa", lambda text: text.replace(">", ""), "no FASTA file"),
        ("genes.gff3", lambda text: "", "genes.gff3"),
        ("levels.tsv", by_symbol, "10 are symbols of genes .'sym000' is of 'G000'.: give `--gene-id symbol`"),
        ("levels.tsv", lambda text: text.replace("\nG", "\nX"), "ids are like 'X000'"),
    ],
    ids=range(9),
)
def test_files_that_do_not_fit_are_refused(
    made: MadeGenome, tmp_path: Path, name: str, change: Callable[[str], str], message: str
) -> None:
    options = made.write(tmp_path, "gff3")
    edit(tmp_path / name, change)

    with pytest.raises(DataError, match=message) as refusal:
        build(**options)

    assert "\n" not in str(refusal.value)


def test_symbols_are_joined_when_they_are_asked_for(made: MadeGenome, tmp_path: Path) -> None:
    for kind in ("gff3", "gtf", "genbank"):
        options = made.write(tmp_path / kind, kind)
        edit(tmp_path / kind / "levels.tsv", by_symbol)

        assert build(**options, gene_id="symbol").gene_ids == [gene.symbol for gene in made.genes]


def test_more_of_the_same_is_refused(made: MadeGenome, tmp_path: Path) -> None:
    options = made.write(tmp_path, "gff3")
    with pytest.raises(DataError, match=r"none\.fa cannot be read"):
        build(**{**options, "genome": [tmp_path / "none.fa"]})
    with pytest.raises(DataError, match="embeds no sequences"):
        build(**{**options, "genome": ()})
    strangers = tmp_path / "proteins.fa"
    strangers.write_text(">sp|Q9|XYZ\nMACDEF\n")
    with pytest.raises(DataError, match=r"has a protein of none of the 10 genes.*'sp\|Q9\|XYZ'"):
        build(**options, proteins=strangers)
    with pytest.raises(DataError, match="no gene is left for the table"):
        build(**{**options, "expression": _levels(tmp_path, "G999\t1\nG000\t\nG001\t\n")})
    two = _levels(tmp_path, "G000\t1\t\nX\t1\t2\n", "gene_id\tTPM\tppm\n")
    with pytest.raises(DataError, match="has no 'protein' level"):
        build(**{**options, "expression": two, "target": ["mrna=TPM", "protein=ppm"]})
    no_gene = _levels(tmp_path, "LOCUS\n")
    with pytest.raises(DataError, match="holds no GenBank record"):
        build(**{**options, "genome": (), "annotation": None, "genbank": [no_gene]})


def _levels(folder: Path, rows: str, header: str = "gene_id\tTPM\n") -> Path:
    path = folder / "other.tsv"
    path.write_text(header + rows)
    return path
