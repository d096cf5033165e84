from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from raystudy.data.batches import FeatureScale, GeneInputs
from raystudy.data.encode import DNA_SYMBOLS, FEATURES
from raystudy.data.genes import Genes, GeneTable, write_genes
from raystudy.data.sources import xpresso, xpresso_files
from raystudy.errors import DataError
from raystudy.study.model import ModelSpec
from tests.data.xpresso_cases import ALL_GENES, COUNTS, GENES, published, text_of, write


@pytest.fixture(scope="module")
def content() -> dict[str, dict[str, Any]]:
    return published()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, content: dict[str, dict[str, Any]]) -> Path:
    return write(tmp_path_factory.mktemp("published") / "files", content)


@pytest.fixture
def files(tmp_path: Path, original: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(original, tmp_path / "files"))


@pytest.fixture(scope="module")
def table(original: Path) -> GeneTable:
    return xpresso.build(files=original)


def replace(files: Path, part: str, name: str, values: Any, **options: Any) -> None:
    with h5py.File(files / f"{part}.h5", "r+") as file:
        del file[name]
        file.create_dataset(name, data=values, **options)


def change(files: Path, part: str, name: str, place: Any, value: Any) -> None:
    with h5py.File(files / f"{part}.h5", "r+") as file:
        file[name][place] = value


def test_genes_come_in_the_order_of_the_files_with_their_own_windows_and_labels(
    table: GeneTable, content: dict[str, dict[str, Any]]
) -> None:
    assert list(table.gene_ids) == ALL_GENES
    for row, (part, at) in {0: ("train", 0), 12: ("valid", 0), 31: ("test", 9)}.items():
        letters = "".join(DNA_SYMBOLS[token] for token in table.windows[row])
        assert letters == text_of(content[part]["promoter"][at])
        assert table.targets["mrna"].values[row] == content[part]["label"][at]
    assert table.windows.shape == (32, 20_000)
    assert table.anchor == 10_000
    assert table.notes["anchor"] == "TSS"
    assert "standardised over all genes" in table.targets["mrna"].unit
    assert set(table.source_digests) == {"train.h5", "valid.h5", "test.h5"}


def test_the_features_are_in_our_order_which_has_the_3utr_before_the_introns(
    table: GeneTable, content: dict[str, dict[str, Any]]
) -> None:
    published_order = ["utr5_length", "cds_length", "intron_length", "utr3_length"]
    published_order += ["utr5_gc", "cds_gc", "utr3_gc", "junction_density"]
    data = np.concatenate([part["data"] for part in content.values()])

    for column, name in enumerate(published_order):
        assert np.array_equal(table.features[:, FEATURES.index(name)], data[:, column].astype(np.float32)), name


