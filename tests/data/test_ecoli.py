"""The E. coli source: its rules on a made-up genome, and the real thing where its archives can be had."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Bio.Seq import Seq
from numpy.typing import NDArray

from raystudy.data.encode import FEATURES, tokenize_dna
from raystudy.data.genes import GeneTable
from raystudy.data.sources import ecoli
from raystudy.data.sources.index import Archive, cache_folder
from raystudy.errors import DataError

SHARED = Path(__file__).parents[2] / "../shared/data/ecoli_genes.parquet"
GENOME = "".join(np.random.default_rng(0).choice(list("ACGT"), 12_000))

Members = dict[str, str]
Build = Callable[[Members], GeneTable]


def line(*cells: Any) -> str:
    return "\t".join("" if cell is None else json.dumps(cell) for cell in cells) + "\n"


def gene(name: str, left: int | None, right: int | None, strand: str | None, *synonyms: str) -> str:
    return line(name, f"sym{name}", [f"sym{name}", *synonyms], left, right, strand, [f"{name}_RNA"])


def made_up() -> Members:
    """Six coding genes of 30 bp and the others that are left out, by the members' names."""
    return {
        "sequence.fasta": ">U1.1 made up\n" + "\n".join(GENOME[at : at + 70] for at in range(0, 12_000, 70)) + "\n",
        "genes.tsv": "# Organism: made up\n"
        + line("id", "symbol", "synonyms", "left_end_pos", "right_end_pos", "direction", "rna_ids")
        + gene("EDGE", 11, 40, "+", "b0001", "b0002")
        + gene("LAST", 11_951, 11_980, "-", "B0002", "b0003")
        + gene("ONE", 1_001, 1_030, "+", "b0004")
        + gene("TWO", 1_051, 1_080, "+", "b0005")
        + gene("SHARED1", 5_001, 5_030, "-", "b0006")
        + gene("SHARED2", 3_101, 3_130, "-", "b0006")
        + gene("TRNA", 6_001, 6_030, "+", "b0007")
        + gene("UNTRANSLATED", 7_001, 7_030, "+")
        + gene("PLACELESS", None, None, None)
        + gene("UNKNOWN", 8_001, 8_030, "+"),
        "rnas.tsv": line("id", "type", "gene_id", "monomer_ids", "note")
        + "".join(
            line(f"{name}_RNA", "mRNA", name, [f"P{name}", "OTHER"], "a\ttab, quoted")
            for name in ("EDGE", "LAST", "ONE", "TWO", "SHARED1", "SHARED2", "PLACELESS", "UNKNOWN")
        )
        + line("TRNA_RNA", "tRNA", "TRNA", ["PONE"], None)
        + line("UNTRANSLATED_RNA", "mRNA", "UNTRANSLATED", [], None),
        "proteins.tsv": line("id", "seq")
        + line("PEDGE", "MKVACDEFG")
        + line("PONE", "MWWWWWWWW")
        + line("PTWO", "MWWWWWWWW")
        + "".join(line(f"P{name}", f"M{8 * name[-1]}") for name in ("LAST", "PLACELESS"))
        + line("PSHARED1", "MAAAAAAAA")
        + line("PSHARED2", "MCCCCCCCC")
        + line("PUNKNOWN", None),
        "transcription_units.tsv": line("id", "genes", "left_end_pos", "right_end_pos", "direction")
        + line("U1", ["TWO", "ONE"], 951, 1_090, "+")
        + line("U2", ["ONE", "NOBODY"], 981, 1_035, "+")
        + line("U3", ["EDGE", "PLACELESS"], 1, 2_000, "+")
        + line("U4", ["SHARED1", "SHARED2"], 3_081, 5_050, "-")
        + line("U5", ["LAST"], 11_941, 12_000, "-"),
        "rna_seq_data/rnaseq_rsem_tpm_mean.tsv": line("Gene", "Other", "M9 Glucose minus AAs")
        + line("ONE", 1, 9.9)
        + line("TWO", 1, 0)
        + line("NOBODY", 1, 5),
        "rna_half_lives.tsv": "# Generated\n"
        + line("id", "half_life (units.min)")
        + line("ONE", 10)
        + "\n"
        + line("TWO", -0.0),
        "gene_abundance.csv": "gene,abundance\r\nb0001,100\r\nb0002,7\r\nb0003,0\r\nb0006,5\r\nb9999,3\r\n",
    }


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """The table of archives that hold these members."""

    def from_members(members: Members) -> GeneTable:
        levels = members["gene_abundance.csv"]
        with tarfile.open(tmp_path / "vecoli", "w:gz") as archive:
            for name, text in members.items():
                member = tarfile.TarInfo(ecoli.GENOME_FOLDER + name)
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
        with zipfile.ZipFile(tmp_path / "ecmpy", "w") as wheel:
            wheel.writestr("ecmpy/data/gene_abundance.csv", levels)

        def from_here(archive: Archive) -> Path:
            return tmp_path / archive.name

        monkeypatch.setattr(ecoli, "fetch", from_here)
        return ecoli.build()

    return from_members


