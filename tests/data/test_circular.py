"""Windows on both sides of the origin of a circular chromosome are neighbours."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from raystudy.data.splits import PAIRS, PARTS, audit, make_split, nearest_start_bp, window_starts
from raystudy.study.sections import SplitSpec

TURN_BP = 60_000
WINDOW = (600, 300)


def circle(starts: list[int], strands: str, circular: bool = True, chroms: str = "") -> Any:
    """Genes of 300 bp on a chromosome ``c`` of 60,000 bp, each its own family and protein."""
    num_genes = len(starts)
    return SimpleNamespace(
        starts=np.array(starts),
        ends=np.array(starts) + 299,
        strands=np.array(list(strands)),
        chroms=np.array(list(chroms or "c" * num_genes)),
        family_ids=np.arange(num_genes),
        gene_ids=np.arange(num_genes).astype(str),
        protein_tokens=np.zeros(0, np.uint8),
        protein_offsets=np.zeros(num_genes + 1, np.int64),
        num_genes=num_genes,
        notes={"circular": {"c": TURN_BP}} if circular else {},
        hash="d1",
        origin="made up",
    )


def covered(genes: Any, row: int) -> set[int]:
    """0-based bases of the circle that the window of a gene covers, one by one."""
    up, down = WINDOW
    start, end = int(genes.starts[row]) - 1, int(genes.ends[row]) - 1
    forward = genes.strands[row] == "+"
    here = range(start - up, start + down) if forward else range(end - down + 1, end + up + 1)
    return {base % TURN_BP for base in here}


def overlaps(genes: Any) -> int:
    nobody = np.array([], np.int64)
    found = audit(genes, {"train": np.array([0]), "valid": nobody, "test": np.array([1])}, WINDOW)
    assert not any(found[pair]["window_overlaps"] for pair in ("train-valid", "valid-test"))
    return int(found["train-test"]["window_overlaps"] or 0)


# On the + strand a window covers [start - 600, start + 300), on the - strand (end - 300, end + 600].
@pytest.mark.parametrize("strands", ["++", "+-", "-+", "--"])
@pytest.mark.parametrize("last", [58_900, 59_199, 59_200, 59_201, 59_500, 59_501, 59_800, 59_900, 60_000])
def test_windows_overlap_across_the_origin_exactly_where_they_share_a_base(last: int, strands: str) -> None:
    for first in (1, 100, 400, 601):
        genes = circle([first, last], strands)
        assert overlaps(genes) == bool(covered(genes, 0) & covered(genes, 1)), (first, last)
        swapped = circle([last, first], strands[::-1])
        assert overlaps(swapped) == overlaps(genes)


def test_the_ends_of_a_linear_chromosome_are_far_apart() -> None:
    assert overlaps(circle([100, 59_900], "++")) == 1
    assert overlaps(circle([100, 59_900], "++", circular=False)) == 0
    assert overlaps(circle([100, 59_900], "++", chroms="dd")) == 0, "only the chromosome c is circular"


def test_a_gene_that_runs_over_the_origin_lies_near_the_genes_after_it() -> None:
    genes = circle([59_900, 200], "-+")  # its end is 60,199: the start codon is base 199
    assert overlaps(genes) == 1
    assert nearest_start_bp(genes, window_starts(genes, WINDOW), np.array([0]), np.array([1])).tolist() == [300]


def test_a_window_longer_than_the_circle_overlaps_every_other() -> None:
    genes = circle([1, 30_000], "++")
    starts = window_starts(genes, (40_000, 30_000))
    assert nearest_start_bp(genes, starts, np.array([0]), np.array([1])).tolist() == [29_999]


def test_a_gene_is_not_its_own_neighbour_not_even_once_around() -> None:
    genes = circle([100, 250, 250, 10], "++++", chroms="cccd")
    genes.notes["circular"]["d"] = 900
    starts, everyone = window_starts(genes, (2_000, 1_000)), np.arange(4)
    nearest = nearest_start_bp(genes, starts, everyone, everyone)
    assert nearest[:3].tolist() == [150, 0, 0], "two genes of one place are each other's neighbours"
    assert nearest[3] > 3_000, "there is no other gene on d"
    assert nearest_start_bp(genes, starts, everyone[:1], everyone[1:]).tolist() == [150]


def test_a_block_split_drops_training_genes_across_the_origin() -> None:
    random = np.random.default_rng(0)
    starts = np.sort(random.integers(1, TURN_BP - 300, 300)).tolist()
    strands = "".join(random.choice(["+", "-"], 300))
    num_across = {True: 0, False: 0}
    for circular in num_across:
        genes = circle(starts, strands, circular)
        for seed in range(12):
            split = make_split(genes, SplitSpec(valid=0.2, test=0.2, seed=seed), WINDOW, np.ones(300, np.bool_))
            bases = [{base for row in getattr(split, part) for base in covered(genes, row)} for part in PARTS]
            shared = [bases[PARTS.index(one)] & bases[PARTS.index(other)] for one, other in PAIRS]
            num_across[circular] += any(shared)
            assert circular or all(base < 1000 or base > TURN_BP - 1000 for base in set().union(*shared))
    assert num_across[True] == 0
    assert num_across[False] > 0, "otherwise no block ever ended at the origin"
