"""Where windows stand: at start codons or at TSS, on lines and on circles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Bio.Seq import Seq

from raystudy.data.encode import tokenize_dna
from raystudy.data.sources.genome import build
from raystudy.errors import DataError
from tests.data.genome_cases import WINDOW, MadeGene, MadeGenome, dropped, make_genome

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
