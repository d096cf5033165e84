"""A user's table of expression levels: what of it is a target, and the levels by gene id.

m rows of the table. Which genes they belong to is `joining`'s to say.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import feather, types
from pyarrow import parquet as pq

from raystudy.data.findings import Findings
from raystudy.data.genes import Target
from raystudy.data.tables import GENE_ID
from raystudy.data.text_tables import NO_VALUE, refusal, text_table
from raystudy.errors import SpecError

TARGETS = ("mrna", "protein", "mrna_half_life")

_FORMULA = re.compile(
    r"""\s* (?P<name>\w+) \s*=\s*
    (?P<log> (?P<function>log2|log10|ln) \s*\( \s* )?  (?P<column> "[^"]+" | [^"()]+? ) \s*
    (?(log) (?: \+\s* (?P<pseudo_count> \d+\.?\d*(?:[eE][-+]?\d+)? | \.\d+ ) \s* )? \) )
    (?: \s+ in \s+ (?P<unit> \S.*? ) )? \s*""",
    re.VERBOSE,
)
_GRAMMAR = (
    "It is NAME=COLUMN, NAME=log10(COLUMN) or NAME=log10(COLUMN + PSEUDO_COUNT), log2 and ln likewise, with ` in UNIT` "
    f'at its end where wanted and quotes ("...") around a column with parentheses; NAME is one of {", ".join(TARGETS)}'
)
_LOGARITHMS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "log2": np.log2,
    "log10": np.log10,
    "ln": np.log,
}
_MAGIC = {b"PAR1": "Parquet", b"ARRO": "Feather", b"FEA1": "Feather", b"PK\3\4": "zip", b"\xd0\xcf\x11\xe0": "xls"}
_WORKBOOK = {"zip": "a zip archive, as a workbook is (.xlsx, .ods)", "xls": "a workbook of a spreadsheet program"}
_GZIP = b"\x1f\x8b"
LARGEST = 1e30
"""Magnitude of a level in a table; networks compute in 32 bits."""
_DIGITS = 12  # of a logarithm: the last bits, which machines do not agree on, are not to be in the content hash


@dataclass(frozen=True)
class Formula:
    """How a target is made of a column: ``log`` is log2, log10, ln or empty, ``pseudo_count`` is added before it."""

    name: str
    column: str
    log: str = ""
    pseudo_count: float = 0.0
    unit: str = ""

    @classmethod
    def parse(cls, text: str) -> Formula:
        """Of a text such as ``mrna=log10(TPM + 0.1)`` or ``protein=log10(abundance) in ppm``. Raises SpecError."""
        match = _FORMULA.fullmatch(text)
        if match is None or match["name"] not in TARGETS:
            near = difflib.get_close_matches(match["name"], TARGETS, n=1) if match else []
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise SpecError(f"the target {text!r} is no formula of a target. {_GRAMMAR}.{hint}")
        column, pseudo_count = match["column"].strip('"').strip(), float(match["pseudo_count"] or 0)
        return cls(match["name"], column, match["function"] or "", pseudo_count, match["unit"] or "")

    def __str__(self) -> str:
        """The target's unit, as it stands in the table: logarithm, column, pseudo-count, unit."""
        added = f" + {self.pseudo_count:g}" if self.pseudo_count else ""
        level = f"{self.log}({self.column}{added})" if self.log else f"{self.column}, as in its table (no logarithm)"
        return f"{level}, in {self.unit}" if self.unit else level


def parse_formulas(texts: Sequence[str]) -> list[Formula]:
    """Of one target each. Raises SpecError where there is none, or one twice."""
    formulas = [Formula.parse(text) for text in texts]
    names = [formula.name for formula in formulas]
    if not names or len(set(names)) < len(names):
        what = f"the targets {list(texts)} name one twice" if names else "no target is given"
        raise SpecError(f"{what}; each of {', '.join(TARGETS)} can be given once, one at least. {_GRAMMAR}")
    return formulas


