"""FASTA files joined on id, on disk: what a user has of genes that are in no table."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from Bio.SeqIO.FastaIO import SimpleFastaParser

from raystudy.data.encode import FEATURES
from raystudy.data.files import open_text
from raystudy.data.sequences import COLUMNS, Sequences
from raystudy.data.streams import CHUNK_GENES, chunks_of
from raystudy.data.tables import GENE_ID
from raystudy.errors import DataError


def read_fasta(path: Path) -> Iterator[tuple[str, str]]:
    """Each record's id (the first word of its header) and its sequence, plain, gzipped or bgzipped.

    Raises DataError where the file cannot be read, does not begin with a record, or a record has no id.
    """
    with open_text(path, "FASTA") as text:
        for number, (header, sequence) in enumerate(fasta_records(path, text), start=1):
            words = header.split(maxsplit=1)
            if not words:
                raise DataError(f"{path}: record {number} has no id after its `>`. Name each record by its gene")
            yield words[0], sequence


def fasta_records(path: Path, text: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Each record's header and sequence, of the lines of a text. Raises DataError where it begins with no record."""
    first = next((line for line in text if line.strip()), "")
    if not first.startswith(">"):
        raise DataError(
            f"{path} is no FASTA file: it begins with {first.strip()[:40]!r} rather than with a header `>ID`. "
            "Give FASTA, plain or gzipped"
        )
    yield from SimpleFastaParser(chain([first], text))


class JoinedFasta:
    """FASTA files, by the input that they hold, and a table of features, joined on id; a context manager.

    Sequences stand in a temporary SQLite file, so memory does not grow with the number of genes. Genes come in the
    order of the first file, then those that only the next one has; a table's other genes are left aside.
    """

    def __init__(self, files: Mapping[str, Path], features: Path | None = None, anchor: int | None = None) -> None:
        self._files = dict(files)
        self._features = features
        self._anchor = anchor
        self._folder = os.environ.get("TMPDIR", "of this machine")
        self.origin = " and ".join(str(path) for path in [*files.values(), features] if path is not None)

    def __enter__(self) -> Self:
        """Read all files. Raises DataError where one cannot be read or has an id twice, or there is no room."""
        with ExitStack() as opened, self._with_room():
            self._folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="raystudy-"))
            path = Path(self._folder) / "joined.sqlite"
            self._database = opened.enter_context(closing(sqlite3.connect(path)))
            self._database.execute("CREATE TABLE genes (id TEXT PRIMARY KEY)")
            for name, path in self._files.items():
                self._read(name, path)
            if self._features is not None:
                self._database.execute("CREATE TABLE half_life (id TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
                for chunk in chunks_of(self._features, {"half_life"}):
                    rows = zip(chunk.gene_ids.tolist(), chunk.features, chunk.has_features, strict=True)
                    given = [(gene, values.tobytes()) for gene, values, has_any in rows if has_any]
                    self._database.executemany("INSERT INTO half_life VALUES (?, ?)", given)
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @contextmanager
    def _with_room(self) -> Iterator[None]:
        """DataError where the temporary file cannot be written or read."""
        try:
            yield
        except (OSError, OverflowError, sqlite3.Error) as error:
            raise DataError(
                f"{self.origin} cannot be joined in the temporary folder {self._folder} ({error}). That takes about "
                "as much space as the files unpacked, and no record may be above 1 GB: free some, or let the "
                "environment variable TMPDIR name another folder"
            ) from error

    def _read(self, name: str, path: Path) -> None:
        self._database.execute(f"CREATE TABLE {name} (id TEXT PRIMARY KEY, value TEXT)")
        for record in read_fasta(path):
            try:
                self._database.execute(f"INSERT INTO {name} VALUES (?, ?)", record)  # noqa: S608  # a name of ours
            except sqlite3.IntegrityError:
                raise DataError(
                    f"{path}: the id {record[0]!r} occurs more than once (an id is the first word of a header). "
                    "Keep one record for each gene"
                ) from None
        self._database.execute(f"INSERT OR IGNORE INTO genes SELECT id FROM {name} ORDER BY rowid")  # noqa: S608

    def chunks(self, chunk_genes: int = CHUNK_GENES) -> Iterator[Sequences]:
        """So many genes at a time; a gene that a file does not have lacks what it holds."""
        names = [*self._files, *(["half_life"] if self._features is not None else [])]
        joins = " ".join(f"LEFT JOIN {name} ON {name}.id = genes.id" for name in names)
        columns = ", ".join(["genes.id", *(f"{name}.value" for name in names)])
        with self._with_room():
            rows = self._database.execute(f"SELECT {columns} FROM genes {joins} ORDER BY genes.rowid")  # noqa: S608
            while part := rows.fetchmany(chunk_genes):
                ids, *values = zip(*part, strict=True)
                yield self._genes(ids, dict(zip(names, values, strict=True)))

    def _genes(self, ids: tuple[str, ...], values: Mapping[str, tuple[Any, ...]]) -> Sequences:
        """Genes of what the database holds of each, by input; None where it holds nothing."""
        texts = {COLUMNS[name][0]: given for name, given in values.items() if name != "half_life"}
        columns = {name: pa.array(given, pa.large_string()) for name, given in texts.items()}
        genes = Sequences.of_table(pa.table({GENE_ID: pa.array(ids), **columns}), values, self._anchor, self.origin)
        if "half_life" not in values:
            return genes
        missing = np.full(len(FEATURES), np.nan, np.float32)
        features = [missing if one is None else np.frombuffer(one, np.float32) for one in values["half_life"]]
        known = np.array([one is not None for one in values["half_life"]])
        return replace(genes, features=np.stack(features), has_features=known)