@pytest.fixture
def table(build: Build) -> GeneTable:
    return build(made_up())


def around(anchor: int, strand: str, up: int, down: int) -> str:
    """The made-up genome, three times in a row, about the 1-based base ``anchor``."""
    bases = 3 * GENOME
    at = anchor - 1 + 12_000
    if strand == "+":
        return bases[at - up : at + down]
    return str(Seq(bases[at - down + 1 : at + up + 1]).reverse_complement())


def feature(table: GeneTable, name: str) -> dict[str, float]:
    return dict(zip(table.gene_ids, table.features[:, FEATURES.index(name)].tolist(), strict=True))


def test_coding_genes_with_a_place_come_in_genome_order_and_the_others_are_counted(table: GeneTable) -> None:
    assert table.gene_ids == ["EDGE", "ONE", "TWO", "SHARED2", "SHARED1", "LAST"]
    assert table.symbols[0] == "symEDGE"
    assert table.proteins[:2] == ["MKVACDEFG", "MWWWWWWWW"]
    assert table.starts.tolist() == [11, 1_001, 1_051, 3_101, 5_001, 11_951]
    assert table.ends.tolist() == [40, 1_030, 1_080, 3_130, 5_030, 11_980]
    dropped = table.notes["findings"]["dropped"]
    assert {reason: found["examples"] for reason, found in dropped.items()} == {
        "has no protein sequence": ["UNTRANSLATED", "UNKNOWN"],
        "makes no mRNA: a pseudogene, or a gene of another RNA": ["TRNA"],
        "has no place on the genome": ["PLACELESS"],
    }


def test_windows_go_around_the_origin_and_the_cds_is_the_span(table: GeneTable) -> None:
    assert (table.anchor, set(table.chroms), table.notes["circular"]) == (7_000, {"U1.1"}, {"U1.1": 12_000})
    anchors = [(11, "+"), (1_001, "+"), (1_051, "+"), (3_130, "-"), (5_030, "-"), (11_980, "-")]
    for row, (anchor, strand) in enumerate(anchors):
        assert table.strands[row] == strand
        assert np.array_equal(table.windows[row], tokenize_dna(around(anchor, strand, 7_000, 3_500)))
        assert table.cds[row] == around(anchor, strand, 0, 30)


def test_utrs_follow_the_transcription_units(table: GeneTable) -> None:
    """ONE: the nearer of two starts, the larger of gap and end; SHARED1: a gap above the limit; EDGE: to 1 bp."""
    utr5_bp = {"EDGE": 10, "ONE": 20, "TWO": 20, "SHARED2": 1_000, "SHARED1": 20, "LAST": 20}
    utr3_bp = {"EDGE": 1_000, "ONE": 20, "TWO": 10, "SHARED2": 20, "SHARED1": 1_000, "LAST": 10}
    for name, expected in (("utr5_length", utr5_bp), ("utr3_length", utr3_bp)):
        found = {gene_id: round(10**value - 0.1) for gene_id, value in feature(table, name).items()}
        assert found == expected
    upstream = around(1_051, "+", 20, 0)
    assert feature(table, "utr5_gc")["TWO"] == pytest.approx((upstream.count("G") + upstream.count("C")) / 20)
    downstream = around(11_950, "-", 0, 10)
    assert feature(table, "utr3_gc")["LAST"] == pytest.approx((downstream.count("G") + downstream.count("C")) / 10)


def test_there_are_no_introns_and_a_gene_in_no_unit_has_utrs_of_no_length(build: Build) -> None:
    members = made_up()
    members["transcription_units.tsv"] = members["transcription_units.tsv"].splitlines(keepends=True)[0]
    table = build(members)
    for name in ("utr5_length", "utr3_length", "intron_length"):
        np.testing.assert_allclose(list(feature(table, name).values()), -1, rtol=1e-6)
    assert set(feature(table, "junction_density").values()) == {0}
    assert np.isnan(list(feature(table, "utr5_gc").values())).all()


