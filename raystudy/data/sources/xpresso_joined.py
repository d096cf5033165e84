"""Proteins and levels for genes that are known by their Ensembl ids only."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raystudy.data.fasta import fasta_records
from raystudy.data.files import open_text
from raystudy.data.findings import Findings
from raystudy.data.genes import Target
from raystudy.data.genome.expression import Expression, parse_formulas, read_expression
from raystudy.data.genome.joining import FEWEST_MATCHING, Rows, without_version
from raystudy.errors import DataError, SpecError

_GENE = re.compile(r"\bgene:(\S+)|(?:^|\|)(ENS[A-Z]*G\d{11}(?:\.\d+)?)(?=\||\s|$)")
"""A protein's gene in a header of Ensembl (`ENSP... pep ... gene:ENSG...`) or GENCODE (`ENSP...|ENST...|ENSG...|`)."""


@dataclass(frozen=True)
class Joined:
    """``rows`` int64 are those of the genes that every file has; ``proteins`` are by gene id."""

    rows: NDArray[np.int64]
    proteins: Mapping[str, str]
    levels: Mapping[str, Target]
    """By target, one value for each row of the table of levels."""
    level_rows: Mapping[str, int]

    def targets(self, gene_ids: Sequence[str]) -> dict[str, Target]:
        found = [self.level_rows[gene] for gene in gene_ids] if self.levels else []
        return {name: Target(one.values[found], one.unit) for name, one in self.levels.items()}


def join(
    genes: Sequence[str],
    proteins: Path | None,
    expression: Path | None,
    target: Sequence[str],
    id_column: str | None,
    findings: Findings,
) -> Joined:
    """Each gene's longest protein, and its row in the table of levels; genes that a file lacks are counted as dropped.

    Raises DataError where a file cannot be read or shares too few genes with these; SpecError where ``expression`` and
    ``target`` do not go together, or a formula is none.
    """
    if (expression is None) != (not target):
        raise SpecError(
            f"a table of levels and the targets made of it go together, but got {str(expression)!r} and "
            f"{list(target)}. Give both `--expression TABLE` and `--target 'protein=log10(COLUMN)'`, or neither"
        )
    texts, rows = dict[str, str](), dict[str, int]()
    levels: Mapping[str, Target] = {}
    needed: dict[str, Collection[str]] = {}
    if proteins is not None:
        texts = _longest_proteins(proteins, genes, findings)
        needed[f"no protein in {proteins.name}"] = texts
    if expression is not None:
        table = read_expression(expression, parse_formulas(target), id_column, findings)
        levels, rows = table.targets, _level_rows(table, genes)
        needed[f"no level in {expression.name}"] = rows
    return Joined(_rows_with_all(genes, needed, findings), texts, levels, rows)


def _rows_with_all(
    genes: Sequence[str], needed: Mapping[str, Collection[str]], findings: Findings
) -> NDArray[np.int64]:
    """A gene that lacks several things is counted for the first reason."""
    rows = list[int]()
    for row, gene in enumerate(genes):
        reason = next((reason for reason, found in needed.items() if gene not in found), None)
        if reason is None:
            rows.append(row)
        else:
            findings.drop(reason, gene)
    return np.array(rows, dtype=np.int64)


def _longest_proteins(path: Path, genes: Sequence[str], findings: Findings) -> dict[str, str]:
    """Of the genes that have one, the longest without a stop inside; of several so long that with the first id."""
    best: dict[str, tuple[int, str, str]] = {}  # the least of: length, negative; id; sequence
    in_file, wanted = set[str](), set(genes)
    with open_text(path, "FASTA") as file:
        for header, sequence in fasta_records(path, file):
            name, text = header.split(maxsplit=1)[0] if header.strip() else "", sequence.upper().removesuffix("*")
            named = _GENE.search(header)
            gene = without_version((named[1] or named[2]) if named else name)
            in_file.add(gene)
            if gene not in wanted or not text:
                continue
            if "*" in text:
                findings.repair("a protein with a stop inside is left aside", f"{gene} {name}")
            else:
                found = (-len(text), name, text)
                best[gene] = min(found, best.get(gene, found))
    _check_joined(path, sorted(in_file), wanted & in_file, genes)
    return {gene: text for gene, (_, _, text) in best.items()}


def _level_rows(levels: Expression, genes: Sequence[str]) -> dict[str, int]:
    """The row of each gene that has a level in the table."""
    table = Rows(levels.path, levels.ids)
    found = {gene: row for gene in genes if (row := table.row(gene)) is not None}
    _check_joined(levels.path, levels.ids, found, genes)
    has_any = levels.has_any
    return {gene: row for gene, row in found.items() if has_any[row]}


def _check_joined(path: Path, ids: Sequence[str], found: Collection[str], genes: Sequence[str]) -> None:
    if len(found) < FEWEST_MATCHING * min(len(genes), len(ids)) or not found:
        raise DataError(
            f"{path} has {len(found)} of the {len(genes)} genes of the published files: its {len(ids)} ids are like "
            f"{ids[0]!r}, theirs like {genes[0]!r}. Name its genes as they do, or name the column of such ids with "
            "`--id-column`"
        )
