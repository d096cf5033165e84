"""Which transcript stands for a gene, and where windows stand: at start codons or TSS, on lines and on circles."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Bio.Seq import Seq

from raystudy.data.encode import tokenize_dna
from raystudy.data.sources.genome import build
from raystudy.errors import DataError
from tests.data.genome.cases import WINDOW, MadeGene, MadeGenome, dropped, edit, make_genome, plain_gene, put, repaired

Options = dict[str, Any]


@pytest.fixture
def made() -> MadeGenome:
    return make_genome(4)


def five_prime(gene: MadeGene) -> int:
    return gene.exons[0][0] if gene.strand == "+" else gene.exons[-1][1]


def window_at(made: MadeGenome, gene: MadeGene, base: int) -> list[int]:
    up, down = WINDOW
    bases, first = made.chromosomes[gene.chrom], base - 1
    if gene.strand == "-":
        bases, first = str(Seq(bases).reverse_complement()), len(bases) - base
    padded = "N" * up + bases + "N" * down
    return tokenize_dna(padded[first : first + up + down]).tolist()


def test_windows_stand_at_the_5_prime_end_of_the_transcript_when_asked(made: MadeGenome, tmp_path: Path) -> None:
    made.genes[3].exons = made.genes[3].cds

    table = build(**made.write(tmp_path, "gff3"), anchor="tss")

    assert table.notes["anchor"] == "TSS"
    assert dropped(table) == {"no annotated 5'UTR, so its TSS is not known": ["G003"]}
    kept = [gene for gene in made.genes if gene.gene_id != "G003"]
    assert table.windows.tolist() == [window_at(made, gene, five_prime(gene)) for gene in kept]
    ends = [(gene.exons[0][0], gene.exons[-1][1]) for gene in kept]
    assert list(zip(table.starts, table.ends, strict=True)) == ends


def test_a_table_of_tss_places_the_windows(made: MadeGenome, tmp_path: Path) -> None:
    sign = {"+": 1, "-": -1}
    places = {gene.gene_id: five_prime(gene) - 7 * sign[gene.strand] for gene in made.genes}
    first, second, third, fourth = made.genes[:4]
    places[first.gene_id] += 100_000
    places[second.gene_id] = (second.cds[0][0] + second.cds[-1][1]) // 2
    places[third.gene_id] = 0
    del places[fourth.gene_id]
    path = tmp_path / "tss.tsv"
    path.write_text("gene_id\ttss\n" + "".join(f"{gene}\t{tss}\n" for gene, tss in places.items()))

    table = build(**made.write(tmp_path, "gff3"), tss=path)

    assert dropped(table) == {
        "a TSS beyond the end of its chromosome": ["G000", "G002"],
        "a TSS that is not within the 100,000 bp upstream of its start codon": ["G001"],
        "no TSS in the TSS table": ["G003"],
    }
    kept = made.genes[4:]
    assert table.windows.tolist() == [window_at(made, gene, places[gene.gene_id]) for gene in kept]
    anchors = [
        start if strand == "+" else end
        for start, end, strand in zip(table.starts, table.ends, table.strands, strict=True)
    ]
    assert anchors == [places[gene.gene_id] for gene in kept]


def test_a_tss_that_is_no_base_is_refused(made: MadeGenome, tmp_path: Path) -> None:
    path = tmp_path / "tss.csv"
    path.write_text("gene_id,tss\nG000,1.5\n")

    with pytest.raises(DataError, match=r"the TSS of 'G000' is 1\.5"):
        build(**made.write(tmp_path, "gff3"), tss=path)


# isoforms


def with_isoform(made: MadeGenome, folder: Path, first: int, last: int, biotype: str = "") -> Options:
    """The files, in which a plain gene has another transcript of one coding part."""
    gene, options = plain_gene(made), made.write(folder, "gtf")
    names = f'gene_id "{gene.gene_id}"; transcript_id "{gene.gene_id}.t0"; transcript_biotype "{biotype}";'
    line = f"{gene.chrom}\tmade\tCDS\t{first}\t{last}\t.\t+\t0\t{names}\n"
    edit(folder / "genes.gtf", lambda text: text + line)
    return options


def cds_of(made: MadeGenome, options: Options) -> tuple[str, dict[str, list[str]]]:
    table = build(**options)
    assert not dropped(table)
    return table.cds[table.gene_ids.index(plain_gene(made).gene_id)], repaired(table)


def test_a_longer_transcript_of_nonsense_mediated_decay_does_not_stand_for_its_gene(tmp_path: Path) -> None:
    made = make_genome(4)
    gene = plain_gene(made)
    [(first, last)] = gene.cds
    put(made, gene, -2, "ATGAAA")  # so that it is a whole coding sequence

    assert cds_of(made, with_isoform(made, tmp_path, first - 6, last, "nonsense_mediated_decay")) == (gene.coding, {})
    found, _ = cds_of(made, with_isoform(made, tmp_path, first - 6, last, "protein_coding"))
    assert found == f"ATGAAA{gene.coding}"


@pytest.mark.parametrize("flaw", ["no stop codon", "no start codon", "a stop inside", "no multiple of three"])
def test_the_longest_transcript_that_is_whole_stands_for_its_gene(flaw: str, tmp_path: Path) -> None:
    made = make_genome(4)
    gene = plain_gene(made)
    [(first, last)] = gene.cds
    put(made, gene, len(gene.coding) // 3, "AAAAAA")
    put(made, gene, -2, "CCCAAA")
    ends = {
        "no stop codon": (first, last + 6),
        "no start codon": (first - 6, last),
        "a stop inside": (first, last + 3),
        "no multiple of three": (first, last + 1),
    }
    if flaw == "a stop inside":
        put(made, gene, len(gene.coding) // 3, "TGA")

    found, counted = cds_of(made, with_isoform(made, tmp_path, *ends[flaw]))

    assert found == gene.coding
    [(reason, genes)] = counted.items()
    assert "another transcript than its longest" in reason
    assert genes == [gene.gene_id]


def test_where_no_transcript_is_whole_the_longest_stands_for_its_gene(tmp_path: Path) -> None:
    made = make_genome(4)
    gene = plain_gene(made)
    [(first, last)] = gene.cds
    put(made, gene, len(gene.coding) // 3 - 1, "GCTGCT")

    found, counted = cds_of(made, with_isoform(made, tmp_path, first, last + 3))

    assert found == gene.coding[:-3] + "GCTGCT"
    assert counted == {"a coding sequence that ends without a stop codon, read as it is": [gene.gene_id]}


@pytest.mark.parametrize("has_line", [True, False])
def test_transcripts_that_lie_apart_are_of_one_gene_where_one_line_is_the_genes(has_line: bool, tmp_path: Path) -> None:
    made = make_genome(4)
    gene = plain_gene(made)
    options = with_isoform(made, tmp_path, 1, 9)
    if not has_line:
        edit(tmp_path / "genes.gtf", lambda text: re.sub(rf"^.*\tgene\t.*{gene.gene_id}.*\n", "", text, flags=re.M))

    table = build(**options)

    assert gene.exons[0][0] > 10
    assert (gene.gene_id in table.gene_ids) == has_line
    assert [genes for reason, genes in dropped(table).items() if "several places" in reason] == (
        [] if has_line else [[gene.gene_id]]
    )


def test_mitochondrial_genes_are_read_by_no_code_that_nobody_gave(tmp_path: Path) -> None:
    made = make_genome(4)
    options = made.write(tmp_path, "gff3")
    for name in ("genome.fa", "genes.gff3"):
        edit(tmp_path / name, lambda text: text.replace("chrB", "chrM"))

    [(reason, genes)] = dropped(build(**options)).items()

    assert reason.startswith("mitochondrial, and neither a genetic code nor a protein is given")
    assert genes == [gene.gene_id for gene in made.genes if gene.chrom == "chrB"]
    proteins = tmp_path / "proteins.fa"
    proteins.write_text("".join(f">{gene.gene_id}\n{gene.protein}\n" for gene in made.genes))
    assert len(build(**options, proteins=proteins).gene_ids) == 10
    assert not any("mitochondrial" in reason for reason in dropped(build(**options, genetic_code=16)))
    edit(tmp_path / "genes.gff3", lambda text: text.replace(".p1;", ".p1;transl_table=1;"))
    assert len(build(**options).gene_ids) == 10


# circles


@pytest.mark.parametrize("kind", ["genbank", "gff3"])
@pytest.mark.parametrize("anchor", ["cds", "tss"])
def test_where_a_circle_is_cut_open_does_not_matter(tmp_path: Path, kind: str, anchor: str) -> None:
    made = make_genome(4, num_genes=8).rotated(0)
    gene = made.genes[1]
    known = build(**made.write(tmp_path / "known", kind), anchor=anchor)

    for by_bp in {gene.exons[0][0] + 1, gene.cds[0][0] + 20, gene.cds[-1][1] - 20, gene.exons[-1][1]}:
        table = build(**made.rotated(by_bp).write(tmp_path / str(by_bp), kind), anchor=anchor)

        order = [table.gene_ids.index(gene) for gene in known.gene_ids]
        assert np.array_equal(table.windows[order], known.windows)
        assert np.array_equal(table.features[order], known.features)
        assert [table.cds[row] for row in order] == known.cds
        lengths = {chrom: len(bases) for chrom, bases in made.chromosomes.items()}
        assert table.notes["circular"] == lengths
        assert (table.starts >= 1).all()
        of_chrom = np.array([lengths[chrom] for chrom in table.chroms])
        moved = (known.starts - by_bp - 1) % of_chrom[order] + 1
        assert np.array_equal(table.starts[order], moved)
        assert np.array_equal((table.ends - table.starts)[order], known.ends - known.starts)


def test_a_tss_across_the_origin_is_upstream(tmp_path: Path) -> None:
    made = make_genome(4, num_genes=8).rotated(0)
    gene = next(one for one in made.genes if one.strand == "+")
    made = made.rotated(gene.cds[0][0] - 3)  # its start codon is now the third base
    gene = next(one for one in made.genes if one.gene_id == gene.gene_id)
    length = len(made.chromosomes[gene.chrom])
    path = tmp_path / "tss.tsv"
    path.write_text(f"gene_id\ttss\n{gene.gene_id}\t{length - 4}\n")

    table = build(**made.write(tmp_path, "genbank"), tss=path)

    assert table.gene_ids == [gene.gene_id]
    assert table.starts.tolist() == [length - 4]
    at_codon = tokenize_dna(gene.coding[:3]).tolist()
    codon = WINDOW[0] + 4 + 1 + 2
    assert table.windows[0, codon : codon + 3].tolist() == at_codon
