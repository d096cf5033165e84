from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from raystudy.data.genes import Genes
from raystudy.data.splits import FEWEST_GENES, Split, make_folds, make_split, window_starts
from raystudy.errors import DataError
from raystudy.study.sections import SplitSpec

WINDOW = (600, 300)
WAYS = ("block", "chromosome", "family", "random")


def labelled(genes: Genes) -> npt.NDArray[np.bool_]:
    """All but every nineteenth."""
    return np.arange(genes.num_genes) % 19 != 0


def folds_of(
    genes: Genes, by: str = "block", num_folds: int = 3, seed: int = 0, window_bp: tuple[int, int] = WINDOW
) -> tuple[Split, list[Split]]:
    spec = SplitSpec(by=by, valid=0.15, test=0.2, seed=seed)  # type: ignore[arg-type]
    split = make_split(genes, spec, window_bp, labelled(genes))
    return split, make_folds(split, genes, spec, window_bp, labelled(genes), num_folds)


def too_close(genes: Genes, rows: npt.NDArray[np.int64], held: npt.NDArray[np.int64]) -> set[int]:
    """Those of ``rows`` that overlap a window of the others or share a family with one, gene by gene."""
    starts, length = window_starts(genes, WINDOW), sum(WINDOW)
    return {
        a
        for a in rows.tolist()
        for b in held.tolist()
        if genes.family_ids[a] == genes.family_ids[b]
        or (genes.chroms[a] == genes.chroms[b] and abs(int(starts[a]) - int(starts[b])) < length)
    }


def kept(split: Split) -> set[int]:
    return {*split.train.tolist(), *split.valid.tolist(), *split.test.tolist()}


@pytest.mark.parametrize(
    ("size", "by"), [*(("many", by) for by in WAYS), ("few", "block"), ("few", "family"), ("few", "random")]
)
def test_every_gene_that_is_not_dropped_is_validated_in_one_fold_and_the_test_part_stays(
    size: str, by: str, request: pytest.FixtureRequest
) -> None:
    genes: Genes = request.getfixturevalue(size)
    split, folds = folds_of(genes, by)

    open_rows = np.flatnonzero(labelled(genes) & ~np.isin(np.arange(genes.num_genes), split.test))
    close = too_close(genes, open_rows, split.test) if by == "block" else set()
    validated = np.concatenate([fold.valid for fold in folds]).tolist()
    assert sorted(validated) == sorted(set(open_rows.tolist()) - close)
    for fold in folds:
        assert np.array_equal(fold.test, split.test)
        assert not set(fold.train) & set(fold.valid)
        assert fold.by == by
        assert len(kept(fold)) + sum(fold.dropped.values()) == genes.num_genes
    assert len({fold.hash for fold in [split, *folds]}) == len(folds) + 1


@pytest.mark.parametrize(("size", "num_folds", "seed"), [("few", 2, 1), ("few", 4, 0), ("many", 3, 2), ("many", 5, 0)])
def test_no_fold_by_block_leaks_between_any_two_of_its_parts(
    size: str, num_folds: int, seed: int, request: pytest.FixtureRequest
) -> None:
    genes: Genes = request.getfixturevalue(size)
    _, folds = folds_of(genes, num_folds=num_folds, seed=seed)

    assert any(fold.dropped["family"] for fold in folds), "there was something to leak"
    for fold in folds:
        assert not too_close(genes, fold.train, fold.valid)
        assert not too_close(genes, fold.train, fold.test)
        assert not too_close(genes, fold.valid, fold.test)
        assert all(found["window_overlaps"] == found["family_members"] == 0 for found in fold.audit.values())


def test_a_fold_drops_a_gene_only_for_being_close_to_one_that_it_holds_out(few: Genes) -> None:
    _, folds = folds_of(few)

    for fold in folds:
        missing = np.array(sorted(set(np.flatnonzero(labelled(few)).tolist()) - kept(fold)))
        assert too_close(few, missing, np.concatenate([fold.valid, fold.test])) == set(missing.tolist())


def test_genes_that_the_study_dropped_between_train_and_valid_come_back(few: Genes) -> None:
    split, folds = folds_of(few)
    dropped = set(np.flatnonzero(labelled(few)).tolist()) - kept(split)

    assert dropped & {int(row) for fold in folds for row in fold.valid}


@pytest.mark.parametrize("by", WAYS)
def test_a_unit_is_never_parted_between_folds(many: Genes, by: str) -> None:
    _, folds = folds_of(many, by)

    unit_of = {"block": many.chroms, "chromosome": many.chroms, "family": many.family_ids, "random": many.gene_ids}[by]
    units = [set(unit_of[fold.valid].tolist()) for fold in folds]
    assert not any(units[a] & units[b] for a in range(3) for b in range(a))


def test_folds_are_as_even_as_their_units_allow(many: Genes) -> None:
    for by in WAYS:
        split, folds = folds_of(many, by)
        sizes = sorted(len(fold.valid) for fold in folds)
        unit_of = {"family": many.family_ids, "random": many.gene_ids}.get(by, many.chroms)
        open_rows = np.setdiff1d(np.arange(many.num_genes), split.test)
        largest_unit = int(np.unique(unit_of[open_rows], return_counts=True)[1].max())
        assert sizes[-1] - sizes[0] <= largest_unit
        if by == "random":
            assert sizes[-1] - sizes[0] <= 1


def test_the_same_seed_gives_the_same_folds_and_another_one_others(many: Genes) -> None:
    hashes = [[fold.hash for fold in folds_of(many, "family", seed=seed)[1]] for seed in (0, 0, 1)]

    assert hashes[0] == hashes[1]
    assert not set(hashes[0]) & set(hashes[2])


def test_one_fold_is_the_split_itself(many: Genes) -> None:
    split, folds = folds_of(many, num_folds=1)

    assert folds == [split]


def test_more_folds_than_units_are_refused_with_how_many_there_are(many: Genes) -> None:
    split, _ = folds_of(many)
    num_left = len(set(many.chroms[np.setdiff1d(np.flatnonzero(labelled(many)), split.test)]))

    with pytest.raises(DataError, match=rf"folds: 50` needs as many units of `split.by: block`.*are in {num_left};"):
        folds_of(many, num_folds=50)


def test_a_fold_with_too_few_genes_is_refused_with_its_number(few: Genes) -> None:
    num_open = int(labelled(few).sum())

    with pytest.raises(DataError, match=rf"fold \d of 20: the valid part has \d genes .*at least {FEWEST_GENES} are"):
        folds_of(few, "random", num_folds=20)
    assert num_open / 20 < FEWEST_GENES


def test_a_saved_fold_reads_back_the_same(few: Genes, tmp_path: Path) -> None:
    _, folds = folds_of(few)
    for number, fold in enumerate(folds):
        fold.save(tmp_path / f"split-fold{number}.json", few)

    again = [Split.load(tmp_path / f"split-fold{number}.json", few) for number in range(3)]

    assert [one.summary() for one in again] == [fold.summary() for fold in folds]
    assert all(one.hash != other.hash for one, other in pairwise(again))