def test_what_is_not_in_the_files_is_not_made_up(table: GeneTable) -> None:
    assert set(table.chroms) == set(table.strands) == set(table.symbols) == set(table.cds) == {""}
    assert not table.starts.any()
    assert not table.ends.any()
    assert table.notes["coordinates"] is False
    assert table.notes["families"] is False
    assert table.notes["published_split"] == COUNTS


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_ones_and_zeros_of_any_kind_and_pieces_of_any_size_give_the_same_table(
    kind: Any, files: Path, table: GeneTable, content: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(files, "train", "promoter", content["train"]["promoter"].astype(kind), compression="gzip")
    monkeypatch.setattr(xpresso_files, "_GENES_AT_ONCE", 5)

    assert np.array_equal(xpresso.build(files=files).windows, table.windows)


def test_a_position_without_a_base_is_n(files: Path, table: GeneTable) -> None:
    change(files, "valid", "promoter", (3, slice(0, 7)), False)

    window = xpresso.build(files=files).windows[12 + 3]

    assert not window[:7].any()
    assert np.array_equal(window[7:], table.windows[12 + 3, 7:])


def test_a_gene_whose_window_was_never_written_is_dropped_and_its_part_is_one_smaller(
    files: Path, table: GeneTable
) -> None:
    change(files, "valid", "promoter", 3, False)

    found = xpresso.build(files=files)

    gene = GENES["valid"][3]
    assert found.notes["findings"]["dropped"] == {"its window has no known base": {"count": 1, "examples": [gene]}}
    assert found.notes["published_split"] == COUNTS | {"valid": 9}
    assert list(found.gene_ids) == [one for one in ALL_GENES if one != gene]
    assert np.array_equal(found.windows, np.delete(table.windows, 15, axis=0))
    assert np.array_equal(found.targets["mrna"].values, np.delete(table.targets["mrna"].values, 15))


def test_nan_is_missing_and_counted(files: Path) -> None:
    change(files, "train", "label", 2, np.nan)
    change(files, "test", "data", (1, 3), np.nan)

    found = xpresso.build(files=files)

    assert np.flatnonzero(np.isnan(found.targets["mrna"].values)).tolist() == [2]
    assert np.argwhere(np.isnan(found.features)).tolist() == [[23, FEATURES.index("utr3_length")]]
    assert found.notes["findings"]["repaired"] == {
        "label NaN: read as no level": {"count": 1, "examples": [GENES["train"][2]]},
        "half-life features NaN: read as missing": {"count": 1, "examples": [GENES["test"][1]]},
    }


def test_names_lose_their_version(files: Path) -> None:
    names = [f"{gene}.{row + 2}" for row, gene in enumerate(GENES["test"])]
    replace(files, "test", "geneName", np.array(names, dtype="S20"))

    assert list(xpresso.build(files=files).gene_ids) == ALL_GENES


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (lambda data: data, "standardised over all genes, as published"),
        (lambda data: abs(data) % 1, "as plain log10 lengths and G+C fractions would be"),
        (lambda data: 1000 * data, "neither standardised nor like plain"),
    ],
)
def test_it_is_noted_what_the_features_look_like(
    scale: Callable[[Any], Any], said: str, tmp_path: Path, content: dict[str, dict[str, Any]]
) -> None:
    scaled = {part: found | {"data": scale(found["data"])} for part, found in content.items()}

    note = xpresso.build(files=write(tmp_path / "files", scaled)).notes["half_life_features"]

    assert "utr5_length, cds_length, intron_length, utr3_length" in note
    assert said in note


def test_a_label_that_is_not_standardised_says_so_in_its_unit(
    tmp_path: Path, content: dict[str, dict[str, Any]]
) -> None:
    shifted = {part: found | {"label": found["label"] + 3} for part, found in content.items()}

    unit = xpresso.build(files=write(tmp_path / "files", shifted)).targets["mrna"].unit

    assert unit.endswith("as in the files, where it is not standardised")


def test_without_proteins_a_dna_network_reads_the_genes_and_a_protein_network_is_told_of_them(
    table: GeneTable, tmp_path: Path
) -> None:
    genes = Genes.open(write_genes(table, tmp_path / "data"))
    scale = FeatureScale.fit(genes.features, np.arange(12))

    read = GeneInputs.of(genes, ModelSpec(family="dna", window_bp=(7000, 3500)), scale)

    assert read.num_genes == 32
    assert np.array_equal(read.windows_NL, table.windows[:, 3000:13500]), "the slice that the published study reads"
    assert len(set(genes.family_ids.tolist())) == 32
    with pytest.raises(DataError, match=f"{ALL_GENES[0]}.*empty protein"):
        GeneInputs.of(genes, ModelSpec(family="protein"), scale)


# Files that a user did not write: what was done to one of them, and what is said of it.


