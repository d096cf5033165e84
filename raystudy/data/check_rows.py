"""A data report in words: its headline, and for each check how many genes it holds for. Page and terminal show both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Found = dict[str, Any]


def headline(found: Found) -> str:
    """What the table is, in two or three sentences."""
    up, down = found["window_bp"]
    num_chromosomes = len(found["chromosomes"])
    where = f"on {_counted(num_chromosomes, 'chromosome')}" if num_chromosomes else "whose places are not known"
    at = "the anchor" if found["anchor"] == "not noted" else f"the {found['anchor']}"
    levels = ", ".join(f"{name} ({one['n']:,})" for name, one in found["targets"].items()) or "none"
    left_out, repaired, unmatched = (
        sum(one["count"] for one in found[kind].values()) for kind in ("dropped", "repaired", "unmatched")
    )
    rows = f", {_counted(unmatched, 'row')} of the given tables without such a gene" if unmatched else ""
    return (
        f"{_counted(found['num_genes'], 'gene')} {where}; {left_out:,} left out, {_counted(repaired, 'repair')}{rows}. "
        f"Windows of {up + down:,} bp, {up:,} before {at}. Genes with a level: {levels}."
    )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def checks(found: Found) -> Iterator[Found]:
    """Rows of ``check`` (what is said), ``genes`` (for how many it holds), ``of`` (looked at) and ``examples``."""
    yield from _coding(found["coding"], found["num_genes"], found["anchor"])
    padding, duplicates, num_genes = found["padding"], found["duplicates"], found["num_genes"]
    for part, what in (
        ("at_ends", "window reaches beyond the chromosome"),
        ("inside", "window holds unknown bases (N)"),
    ):
        one = padding[part]
        longest = f", at most {one['longest_bp']:,} bp" if one["windows"] else ""
        yield _row(f"{what}{longest}", one["windows"], num_genes, one["examples"])
    for part, what in (("ids", "gene id"), ("proteins", "protein"), ("windows", "window")):
        one = duplicates[part]
        yield _row(f"same {what} as another gene", one["genes"], num_genes, one["examples"])
    if families := found["families"]:
        what = f"has relatives ({families['count']:,} families, the largest of {families['largest']:,})"
        yield _row(what, families["genes_with_relatives"], num_genes)
    for one in found["overlap"]:
        if one["located"]:
            length = f"{sum(one['window_bp']):,} bp"
            yield _row(f"window overlaps a neighbour's, at {length}", one["genes"], one["located"])
            yield _row(f"... by more than half, at {length}", one["by_more_than_half"], one["located"])


def _coding(coding: Found, num_genes: int, anchor: str) -> Iterator[Found]:
    """Windows against CDS, CDS by themselves, CDS against proteins."""
    compared, translation = coding["compared"], coding["translation"]
    for key, what in (("empty", "no CDS is given"), ("unreadable", "CDS holds what is no base")):
        if coding[key]["count"]:
            yield _row(what, coding[key]["count"], num_genes, coding[key]["examples"])
    if not compared:
        return
    if anchor != "TSS":
        for strand, (agree, of) in coding["anchor_agrees"].items():
            yield _row(f"window reads the CDS's first codon at its anchor, {strand} strand", agree, of)
        disagrees = coding["anchor_disagrees"]
        yield _row("window reads something else there", disagrees["count"], num_genes, disagrees["examples"])
        for shift, count in coding["anchor_shifts"].items():
            yield _row(f"CDS begins {shift} bp from the anchor", count, num_genes)
    yield _row("CDS ends with a stop codon", compared - coding["stop_codons"]["other"], compared)
    for key, what in (
        ("no_multiple_of_three", "CDS's length is no multiple of three"),
        ("stops_inside", "stop codon inside the CDS"),
    ):
        yield _row(what, coding[key]["count"], compared, coding[key]["examples"])
    codes = " or ".join(map(str, translation["genetic_codes"]))
    yield _row(f"CDS translates to its protein by genetic code {codes}", translation["agree"], translation["compared"])
    for key, what in (("other_length", "translation differs in length only"), ("differ", "translation differs")):
        one, better = translation[key], translation["other_code"] if key == "differ" else None
        hint = f" ({better['agree']} of {better['of']} agree by code {better['genetic_code']})" if better else ""
        yield _row(f"{what}{hint}", one["count"], translation["compared"], one["examples"])


def _row(check: str, genes: int, of: int, examples: Sequence[str] = ()) -> Found:
    return {"check": check, "genes": genes, "of": of, "examples": list(examples)}
