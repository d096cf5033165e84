"""FASTA files joined on id."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raystudy.data.encode import FEATURES, tokenize_dna, tokenize_protein
from raystudy.data.fasta import JoinedFasta, read_fasta
from raystudy.data.sequences import Sequences
from raystudy.errors import DataError

DNA = b">G2 chromosome 1\r\nACGT\r\nacgtRY\r\n>G0\nTTTT\n\n>G1|x y\nGG\n"
PROTEIN = b">G0 sp\nMKV*\n>G2\nmk\nVB\n>G9\nMM\n"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {"dna": tmp_path / "dna.fa", "protein": tmp_path / "protein.fa.gz"}
    found["dna"].write_bytes(DNA)
    found["protein"].write_bytes(gzip.compress(PROTEIN))
    return found


def everything(joined: JoinedFasta, chunk_genes: int = 512) -> list[Sequences]:
    with joined:
        return list(joined.chunks(chunk_genes))


def test_genes_come_in_the_order_of_the_first_file_then_what_only_the_next_has(files: dict[str, Path]) -> None:
    [joined] = everything(JoinedFasta(files))

    assert joined.gene_ids.tolist() == ["G2", "G0", "G1|x", "G9"]
    assert joined.dna.part(0).tolist() == tokenize_dna("ACGTACGTNN").tolist()
    assert joined.protein.part(0).tolist() == tokenize_protein("MKVX").tolist()
    assert joined.protein.part(1).tolist() == tokenize_protein("MKV").tolist()
    assert joined.lacking("dna").tolist() == [False, False, False, True]
    assert joined.lacking("protein").tolist() == [False, False, True, False]


def test_chunks_are_as_small_as_asked_for_and_begin_anew_each_time(files: dict[str, Path]) -> None:
    with JoinedFasta(files) as joined:
        twice = [[chunk.gene_ids.tolist() for chunk in joined.chunks(3)] for _ in range(2)]

    assert twice == [[["G2", "G0", "G1|x"], ["G9"]]] * 2


def test_features_are_joined_and_genes_of_the_table_alone_left_aside(files: dict[str, Path], tmp_path: Path) -> None:
    rows = [["G0", *["1.5"] * 8], ["G7", *["2"] * 8], ["G2", "", *["3"] * 7], ["G9", *[""] * 8]]
    table = tmp_path / "features.tsv"
    table.write_text("\n".join("\t".join(row) for row in [["gene_id", *FEATURES], *rows]) + "\n")

    [joined] = everything(JoinedFasta(files, table))

    assert joined.gene_ids.tolist() == ["G2", "G0", "G1|x", "G9"]
    assert joined.has_features.tolist() == [True, True, False, True], "a row of missing values is one"
    np.testing.assert_array_equal(joined.features[0], np.array([np.nan, *[3] * 7], np.float32))
    np.testing.assert_array_equal(joined.features[1], np.full(8, 1.5, np.float32))


def test_nothing_is_left_on_disk(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with JoinedFasta(files):
        assert list(scratch.iterdir())
    assert not list(scratch.iterdir())
    files["protein"].write_bytes(b">A\nM\n>A\nM\n")
    with pytest.raises(DataError), JoinedFasta(files):
        pass
    assert not list(scratch.iterdir()), "nor where a file is refused"


def full(*arguments: object) -> sqlite3.Connection:
    database = sqlite3.Connection(*arguments)  # type: ignore[arg-type]
    database.execute("PRAGMA max_page_count = 4")
    return database


def unable(*_: object) -> sqlite3.Connection:
    raise sqlite3.OperationalError("unable to open database file")


@pytest.mark.parametrize(("connect", "reason"), [(full, "disk is full"), (unable, "unable to open")])
def test_a_full_disk_is_said_with_its_folder_and_nothing_is_left_on_it(
    connect: Callable[..., sqlite3.Connection],
    reason: str,
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setattr(sqlite3, "connect", connect)

    with pytest.raises(DataError, match=rf"{scratch}/raystudy-\w+ \(.*{reason}.*TMPDIR"):
        everything(JoinedFasta(files))

    assert not list(scratch.iterdir())


def test_a_temporary_folder_that_is_not_there_is_said(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))

    with pytest.raises(DataError, match=r"nowhere.*TMPDIR"):
        everything(JoinedFasta(files))


def test_a_byte_order_mark_and_blank_lines_before_the_first_record_are_no_error(tmp_path: Path) -> None:
    path = tmp_path / "a.fa"
    path.write_bytes(b"\xef\xbb\xbf\n\n>A b\nAC\n")

    assert list(read_fasta(path)) == [("A", "AC")]


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "nowhere": (lambda path: None, "cannot be read as FASTA"),
    "a folder": (lambda path: path.mkdir(), "cannot be read as FASTA"),
    "empty": (lambda path: path.touch(), "no FASTA"),
    "a table": (lambda path: path.write_text("gene_id\twindow\n"), "begins with 'gene_id"),
    "FASTQ": (lambda path: path.write_text("@r1\nACGT\n+\nIIII\n"), "begins with '@r1'"),
    "a record without an id": (lambda path: path.write_text(">A\nAC\n>\nGT\n"), "record 2 has no id"),
    "gzip cut short": (lambda path: path.write_bytes(gzip.compress(DNA)[:-12]), "cannot be read as FASTA"),
    "gzip damaged": (lambda path: path.write_bytes(gzip.compress(DNA)[:12] + b"\xff" * 40), "cannot be read as FASTA"),
    "an id twice": (lambda path: path.write_text(">A\nAC\n>B\nAC\n>A x\nGT\n"), "the id 'A' occurs more than once"),
    "no base": (lambda path: path.write_text(">A\nAC\n>B\nAE\n"), "the window of B: 'E' at position 2"),
    "bytes that are no text": (lambda path: path.write_bytes(b">A\nAC\xff\n"), "the window of A"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_is_no_fasta_is_refused_in_one_paragraph(what: str, tmp_path: Path) -> None:
    make, message = REFUSED[what]
    make(tmp_path / "dna.fa")

    with pytest.raises(DataError, match=message) as caught:
        everything(JoinedFasta({"dna": tmp_path / "dna.fa"}))

    assert "\n" not in str(caught.value)
