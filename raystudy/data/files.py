"""Text files as users have them: plain, gzipped or bgzipped by what they hold, whatever they are called."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from raystudy.errors import DataError

LINE_LIMIT = 16 * 2**20
"""Characters in a line of an annotation or a table, its end not counted."""

_BUFFER_BYTES = 2**20
_HEAD_BYTES = 4096
_GZIP = b"\x1f\x8b"
_BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_NO_TEXT = {
    _GZIP: "gzip within gzip",
    b"PK\x03\x04": "a zip archive",
    b"BZh": "packed with bzip2",
    b"\xfd7zXZ": "packed with xz",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"\x89HDF": "an HDF5 file",
    b"PAR1": "a Parquet file",
}


@contextmanager
def open_text(path: Path, kind: str = "text") -> Iterator[TextIO]:
    """The file's text, unpacked: UTF-8 with or without a mark, any line ends; bytes that are no UTF-8 become U+FFFD.

    ``kind`` ("FASTA", "an annotation") is what messages say it should be. Raises DataError where it cannot be opened,
    holds no text, or (also later, while it is read within the ``with``) is damaged or ends before its end.
    """
    try:
        with ExitStack() as opened:
            binary: io.BufferedReader[Any] = opened.enter_context(io.BufferedReader(io.FileIO(path), _BUFFER_BYTES))
            head = binary.peek(_HEAD_BYTES)
            if head.startswith(_GZIP):
                _check_bgzip_end(binary, head)
                unpacked = opened.enter_context(gzip.GzipFile(fileobj=binary))
                binary = opened.enter_context(io.BufferedReader(unpacked, _BUFFER_BYTES))
                head = binary.peek(_HEAD_BYTES)
            what = next((what for magic, what in _NO_TEXT.items() if head.startswith(magic)), "")
            if what or b"\0" in head[:_HEAD_BYTES]:
                raise DataError(
                    f"{path} cannot be read as {kind} (it is {what or 'binary'}). "
                    "Give UTF-8 text, plain or packed once with gzip or bgzip"
                )
            yield opened.enter_context(io.TextIOWrapper(binary, encoding="utf-8-sig", errors="replace"))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read as {kind} ({_reason(error)}). Check that it is there and whole"
        ) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def sha256_of(path: Path) -> str:
    """Of the file's bytes. Raises DataError where it cannot be read, or is a pipe, which can be read only once."""
    try:
        if path.is_fifo():
            raise DataError(f"{path} is a pipe, which can be read only once. Write it to a file, and give that")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({_reason(error)}). Check its path") from error


def lines(path: Path, kind: str = "text") -> Iterator[tuple[int, str]]:
    """Each line without its end, numbered from 1. Raises DataError as `open_text`, and for a line above LINE_LIMIT."""
    with open_text(path, kind) as text:
        for number, line in enumerate(iter(partial(text.readline, LINE_LIMIT + 1), ""), start=1):
            if len(line) > LINE_LIMIT and not line.endswith("\n"):
                raise DataError(
                    f"{path} cannot be read as {kind} (line {number} has more than {LINE_LIMIT:,} characters, "
                    "the most a line may have). Check that it is that kind of file, and that its line ends are there"
                )
            yield number, line.rstrip("\n")


def _check_bgzip_end(binary: io.BufferedReader[Any], head: bytes) -> None:
    """A bgzip file (gzip with a field ``BC``) cut between two of its blocks is valid gzip, but lacks the last block."""
    if head[12:14] == b"BC" and head[3] & 4 and binary.seekable():
        size = binary.seek(0, os.SEEK_END)
        binary.seek(max(size - len(_BGZIP_END), 0))
        if binary.read() != _BGZIP_END:
            raise EOFError("bgzip that does not end with its closing block: it was cut short, or added to")
        binary.seek(0)