def cut(files: Path) -> None:
    whole = (files / "valid.h5").read_bytes()
    (files / "valid.h5").write_bytes(whole[: len(whole) // 2])


def break_a_packed_chunk(files: Path) -> None:
    with h5py.File(files / "valid.h5", "r") as file:
        offset = file["promoter"].id.get_chunk_info(0).byte_offset
    with (files / "valid.h5").open("r+b") as raw:
        raw.seek(offset + 64)
        raw.write(b"\xff" * 64)


def remove(name: str) -> Callable[[Path], None]:
    def act(files: Path) -> None:
        with h5py.File(files / "valid.h5", "r+") as file:
            del file[name]

    return act


def put(name: str, values: Any, **options: Any) -> Callable[[Path], None]:
    return lambda files: replace(files, "valid", name, values, **options)


def set_at(name: str, place: Any, value: Any) -> Callable[[Path], None]:
    return lambda files: change(files, "valid", name, place, value)


def link(kind: Callable[[Path], Any]) -> Callable[[Path], None]:
    def act(files: Path) -> None:
        with h5py.File(files / "valid.h5", "r+") as file:
            del file["label"]
            file["label"] = kind(files)

    return act


def virtual(files: Path) -> None:
    layout = h5py.VirtualLayout((10,), "f8")
    layout[:] = h5py.VirtualSource(files / "test.h5", "label", (10,))
    with h5py.File(files / "valid.h5", "r+") as file:
        del file["label"]
        file.create_virtual_dataset("label", layout)


def stored_elsewhere(files: Path) -> None:
    (files / "secret").write_bytes(bytes(80))
    with h5py.File(files / "valid.h5", "r+") as file:
        del file["label"]
        file.create_dataset("label", (10,), "f8", external=[(files / "secret", 0, 80)])


def a_group(files: Path) -> None:
    with h5py.File(files / "valid.h5", "r+") as file:
        del file["label"]
        file.create_group("label")


def a_billion_genes_that_take_no_space(files: Path) -> None:
    with h5py.File(files / "valid.h5", "w") as file:
        for name, shape, kind in (("data", (8,), "f4"), ("label", (), "f4"), ("geneName", (), "S15")):
            file.create_dataset(name, (10**9, *shape), kind, chunks=True)
        file.create_dataset("promoter", (10**9, 20_000, 4), bool, chunks=True)


def one_chunk_of_everything(files: Path) -> None:
    with h5py.File(files / "valid.h5", "r+") as file:
        del file["promoter"]
        file.create_dataset("promoter", (10, 20_000, 4), bool, chunks=(4_000, 20_000, 4), maxshape=(None, 20_000, 4))


def two_names_at_once(files: Path) -> None:
    names = [gene.encode() for gene in GENES["valid"]]
    replace(files, "valid", "geneName", np.array([*names[:-1], names[0]]))


def lists_as_names(files: Path) -> None:
    lists = np.empty(10, object)
    lists[:] = [np.zeros(2)] * 10
    replace(files, "valid", "geneName", lists, dtype=h5py.vlen_dtype("f8"))


ODD_BYTE = np.array([[7, 0, 0, 0]], np.uint8).view(bool)
MALFORMED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no file": (lambda files: (files / "valid.h5").unlink(), "valid.h5 is not there.*train.h5, valid.h5 and test.h5"),
    "no folder": (shutil.rmtree, "train.h5 is not there"),
    "an empty file": (lambda files: (files / "valid.h5").write_bytes(b""), "cannot be read as HDF5"),
    "no HDF5": (lambda files: (files / "valid.h5").write_text("ENSG1\t0.5\n" * 99), "cannot be read as HDF5"),
    "a file cut short": (cut, "cannot be read as HDF5"),
    "a damaged chunk": (break_a_packed_chunk, "cannot be read as HDF5"),
    "no promoter": (remove("promoter"), "has no `promoter`, but data, geneName, label"),
    "no names": (remove("geneName"), "has no `geneName`"),
    "a group": (a_group, "has a Group as `label`"),
    "seven features": (put("data", np.zeros((10, 7))), r"`data` of the shape \(10, 7\)"),
    "short windows": (put("promoter", np.zeros((10, 10_500, 4), bool)), r"`promoter` of the shape \(10, 10500, 4\)"),
    "five bases": (put("promoter", np.zeros((10, 20_000, 5), bool)), r"shape \(10, 20000, 5\)"),
    "a column of labels": (put("label", np.zeros((10, 1))), r"`label` of the shape \(10, 1\)"),
    "a single label": (put("label", 1.5), r"`label` of the shape \(\)"),
    "no dataspace": (put("label", h5py.Empty("f8")), "`label` of the shape None"),
    "fewer labels": (put("label", np.zeros(9)), "10 of `data`, 10 of `promoter`, 9 of `label`, 10 of `geneName`"),
    "no genes": (
        lambda files: write(files, {"valid": {name: found[:0] for name, found in published()["valid"].items()}}),
        "has 0 of `data`",
    ),
    "a billion genes": (a_billion_genes_that_take_no_space, "1000000000 of `label`.*1 to 200,000"),
    "chunks too large": (one_chunk_of_everything, r"in chunks of \(4000, 20000, 4\), too large"),
    "texts as labels": (put("label", ["0.1"] * 10), "`label` of the type object"),
    "names of any length": (put("geneName", GENES["valid"]), "`geneName` of the type object. Write it as texts of one"),
    "lists as names": (lists_as_names, "`geneName` of the type object"),
    "numbers as names": (put("geneName", np.arange(10)), "`geneName` of the type int64"),
    "names of a megabyte": (put("geneName", np.array([b"x"] * 10, "S1000000")), r"`geneName` of the type \|S1000000"),
    "complex labels": (put("label", np.zeros(10, complex)), "`label` of the type complex128"),
    "fractions of bases": (put("promoter", np.zeros((10, 20_000, 4), "f2")), "`promoter` of the type float16"),
    "an infinite label": (
        set_at("label", 4, np.inf),
        f"1 infinite numbers in `label`, the first for {GENES['valid'][4]}",
    ),
    "an infinite feature": (set_at("data", (5, 2), -np.inf), f"in `data`, the first for {GENES['valid'][5]}"),
    "a feature beyond 32 bits": (set_at("data", (5, 2), 1e300), f"in `data`, the first for {GENES['valid'][5]}"),
    "two bases at once": (
        set_at("promoter", (6, 77, slice(0, 4)), True),
        rf"\[1, 1, 1, 1\] at position 77 of {GENES['valid'][6]}",
    ),
    "a byte of 7": (
        set_at("promoter", (6, slice(77, 78)), ODD_BYTE),
        rf"\[7, 0, 0, 0\] at position 77 of {GENES['valid'][6]}",
    ),
    "a base of minus one": (
        put("promoter", -np.ones((10, 20_000, 4), np.int8)),
        rf"\[-1, -1, -1, -1\] at position 0 of {GENES['valid'][0]}",
    ),
    "a name with a space": (set_at("geneName", 1, b"BRCA 2"), "names gene 1 of `geneName` 'BRCA 2'"),
    "an empty name": (set_at("geneName", 1, b""), "names gene 1 of `geneName` ''"),
    "a name that is no UTF-8": (set_at("geneName", 1, b"\xff\xfe"), "cannot be read as HDF5"),
    "a gene twice in a file": (two_names_at_once, f"{GENES['valid'][0]} is in .*valid.h5 and again in .*valid.h5"),
    "a gene in two parts": (
        set_at("geneName", 1, f"{GENES['train'][3]}.7".encode()),
        f"{GENES['train'][3]} is in .*train.h5 and again in .*valid.h5",
    ),
    "a soft link": (link(lambda files: h5py.SoftLink("/geneName")), "a SoftLink as `label`"),
    "an external link": (
        link(lambda files: h5py.ExternalLink(files / "test.h5", "/label")),
        "a ExternalLink as `label`",
    ),
    "a virtual dataset": (virtual, "takes `label` from other files"),
    "a dataset stored elsewhere": (stored_elsewhere, "takes `label` from other files"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_refused_by_name_and_reason(case: str, files: Path) -> None:
    spoil, said = MALFORMED[case]
    spoil(files)

    with pytest.raises(DataError, match=said) as refused:
        xpresso.build(files=files)
    assert str(files) in str(refused.value), "which file"
