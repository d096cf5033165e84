"""Tables of text as sequencing tools, R and spreadsheet programs write them: one row a line, under a line of names.

Comment lines (`#`) before the header are skipped, and the last of them is the header where the first line that is none
holds numbers already (PaxDb). Nothing runs on over a line's end: a quote that does not end moves no value to another
row. Between tabs quotes are letters, but for a pair around a whole value (R's); between commas they may hold commas.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from raystudy.data.files import lines
from raystudy.errors import DataError

NO_VALUE = frozenset({"", "na", "n/a", "nan", "null", "none"})
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
_GCT = "#1.2"
"""First line of Broad's GCT, whose second line counts rows and columns."""


def refusal(path: Path, what: str) -> DataError:
    """What a user's table is not, as the sentence that begins with its path."""
    return DataError(f"The table {str(path)!r} {what}.")


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
        """The values of these columns as written, but for quotes. Raises DataError for what cannot be meant."""
        places = {name: self.names.index(name) for name in names}
        columns: dict[str, list[str]] = {name: [] for name in names}
        for number, values in self._rows():
            for name, place in places.items():
                one = values[place]
                if "\ufffd" in one or one.startswith('"'):
                    wrong = "bytes that are no UTF-8" if "\ufffd" in one else "a quote that does not end"
                    raise refusal(
                        self.path, f"has {wrong} in its column {name!r}, line {number}: {one[:60]!r}. Correct that line"
                    )
                columns[name].append(one)
        return columns

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
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in (".gz", ".bgz")]
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
    if delimiter == "\t":
        return [one[1:-1] if len(one) > 1 and one[0] == one[-1] == '"' else one for one in line.split("\t")]
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [""])
    except csv.Error as error:
        raise refusal(
            path,
            f"has a quote in line {number} that does not end there, or is misplaced ({error}): {line[:60]!r}. A row is "
            "one line: correct it, or leave out the column of texts that run over several",
        ) from error


def _is_number(written: str) -> bool:
    try:
        return written.strip().casefold() in NO_VALUE or not math.isnan(float(written))
    except ValueError:
        return False
