"""Features of genes that a user brings: a table of numbers, such as embeddings of a language model, joined by gene id.

Shapes: n genes of the data, F features.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import feather, types
from pyarrow import parquet as pq

from raystudy.data.text_tables import is_text, text_table
from raystudy.errors import DataError

GENE_ID = "gene_id"
_LIST = (types.is_list, types.is_large_list, types.is_fixed_size_list)
_NUMBER = (types.is_integer, types.is_floating, types.is_boolean, types.is_null)
_ROW_NUMBERS = re.compile(r"|Unnamed: \d+|__index_level_\d+__")  # as pandas names them: genome order is no feature
_ROWS_AT_ONCE = 512  # of a text, whose values take ten times the memory of numbers until they are some
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class GeneFeatures:
    """A table's features of all genes of the data, and how well it fits them.

    ``values`` [n, F] are NaN where the table has no such gene or no value; ``names`` number a column of lists from 0.
    ``num_missing`` genes of the data are not in the table, ``num_unknown`` of the table's are not in the data.
    """

    values: Floats
    names: tuple[str, ...]
    sha256: str  # of the file
    num_missing: int
    num_unknown: int


def read_features(path: Path, gene_ids: NDArray[np.str_]) -> GeneFeatures:
    """The table's features of these genes (.parquet, .feather, .arrow, or .csv, .tsv, .txt, .tab, these also with .gz).

    A column ``gene_id`` names the genes; every other one holds numbers, or lists of numbers of one length.
    Raises DataError where the file cannot be read, breaks these rules, or has none of the genes.
    """
    table, sha256 = _read(path)
    ids = _ids(path, table)
    place = {gene: row for row, gene in enumerate(ids)}
    rows = np.array([place.get(str(gene), -1) for gene in gene_ids], dtype=np.int64)
    found = rows >= 0
    if not found.any():
        what = f"has none of the data's {len(rows)} genes: its ids are like {ids[0]!r}, the data's {str(gene_ids[0])!r}"
        rule = "Ids must be equal, but one side may have version suffixes (ID.1) or gene symbols"
        raise _refusal(path, f"{what}. {rule}: write the data's own ids into `{GENE_ID}`")
    names, features = _features(path, table, ids)
    values = np.full((len(rows), len(names)), np.nan, dtype=np.float32)
    values[found] = features[rows[found]]
    for row, column in np.argwhere(np.isinf(values)):
        what = f"has {values[row, column]:g} (as a 32-bit number) for {gene_ids[row]} in its column {names[column]!r}"
        raise _refusal(path, f"{what}. Features must be finite: correct it, or leave it empty where it is not known")
    return GeneFeatures(values, names, sha256, int((~found).sum()), len(ids) - int(found.sum()))


def _refusal(path: Path, what: str) -> DataError:
    return DataError(f"The table of features {str(path)!r} {what}.")


def _read(path: Path) -> tuple[pa.Table, str]:
    """The file's columns as they are, and its sha256; of a text those that may be features as numbers."""
    as_text = is_text(path)
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if as_text:
            return _read_text(path), sha256
        # not pq.read_table, which takes a folder's name such as `run=3` for a column
        whole = pq.ParquetFile(path).read() if path.suffix.lower() == ".parquet" else feather.read_table(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise _refusal(path, f"cannot be read ({reason}). Check its path, and that its suffix is right") from error
    _check_names(path, whole.column_names)
    return whole, sha256


def _read_text(path: Path) -> pa.Table:
    text = text_table(path, "table of features")
    _check_names(path, text.names)
    names = [name for name in text.names if name == GENE_ID or not _ROW_NUMBERS.fullmatch(name)]
    schema = pa.schema([(name, pa.string() if name == GENE_ID else pa.float64()) for name in names])
    parts = list[pa.Table]()
    for part in text.parts(names, _ROWS_AT_ONCE):
        columns = [
            pa.array(part.columns[name], pa.string())  # 007 is an id and not the number 7
            if name == GENE_ID
            else part.numbers(name, pa.float64(), truths=True)
            for name in names
        ]
        parts.append(pa.table(columns, schema=schema))
    return pa.concat_tables([schema.empty_table(), *parts])


def _check_names(path: Path, names: Sequence[str]) -> None:
    if names.count(GENE_ID) != 1:
        shown = ", ".join(map(repr, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        what = f"needs one column `{GENE_ID}` to be joined by, but has {names.count(GENE_ID)} among {shown}"
        raise _refusal(path, f"{what}. Rename the one that holds the data's gene ids")


def _ids(path: Path, table: pa.Table) -> list[str]:
    try:
        ids = pc.cast(table.column(GENE_ID), pa.string()).to_pylist()
    except pa.ArrowException:
        what = f"holds {table.column(GENE_ID).type} in `{GENE_ID}`"
        raise _refusal(path, f"{what}. Gene ids are texts or whole numbers: write them so") from None
    if not ids or not all(ids):
        raise _refusal(path, f"has {len(ids)} rows, {sum(map(bool, ids))} with a `{GENE_ID}`. Each must name its gene")
    [(gene, count)] = Counter(ids).most_common(1)
    if count > 1:
        raise _refusal(path, f"has {gene!r} {count} times. A gene has one row at most: choose one, or average them")
    return ids


def _features(path: Path, table: pa.Table, ids: list[str]) -> tuple[tuple[str, ...], Floats]:
    """Names and values [rows, F] of all columns but the ids."""
    names, parts = list[str](), list[Floats]()
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name == GENE_ID or _ROW_NUMBERS.fullmatch(name):
            continue
        if _is(_NUMBER, column.type):
            names.append(name)
            parts.append(_floats(column)[:, None])
        elif _is(_LIST, column.type) and _is(_NUMBER, column.type.value_type):
            parts.append(_expanded(path, name, column, ids))
            names += [f"{name}_{index}" for index in range(parts[-1].shape[1])]
        else:
            example = str(column.drop_null()[:1].to_pylist())[1:-1]
            what = f"holds {column.type} in its column {name!r}, such as {example:.60}"
            raise _refusal(path, f"{what}. All but `{GENE_ID}` must be numbers or lists of them: remove or encode it")
    if not names:
        raise _refusal(path, f"has no features. Give it columns of numbers beside `{GENE_ID}`")
    return tuple(names), np.hstack(parts)


def _expanded(path: Path, name: str, column: pa.ChunkedArray, ids: list[str]) -> Floats:
    """A column of lists as one column a number; a gene without a list has NaN in all of them."""
    given = np.flatnonzero(column.is_valid())
    lengths = pc.list_value_length(column.drop_null()).to_numpy()
    for row in given[lengths != lengths[:1]]:
        what = f"has lists of {lengths[0]} ({ids[given[0]]}) and of other lengths ({ids[row]}) in its column {name!r}"
        raise _refusal(path, f"{what}. All must have one length: pool them to one")
    values = np.full((len(column), lengths.max(initial=0)), np.nan, dtype=np.float32)
    values[given] = _floats(pc.list_flatten(column)).reshape(len(given), values.shape[1])
    return values


def _floats(column: pa.ChunkedArray) -> Floats:
    return np.asarray(pc.cast(column, pa.float32(), safe=False).to_numpy())  # what is not given becomes NaN


def _is(tests: tuple[Any, ...], kind: pa.DataType) -> bool:
    return any(test(kind) for test in tests)
