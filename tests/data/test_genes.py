"""The gene table: what is written is what is read, or it is an error."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raystudy.data.encode import codon_tokens
from raystudy.data.genes import FEATURES, Genes, GeneTable, Target, write_genes
from raystudy.errors import DataError

NUM_GENES = 5


def make_table(**changes: Any) -> GeneTable:
    random = np.random.default_rng(0)
    features = random.random((NUM_GENES, len(FEATURES)), dtype=np.float32)
    features[:, 0] = np.nan
    features[2, 3] = np.nan
    table = GeneTable(
        source="handmade",
        source_digests={"file.txt": "00"},
        anchor=6,
        gene_ids=[f"G{number}" for number in range(NUM_GENES)],
        symbols=["", "é1", "", "", ""],
        chroms=["I", "I", "I", "II", "II"],
        starts=np.array([10, 50, 90, 10, 70]),
        ends=np.array([30, 80, 120, 40, 99]),
        strands=["+", "-", "+", "+", "-"],
        windows=random.integers(0, 5, (NUM_GENES, 10), dtype=np.uint8),
        proteins=["MKV", "", "ACU", "X", "MB"],
        cds=["ATGAAAGTTTAA", "", "GCATGTTGA", "NNN", "ATG"],
        features=features,
        targets={"protein": Target(np.array([1.0, -2.5, np.nan, 0.0, 4.0]), "log10 ppm")},
        family_ids=np.array([0, 1, 1, 2, 3]),
        notes={"noise_ceiling_r2": 0.8},
    )
    return dataclasses.replace(table, **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_genes(make_table(), tmp_path / "data")


def flip_a_byte(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def alter_column(folder: Path, column: str, values: list[Any]) -> None:
    """Change a column's values and keep the metadata, as a careless edit would."""
    table = pq.read_table(folder / "genes.parquet")
    index = table.column_names.index(column)
    field = table.schema.field(index)
    pq.write_table(table.set_column(index, field, pa.array(values, field.type)), folder / "genes.parquet")


def test_what_was_written_is_read(folder: Path) -> None:
    table, genes = make_table(), Genes.open(folder)
    assert genes.num_genes == NUM_GENES
    assert (genes.source, genes.anchor, genes.window_length) == ("handmade", 6, 10)
    assert genes.gene_ids.tolist() == table.gene_ids
    assert genes.chroms.tolist() == table.chroms
    assert genes.strands.tolist() == table.strands
    assert genes.starts.tolist() == table.starts.tolist()
    assert genes.ends.tolist() == table.ends.tolist()
    assert genes.family_ids.tolist() == table.family_ids.tolist()
    assert genes.features.dtype == np.float32
    np.testing.assert_array_equal(genes.features, table.features)
    np.testing.assert_array_equal(genes.target("protein"), table.targets["protein"].values)
    assert genes.targets == ("protein",)
    assert genes.units == {"protein": "log10 ppm"}
    assert genes.notes["noise_ceiling_r2"] == 0.8
    assert genes.texts("symbol") == table.symbols
    assert genes.texts("cds") == table.cds
    assert genes.protein_offsets.tolist() == [0, 3, 3, 6, 7, 9]
    assert genes.protein_tokens.dtype == np.uint8


def test_a_window_is_a_view_sliced_around_the_anchor(folder: Path) -> None:
    stored, genes = make_table().windows, Genes.open(folder)
    window = genes.windows((2, 3))
    np.testing.assert_array_equal(window, stored[:, 4:9])
    np.testing.assert_array_equal(genes.windows((6, 4)), stored)
    assert np.shares_memory(window, genes.windows((6, 4)))
    assert not window.flags.writeable


@pytest.mark.parametrize("window_bp", [(7, 1), (1, 5), (-1, 3), (0, 0)])
def test_a_window_outside_the_stored_one_is_refused_naming_both(folder: Path, window_bp: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=r"\[6, 4\]") as error:
        Genes.open(folder).windows(window_bp)
    assert str(list(window_bp)) in str(error.value)


def test_an_unknown_target_is_refused_naming_the_known_ones(folder: Path) -> None:
    with pytest.raises(DataError, match="no 'mrna' level; it has protein"):
        Genes.open(folder).target("mrna")


