"""Each thing that can be wrong with a gene table is put into a good one, and must be found there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from raystudy.data.check import check_table
from raystudy.data.check_warnings import percent
from raystudy.data.encode import FEATURES
from raystudy.data.genes import GeneTable, Target
from raystudy.data.sources import synthetic

NUM_GENES = 120
Break = Callable[[GeneTable], GeneTable]


@pytest.fixture(scope="module")
def table() -> GeneTable:
    return synthetic.build(num_genes=NUM_GENES)


@pytest.fixture(scope="module")
def good(table: GeneTable) -> dict[str, Any]:
    return check_table(table)


def noted(**notes: Any) -> Break:
    return lambda table: replace(table, notes={**table.notes, **notes})


def cds(change: Callable[[str], str]) -> Break:
    return lambda table: replace(table, cds=[change(text) for text in table.cds])


def both(*breaks: Break) -> Break:
    def broken(table: GeneTable) -> GeneTable:
        for one in breaks:
            table = one(table)
        return table

    return broken


def first_of(column: str, count: int, value: Any) -> Break:
    """The first genes have another value there."""
    return lambda table: replace(table, **{column: [value] * count + list(getattr(table, column))[count:]})


def windows(columns: slice, token: int) -> Break:
    def broken(table: GeneTable) -> GeneTable:
        changed = table.windows.copy()
        changed[:, columns] = token
        return replace(table, windows=changed)

    return broken


def complemented(table: GeneTable) -> GeneTable:
    """The windows of the - strand read A for T and C for G."""
    other = np.array([0, 2, 1, 4, 3], dtype=np.uint8)[table.windows]
    return replace(table, windows=np.where(np.array(table.strands)[:, None] == "-", other, table.windows))


def levels(change: Callable[[np.ndarray], np.ndarray], unit: str = "log10(TPM + 0.1)") -> Break:
    """Change the protein levels, which no gene lacks."""
    return lambda table: replace(
        table,
        targets={"mrna": table.targets["mrna"], "protein": Target(change(table.targets["protein"].values), unit)},
    )


def features(name: str, rows: slice, value: float) -> Break:
    def broken(table: GeneTable) -> GeneTable:
        changed = table.features.copy()
        changed[rows, FEATURES.index(name)] = value
        return replace(table, features=changed)

    return broken


def some(value: float, count: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: np.concatenate([np.full(count, value), values[count:]])


def no_genes(table: GeneTable) -> GeneTable:
    texts = ("gene_ids", "symbols", "chroms", "strands", "proteins", "cds")
    arrays = ("starts", "ends", "windows", "features", "family_ids")
    cut = {name: [] for name in texts} | {name: getattr(table, name)[:0] for name in arrays}
    return replace(table, **cut, targets={"mrna": Target(np.array([]), "log10(TPM)")})


def recoded(text: str, codon: str, other: str) -> str:
    return "".join(other if text[at : at + 3] == codon else text[at : at + 3] for at in range(0, len(text), 3))


WRONG = {
    "the anchor one base late": (lambda table: replace(table, anchor=table.anchor + 1), "120 CDS begin -1 bp from it"),
    "one strand read wrongly": (
        both(noted(anchor="start codon"), complemented),
        "0 % on the - strand",
    ),
    "a TSS that is the start codon": (noted(anchor="TSS"), "these are start codons"),
    "known 5' ends that are not used": (lambda table: replace(table, source="mine"), "`--anchor tss`"),
    "no start codons": (cds(lambda text: text[3:]), "begin with neither ATG, GTG nor TTG"),
    "no stop codons": (cds(lambda text: text[:-3]), "do not end with a stop codon"),
    "torn frames": (cds(lambda text: text[:-1]), "120 CDS (100 %) have no multiple of three"),
    "stops inside": (cds(lambda text: f"{text[:6]}TAA{text[9:]}"), "120 CDS (100 %) have stops inside"),
    "another genetic code": (cds(lambda text: recoded(text, "TGG", "TGA")), "`--genetic-code 4`"),
    "bacterial starts": (cds(lambda text: f"ATC{text[3:]}"), "`--genetic-code "),
    "proteins of other genes": (
        lambda table: replace(table, proteins=[*table.proteins[1:], table.proteins[0]]),
        "proteins (100 %) are not what their CDS says by genetic code 1",
    ),
    "a CDS that is no DNA": (first_of("cds", 1, "ATG?"), "1 CDS hold what is no base (SYN00000)"),
    "an id twice": (first_of("gene_ids", 2, "A"), "2 genes share their id with another (A = A)"),
    "one strand only": (first_of("strands", NUM_GENES, "+"), "All genes are on the + strand"),
    "short contigs": (windows(slice(0, 400), 0), "100 % of the windows reach beyond their chromosome's end"),
    "a masked assembly": (windows(slice(100, 200), 0), "10 % of the windows' bases are unknown (N)"),
    "equal windows": (windows(slice(None), 1), "120 genes have the same window as another"),
    "one protein for many": (first_of("proteins", 30, "MKV"), "30 genes the very same protein"),
    "neighbours": (lambda table: table, "Windows overlap a neighbouring gene's: "),
    "no places": (
        both(first_of("chroms", NUM_GENES, ""), first_of("strands", NUM_GENES, "")),
        "120 genes have no position",
    ),
    "no target": (lambda table: replace(table, targets={}), "There is no target"),
    "one level for all": (levels(np.zeros_like), "protein: all 120 levels are 0: there is nothing to predict"),
    "an imputed default": (levels(some(0.5, 8)), "protein: 8 genes (7 %) have the very level 0.5: a default"),
    "a spike of zeros": (levels(some(-1, 8)), "protein: 8 genes (7 %) have the very level -1: the pseudo-count itself"),
    "a detection limit": (levels(some(-9, 8), "log10(ppm)"), "have the very level -9: the lowest level"),
    "no logarithm": (levels(lambda values: np.exp(3 * values)), "protein: the levels look unlogged"),
    "whole numbers": (levels(np.round), "protein: all levels are whole numbers"),
    "a logarithm of zero": (levels(some(-np.inf, 3)), "protein: 3 levels are infinite"),
    "few levels": (levels(some(np.nan, 100)), "protein: only 20 of 120 genes have a level"),
    "a column twice": (
        lambda table: replace(table, targets=dict.fromkeys(("mrna", "protein"), table.targets["mrna"])),
        "mrna and protein are one and the same (r = 1.0000)",
    ),
    "no UTRs": (features("utr5_length", slice(None), np.nan), "Missing for all genes: utr5_length. They"),
    "some UTRs": (features("utr3_gc", slice(0, 40), np.nan), "33 % of the values of utr3_gc are missing"),
    "no introns": (features("intron_length", slice(None), -1), "it: intron_length (-1). It says nothing"),
    "no UTRs written as none": (
        features("utr3_length", slice(0, 40), -1),
        "utr3_length: 33 % of the known ones are 0 bp",
    ),
    "a default UTR": (features("utr5_length", slice(0, 40), 2.0004), "utr5_length: 33 % of the known ones are 100 bp"),
    "many left out": (
        noted(findings={"dropped": {"no level in a.tsv": {"count": 90, "examples": ["X1"]}}, "repaired": {}}),
        "90 were left out for one reason: no level in a.tsv (X1, ...). Where",
    ),
    "no genes": (no_genes, "No gene is left; the most frequent reason is: no reason was noted."),
    "few genes": (lambda _: synthetic.build(num_genes=20), "There are only 20 genes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_once_in_strict_json(table: GeneTable, good: dict[str, Any], name: str) -> None:
    broken, said = WRONG[name]
    found = check_table(broken(table))
    json.dumps(found, allow_nan=False)
    assert len([sentence for sentence in found["warnings"] if said in sentence]) == 1, found["warnings"]
    if name not in ("neighbours", "few genes"):
        assert not [sentence for sentence in good["warnings"] if said in sentence]


def test_a_good_table_has_only_what_synthetic_genomes_are_made_for(table: GeneTable, good: dict[str, Any]) -> None:
    found = good
    assert [sentence.split(" ", 2)[2][:20] for sentence in found["warnings"]] == [
        "of the genes have re",
        "a neighbouring gene'",
    ]
    coding = found["coding"]
    assert sum(agree for agree, _ in coding["anchor_agrees"].values()) == NUM_GENES
    assert (
        coding["first_codons"]["ATG"] == coding["codons_at_anchor"]["ATG"] == coding["stop_codons"]["TAA"] == NUM_GENES
    )
    assert coding["translation"]["agree"] == NUM_GENES
    assert found["anchor"] == "start codon"
    assert found["targets"]["mrna"]["missing"] == np.isnan(table.targets["mrna"].values).sum() > 0
    assert sum(found["chromosomes"].values()) == sum(found["strands"].values()) == NUM_GENES
    assert {row["check"]: row["genes"] for row in found["checks"]}["CDS ends with a stop codon"] == NUM_GENES


def test_summaries_are_of_the_finite_values(table: GeneTable) -> None:
    values = np.array([1.0, 2.0, 2.0, 7.0, np.nan, np.inf] + [np.nan] * (NUM_GENES - 6))
    one = check_table(replace(table, targets={"mrna": Target(values, "log2(TPM + 1)")}))["targets"]["mrna"]
    assert (one["n"], one["missing"], one["infinite"]) == (4, NUM_GENES - 4, 1)
    assert (one["min"], one["median"], one["max"], one["mean"]) == (1, 2, 7, 3)
    assert one["sd"] == pytest.approx(np.std([1, 2, 2, 7]))
    assert one["most_frequent"] == {"value": 2, "count": 2, "next": 1}
    assert sum(one["histogram"]["counts"]) == 4
    assert one["pseudo_count_level"] == 0


def test_what_sources_left_out_is_shown_whichever_way_they_note_it(table: GeneTable) -> None:
    drop = {"count": 2, "examples": ["A", "B"]}
    notes = {"left_out_without_level": 7, "left_out_without_cds": 0, "kept": 1}
    notes["findings"] = {"dropped": {"no start codon": drop}, "repaired": {"lower case": drop}}
    found = check_table(replace(table, notes=notes))
    assert found["dropped"] == {"no start codon": drop, "without level": {"count": 7, "examples": []}}
    assert found["repaired"] == {"lower case": drop}
    assert found["notes"] == {"kept": 1}
    assert "9 left out, 2 repairs." in found["headline"]


def test_rows_of_a_table_without_a_gene_are_no_genes_left_out(table: GeneTable) -> None:
    ids = {"ids of a.tsv without a usable coding gene": {"count": 10_000, "examples": ["A"]}}
    found = check_table(replace(table, notes={"findings": {"dropped": {}, "repaired": {}, "unmatched": ids}}))
    assert (found["unmatched"], found["dropped"]) == (ids, {})
    assert "; 0 left out, 0 repairs, 10,000 rows of the given tables without such a gene." in found["headline"]
    assert not any("left out for one reason" in one for one in found["warnings"])


def translated(table: GeneTable, text: str, protein: str, code: Any = None) -> dict[str, Any]:
    """What is found of the first gene, all others being as they were."""
    notes = {} if code is None else {"genetic_code": code}
    changed = replace(table, cds=[text, *table.cds[1:]], proteins=[protein, *table.proteins[1:]], notes=notes)
    coding = check_table(changed)["coding"]
    first = [key for key in ("other_length", "differ") if coding["translation"][key]["examples"][:1] == ["SYN00000"]]
    return {"verdict": first[0] if first else "agree", "stops": coding["stops_inside"]["examples"][:1] == ["SYN00000"]}


@pytest.mark.parametrize(
    ("text", "protein", "code", "verdict", "stops"),
    [
        ("ATGAAATAA", "MK", None, "agree", False),
        ("atgaaataa", "mk", None, "agree", False),
        ("ATGAAA", "MK", None, "agree", False),
        ("ATGTGAAAATAA", "MUK", None, "agree", False),  # selenocysteine
        ("ATGTGAAAATAA", "MWK", None, "differ", True),
        ("ATGTGAAAATAA", "MWK", 4, "agree", False),
        ("ATGTGAAAATAA", "MWK", [1, 2], "agree", False),  # of mitochondria
        ("GTGAAATAA", "MK", 11, "agree", False),
        ("GTGAAATAA", "MK", None, "differ", False),
        ("GTGAAATAA", "VK", None, "agree", False),
        ("ATGANAGCNTAA", "MKA", None, "agree", False),
        ("ATGGATTAA", "MB", None, "agree", False),  # D or N
        ("ATGAAAGGGTAA", "MK", None, "other_length", False),
        ("ATGAAAGGGTAA", "KG", None, "other_length", False),
        ("ATGAAATAA", "MKG", None, "other_length", False),
        ("TAA", "MKG", None, "differ", False),
        ("ATGAAATA", "MK", None, "agree", False),
    ],
)
def test_a_cds_is_read_by_its_code(
    table: GeneTable, text: str, protein: str, code: Any, verdict: str, stops: bool
) -> None:
    assert translated(table, text, protein, code) == {"verdict": verdict, "stops": stops}


def test_genes_without_protein_or_cds_are_not_compared(table: GeneTable) -> None:
    found = check_table(both(first_of("proteins", 30, ""), first_of("cds", 50, ""))(table))
    assert found["coding"]["translation"]["compared"] == NUM_GENES - 50
    assert found["coding"]["empty"]["count"] == 50
    assert found["lengths"]["protein"]["num_empty"] == 30
    assert found["duplicates"]["proteins"]["genes"] == 0


def test_padding_is_told_from_unknown_bases_inside(table: GeneTable) -> None:
    changed = np.where(table.windows == 0, 1, table.windows).astype(np.uint8)
    changed[0, :5] = changed[0, -2:] = changed[0, 50:60] = changed[1, -3:] = 0
    changed[2] = 0
    padding = check_table(replace(table, windows=changed))["padding"]
    assert padding["at_ends"]["windows"] == 3
    assert padding["at_ends"]["longest_bp"] == changed.shape[1]
    assert padding["at_ends"]["examples"] == ["SYN00002", "SYN00000", "SYN00001"]
    assert padding["at_ends"]["share_of_bases"] == pytest.approx((7 + 3 + changed.shape[1]) / changed.size)
    assert (padding["inside"]["windows"], padding["inside"]["longest_bp"]) == (1, 10)


@pytest.mark.parametrize("circular", [False, True])
def test_overlaps_are_those_of_all_pairs(table: GeneTable, circular: bool) -> None:
    rng = np.random.default_rng(3)
    up, down, length_bp = table.anchor, table.windows.shape[1] - table.anchor, 60_000
    starts = rng.integers(1, length_bp - 300, NUM_GENES)
    starts[:2] = 10, length_bp - 310
    chroms = ["c", "c", *rng.choice(["a", "b", "c", "d"], NUM_GENES - 2)]
    notes = {"circular": dict.fromkeys("abcd", length_bp)} if circular else {}
    made = replace(table, starts=starts, ends=starts + 299, chroms=chroms, notes=notes)
    begins = np.where(np.array(made.strands) == "+", starts - up, made.ends - down + 1)
    apart = np.abs(begins[:, None] - begins[None, :])
    if circular:
        apart = np.minimum(apart, length_bp - apart)
    apart = np.where(np.array(chroms)[:, None] == np.array(chroms), apart, length_bp)
    np.fill_diagonal(apart, length_bp)
    [one] = check_table(made)["overlap"]
    assert one["genes"] == (apart.min(axis=1) < up + down).sum()
    assert one["by_more_than_half"] == (apart.min(axis=1) < (up + down) / 2).sum()
    assert 0 < one["by_more_than_half"] < one["genes"] < NUM_GENES


def test_long_windows_are_also_looked_at_as_a_study_cuts_them() -> None:
    found = check_table(synthetic.build(num_genes=20, window_bp=(1_200, 700)))
    assert [one["window_bp"] for one in found["overlap"]] == [[1_200, 700], [1_000, 500]]


def test_families_that_are_not_known_are_not_counted(table: GeneTable, good: dict[str, Any]) -> None:
    found = check_table(noted(families=False)(table))
    assert found["families"] is None
    assert not [row for row in found["checks"] if row["check"].startswith("has relatives")]
    sizes = good["families"]["sizes"]
    assert sum(int(size) * count for size, count in sizes.items()) == NUM_GENES


def test_standardised_features_are_not_taken_for_lengths(table: GeneTable, good: dict[str, Any]) -> None:
    scaled = (table.features - table.features.mean(axis=0)) / np.maximum(table.features.std(axis=0), 1e-6)
    found = check_table(replace(table, features=scaled))
    assert {one["unit"] for one in found["features"].values()} == {"standardised"}
    assert {one["unit"] for one in good["features"].values()} == {
        "log10(bp + 0.1)",
        "fraction",
        "per 1,000 bp of CDS",
    }


@pytest.mark.parametrize(
    ("part", "text"), [(0, "0 %"), (1, "under 1 %"), (50, "25 %"), (199, "over 99 %"), (200, "100 %")]
)
def test_a_share_is_never_rounded_to_none_or_all(part: int, text: str) -> None:
    assert percent(part, 200) == text


@pytest.mark.parametrize("levels", [(0.3, 0.30000000000000004), (1e17, 1e17 + 16), (0.0, 0.0), (-1e29, 1e29)])
def test_levels_that_no_bins_can_tell_apart_are_drawn_all_the_same(
    table: GeneTable, levels: tuple[float, float]
) -> None:
    values = np.resize(levels, len(table.gene_ids)).astype(float)
    found = check_table(replace(table, targets={"mrna": Target(values, "counts")}))

    histogram = found["targets"]["mrna"]["histogram"]
    assert sum(histogram["counts"]) == len(values)
    assert histogram["low"] < histogram["high"]
