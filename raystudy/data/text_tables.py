"""Tables of text as sequencing tools, R and spreadsheet programs write them: one row a line, under a line of names.

Comment lines (`#`) before the header are skipped, and the last of them is the header where the first line that is none
holds numbers already (PaxDb). Nothing runs on over a line's end: a quote that does not end moves no value to another
row. Between tabs quotes are letters, but for a pair around a whole value (R's); between commas they may hold commas.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from raystudy.data.files import lines
from raystudy.errors import DataError

NO_VALUE = frozenset(
    {"", "na", "n/a", "nan", "-nan", "null", "none"}
    | {"#n/a", "#n/a n/a", "#na", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"}  # of spreadsheets and Windows
)
"""What is no number but none that is known, in lower case and without spaces around it."""
_NO_VALUES = pa.array(sorted(NO_VALUE), pa.large_string())
_TRUTHS = {"true": "1", "false": "0"}
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
_PACKED = (".gz", ".bgz")
_COLUMNAR = (".parquet", ".feather", ".arrow")
# A value in quotes, where two stand for one, or one that begins with none; then a comma or the end.
_BETWEEN_COMMAS = re.compile(r'(?:"([^"]*+(?:""[^"]*+)*+)"|([^",][^,]*+)?)(,|\Z)')
_ROWS_AT_ONCE = 4096
_GCT = "#1.2"
"""First line of Broad's GCT, whose second line counts rows and columns."""


def refusal(path: Path, what: str) -> DataError:
    """What a user's table is not, as the sentence that begins with its path."""
    return DataError(f"The table {str(path)!r} {what}.")


def is_text(path: Path) -> bool:
    """Whether the suffix says text, and not Parquet or Feather. Raises DataError where it says none of these."""
    name = Path(path.name.lower())
    kind = Path(name.stem).suffix if name.suffix in _PACKED else name.suffix
    if kind not in _DELIMITERS and name.suffix not in _COLUMNAR:
        known = f"{', '.join(_COLUMNAR)}, .csv, .tsv (tabs), .txt (tabs), .tab (tabs), the last four also as .gz"
        raise refusal(path, f"has an unknown suffix; known are {known}. Convert or rename it")
    return kind in _DELIMITERS


@dataclass(frozen=True)
class Part:
    """Some rows of the file ``path``: their ``lines`` (from 1), and values by column as written, but for quotes."""

    path: Path
    lines: Sequence[int]
    columns: dict[str, list[str]]

    def numbers(self, name: str, kind: pa.DataType, truths: bool = False) -> pa.Array:
        """A column as numbers of this kind, null or NaN for ``NO_VALUE``; with ``truths`` true is 1 and false 0.

        Raises DataError, with the line, for what is no number. An infinite one is one.
        """
        written = pa.array(self.columns[name], pa.large_string())
        try:
            return written.cast(kind)
        except pa.ArrowInvalid:  # a value that is missing, in most tables
            pass
        written = pc.ascii_trim_whitespace(written)
        lower = pc.ascii_lower(written)
        for word, number in _TRUTHS.items() if truths else ():
            written = pc.if_else(pc.equal(lower, word), number, written)
        written = pc.if_else(pc.is_in(lower, value_set=_NO_VALUES), None, written)
        try:
            return written.cast(kind)
        except pa.ArrowInvalid:
            row = next(row for row in range(len(written)) if not _can_be(kind, written.slice(row, 1)))
            raise refusal(
                self.path,
                f"has {self.columns[name][row][:60]!r} in its column {name!r}, line {self.lines[row]}. That column's "
                "values are numbers with a decimal point, or empty where there is none: correct it, or take out the "
                "column if it is one of texts",
            ) from None


@dataclass(frozen=True)
class TextTable:
    """A header's ``names``, in line ``header_line`` (from 1) of the file ``path``; it is read anew for each question.

    Raises DataError, with the line, for a row that has not as many values as there are names.
    """

    path: Path
    what: str
    delimiter: str
    names: Sequence[str]
    header_line: int

    def texts(self) -> list[str]:
        """The names of the columns in which anything is neither a number nor missing."""
        found = set[int]()
        for _, values in self._rows():
            found.update(place for place, one in enumerate(values) if place not in found and not _is_number(one))
        return [name for place, name in enumerate(self.names) if place in found]

    def columns(self, names: Sequence[str]) -> dict[str, list[str]]:
        """All values of these columns, as of `parts`."""
        columns: dict[str, list[str]] = {name: [] for name in names}
        for part in self.parts(names, _ROWS_AT_ONCE):
            for name, values in part.columns.items():
                columns[name] += values
        return columns

    def parts(self, names: Sequence[str], num_rows: int) -> Iterator[Part]:
        """These columns, so many rows at a time at most, and no more than these in memory.

        Raises DataError, with the line, for what cannot be meant: a name that two columns have, a quote that does not
        end, bytes that are no UTF-8.
        """
        places = [self._place(name) for name in names]
        rows = ((number, [values[place] for place in places]) for number, values in self._rows())
        while some := list(islice(rows, num_rows)):
            numbers, chosen = zip(*some, strict=True)
            columns = dict(zip(names, map(list, zip(*chosen, strict=True)), strict=True))
            part = Part(self.path, numbers, columns)
            for name in names:
                _check_whole(part, name)
            yield part

    def _place(self, name: str) -> int:
        if self.names.count(name) != 1:
            count = self.names.count(name) or "no"
            raise refusal(self.path, f"has {count} columns {name!r} (line {self.header_line}). Rename or remove them")
        return self.names.index(name)

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        for number, line in _lines(self.path, self.what):
            if number <= self.header_line:
                continue
            values = _split(self.path, number, line, self.delimiter)
            if len(values) != len(self.names):
                raise refusal(
                    self.path,
                    f"has {len(values)} values in line {number}, but {len(self.names)} columns in its header (line "
                    f"{self.header_line}). Correct that line",
                )
            yield number, values


