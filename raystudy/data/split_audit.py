"""What each way of parting genes costs, in genes dropped, and leaks from one part to another, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from raystudy.data.genes import Genes
from raystudy.data.homology import CLOSE_SHARED, DistinctKmers, distinct_kmers, window_kmers
from raystudy.data.splits import (
    COORDINATES,
    FAMILIES,
    PAIRS,
    PARTS,
    Rows,
    Split,
    make_split,
    nearest_start_bp,
    window_starts,
)
from raystudy.errors import DataError, SpecError
from raystudy.study.sections import SplitSpec

WAYS: tuple[str, ...] = get_args(SplitSpec.model_fields["by"].annotation)


def compare_splits(
    genes: Genes,
    spec: SplitSpec,
    ways: Sequence[str],
    window_bp: tuple[int, int],
    target: str | None = None,
    audit: bool = True,
) -> dict[str, Any]:
    """Part the genes (with a ``target``, those that have this level) each of these ways, and compare.

    ``ways`` holds for each way its ``hash``, the genes in ``train``, ``valid``, ``test``, those ``dropped`` by reason,
    and with ``audit`` for the ``pairs`` of parts what the held-out one shares with the other; where it cannot be made
    of this data, why it is ``refused`` instead. Of ``spec`` all but ``by`` is used.

    Of a pair's ``held_out`` genes, ``window_overlaps`` counts those whose window overlaps one of the other part, and
    ``window_overlaps_half`` those that share more than half of it with a single one; ``family_members`` have a homolog
    there, ``identical_proteins`` a copy. ``protein_similarity`` (share of 6-mers) and ``window_similarity`` (share of
    16-mers) are of each gene and its nearest there: the largest, the median, and how many genes are ``close``, at 30 %
    or above. None is not known: without positions, or without proteins.

    Raises SpecError for a way that there is not, DataError for a target or a window that the data has not.
    """
    if unknown := [way for way in ways if way not in WAYS]:
        raise SpecError(f"genes can be parted by {', '.join(WAYS)}, but got {', '.join(map(repr, unknown))}")
    labelled = np.ones(genes.num_genes, np.bool_) if target is None else np.isfinite(genes.target(target))
    genes.windows(window_bp)  # refuses one that is not stored
    found: dict[str, Any] = {}
    splits: dict[str, Split] = {}
    for way in dict.fromkeys(ways):
        try:
            asked = {"by": way} if way == "published" else {**spec.model_dump(), "by": way}  # which has its own sizes
            split = make_split(genes, SplitSpec.model_validate(asked), window_bp, labelled)
        except DataError as error:
            found[way] = {"refused": str(error)}
            continue
        sizes = {part: len(getattr(split, part)) for part in PARTS}
        found[way] = {"hash": split.hash, **sizes, "dropped": split.dropped}
        splits[way] = split
    if audit:
        proteins = distinct_kmers(genes.protein_tokens, genes.protein_offsets)
        windows = window_kmers(genes.windows(window_bp))
        for way, split in splits.items():
            found[way]["pairs"] = {
                f"{seen}-{held}": _leaks(
                    genes, proteins, windows, getattr(split, held), getattr(split, seen), window_bp
                )
                for seen, held in PAIRS
            }
    return {
        "data": genes.hash,
        "source": genes.source,
        "num_genes": genes.num_genes,
        "num_labelled": int(labelled.sum()),
        "target": target,
        "window_bp": list(window_bp),
        "valid": spec.valid,
        "test": spec.test,
        "seed": spec.seed,
        "ways": found,
    }


def _leaks(
    genes: Genes, proteins: DistinctKmers, windows: DistinctKmers, held: Rows, seen: Rows, window_bp: tuple[int, int]
) -> dict[str, Any]:
    starts, length_bp = window_starts(genes, window_bp), sum(window_bp)
    apart_bp = nearest_start_bp(genes, starts, held, seen) if genes.notes.get(COORDINATES, True) else None
    has_families = genes.notes.get(FAMILIES, True)
    return {
        "held_out": len(held),
        "window_overlaps": None if apart_bp is None else int((apart_bp < length_bp).sum()),
        "window_overlaps_half": None if apart_bp is None else int((2 * apart_bp < length_bp).sum()),
        "window_similarity": _nearest(windows, held, seen),
        "family_members": int(np.isin(genes.family_ids[held], genes.family_ids[seen]).sum()) if has_families else None,
        "identical_proteins": _num_identical(genes, held, seen) if has_families else None,
        "protein_similarity": _nearest(proteins, held, seen) if has_families else None,
    }


def _nearest(kmers: DistinctKmers, held: Rows, seen: Rows) -> dict[str, float]:
    nearest = kmers.shared_fraction(held, seen)
    return {
        "largest": round(float(nearest.max()), 4),
        "median": round(float(np.median(nearest)), 4),
        "close": int((nearest >= CLOSE_SHARED).sum()),
    }


def _num_identical(genes: Genes, rows: Rows, others: Rows) -> int:
    there = {_protein(genes, row) for row in others.tolist()}
    return sum(_protein(genes, row) in there for row in rows.tolist())


def _protein(genes: Genes, row: int) -> bytes:
    return genes.protein_tokens[genes.protein_offsets[row] : genes.protein_offsets[row + 1]].tobytes()