def test_levels_are_logarithms_and_what_was_not_measured_is_missing(table: GeneTable) -> None:
    levels = {
        name: {gene_id: value for gene_id, value in zip(table.gene_ids, target.values, strict=True) if value == value}
        for name, target in table.targets.items()
    }
    assert levels == {"mrna": {"ONE": 1, "TWO": -1}, "protein": {"EDGE": 2}, "mrna_half_life": {"ONE": 1}}
    assert [target.unit[:5] for target in table.targets.values()] == 3 * ["log10"]
    repaired = table.notes["findings"]["repaired"]
    assert {reason: found["examples"] for reason, found in repaired.items()} == {
        "no protein level: its b-number is another gene's too": ["SHARED2", "SHARED1"],
        "no level: a protein at 0 ppm was not detected": ["LAST"],
        "no level: a half-life of 0 was not measured": ["TWO"],
    }


def test_alike_proteins_are_a_family(table: GeneTable) -> None:
    assert table.family_ids.tolist() == [0, 1, 1, 2, 3, 4]


MALFORMED: dict[str, tuple[str, str, str, str]] = {
    "a cell too few": ("genes.tsv", '"b0004"]\t1001\t', '"b0004"]\t', "line 5.*6 cells, but the header has 7"),
    "a cell too many": ("proteins.tsv", '"PONE"', '"PONE"\t1', "line 3.*3 cells, but the header has 2"),
    "no JSON": ("genes.tsv", '["symTWO", "b0005"]', "[symTWO]", r"line 6.*cell '\[symTWO\]' is no JSON"),
    "deep JSON": ("genes.tsv", '["symTWO", "b0005"]', "[" * 100_000, "line 6.*is no JSON"),
    "commas for tabs": ("rnas.tsv", "\t", ",", "line 1.*is no JSON"),
    "a column renamed": ("proteins.tsv", '"seq"', '"sequence"', "line 1.*no column 'seq'"),
    "a header only of comments": ("rna_half_lives.tsv", '"', '#"', "it has no header"),
    "a position that is text": ("genes.tsv", "1051", '"1051"', "line 6.*'left_end_pos': Input should be a valid int"),
    "a position below 1": ("genes.tsv", "1051", "0", "line 6.*'left_end_pos': Input should be greater"),
    "a position past the end": ("genes.tsv", "11980", "12001", "'LAST' lies from 11951 to 12001.*right <= 12000"),
    "ends swapped": ("genes.tsv", "1051\t1080", "1080\t1051", "'TWO' lies from 1080 to 1051.*left <= right"),
    "a strand of another kind": ("transcription_units.tsv", '"+"', '"1"', "line 2.*'direction'"),
    "a level below 0": ("rna_seq_data/rnaseq_rsem_tpm_mean.tsv", "9.9", "-1", "line 2.*'M9 Glucose minus AAs'"),
    "an infinite level": ("rna_seq_data/rnaseq_rsem_tpm_mean.tsv", "9.9", "1e999", "finite"),
    "a level that is not a number": ("rna_half_lives.tsv", "10", "NaN", "line 3.*finite"),
    "a CSV level that is none": ("gene_abundance.csv", "b0001,100", "b0001,much", "line 2.*'abundance'.*'much'"),
    "an empty CSV level": ("gene_abundance.csv", "b0001,100", "b0001,", "line 2.*'abundance'"),
    "a gene twice": ("genes.tsv", '"TWO"', '"ONE"', "line 6.*'ONE' is there already"),
    "a gene without a name": ("genes.tsv", '"TWO"\t', "\t", "line 6.*'id'"),
    "a cut line": ("proteins.tsv", '"MCCCCCCCC"', '"MCCC', "is no JSON"),
    "no sequence": ("sequence.fasta", ">", "", "0 records; it must have one"),
    "two sequences": ("sequence.fasta", ">U1.1", ">U0\nACGT\n>U1.1", "2 records; it must have one"),
    "no base": ("sequence.fasta", GENOME[:9], "EEEE", "'E' at position 1 is not a DNA symbol"),
    "no residue": ("proteins.tsv", "MKVACDEFG", "MKV*CDEFG", r"EDGE: '\*' at position 4 is not a protein symbol"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_member_is_an_error_that_says_where(build: Build, name: str) -> None:
    member, right, wrong, message = MALFORMED[name]
    members = made_up()
    assert right in members[member]
    members[member] = members[member].replace(right, wrong, -1 if right in '\t">' else 1)
    with pytest.raises(DataError, match=message) as error:
        build(members)
    assert "\n" not in str(error.value)


def test_a_missing_member_is_named(build: Build) -> None:
    members = made_up()
    del members["rnas.tsv"]
    with pytest.raises(DataError, match=r"has no member '.*flat/rnas\.tsv'"):
        build(members)


def partition(labels: NDArray[np.int64] | list[int]) -> list[int]:
    """The same families numbered by first appearance."""
    first: dict[int, int] = {}
    return [first.setdefault(int(label), len(first)) for label in labels]


def assert_equals_the_shared_table(table: GeneTable) -> None:
    import pandas as pd

    expected = pd.read_parquet(SHARED).set_index("gene_id").loc[list(table.gene_ids)].reset_index()
    assert len(table.gene_ids) == len(pd.read_parquet(SHARED, columns=["gene_id"])) == 4_309
    for ours, theirs in (("symbols", "symbol"), ("strands", "strand"), ("proteins", "protein"), ("cds", "cds")):
        assert list(getattr(table, ours)) == expected[theirs].tolist()
    assert table.starts.tolist() == expected.start.tolist()
    assert table.ends.tolist() == expected.end.tolist()
    windows = np.stack([tokenize_dna(text) for text in expected.dna_m1000_p500])
    assert np.array_equal(table.windows[:, 6_000:7_500], windows)
    features = dict(zip(FEATURES, table.features.T, strict=True))
    for part in ("utr5", "cds", "utr3", "intron"):
        np.testing.assert_allclose(features[f"{part}_length"], np.log10(expected[f"{part}_len"] + 0.1), atol=1e-6)
    for part in ("utr5", "cds", "utr3"):
        fraction = expected[f"{part}_gc"].where(expected[f"{part}_len"] > 0)
        np.testing.assert_allclose(features[f"{part}_gc"], fraction, atol=1e-6)
    assert np.array_equal(features["junction_density"], expected.exon_junction_density)
    labels = {
        "mrna": np.log10(expected.tpm_M9_Glucose_minus_AAs + 0.1),
        "protein": np.log10(expected.protein_ppm.where(expected.protein_ppm > 0)),
        "mrna_half_life": np.log10(expected.rna_half_life_min.where(expected.rna_half_life_min > 0)),
    }
    assert list(table.targets) == list(labels)
    for name, values in labels.items():
        np.testing.assert_allclose(table.targets[name].values, values, atol=1e-11)
    assert partition(table.family_ids) == partition(expected.family_id.tolist())


def assert_is_the_ecoli_proteome(table: GeneTable) -> None:
    from scipy.stats import spearmanr

    levels = {name: target.values for name, target in table.targets.items()}
    counts = {name: int(np.isfinite(values).sum()) for name, values in levels.items()}
    assert counts == {"mrna": 4_212, "protein": 3_702, "mrna_half_life": 3_244}
    starts = [cds[:3] for cds in table.cds]
    assert sum(codon in ("ATG", "GTG", "TTG") for codon in starts) == 4_303
    assert ["".join("NATCG"[token] for token in window[7_000:7_003]) for window in table.windows] == starts
    both = np.isfinite(levels["mrna"]) & np.isfinite(levels["protein"]) & (levels["mrna"] > -1)  # -1: 0 TPM
    assert both.sum() == 3_695
    assert spearmanr(levels["mrna"][both], levels["protein"][both]).statistic == pytest.approx(0.723, abs=0.001)
    assert not (table.windows == 0).any()


@pytest.fixture(scope="module")
def real() -> GeneTable:
    """The real table, made without any process (so without pip, so without network) from cached archives."""
    missing = [one.filename for one in (ecoli.GENOME, ecoli.LEVELS) if not (cache_folder() / one.filename).is_file()]
    if missing:
        pytest.skip(f"not in the cache: {', '.join(missing)}; `make test-slow` or `raystudy prepare ecoli` gets them")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", refuse)
        return ecoli.build()


def test_cached_archives_give_the_proteome_without_network(real: GeneTable) -> None:
    assert_is_the_ecoli_proteome(real)


def test_cached_archives_give_the_shared_table(real: GeneTable) -> None:
    if not SHARED.is_file():
        pytest.skip(f"{SHARED.name} is not beside this project")
    assert_equals_the_shared_table(real)


@pytest.mark.slow
@pytest.mark.network
def test_the_package_index_gives_the_proteome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSTUDY_CACHE", str(tmp_path / "cache"))
    table = ecoli.build()
    assert_is_the_ecoli_proteome(table)
    names = sorted(archive.filename for archive in (ecoli.GENOME, ecoli.LEVELS))
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == names
    if SHARED.is_file():
        assert_equals_the_shared_table(table)