def text_table(path: Path, what: str) -> TextTable:
    """Find the header. Raises DataError where there is none, or it does not fit the suffix or the rows.

    ``what`` is what the messages call the table.
    """
    numbered = _lines(path, what)
    comment, comment_line = "", 0
    for number, line in numbered:
        if not line.startswith("#"):
            break
        comment, comment_line = line, number
        if number == 1 and line.strip() == _GCT:
            next(numbered, None)
    else:
        raise refusal(path, "is empty: it has no line of column names. Check that it is whole")
    delimiter = _delimiter(path, line)
    names = _split(path, number, line, delimiter)
    commented = _split(path, comment_line, comment.removeprefix("#"), delimiter)
    if len(commented) == len(names) > 1 and any(one.strip() and _is_number(one) for one in names):
        return TextTable(path, what, delimiter, commented, comment_line)
    first = next(numbered, None)
    if first is not None:
        values = _split(path, *first, delimiter)
        if len(values) == len(names) + 1 and values[-1]:
            raise refusal(
                path,
                f"has {len(values)} values in line {first[0]}, but {len(names)} columns in its header (line {number}). "
                "Row names without a name, as R writes them? Put `gene_id` and a separator before the header, or write "
                f"it with `col.names = NA`. Or does a value hold a {delimiter!r}? Put it in quotes, or take it out",
            )
    return TextTable(path, what, delimiter, names, number)


def _lines(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank; one of tabs or commas is a row without values."""
    return ((number, line) for number, line in lines(path, f"the {what}") if line.strip(" "))


def _delimiter(path: Path, header: str) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _PACKED]
    suffix = suffixes[-1] if suffixes else ""
    delimiter = _DELIMITERS.get(suffix) or ("\t" if "\t" in header else "")
    if not delimiter:
        raise refusal(
            path,
            f"has no suffix that says what parts its columns, and no tabs in its header {header[:60]!r}. Known are "
            ".tsv, .txt, .tab (tabs) and .csv (commas), each also gzipped; Parquet and Feather are known by content. "
            "Rename or convert it",
        )
    if delimiter not in header and (other := re.search(r"[\t,; |]", header.strip())):
        raise refusal(
            path,
            f"has one column only, {header.strip()[:60]!r}: its columns seem to be parted by {other[0]!r} and not by "
            f"{delimiter!r}, which the suffix {suffix!r} stands for. Rename or convert it",
        )
    return delimiter


def _split(path: Path, number: int, line: str, delimiter: str) -> list[str]:
    if '"' not in line:
        return line.split(delimiter)
    if delimiter == "\t":
        return [
            one[1:-1].replace('""', '"') if len(one) > 1 and one[0] == one[-1] == '"' else one
            for one in line.split("\t")
        ]
    values, at = list[str](), 0
    while found := _BETWEEN_COMMAS.match(line, at):
        quoted, bare, end = found.groups()
        values.append((bare or "") if quoted is None else quoted.replace('""', '"'))
        if not end:
            return values
        at = found.end()
    raise refusal(
        path,
        f"has a quote in line {number} that does not end there, or is misplaced: {line[:60]!r}. A row is "
        "one line: correct it, or leave out the column of texts that run over several",
    )


def _check_whole(part: Part, name: str) -> None:
    together = "\n".join(part.columns[name])
    if '"' not in together and "\ufffd" not in together:
        return
    for number, one in zip(part.lines, part.columns[name], strict=True):
        if "\ufffd" in one or one.startswith('"'):
            wrong = "bytes that are no UTF-8" if "\ufffd" in one else "a quote that does not end"
            raise refusal(
                part.path, f"has {wrong} in its column {name!r}, line {number}: {one[:60]!r}. Correct that line"
            )


def _can_be(kind: pa.DataType, one: pa.Array) -> bool:
    try:
        one.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _is_number(written: str) -> bool:
    try:
        return written.strip().casefold() in NO_VALUE or not math.isnan(float(written))
    except ValueError:
        return False
