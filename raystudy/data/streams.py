"""Tables of genes from memory or from files of any size, read as one `Sequences` after the other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
import pyarrow as pa
from pyarrow import parquet as pq

from raystudy.data.genes import Genes
from raystudy.data.sequences import COLUMNS, Sequences, columns_read, present
from raystudy.data.tables import GENE_ID
from raystudy.data.text_tables import is_text, text_table
from raystudy.errors import DataError, SpecError

if TYPE_CHECKING:
    import pandas as pd

CHUNK_GENES = 512
_TEXTS = ("gene_id", "window", "protein", "cds")

Table: TypeAlias = Union[Genes, Sequences, str, Path, pa.Table, "pd.DataFrame", Iterable[Sequences]]
"""Genes in memory, a prepared folder, or a file with columns as in ``genes.parquet``: Parquet, Feather, CSV or TSV."""


def chunks_of(
    table: Table, inputs: Collection[str], chunk_genes: int = CHUNK_GENES, anchor: int | None = None
) -> Iterator[Sequences]:
    """At most so many genes at a time, in the table's order, with what gives ``inputs`` alone.

    Of a file no more than a chunk and the ids are in memory (but see `Sequences.of_genes` for codons of a prepared
    folder). ``anchor`` is the index of the TSS or CDS start in the windows, where the table does not say it itself.
    What comes as an iterable of `Sequences` passes as it is.
    Raises DataError where the table is none, cannot be read, has no genes, or a gene twice.
    """
    if chunk_genes < 1:
        raise SpecError(f"`chunk_genes` is how many genes are read at a time, 1 at least, but got {chunk_genes}")
    seen = set[str]()
    for chunk in _chunks(table, inputs, chunk_genes, anchor):
        ids = chunk.gene_ids.tolist()
        if again := next((gene for gene in ids if gene in seen), None):
            raise DataError(f"{chunk.origin}: the gene id {again!r} occurs more than once. Rename or remove one")
        seen.update(ids)
        yield chunk
    if not seen:
        raise DataError(f"{_origin(table)} has no genes")


def _origin(table: Table) -> str:
    return str(table) if isinstance(table, str | Path) else "the table"


def _chunks(table: Table, inputs: Collection[str], size: int, anchor: int | None) -> Iterator[Sequences]:
    if isinstance(table, str | Path):
        path = Path(table)
        table = Genes.open(path) if path.is_dir() else path
    if isinstance(table, Genes):
        if anchor not in (None, table.anchor):
            raise DataError(
                f"{table.origin} says that its anchor is {table.anchor}, but {anchor} was given. Leave it out"
            )
        for first in range(0, table.num_genes, size):
            yield Sequences.of_genes(table, range(first, min(first + size, table.num_genes)), inputs)
    elif isinstance(table, Sequences):
        for first in range(0, table.num_genes, size):
            yield table.take(np.arange(first, min(first + size, table.num_genes)))
    elif isinstance(table, Path):
        for batch in _batches(table, [GENE_ID, *chain(*(COLUMNS[name] for name in inputs))], size):
            for first in range(0, batch.num_rows, size):
                part = pa.Table.from_batches([batch.slice(first, size)])
                yield Sequences.of_table(part, inputs, anchor, str(table))
    elif isinstance(table, pa.Table) or hasattr(table, "itertuples"):  # a data frame
        whole = columns_read(table, inputs)
        for first in range(0, whole.num_rows, size):
            yield Sequences.of_table(whole.slice(first, size), inputs, anchor)
    else:
        for one in table if isinstance(table, Iterable) else [table]:
            if not isinstance(one, Sequences):
                raise DataError(
                    "a table of genes is a pandas.DataFrame or pyarrow.Table, the path of a prepared folder or of a "
                    f"file, a `Genes`, a `Sequences` or an iterable of these, but got a {type(table).__name__}"
                )
            yield one


def _batches(path: Path, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
    """A file's columns of these names, as far as it has them, a part of its rows at a time."""
    if not path.is_file():
        raise DataError(
            f"there is no table {str(path)!r}; give a prepared folder, or a Parquet, Feather, CSV or TSV file"
        )
    as_text = is_text(path)
    try:
        if as_text:
            yield from _text_batches(path, columns, size)
        elif path.suffix.lower() == ".parquet":
            file = pq.ParquetFile(path)
            yield from file.iter_batches(size, columns=present(file.schema_arrow.names, columns, str(path)))
        else:
            with pa.memory_map(str(path)) as source:
                reader = pa.ipc.open_file(source)
                given = present(reader.schema.names, columns, str(path))
                for number in range(reader.num_record_batches):
                    yield reader.get_batch(number).select(given)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"the table {str(path)!r} cannot be read ({reason}). Check it, and its suffix") from error


def _text_batches(path: Path, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
    table = text_table(path, "table of genes")
    given = present(table.names, columns, str(path))
    for part in table.parts(given, size):
        values = [
            pa.array(part.columns[name], pa.large_string())  # 007 is an id and not the number 7
            if name in _TEXTS
            else part.numbers(name, pa.float32())
            for name in given
        ]
        yield pa.record_batch(values, names=given)