@dataclass(frozen=True)
class Expression:
    """The levels of the file ``path``: ``ids`` text [m], none twice, and targets by name, values float64 [m]."""

    path: Path
    ids: tuple[str, ...]
    targets: Mapping[str, Target]

    @property
    def has_any(self) -> NDArray[np.bool_]:
        """Which rows have a level of one target at least, bool [m]."""
        return np.any([np.isfinite(target.values) for target in self.targets.values()], axis=0)


def read_expression(path: Path, formulas: Sequence[Formula], id_column: str | None, findings: Findings) -> Expression:
    """The table's levels (TSV, CSV, either gzipped or not, Parquet, Feather). An empty value, NA or NaN is no level.

    Ids are in ``id_column``: by default ``gene_id``, else the only column of texts. A level of 0 under a logarithm
    without pseudo-count was not detected: it is no level, and counted.
    Raises DataError where the file cannot be read, lacks a column, has an id twice, or a value is not a level.
    """
    columns = [formula.column for formula in formulas]
    ids, values = read_numbers(path, columns, id_column, "expression table", findings)
    targets = {
        formula.name: Target(_levels(path, formula, values[formula.column], ids, findings), str(formula))
        for formula in formulas
    }
    for name, target in targets.items():
        if not np.isfinite(target.values).any():
            raise refusal(path, f"has no level for {name!r} ({target.unit}). Name a column that has")
    return Expression(path, tuple(ids), targets)


def read_numbers(
    path: Path, columns: Sequence[str], id_column: str | None, what: str, findings: Findings
) -> tuple[list[str], dict[str, NDArray[np.float64]]]:
    """The ids of a user's table, and these columns' finite numbers, float64 [m], NaN where there is none.

    ``what`` is what the messages call it. Raises DataError where the file cannot be read, lacks a column, has an id
    twice, or a value is no number.
    """
    table, id_column = _read(path, columns, id_column, what)
    ids, table = _ids(path, table, id_column, findings)
    return ids, {name: _numbers(path, table.column(name), name, ids) for name in columns}


