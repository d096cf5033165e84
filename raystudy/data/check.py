"""The data report: what a gene table holds and what it was made from, measured before anything is trained on it.

Everything here only counts; `check_rows` puts it in words, `check_warnings` says what of it looks wrong.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from raystudy.data.check_coding import check_coding
from raystudy.data.check_rows import checks, headline
from raystudy.data.check_warnings import LENGTH_UNIT, warnings
from raystudy.data.encode import DNA_UNKNOWN, FEATURES
from raystudy.data.findings import EXAMPLES
from raystudy.data.genes import GeneTable, Target
from raystudy.data.splits import FAMILIES, Loci, Rows, nearest_start_bp, window_starts

SHORT_WINDOW_BP = (1_000, 500)
"""What a study may cut out of a long window: how far neighbours still overlap there is worth knowing."""
_FEATURE_UNITS = {  # by the end of the name: the unit, and the least and the most that it can be
    "length": (LENGTH_UNIT, -1.001, 8.0),
    "gc": ("fraction", 0.0, 1.0),
    "density": ("per 1,000 bp of CDS", 0.0, np.inf),
}
_BINS = 30
_LEAST_SPREAD = 1e-9  # of the largest value; what is nearer than that is one value
_ROWS = 512  # genes whose windows are looked at together: bounds the memory
_LEFT_OUT = "left_out_"  # how sources without findings name what they note
_PSEUDO_COUNT = re.compile(r"log(10|2)\s*\([^)]*\+\s*(\d+(?:\.\d+)?(?:e-?\d+)?)\s*\)", re.IGNORECASE)


def check_table(table: GeneTable) -> dict[str, Any]:
    """The data report as strict JSON values: None where there is no number, no NaN.

    ``dropped``, ``repaired`` and ``unmatched`` (rows of a user's table: no genes left out) are what the source met
    (reason -> count and examples), ``strands``, ``chromosomes`` and ``families`` count genes, ``coding`` checks CDS
    against window and protein, ``lengths``, ``padding``, ``duplicates`` and ``overlap`` look at the sequences,
    ``features``, ``targets`` and ``correlations`` at the numbers. ``headline``, ``checks`` and ``warnings`` say it in
    words, the last what looks wrong and what to do.
    Nothing is changed or refused.
    """
    num_genes, length = table.windows.shape
    findings = table.notes.get("findings") or {}
    others = {key: value for key, value in table.notes.items() if key != "findings"}
    left_out = {
        key.removeprefix(_LEFT_OUT).replace("_", " "): {"count": count, "examples": []}
        for key, count in others.items()
        if key.startswith(_LEFT_OUT) and count
    }
    coding = check_coding(table)
    found = {
        "source": table.source,
        "num_genes": num_genes,
        "window_bp": [table.anchor, length - table.anchor],
        "anchor": others.get("anchor") or _guessed_anchor(coding),
        "dropped": {**findings.get("dropped", {}), **left_out},
        "repaired": dict(findings.get("repaired", {})),
        "unmatched": dict(findings.get("unmatched", {})),
        "notes": {key: value for key, value in others.items() if not key.startswith(_LEFT_OUT)},
        "strands": dict(Counter(strand for strand in table.strands if strand)),
        "chromosomes": dict(Counter(chrom for chrom in table.chroms if chrom).most_common()),
        "coding": coding,
        "lengths": {
            "protein": _lengths(table.proteins),
            "cds_bp": _lengths(table.cds),
        },
        "padding": _padding(table),
        "duplicates": {
            "ids": _duplicates(table.gene_ids, table.gene_ids),
            "proteins": _duplicates(table.proteins, table.gene_ids),
            "windows": _duplicates([hash(window.tobytes()) for window in table.windows], table.gene_ids),
        },
        "families": _families(table.family_ids) if others.get(FAMILIES, True) else None,
        "overlap": _overlaps(table),
        "features": _features(table.features),
        "targets": {name: _target(target) for name, target in table.targets.items()},
        "correlations": _correlations(table.targets),
    }
    plain: dict[str, Any] = _plain(found)
    return {"headline": headline(plain), **plain, "checks": list(checks(plain)), "warnings": list(warnings(plain))}


def _guessed_anchor(coding: Mapping[str, Any]) -> str:
    """Of a source that does not note where its windows stand: at or beside the start codon, or nobody knows."""
    agreeing, compared = np.sum(list(coding["anchor_agrees"].values()), axis=0)
    beside = sum(coding["anchor_shifts"].values())
    return "start codon" if compared and (agreeing + beside) / compared > 0.5 else "not noted"


def _lengths(texts: Sequence[str]) -> dict[str, Any]:
    """Of those that are not empty; the histogram is over log10 of the length."""
    lengths = np.array([len(text) for text in texts if text], dtype=np.float64)
    return _summary(lengths) | {"num_empty": len(texts) - len(lengths), "histogram": _histogram(np.log10(lengths))}


def _padding(table: GeneTable) -> dict[str, Any]:
    """N that run in from a window's ends (beyond the chromosome), and N further inside (unknown bases)."""
    num_genes, length = table.windows.shape
    at_ends, inside = np.zeros(num_genes, np.int64), np.zeros(num_genes, np.int64)
    for first in range(0, num_genes, _ROWS):
        known = table.windows[first : first + _ROWS] != DNA_UNKNOWN
        runs = known.argmax(axis=1) + known[:, ::-1].argmax(axis=1)
        runs = np.where(known.any(axis=1), runs, length)
        at_ends[first : first + _ROWS] = runs
        inside[first : first + _ROWS] = length - np.count_nonzero(known, axis=1) - runs
    return {
        part: {
            "windows": np.count_nonzero(num_bases),
            "longest_bp": num_bases.max(initial=0),
            "share_of_bases": num_bases.sum() / table.windows.size if table.windows.size else None,
            "examples": [table.gene_ids[row] for row in np.argsort(-num_bases)[:EXAMPLES] if num_bases[row]],
        }
        for part, num_bases in (("at_ends", at_ends), ("inside", inside))
    }


def _duplicates(values: Sequence[Any], gene_ids: Sequence[str]) -> dict[str, Any]:
    """Genes whose value another gene has too; empty texts are no value."""
    several = {value: count for value, count in Counter(values).items() if count > 1 and value != ""}
    holders: dict[Any, list[str]] = {value: [] for value in list(several)[:EXAMPLES]}
    for value, gene in zip(values, gene_ids, strict=True):
        if value in holders:
            holders[value].append(gene)
    return {
        "genes": sum(several.values()),
        "groups": len(several),
        "examples": [" = ".join(genes[:3]) for genes in holders.values()],
    }


def _families(family_ids: NDArray[np.int64]) -> dict[str, Any]:
    """``sizes`` is how many families have so many genes."""
    sizes = np.unique(family_ids, return_counts=True)[1]
    return {
        "count": len(sizes),
        "genes_with_relatives": sizes[sizes > 1].sum(),
        "largest": sizes.max(initial=0),
        "sizes": {str(size): count for size, count in sorted(Counter(sizes.tolist()).items())},
    }


def _overlaps(table: GeneTable) -> list[dict[str, Any]]:
    """For the stored window and a short one out of it: genes whose window overlaps another gene's."""
    stored = (table.anchor, table.windows.shape[1] - table.anchor)
    is_longer = stored != SHORT_WINDOW_BP and np.greater_equal(stored, SHORT_WINDOW_BP).all()
    loci = Loci(
        np.array(table.chroms, np.str_), table.starts, table.ends, np.array(table.strands, np.str_), table.notes
    )
    located = (loci.chroms != "") & (loci.starts > 0)
    return [
        {
            "window_bp": window_bp,
            "located": np.count_nonzero(located),
            **_overlap(loci, np.flatnonzero(located), window_bp),
        }
        for window_bp in ([stored, SHORT_WINDOW_BP] if is_longer else [stored])
    ]


def _overlap(loci: Loci, located: Rows, window_bp: tuple[int, int]) -> dict[str, Any]:
    """All windows are as long, so how far the nearest begins tells everything."""
    nearest = nearest_start_bp(loci, window_starts(loci, window_bp), located, located)
    return {
        "genes": np.count_nonzero(nearest < sum(window_bp)),
        "by_more_than_half": np.count_nonzero(2 * nearest < sum(window_bp)),
    }


def _features(values: NDArray[np.float32]) -> dict[str, Any]:
    """Each with its unit, unless some are beyond what that allows: published features are standardised."""
    units = {name: _FEATURE_UNITS[name.rpartition("_")[2]] for name in FEATURES}
    found = {name: _summary(values[:, column]) for column, name in enumerate(FEATURES)}
    beyond = any(
        one["n"] and (one["min"] < units[name][1] or one["max"] > units[name][2]) for name, one in found.items()
    )
    return {name: {"unit": "standardised" if beyond else units[name][0], **one} for name, one in found.items()}


def _summary(values: NDArray[Any]) -> dict[str, Any]:
    """Moments, the most frequent value (of those that two genes or more have) and a histogram of what is finite."""
    values = np.asarray(values, dtype=np.float64)
    known = values[np.isfinite(values)]
    counted = {
        "n": len(known),
        "missing": len(values) - len(known),
        "infinite": np.count_nonzero(np.isinf(values)),
    }
    if not len(known):
        nothing = ("min", "median", "max", "mean", "sd", "skewness", "integers", "most_frequent", "histogram")
        return {**counted, "constant": False, **dict.fromkeys(nothing)}
    distinct, counts = np.unique(known, return_counts=True)
    often = np.argsort(-counts, kind="stable")[:2]
    return {
        **counted,
        "constant": len(distinct) == 1,
        "min": known.min(),
        "median": np.median(known),
        "max": known.max(),
        "mean": known.mean(),
        "sd": known.std(),
        "skewness": stats.skew(known) if np.ptp(known) > _LEAST_SPREAD * np.abs(known).max() else None,
        "integers": bool((known == np.round(known)).all()),
        "most_frequent": {"value": distinct[often[0]], "count": counts[often[0]], "next": counts[often[1:]].sum()},
        "histogram": _histogram(known),
    }


def _histogram(values: NDArray[np.float64]) -> dict[str, Any] | None:
    if not len(values):
        return None
    low, high = values.min(), values.max()
    if high - low <= _LEAST_SPREAD * max(abs(low), abs(high)):  # which no bins could tell apart
        low, high = low - 0.5 * max(1, abs(low)), high + 0.5 * max(1, abs(high))
    counts, edges = np.histogram(values, bins=_BINS, range=(low, high))
    return {"low": edges[0], "high": edges[-1], "counts": counts.tolist()}


def _target(target: Target) -> dict[str, Any]:
    """``pseudo_count_level`` is where the unit's pseudo-count puts a gene of which nothing was detected."""
    return {"unit": target.unit, **_summary(target.values), "pseudo_count_level": _pseudo_count_level(target.unit)}


def _pseudo_count_level(unit: str) -> float | None:
    written = _PSEUDO_COUNT.search(unit)
    if written is None or not float(written[2]):
        return None
    return float(np.log(float(written[2])) / np.log(float(written[1])))


def _correlations(targets: Mapping[str, Target]) -> list[dict[str, Any]]:
    """Of each two targets over the genes that have both; None with fewer than three, or where one is constant."""
    found = []
    for (first, one), (second, other) in combinations(targets.items(), 2):
        both = np.isfinite(one.values) & np.isfinite(other.values)
        a, b = one.values[both], other.values[both]
        told = len(a) > 2 and min(np.ptp(a), np.ptp(b)) > 0
        found.append(
            {
                "targets": [first, second],
                "n": len(a),
                "pearson": stats.pearsonr(a, b).statistic if told else None,
                "spearman": stats.spearmanr(a, b).statistic if told else None,
            }
        )
    return found


def _plain(value: Any) -> Any:
    """As strict JSON has it: no NumPy, no NaN, no infinity."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(one) for one in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
