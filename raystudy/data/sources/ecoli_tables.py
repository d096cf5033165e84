"""The tables that the E. coli source is made from, each row checked as it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raystudy.errors import DataError

Strand = Literal["+", "-"]
Position = Annotated[int, Field(ge=1)]
Level = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Key = Annotated[str, Field(min_length=1)]


class Row(BaseModel):
    """One line of a table; ``key`` says whose it is. Columns that it does not name are not looked at."""

    model_config = ConfigDict(strict=True, frozen=True)
    member: ClassVar[str]
    separator: ClassVar[str] = "\t"  # the cells of these tables are JSON

    key: Key


class Gene(Row):
    member = "genes.tsv"

    key: Key = Field(alias="id")
    symbol: str | None
    synonyms: list[str]
    left: Position | None = Field(alias="left_end_pos")
    right: Position | None = Field(alias="right_end_pos")
    strand: Strand | None = Field(alias="direction")


class Rna(Row):
    member = "rnas.tsv"

    key: Key = Field(alias="gene_id")
    type: str
    monomers: list[str] = Field(alias="monomer_ids")


class Protein(Row):
    member = "proteins.tsv"

    key: Key = Field(alias="id")
    sequence: str | None = Field(alias="seq")


class Unit(Row):
    """A transcription unit."""

    member = "transcription_units.tsv"

    key: Key = Field(alias="id")
    genes: list[str]
    left: Position = Field(alias="left_end_pos")
    right: Position = Field(alias="right_end_pos")
    strand: Strand = Field(alias="direction")


class Mrna(Row):
    member = "rna_seq_data/rnaseq_rsem_tpm_mean.tsv"

    key: Key = Field(alias="Gene")
    level: Level = Field(alias="M9 Glucose minus AAs")


class HalfLife(Row):
    member = "rna_half_lives.tsv"

    key: Key = Field(alias="id")
    level: Level = Field(alias="half_life (units.min)")


class Abundance(Row):
    """A protein's, in ppm; ``key`` is a b-number."""

    model_config = ConfigDict(strict=False)  # these cells are plain text
    member = "gene_abundance.csv"
    separator = ","

    key: Key = Field(alias="gene")
    level: Level = Field(alias="abundance")


AnyRow = TypeVar("AnyRow", bound=Row)


def rows_by_key(members: Mapping[str, bytes], kind: type[AnyRow]) -> dict[str, AnyRow]:
    """The rows of this kind's table, in its order; ``#`` begins a comment, an empty cell is None.

    Raises DataError, with the line, for a missing column, a line of another number of cells, a cell that is not what
    its column holds, and a key that is there twice.
    """
    text = members[kind.member].decode("utf-8-sig", errors="replace")
    lines = [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), start=1)]
    lines = [(number, line) for number, line in lines if line.strip() and not line.startswith("#")]
    if not lines:
        raise _wrong(kind, 1, "it has no header")
    number, header = lines[0]
    columns = [_value(kind, number, cell) for cell in header.split(kind.separator)]
    wanted = [field.alias or name for name, field in kind.model_fields.items()]
    if missing := sorted(set(wanted) - set(map(str, columns))):
        raise _wrong(kind, number, f"it has no column {', '.join(map(repr, missing))}")
    places = {name: columns.index(name) for name in wanted}
    rows: dict[str, AnyRow] = {}
    for number, line in lines[1:]:
        cells = line.split(kind.separator)
        if len(cells) != len(columns):
            raise _wrong(kind, number, f"it has {len(cells)} cells, but the header has {len(columns)}")
        try:
            row = kind.model_validate({name: _value(kind, number, cells[at]) for name, at in places.items()})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            column = ".".join(map(str, first["loc"]))
            raise _wrong(kind, number, f"{column!r}: {first['msg']}, but got {first['input']!r:.60}") from error
        if row.key in rows:
            raise _wrong(kind, number, f"{row.key!r} is there already")
        rows[row.key] = row
    return rows


def _value(kind: type[Row], number: int, cell: str) -> Any:
    if kind.separator == ",":
        return cell
    try:
        return json.loads(cell) if cell else None
    except (ValueError, RecursionError) as error:
        raise _wrong(kind, number, f"the cell {cell[:60]!r} is no JSON") from error


def _wrong(kind: type[Row], number: int, what: str) -> DataError:
    return DataError(
        f"{kind.member}, line {number}, cannot be read: {what}. Every line must have a cell of the right kind for each "
        f"column of the header, and a key of its own. Get the archive that this source names."
    )