def _read(path: Path, columns: Sequence[str], id_column: str | None, what: str) -> tuple[pa.Table, str]:
    """These columns and that of ids, whose name comes second; of a text file all are texts."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
        with pa.input_stream(str(path), "gzip" if packed else None) as file:
            kind = _MAGIC.get(file.read(4))
        if kind in ("zip", "xls"):
            raise refusal(path, f"is {_WORKBOOK[kind]}. Export its sheet as TSV or CSV, and give that")
        if kind and packed:
            raise refusal(path, f"is {kind} within gzip. Unpack it (`gunzip`): {kind} is packed by itself")
        if kind == "Parquet":
            whole = pq.ParquetFile(path)
            texts = [field.name for field in whole.schema_arrow if _is_text(field.type)]
            names = _names(path, whole.schema_arrow.names, texts, columns, id_column, what)
            return whole.read(columns=names), names[0]
        if kind == "Feather":
            read = feather.read_table(path)
            texts = [field.name for field in read.schema if _is_text(field.type)]
            names = _names(path, read.column_names, texts, columns, id_column, what)
            return read.select(names), names[0]
        text = text_table(path, what)
        needs_texts = id_column is None and GENE_ID not in text.names
        names = _names(path, text.names, text.texts() if needs_texts else [], columns, id_column, what)
        return pa.table({name: pa.array(one, pa.string()) for name, one in text.columns(names).items()}), names[0]
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise refusal(path, f"cannot be read as the {what} ({reason}). Check that it is there and whole") from error


def _is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind))


def _names(
    path: Path, given: Sequence[str], texts: list[str], columns: Sequence[str], id_column: str | None, what: str
) -> list[str]:
    """The columns to read, that of ids first."""
    shown = ", ".join(map(repr, given[:12])) + (f" and {len(given) - 12} more" if len(given) > 12 else "")
    ids = id_column if id_column is not None else GENE_ID
    if id_column is None and GENE_ID not in given:
        texts = [name for name in texts if name not in columns]
        if len(texts) != 1:
            raise refusal(
                path,
                f"does not say which column names the genes: there is no `{GENE_ID}`, and {len(texts)} of its columns "
                f"({shown}) are texts. Name it with `--id-column`",
            )
        ids = texts[0]
    for name in (ids, *columns):
        if given.count(name) != 1:
            near = difflib.get_close_matches(name, given, n=1)
            hint = f" Did you mean {near[0]!r}?" if near and near[0] != name else ""
            raise refusal(
                path,
                f"has {given.count(name) or 'no'} column{'s' * bool(given.count(name))} {name!r}; the {what} needs one "
                f"of that name, and has {shown}.{hint} Name a column that it has",
            )
    return list(dict.fromkeys([ids, *columns]))


def _ids(path: Path, table: pa.Table, column: str, findings: Findings) -> tuple[list[str], pa.Table]:
    """Ids as texts (007 stays 007), and the table without the rows that have none."""
    kind = table.column(column).type
    if not (_is_text(kind) or types.is_integer(kind)):
        raise refusal(path, f"holds {kind} in its column of ids {column!r}. Ids are texts or whole numbers")
    written = pc.cast(table.column(column), pa.string()).to_pylist()
    ids = [(one or "").strip() for one in written]
    seen = set[str]()
    for row, (one, before) in enumerate(zip(ids, written, strict=True), start=1):
        if not one:
            findings.unmatch(f"rows of {path.name} without an id", f"row {row}")
        elif one in seen:
            raise refusal(path, f"has the id {one!r} twice (again in row {row}). Choose one row, or average them")
        elif one != before:
            findings.repair(f"spaces around an id of {path.name} taken away", one)
        seen.add(one)
    if not any(ids):
        raise refusal(path, f"has {len(ids)} rows, but no id in its column {column!r}. Name another, or fill it")
    return [one for one in ids if one], table.filter(pa.array(map(bool, ids)))


def _numbers(path: Path, column: pa.ChunkedArray, name: str, ids: Sequence[str]) -> NDArray[np.float64]:
    if not _is_text(column.type) and not (types.is_integer(column.type) or types.is_floating(column.type)):
        raise refusal(path, f"holds {column.type} in its column {name!r}, which must be numbers")
    values = np.full(len(ids), np.nan)
    for row, written in enumerate(column.to_pylist()):
        if written is None or str(written).strip().casefold() in NO_VALUE:
            continue
        try:
            values[row] = math.nan if "_" in str(written) else float(written)
        except ValueError:
            values[row] = math.nan
        if not abs(values[row]) < LARGEST:
            raise refusal(
                path,
                f"has {written!r} in its column {name!r} for {ids[row]!r} (row {row + 1} below the header). Values "
                f"are finite numbers (below {LARGEST:g}) with a decimal point, or empty where there is none",
            )
    return values


def _levels(
    path: Path, formula: Formula, values: NDArray[np.float64], ids: Sequence[str], findings: Findings
) -> NDArray[np.float64]:
    if not formula.log:
        return values
    for row in np.flatnonzero(values < 0).tolist():
        raise refusal(
            path,
            f"has {values[row]:g} in its column {formula.column!r} for {ids[row]!r}, which has no place under the "
            f"logarithm of `{formula.name}={formula}`. Is it a logarithm already? Then give {formula.name}="
            f"{formula.column}",
        )
    shifted = values + formula.pseudo_count
    for row in np.flatnonzero(shifted == 0).tolist():
        findings.repair(f"{formula.name}: 0 read as not detected, so as no level (no logarithm of 0)", ids[row])
    shifted[shifted == 0] = np.nan
    return np.round(_LOGARITHMS[formula.log](shifted), _DIGITS)
