"""Whether coding sequences read as such: against the window at its anchor, the genetic code and the protein.

Every gene is looked at, none is changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from Bio.Data.CodonTable import unambiguous_dna_by_id
from numpy.typing import NDArray

from raystudy.data.encode import DNA_SYMBOLS, DNA_UNKNOWN, PROTEIN_AMBIGUOUS, STOP_CODONS, Tokens, tokenize_dna
from raystudy.data.findings import EXAMPLES
from raystudy.data.genes import GeneTable
from raystudy.data.genome.proteins import translated
from raystudy.errors import DataError

START_CODONS = ("ATG", "GTG", "TTG")
VERDICTS = ("agree", "other_length", "differ")
_PROBE_BP = 12  # so long a text stands at a wrong place by chance once in 16 million
_SHIFTS_BP = (-3, -2, -1, 1, 2, 3)
_MOST_RETRANSLATED = 50  # genes on which other genetic codes are tried
_UNKNOWN = ord("X")
_STOP = ord("*")
_ANY_RESIDUE, _READ_ON = (  # bool [256] by letter; the latter may stand where the genetic code has a stop
    np.isin(np.arange(256), list(letters.encode())) for letters in (f"X{PROTEIN_AMBIGUOUS}", "UOX")
)


def check_coding(table: GeneTable) -> dict[str, Any]:
    """Start codons, where the windows stand, stop codons, frames and translations of all genes, counted.

    ``anchor_agrees`` is strand -> [genes whose window reads the CDS's first codon at its anchor, genes compared];
    ``anchor_shifts`` counts those of the others whose CDS begins some bases after (+) or before (-) the anchor.
    The genetic code is what the table notes as ``genetic_code``, 1 by default; of several (a nucleus and mitochondria)
    that one counts for a gene by which it fits best.
    """
    codes = [int(number) for number in np.atleast_1d(table.notes.get("genetic_code") or 1)]
    heads, unreadable = _heads(table)
    readable = [row for row, text in enumerate(table.cds) if text and row not in unreadable]
    stops = Counter(_stop_codon(table.cds[row]) for row in readable)
    torn = [row for row in readable if len(table.cds[row]) % 3]
    return {
        "compared": len(readable),
        "empty": _named([row for row, text in enumerate(table.cds) if not text], table),
        "unreadable": _named(unreadable, table),
        "first_codons": _codon_counts(heads[readable, :3]),
        "codons_at_anchor": _codon_counts(table.windows[:, table.anchor : table.anchor + 3]),
        **_anchors(table, heads),
        "stop_codons": {codon: stops.get(codon, 0) for codon in (*STOP_CODONS, "other")},
        "no_multiple_of_three": _named(torn, table),
        **_translations(table, readable, codes),
    }


def _named(rows: Sequence[int], table: GeneTable) -> dict[str, Any]:
    return {"count": len(rows), "examples": [table.gene_ids[row] for row in rows[:EXAMPLES]]}


def _heads(table: GeneTable) -> tuple[Tokens, list[int]]:
    """The first bases of each CDS, N where there is none, uint8 [n, 12]; and the rows of those that are not DNA."""
    heads = np.full((len(table.cds), _PROBE_BP), DNA_UNKNOWN, dtype=np.uint8)
    unreadable = []
    for row, text in enumerate(table.cds):
        try:
            tokens = tokenize_dna(text)
        except DataError:
            unreadable.append(row)
            continue
        heads[row, : len(tokens)] = tokens[:_PROBE_BP]
    return heads, unreadable


def _codon_counts(codons: Tokens) -> dict[str, int]:
    """Of codons as tokens [n, 3], the known ones: the common start codons, and all others together."""
    known = codons[(codons != DNA_UNKNOWN).all(axis=1)] if codons.shape[1] == 3 else codons[:0]
    texts = Counter("".join(DNA_SYMBOLS[token] for token in codon) for codon in known.tolist())
    return {codon: texts.pop(codon, 0) for codon in START_CODONS} | {"other": texts.total()}


def _anchors(table: GeneTable, heads: Tokens) -> dict[str, Any]:
    """Where the CDS begin in the windows."""
    anchor, length = table.anchor, table.windows.shape[1]
    strands = np.array(table.strands, dtype=np.str_)
    first = heads[:, :3]
    at_anchor = table.windows[:, anchor : anchor + 3]
    if at_anchor.shape[1] < 3:
        at_anchor = np.full_like(first, DNA_UNKNOWN)
    compared = ((first != DNA_UNKNOWN) & (at_anchor != DNA_UNKNOWN)).all(axis=1)
    agrees = compared & (first == at_anchor).all(axis=1)
    elsewhere = np.flatnonzero(compared & ~agrees & (heads != DNA_UNKNOWN).all(axis=1))
    shifts = {}
    for shift in _SHIFTS_BP:
        begin = anchor + shift
        if begin >= 0 and begin + _PROBE_BP <= length:
            there = table.windows[elsewhere, begin : begin + _PROBE_BP]
            shifts[f"{shift:+d}"] = np.count_nonzero((there == heads[elsewhere]).all(axis=1))
    return {
        "anchor_agrees": {
            strand: [np.count_nonzero(agrees[strands == strand]), np.count_nonzero(compared[strands == strand])]
            for strand in ("+", "-")
        },
        "anchor_disagrees": _named(np.flatnonzero(compared & ~agrees).tolist(), table),
        "anchor_shifts": {shift: count for shift, count in shifts.items() if count},
    }


def _stop_codon(cds: str) -> str:
    last = cds[len(cds) // 3 * 3 - 3 : len(cds) // 3 * 3].upper()
    return last if last in STOP_CODONS else "other"


def _compare(cds: str, protein: str, genetic_code: int) -> tuple[str, bool]:
    """One of ``VERDICTS`` (``other_length``: one is the beginning or the end of the other); and whether a stop codon
    stands inside where the protein has no residue that is read from one."""
    texts = translated(cds.upper(), genetic_code), protein.upper()
    if texts[0] == texts[1] and "*" not in texts[0]:  # nearly always
        return ("agree" if protein else "differ"), False
    translation, given = (np.frombuffer(text.encode("latin-1", "replace"), np.uint8) for text in texts)
    shorter = min(len(translation), len(given))
    stops = translation == _STOP
    stops[:shorter] &= ~_READ_ON[given[:shorter]]
    begins = _fit(translation[:shorter], given[:shorter])
    ends = _fit(translation[len(translation) - shorter :], given[len(given) - shorter :])
    if shorter and len(translation) == len(given) and begins:
        return "agree", bool(stops.any())
    return "other_length" if shorter and (begins or ends) else "differ", bool(stops.any())


def _fit(translation: NDArray[np.uint8], given: NDArray[np.uint8]) -> bool:
    read_on = (translation == _STOP) & _READ_ON[given]
    return bool(((translation == given) | (translation == _UNKNOWN) | _ANY_RESIDUE[given] | read_on).all())


def _translations(table: GeneTable, readable: Sequence[int], numbers: Sequence[int]) -> dict[str, Any]:
    """The CDS translated: how that compares with the proteins, and which other code would fit those that differ."""
    rows: dict[str, list[int]] = {verdict: [] for verdict in VERDICTS}
    stopped = []
    for row in readable:
        verdicts = [_compare(table.cds[row], table.proteins[row], number) for number in numbers]
        verdict, stops_inside = min(verdicts, key=lambda one: VERDICTS.index(one[0]))
        if table.proteins[row]:
            rows[verdict].append(row)
        if stops_inside:
            stopped.append(row)
    return {
        "stops_inside": _named(stopped, table),
        "translation": {
            "genetic_codes": numbers,
            "compared": sum(map(len, rows.values())),
            "agree": len(rows["agree"]),
            "other_length": _named(rows["other_length"], table),
            "differ": _named(rows["differ"], table),
            "other_code": _better_code(table, rows["differ"][:_MOST_RETRANSLATED]),
        },
    }


def _better_code(table: GeneTable, rows: Sequence[int]) -> dict[str, int] | None:
    """The code by which most of these genes' CDS give their proteins, where it is most of them."""
    best: dict[str, int] | None = None
    most = len(rows) / 2
    for number in unambiguous_dna_by_id if rows else ():
        agree = sum(_compare(table.cds[row], table.proteins[row], number)[0] == "agree" for row in rows)
        if agree > most:
            most, best = agree, {"genetic_code": number, "agree": agree, "of": len(rows)}
    return best