def test_labels_are_read_by_target_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def spy(*args: Any, **kwargs: Any) -> Any:
        asked.extend(kwargs["columns"])
        return read_table(*args, **kwargs)

    read_table = pq.read_table
    monkeypatch.setattr(pq, "read_table", spy)
    genes = Genes.open(folder)
    genes.windows((1, 1))
    genes.texts("protein")
    assert "gene_id" in asked
    assert "protein_level" not in asked
    genes.target("protein")
    assert asked[-1] == "protein_level"


def test_the_hash_is_of_the_values_not_of_the_files(tmp_path: Path) -> None:
    table = make_table()
    first = Genes.open(write_genes(table, tmp_path / "first"))
    same = make_table(windows=np.asfortranarray(table.windows), starts=table.starts.astype(np.int32))
    assert Genes.open(write_genes(same, tmp_path / "same")).hash == first.hash


@pytest.mark.parametrize(
    "change",
    [
        {"anchor": 5},
        {"family_ids": np.arange(NUM_GENES)},
        {"gene_ids": ["G", "0G1", "G2", "G3", "G4"]},
        {"targets": {"protein": Target(np.array([1.0, -2.5, np.nan, 0.0, 4.0 + 1e-12]), "log10 ppm")}},
        {"targets": {"mrna": make_table().targets["protein"]}},
    ],
    ids=["anchor", "families", "ids", "label", "target name"],
)
def test_the_hash_changes_with_the_data(folder: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    changed = Genes.open(write_genes(make_table(**change), tmp_path / "changed"))
    assert changed.hash != Genes.open(folder).hash


def test_a_missing_folder_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"genes\.parquet is missing there.*raystudy prepare"):
        Genes.open(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["genes.parquet", "windows.feather", "proteins.feather"])
def test_a_truncated_file_is_damage(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged or was altered"):
        Genes.open(folder)


@pytest.mark.parametrize("name", ["windows.feather", "proteins.feather"])
def test_a_missing_companion_file_is_damage(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match="damaged or was altered"):
        Genes.open(folder)


def test_one_flipped_bit_in_a_memory_mapped_window_is_damage(folder: Path) -> None:
    path = folder / "windows.feather"
    flip_a_byte(path, path.read_bytes().index(make_table().windows.tobytes()) + 7)
    with pytest.raises(DataError, match="'window' do not match the content hash"):
        Genes.open(folder)


def test_an_altered_column_is_damage(folder: Path) -> None:
    alter_column(folder, "family_id", [0] * NUM_GENES)
    with pytest.raises(DataError, match="'family_id' do not match the content hash"):
        Genes.open(folder)


def test_an_altered_label_is_damage_when_it_is_read(folder: Path) -> None:
    alter_column(folder, "protein_level", [9.0] * NUM_GENES)
    genes = Genes.open(folder)
    with pytest.raises(DataError, match="'protein_level' do not match the content hash"):
        genes.target("protein")


@pytest.mark.parametrize(("key", "value"), [("content_hash", "0" * 64), ("schema_version", 99)])
def test_altered_metadata_is_refused(folder: Path, key: str, value: Any) -> None:
    table = pq.read_table(folder / "genes.parquet")
    metadata = json.loads(table.schema.metadata[b"raystudy"]) | {key: value}
    pq.write_table(table.replace_schema_metadata({"raystudy": json.dumps(metadata)}), folder / "genes.parquet")
    with pytest.raises(DataError, match=r"content hash does not match|schema version 99"):
        Genes.open(folder)


def test_a_parquet_file_of_something_else_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "genes.parquet")
    with pytest.raises(DataError, match="damaged or was altered"):
        Genes.open(tmp_path)


