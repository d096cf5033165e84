"""Text files, plain and packed."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from Bio import bgzf

from raystudy.data import files
from raystudy.data.files import lines, open_text
from raystudy.errors import DataError

TEXT = "a\tb\nü\nlast"


def bgzipped(text: bytes, path: Path) -> bytes:
    """In three blocks, and the one that closes."""
    with bgzf.open(str(path), "wb") as file:
        for third in (text[:2], text[2:4], text[4:]):
            file.write(third)
            file.flush()
    return path.read_bytes()


PACKED: dict[str, Callable[[bytes, Path], bytes]] = {
    "plain": lambda text, path: text,
    "gzip": lambda text, path: gzip.compress(text),
    "gzip in two members": lambda text, path: gzip.compress(text[:3]) + gzip.compress(text[3:]),
    "bgzip": bgzipped,
    "a byte order mark": lambda text, path: b"\xef\xbb\xbf" + text,
    "Windows' line ends": lambda text, path: text.replace(b"\n", b"\r\n"),
    "old Mac's line ends": lambda text, path: text.replace(b"\n", b"\r"),
    "mixed line ends": lambda text, path: text.replace(b"\n", b"\r\n", 1),
}


@pytest.mark.parametrize("how", PACKED)
def test_text_is_the_same_however_it_is_packed_and_whatever_its_name(how: str, tmp_path: Path) -> None:
    path = tmp_path / "misnamed.gz"
    path.write_bytes(PACKED[how](TEXT.encode(), tmp_path / "aside"))

    with open_text(path) as text:
        assert text.read() == TEXT
    assert list(lines(path)) == [(1, "a\tb"), (2, "ü"), (3, "last")]


def test_bytes_that_are_no_utf8_are_marked_rather_than_refused(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("Kürzel\n".encode("latin-1"))

    assert list(lines(tmp_path / "latin")) == [(1, "K�rzel")]


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    assert list(lines(tmp_path / "empty")) == []


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "nowhere": (lambda path: None, "No such file"),
    "a folder": (lambda path: path.mkdir(), "Is a directory"),
    "gzip cut short": (lambda path: path.write_bytes(gzip.compress(TEXT.encode())[:-9]), "end-of-stream"),
    "gzip's first bytes": (lambda path: path.write_bytes(b"\x1f\x8b"), "end-of-stream"),
    "gzip damaged": (lambda path: path.write_bytes(gzip.compress(TEXT.encode())[:10] + b"\xff" * 40), "Error -3"),
    "gzip with junk after it": (lambda path: path.write_bytes(gzip.compress(b"a") + b"junk"), "[Nn]ot a gzipped"),
    "gzip with a wrong checksum": (lambda path: path.write_bytes(gzip.compress(b"a")[:-8] + bytes(8)), "CRC"),
    "bgzip cut between blocks": (
        lambda path: path.write_bytes(bgzipped(TEXT.encode(), path)[:-28]),
        "closing block",
    ),
    "packed twice": (lambda path: path.write_bytes(gzip.compress(gzip.compress(b"a"))), "gzip within gzip"),
    "zip": (lambda path: path.write_bytes(b"PK\x03\x04\x14"), "a zip archive"),
    "bzip2": (lambda path: path.write_bytes(b"BZh91AY&SY"), "bzip2"),
    "xz": (lambda path: path.write_bytes(b"\xfd7zXZ\x00"), "xz"),
    "zstd": (lambda path: path.write_bytes(b"\x28\xb5\x2f\xfd\x00"), "zstd"),
    "HDF5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "HDF5"),
    "Parquet": (lambda path: path.write_bytes(b"PAR1\x15\x00"), "Parquet"),
    "a spreadsheet's Unicode text": (lambda path: path.write_bytes("a\tb\n".encode("utf-16")), "UTF-16"),
    "binary": (lambda path: path.write_bytes(b"ab\x00\x07"), "it is binary"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_text_is_refused_in_one_paragraph_that_names_the_file_and_its_kind(
    what: str, tmp_path: Path
) -> None:
    make, reason = REFUSED[what]
    make(tmp_path / "file")

    with pytest.raises(DataError, match=f"file cannot be read as an annotation .*{reason}") as caught:
        list(lines(tmp_path / "file", "an annotation"))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", ["", "\n", "\nb"])
def test_a_line_may_be_as_long_as_the_limit(end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LINE_LIMIT", 5)
    (tmp_path / "file").write_text("abcde" + end)

    assert next(lines(tmp_path / "file")) == (1, "abcde")


def test_a_longer_line_is_refused_without_reading_it_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LINE_LIMIT", 5)
    # The rest of the file is damaged: whoever reads on to the line's end meets that instead.
    (tmp_path / "file").write_bytes(gzip.compress(b"a\n" + b"b" * 2_000_000, 0)[:1_900_000])

    with pytest.raises(DataError, match="line 2 has more than 5 characters"):
        list(lines(tmp_path / "file"))


def test_the_file_is_closed_when_its_reader_stops(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a\nb\n")
    with open_text(tmp_path / "file") as text:
        text.readline()
    assert text.closed
