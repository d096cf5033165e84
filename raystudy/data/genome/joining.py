"""Joining a user's tables and proteins with the genes of an annotation: by id, and why it failed where it did."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from raystudy.data.findings import Findings
from raystudy.data.genome.transcripts import Transcript
from raystudy.errors import DataError

FEWEST_MATCHING = 0.05
"""Share of a table's ids below which it is not the annotation's: chance, or a few symbols that are ids too."""

# Ensembl's (ENSG00000141510.16, lifted ones with _2), RefSeq's (NP_414542.1) and INSDC's (DAA06918.1). Not any
# number after a point: C. elegans' F52H2.2 and F52H2.3 are two genes.
_VERSIONED = re.compile(r"((?:ENS[A-Z]*|[A-Z]{2}_|[A-Z]{3})\d{5,})\.\d+(?:_\d+)?")


def without_version(name: str) -> str:
    """The id of an Ensembl, RefSeq or INSDC record without its version; any other text as it is."""
    match = _VERSIONED.fullmatch(name)
    return match[1] if match else name


class Rows:
    """A table's rows by id, found exactly or, where only versions differ, without them."""

    def __init__(self, path: Path, ids: Sequence[str]) -> None:
        self.path = path
        self.ids = ids
        self._exact = {one: row for row, one in enumerate(ids)}
        self._bare: dict[str, list[int]] = {}
        for row, one in enumerate(ids):
            self._bare.setdefault(without_version(one), []).append(row)

    def row(self, gene_id: str) -> int | None:
        """The gene's row. Raises DataError where two rows are one gene but for their version."""
        if (row := self._exact.get(gene_id)) is not None:
            return row
        rows = self._bare.get(without_version(gene_id), [])
        if len(rows) > 1:
            raise DataError(
                f"{self.path}: the ids {self.ids[rows[0]]!r} and {self.ids[rows[1]]!r} are one gene, {gene_id!r}, but "
                "for their version suffixes. Keep one row a gene"
            )
        return rows[0] if rows else None

    def check(self, transcripts: Sequence[Transcript], findings: Findings) -> None:
        """Count what is joined without its version, and ids without a gene: of RNA, of a dropped gene, of none at all.

        Raises DataError, with the cause where one is found, when under 5 % of the table's ids are genes'.
        """
        found = {one.gene_id: row for one in transcripts if (row := self.row(one.gene_id)) is not None}
        matched = set(found.values())
        if len(matched) < max(FEWEST_MATCHING * len(self.ids), 1):
            raise DataError(
                f"only {len(matched):,} of the {len(self.ids):,} ids of {self.path} are genes of the annotation: its "
                f"ids are like {self.ids[0]!r}, the annotation's gene ids like {transcripts[0].gene_id!r}. "
                f"{self._cause(transcripts)}"
            )
        for gene_id, row in found.items():
            if self.ids[row] != gene_id:
                findings.repair(f"joined with {self.path.name} without the version suffix", gene_id)
        for row, one in enumerate(self.ids):
            if row not in matched:
                findings.unmatch(f"ids of {self.path.name} without a usable coding gene", one)

    def _cause(self, transcripts: Sequence[Transcript]) -> str:
        """The kind of name that most of the table's ids are, and what to do then."""
        wanted = {without_version(one): one for one in self.ids}
        most, cause = FEWEST_MATCHING * len(wanted), "Write the annotation's gene ids into it, or name another column"
        for kind, (what_to_do, names) in _OTHER_NAMES.items():
            known = {without_version(name): one.gene_id for one in transcripts for name in names(one) if name}
            if len(both := wanted.keys() & known.keys()) > most:
                most, one = len(both), min(both)
                cause = f"{len(both):,} are {kind} ({wanted[one]!r} is of {known[one]!r}): {what_to_do}"
        folded = {one.gene_id.casefold(): one.gene_id for one in transcripts}
        if len(alike := [one for one in self.ids if one.casefold() in folded]) > most:
            pair = f"{alike[0]!r} is {folded[alike[0].casefold()]!r}"
            cause = f"{len(alike):,} differ in upper and lower case only ({pair}): write them alike"
        gene_ids = {one.gene_id for one in transcripts}
        if len(alike := [one for one in self.ids if _number_less(one) in gene_ids]) > most:
            cause = (
                f"{len(alike):,} are gene ids but for what seems a version suffix ({alike[0]!r} is "
                f"{_number_less(alike[0])!r}): take it away"
            )
        return cause


def _number_less(name: str) -> str:
    return re.sub(r"\.\d+$", "", name)


_ONE_ROW_A_GENE = "make it one row a gene, under the annotation's gene ids"
_OTHER_NAMES: dict[str, tuple[str, Callable[[Transcript], Iterable[str]]]] = {
    "symbols of genes": ("give `--gene-id symbol`", lambda one: [one.symbol]),
    "transcripts' ids": (_ONE_ROW_A_GENE, lambda one: [one.transcript_id]),
    "proteins' ids": (_ONE_ROW_A_GENE, lambda one: [one.protein_id]),
    "other names of genes": (
        "let `--gene-id` name the attribute that holds them, or write the annotation's gene ids",
        lambda one: one.aliases,
    ),
}
