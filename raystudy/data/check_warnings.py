"""What a data report found that looks wrong, in sentences: what was seen, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Found = dict[str, Any]

LENGTH_UNIT = "log10(bp + 0.1)"
"""Of the half-life features that are lengths."""

BUILT_IN = ("yeast", "ecoli", "synthetic")
"""Sources whose windows cannot be put elsewhere."""
MANY_DROPPED = 0.2
FEW_GENES = 100
ALMOST_ALL = 0.95
SOME = 0.01
MANY_PADDED = 0.05
"""Share of the windows' bases that lie beyond a chromosome's end."""
DENSE = 0.1
SKEWED = 3.0
TIED, TIMES_NEXT = 0.01, 3
"""A value that so many have, and so many times as many as any other, is a default."""
TIED_UTR = 0.05
ALIKE = 0.999


def warnings(found: Found) -> Iterator[str]:
    """Sentences about the data report that `check_table` makes, the gravest first."""
    yield from _genes(found)
    if not found["num_genes"]:
        return
    yield from _anchors(found)
    yield from _coding(found)
    for name, target in found["targets"].items():
        yield from _target(name, target, found["num_genes"])
    yield from _targets(found)
    yield from _sequences(found)
    yield from _features(found)


def percent(part: float, whole: float) -> str:
    """A share in words that never round something to nothing, nor almost all to all."""
    share = 100 * part / whole
    if 0 < share < 1:
        return "under 1 %"
    return "over 99 %" if 99 < share < 100 else f"{share:.0f} %"


def _such(counted: Found) -> str:
    if not counted["examples"]:
        return ""
    return f" ({', '.join(counted['examples'])}{', ...' if counted['count'] > len(counted['examples']) else ''})"


def _genes(found: Found) -> Iterator[str]:
    kept, dropped = found["num_genes"], found["dropped"]
    if not kept:
        most = next(iter(dropped), "no reason was noted")
        yield f"No gene is left; the most frequent reason is: {most}. Correct that first."
    for reason, counted in dropped.items():
        if kept and counted["count"] > MANY_DROPPED * (kept + counted["count"]):
            yield (
                f"{counted['count']:,} were left out for one reason: {reason}{_such(counted)}. "
                f"Where that is not meant, correct the file that it speaks of and prepare again."
            )
    if 0 < kept < FEW_GENES:
        yield f"There are only {kept} genes: scores on so few test genes say little. Bring more where there are more."
    ids = found["duplicates"]["ids"]
    if ids["genes"]:
        yield (
            f"{ids['genes']} genes share their id with another ({', '.join(ids['examples'])}): such a table is not "
            f"written. Give each its own, or choose another attribute for the id."
        )
    strands = found["strands"]
    if kept >= FEW_GENES and len(strands) == 1 and "" not in strands:
        yield (
            f"All genes are on the {next(iter(strands))} strand, which no genome has: "
            f"the annotation's strands were probably lost. Look at that column."
        )


def _anchors(found: Found) -> Iterator[str]:
    coding = found["coding"]
    by_strand = {strand: pair for strand, pair in coding["anchor_agrees"].items() if pair[1]}
    agree, compared = (sum(pair[part] for pair in by_strand.values()) for part in (0, 1))
    if found["anchor"] == "start codon" and agree < ALMOST_ALL * compared:
        shares = ", ".join(f"{percent(*pair)} on the {strand} strand" for strand, pair in by_strand.items())
        shifts = [f"{count:,} CDS begin {shift} bp from it" for shift, count in coding["anchor_shifts"].items()]
        yield (
            f"Only {percent(agree, compared)} of the windows read the CDS's first codon at their anchor ({shares})"
            f"{': ' if shifts else ''}{', '.join(shifts)}. "
            f"Coordinates may be 0-based, of another assembly, or on the wrong strand: check the annotation's origin."
        )
    starts = coding["codons_at_anchor"]
    if found["anchor"] == "TSS" and starts["ATG"] > 0.5 * max(sum(starts.values()), 1):
        yield (
            f"The windows are said to stand at the TSS, but {percent(starts['ATG'], sum(starts.values()))} read ATG "
            f"there: these are start codons. Give an annotation or a TSS table with real 5' ends."
        )
    utr5 = found["features"]["utr5_length"]
    if found["anchor"] == "start codon" and found["source"] not in BUILT_IN and utr5["n"]:
        no_utr5 = utr5["most_frequent"]["count"] if utr5["most_frequent"]["value"] < 0 else 0
        annotated = utr5["n"] - no_utr5
        if annotated > 0.5 * found["num_genes"]:
            yield (
                f"5'UTRs are annotated for {percent(annotated, found['num_genes'])} of the genes, but the windows "
                f"stand at the start codon: `--anchor tss` puts them where transcription starts."
            )


def _coding(found: Found) -> Iterator[str]:
    coding, translation = found["coding"], found["coding"]["translation"]
    compared = coding["compared"]
    if coding["unreadable"]["count"]:
        yield (
            f"{coding['unreadable']['count']} CDS hold what is no base{_such(coding['unreadable'])}: "
            f"codons cannot be read from them. Correct or leave out these genes."
        )
    if not compared:
        return
    other = coding["first_codons"]["other"]
    if other > 0.05 * compared:
        yield (
            f"{percent(other, compared)} of the CDS begin with neither ATG, GTG nor TTG: their ends may be missing, "
            f"or their frame or strand wrong."
        )
    if coding["stop_codons"]["other"] > 0.05 * compared:
        yield (
            f"{percent(coding['stop_codons']['other'], compared)} of the CDS do not end with a stop codon: the "
            f"annotation may leave it out, cut the CDS short, or use another genetic code."
        )
    for key, what in (
        ("no_multiple_of_three", "have no multiple of three bases"),
        ("stops_inside", "have stops inside"),
    ):
        if coding[key]["count"] > SOME * compared:
            yield (
                f"{coding[key]['count']:,} CDS ({percent(coding[key]['count'], compared)}) {what}"
                f"{_such(coding[key])}: pseudogenes, frameshifts, another genetic code, or another assembly."
            )
    differ, better = translation["differ"], translation["other_code"]
    if differ["count"] > SOME * translation["compared"]:
        hint = "the protein file may be of another release, or the CDS of another frame or strand"
        if better:
            code = better["genetic_code"]
            hint = f"by genetic code {code}, {better['agree']} of {better['of']} would agree: `--genetic-code {code}`"
        yield (
            f"{differ['count']:,} proteins ({percent(differ['count'], translation['compared'])}) are not what their "
            f"CDS says by genetic code {' or '.join(map(str, translation['genetic_codes']))}{_such(differ)}: {hint}."
        )


def _target(name: str, target: Found, num_genes: int) -> Iterator[str]:
    known = target["n"]
    if target["infinite"]:
        yield f"{name}: {target['infinite']} levels are infinite, so missing: a logarithm of 0? Add a pseudo-count."
    if known < 0.5 * num_genes:
        yield f"{name}: only {known:,} of {num_genes:,} genes have a level. Do the table's ids fit the annotation's?"
    if not known:
        return
    if target["constant"]:
        yield f"{name}: all {known:,} levels are {target['min']:.4g}: there is nothing to predict. Look at its column."
        return
    ties = target["most_frequent"]
    if ties["count"] >= max(TIED * known, 5) and ties["count"] >= TIMES_NEXT * ties["next"]:
        what = "a default that was filled in? Leave these genes out, or their level empty"
        level = target["pseudo_count_level"]
        if level is not None and abs(ties["value"] - level) < 1e-3:
            what = "the pseudo-count itself, so nothing was detected: leave them out, or expect a spike to be fitted"
        elif ties["value"] == target["min"]:
            what = "the lowest level, so not detected, or a default? Leave these genes out, or their level empty"
        holders = f"{ties['count']:,} genes ({percent(ties['count'], known)})"
        yield f"{name}: {holders} have the very level {ties['value']:.6g}: {what}."
    if target["skewness"] is not None and target["skewness"] > SKEWED:
        yield (
            f"{name}: the levels look unlogged (skewness {target['skewness']:.1f}, median {target['median']:.3g}, "
            f"largest {target['max']:.3g}): a few genes would decide every score. Give their logarithm."
        )
    if target["integers"]:
        yield f"{name}: all levels are whole numbers: raw counts, ranks or classes? Give the logarithm of a level."


def _targets(found: Found) -> Iterator[str]:
    if not found["targets"]:
        yield "There is no target: nothing can be trained on this data. Name a column of the expression table."
    for one in found["correlations"]:
        if one["pearson"] is not None and abs(one["pearson"]) > ALIKE:
            both = " and ".join(one["targets"])
            yield f"{both} are one and the same (r = {one['pearson']:.4f}): was a column given twice?"


def _sequences(found: Found) -> Iterator[str]:
    num_genes, padding, duplicates = found["num_genes"], found["padding"], found["duplicates"]
    if padding["at_ends"]["share_of_bases"] > MANY_PADDED:
        yield (
            f"{percent(padding['at_ends']['windows'], num_genes)} of the windows reach beyond their chromosome's end, "
            f"{percent(padding['at_ends']['share_of_bases'], 1)} of all bases are such padding: short contigs? "
            f"A shorter `window_bp` in the study file reads less of it."
        )
    if padding["inside"]["share_of_bases"] > SOME:
        yield (
            f"{percent(padding['inside']['share_of_bases'], 1)} of the windows' bases are unknown (N): "
            f"a masked assembly? Give one with lower-case (soft) masking, whose bases are read."
        )
    if duplicates["windows"]["genes"]:
        yield (
            f"{duplicates['windows']['genes']} genes have the same window as another "
            f"({', '.join(duplicates['windows']['examples'][:2])}): copies in the assembly, or one gene twice?"
        )
    relatives = found["families"]["genes_with_relatives"] if found["families"] else 0
    if relatives > DENSE * num_genes:
        yield (
            f"{percent(relatives, num_genes)} of the genes have relatives in the genome, "
            f"{duplicates['proteins']['genes']:,} genes the very same protein as another: "
            f"`split: {{by: block}}` or `family` keeps a family on one side."
        )
    shares = [
        f"{percent(one['genes'], one['located'])} at {sum(one['window_bp']):,} bp"
        for one in found["overlap"]
        if one["genes"] > DENSE * one["located"]
    ]
    if shares:
        yield (
            f"Windows overlap a neighbouring gene's: {', '.join(shares)}. Genes side by side must not be parted: "
            f"`split: {{by: block}}` (the default) sees to it, `family` and `random` leak."
        )
    if unlocated := num_genes - found["overlap"][0]["located"]:
        yield (
            f"{unlocated:,} genes have no position, so whether windows overlap cannot be told: "
            f"`split: {{by: block}}` is not possible, `published` or, where there are proteins, `family` may be."
        )


def _features(found: Found) -> Iterator[str]:
    features, num_genes = found["features"], found["num_genes"]
    absent = [name for name, one in features.items() if not one["n"]]
    in_part = {name: one["missing"] for name, one in features.items() if one["n"] and one["missing"]}
    if absent:
        utr = any(name.startswith("utr") for name in absent)
        yield (
            f"Missing for all genes: {', '.join(absent)}. They say nothing to a model"
            f"{'; an annotation with exons beyond the CDS, or a table of UTRs, would give the UTRs' if utr else ''}."
        )
    if in_part:
        share = percent(sum(in_part.values()), num_genes * len(in_part))
        yield (
            f"{share} of the values of {', '.join(in_part)} are missing: they are read as the training genes' mean; "
            f"`half_life_missing: indicator` in the study file marks them."
        )
    if constant := [f"{name} ({one['min']:.3g})" for name, one in features.items() if one["n"] and one["constant"]]:
        yield f"The same for all genes that have it: {', '.join(constant)}. It says nothing to a model, and harms none."
    for name in ("utr5_length", "utr3_length"):
        one = features[name]
        if not one["n"] or one["constant"] or one["unit"] != LENGTH_UNIT:
            continue
        ties = one["most_frequent"]
        if ties["count"] >= max(TIED_UTR * one["n"], 5) and ties["count"] >= TIMES_NEXT * ties["next"]:
            length_bp = round(10 ** ties["value"] - 0.1)
            what = "a length that was filled in or cut off tells which genes were not measured"
            if length_bp == 0:
                what = "right within operons, but where it means that none was annotated, it tells just that"
            yield (
                f"{name}: {percent(ties['count'], one['n'])} of the known ones are {length_bp} bp: {what}. "
                f"Leave it empty there."
            )