@pytest.mark.parametrize(
    ("failure", "told"), [(OSError("disk full"), DataError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, told: type[BaseException]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(told):
        write_genes(make_table(), tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="could not be written"):
        write_genes(make_table(), tmp_path / "file" / "data")


def test_an_interrupted_second_write_keeps_the_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    before = Genes.open(folder).hash
    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", fail)
        with pytest.raises(DataError, match="disk full"):
            write_genes(make_table(anchor=5), folder)
    assert Genes.open(folder).hash == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_writing_again_replaces_the_table_and_leaves_other_files(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    write_genes(make_table(anchor=5), folder)
    assert Genes.open(folder).anchor == 5
    assert (folder / "notes.txt").read_text() == "mine"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gene_ids": ["G0", "G1", "G1", "G3", "G4"]}, "'G1' occurs more than once"),
        ({"proteins": ["MKV", "", "AC*", "X", "MB"]}, r"G2: '\*' at position 3 is not a protein symbol"),
        ({"starts": np.array([1, 2])}, "'start' has 2 values for 5 genes"),
        ({"windows": np.zeros((2, 10), np.uint8)}, r"windows must be uint8 \[5, length\]"),
        ({"windows": np.full((5, 10), 5, np.uint8)}, "tokens must be below 5"),
        ({"anchor": 10}, "anchor inside"),
    ],
    ids=["ids", "symbol", "length", "windows", "tokens", "anchor"],
)
def test_parts_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_genes(make_table(**change), tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_a_source_without_genes_is_refused(tmp_path: Path) -> None:
    nothing: dict[str, list[str]] = {
        field: [] for field in ("gene_ids", "symbols", "chroms", "strands", "proteins", "cds")
    }
    with pytest.raises(DataError, match="no genes left"):
        write_genes(make_table(**nothing), tmp_path / "data")


def test_codons_of_all_genes_stand_end_to_end_as_many_as_their_residues(folder: Path) -> None:
    tokens, offsets = Genes.open(folder).codons

    assert (tokens.dtype, offsets.dtype) == (np.uint8, np.int64)
    assert offsets.tolist() == [0, 3, 3, 5, 6, 7]
    for number, cds in enumerate(make_table().cds):
        assert tokens[offsets[number] : offsets[number + 1]].tolist() == codon_tokens(cds).tolist()


def test_codons_are_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genes = Genes.open(folder)
    tokens, _ = genes.codons
    monkeypatch.setattr(Genes, "texts", None)
    assert genes.codons[0] is tokens


def test_a_coding_sequence_that_is_no_dna_names_its_gene(tmp_path: Path) -> None:
    cds = [*make_table().cds[:3], "ATG*", "ATG"]
    genes = Genes.open(write_genes(make_table(cds=cds), tmp_path / "data"))
    with pytest.raises(DataError, match=r"the CDS of G3: '\*' at position 4 is not a DNA symbol"):
        _ = genes.codons


def test_an_altered_coding_sequence_is_damage_when_codons_are_read(folder: Path) -> None:
    alter_column(folder, "cds", ["ATG"] * NUM_GENES)
    with pytest.raises(DataError, match="'cds' do not match the content hash"):
        _ = Genes.open(folder).codons


def test_what_cannot_be_told_apart_is_counted_in_the_notes(tmp_path: Path) -> None:
    windows = np.ones((NUM_GENES, 10), np.uint8)
    windows[1, :3] = windows[3, 9] = 0
    table = make_table(windows=windows, proteins=["MXx", "", "BbZ", "JOU", "MKV"])
    genes = Genes.open(write_genes(table, tmp_path / "data"))

    found = dict(genes.notes["unknown"])
    del found["cds_of_another_length"]
    assert found == {"bases_n": 4, "windows_with_n": 2, "residues_x": 2, "residues_read_as_x": 5}


def test_coding_sequences_that_do_not_fit_their_proteins_are_counted(tmp_path: Path) -> None:
    fitting = ["ATGAAAGTT", "ATGAAAGTTTAA", ""]  # without its stop, with it, not known
    cds = [*fitting, *["ATGAAAGTTGTTTAA"] * (NUM_GENES - 3)]
    table = make_table(proteins=["MKV"] * NUM_GENES, cds=cds)

    assert Genes.open(write_genes(table, tmp_path / "data")).notes["unknown"]["cds_of_another_length"] == NUM_GENES - 3


def test_data_without_unknown_symbols_says_so(tmp_path: Path) -> None:
    fitting = {"proteins": ["MKV"] * NUM_GENES, "cds": ["ATGAAAGTTTAA"] * NUM_GENES}
    table = make_table(windows=np.ones((NUM_GENES, 10), np.uint8), **fitting)
    assert set(Genes.open(write_genes(table, tmp_path / "data")).notes["unknown"].values()) == {0}


def test_counting_unknown_symbols_leaves_the_hash_alone(folder: Path, tmp_path: Path) -> None:
    noted = write_genes(make_table(notes={"other": 1}), tmp_path / "noted")
    assert Genes.open(noted).hash == Genes.open(folder).hash
