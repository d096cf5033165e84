from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from raystudy.data.genes import Genes, write_genes
from raystudy.data.sources import synthetic
from raystudy.data.splits import PARTS, Split, audit, make_split
from raystudy.errors import DataError, SplitLeakage
from raystudy.study.sections import SplitSpec

WINDOW = (600, 300)


def block_split(genes: Genes, seed: int = 0, **options: Any) -> Split:
    spec = SplitSpec(by="block", valid=0.15, test=0.2, seed=seed)
    return make_split(genes, spec, options.get("window", WINDOW), options.get("labelled", everyone(genes)))


def everyone(genes: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.ones(genes.num_genes, bool)


def bases(genes: Any, row: int, window: tuple[int, int] = WINDOW) -> tuple[str, range]:
    """The chromosome and the genomic bases (1-based) that a gene's window covers, spelled out by strand."""
    up, down = window
    start, end = int(genes.starts[row]), int(genes.ends[row])
    if genes.strands[row] == "+":
        return str(genes.chroms[row]), range(start - up, start + down)
    return str(genes.chroms[row]), range(end - down + 1, end + up + 1)


def overlap(genes: Any, a: int, b: int) -> bool:
    (chrom_a, here), (chrom_b, there) = bases(genes, a), bases(genes, b)
    return chrom_a == chrom_b and max(here[0], there[0]) <= min(here[-1], there[-1])


def related(genes: Any, a: int, b: int) -> bool:
    return bool(genes.family_ids[a] == genes.family_ids[b])


def across(split: Split) -> Iterator[tuple[int, int]]:
    """Every pair of genes that are in different parts."""
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        for a in getattr(split, one).tolist():
            for b in getattr(split, other).tolist():
                yield a, b


@pytest.mark.parametrize("size", ["few", "many"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_window_overlaps_and_no_family_spans_two_parts_of_a_block_split(
    size: str, seed: int, request: pytest.FixtureRequest
) -> None:
    genes = request.getfixturevalue(size)
    split = block_split(genes, seed)

    assert not [pair for pair in across(split) if overlap(genes, *pair) or related(genes, *pair)]
    assert all(found["window_overlaps"] == found["family_members"] == 0 for found in split.audit.values())


def test_the_synthetic_genome_would_leak_without_dropping(few: Genes) -> None:
    # Otherwise the test above shows nothing.
    split = make_split(few, SplitSpec(by="random", valid=0.15, test=0.2), WINDOW, everyone(few))

    assert [pair for pair in across(split) if overlap(few, *pair)]
    assert [pair for pair in across(split) if related(few, *pair)]


def test_with_many_chromosomes_a_block_is_a_whole_one(many: Genes) -> None:
    split = block_split(many)

    held = {part: set(many.chroms[getattr(split, part)]) for part in PARTS}
    assert not held["train"] & held["valid"]
    assert not held["train"] & held["test"]
    assert not held["valid"] & held["test"]
    test_rows = np.flatnonzero(np.isin(many.chroms, list(held["test"])))
    assert split.test.tolist() == test_rows.tolist(), "nothing is dropped from test, so its chromosomes are whole"


def test_with_few_chromosomes_a_block_is_a_stretch_of_one(few: Genes) -> None:
    split = block_split(few)

    assert set(few.chroms[split.train]) & set(few.chroms[split.test]), "no whole chromosome had to be held out"
    order = sorted(range(few.num_genes), key=lambda row: (few.chroms[row], few.starts[row]))
    in_test = [row in set(split.test.tolist()) for row in order]
    num_runs = sum(here and not before for here, before in zip(in_test, [False, *in_test], strict=False))
    assert len(split.test) / num_runs >= 3, "neighbours stay together"


@pytest.mark.parametrize("size", ["few", "many"])
def test_dropped_genes_are_counted_by_reason(size: str, request: pytest.FixtureRequest) -> None:
    genes = request.getfixturevalue(size)
    labelled = everyone(genes)
    labelled[::17] = False
    split = block_split(genes, labelled=labelled)

    kept = {*split.train.tolist(), *split.valid.tolist(), *split.test.tolist()}
    assert split.dropped["no_label"] == len(labelled[::17])
    assert len(kept) + sum(split.dropped.values()) == genes.num_genes
    assert split.dropped["family"] > 0
    if size == "many":
        assert split.dropped["window_overlap"] == 0, "windows of different chromosomes cannot overlap"
    else:
        assert split.dropped["window_overlap"] > 0


@pytest.mark.parametrize("size", ["few", "many"])
def test_a_gene_is_dropped_only_for_a_reason(size: str, request: pytest.FixtureRequest) -> None:
    genes = request.getfixturevalue(size)
    split = block_split(genes)
    kept = {*split.train.tolist(), *split.valid.tolist(), *split.test.tolist()}
    # A held-out gene that was itself dropped (valid, close to test) may be the reason.
    for row in set(range(genes.num_genes)) - kept:
        others = set(range(genes.num_genes)) - set(split.train.tolist()) - {row}
        assert any(overlap(genes, row, other) or related(genes, row, other) for other in others)


def test_genes_without_a_label_are_in_no_part(few: Genes) -> None:
    labelled = np.isfinite(few.target("mrna"))
    assert not labelled.all()
    split = block_split(few, labelled=labelled)

    for part in PARTS:
        assert labelled[getattr(split, part)].all()


def test_held_out_parts_have_about_the_size_asked_for(many: Genes, few: Genes) -> None:
    for genes, largest_unit in ((many, 30), (few, 5)):
        split = block_split(genes)
        assert abs(len(split.test) - 0.2 * genes.num_genes) <= largest_unit / 2
        lost = split.dropped["family"] + split.dropped["window_overlap"]
        assert 0.15 * genes.num_genes - lost <= len(split.valid) <= 0.15 * genes.num_genes + largest_unit / 2


@pytest.mark.parametrize("by", ["block", "chromosome", "family", "random"])
def test_the_same_seed_gives_the_same_split_and_another_one_another(many: Genes, by: str) -> None:
    def split(seed: int) -> Split:
        return make_split(many, SplitSpec(by=by, seed=seed), WINDOW, everyone(many))  # type: ignore[arg-type]

    assert split(0).hash == split(0).hash
    assert len({split(seed).hash for seed in range(4)}) > 1
    assert set(split(0).test.tolist()) != set(split(1).test.tolist()) or split(0).hash != split(2).hash


def test_a_family_split_keeps_families_together_and_a_chromosome_split_chromosomes(many: Genes) -> None:
    by_family = make_split(many, SplitSpec(by="family"), WINDOW, everyone(many))
    by_chromosome = make_split(many, SplitSpec(by="chromosome"), WINDOW, everyone(many))

    assert all(found["family_members"] == 0 for found in by_family.audit.values())
    assert by_family.audit["train-test"]["window_overlaps"] > 0
    assert all(found["window_overlaps"] == 0 for found in by_chromosome.audit.values())
    assert by_chromosome.audit["train-test"]["family_members"] > 0
    for split in (by_family, by_chromosome):
        assert sum(len(getattr(split, part)) for part in PARTS) == many.num_genes


def test_the_audit_of_a_random_split_counts_what_leaks(few: Genes) -> None:
    split = make_split(few, SplitSpec(by="random", valid=0.15, test=0.2), WINDOW, everyone(few))

    for pair, found in split.audit.items():
        seen, held = (getattr(split, part).tolist() for part in pair.split("-"))
        assert found["window_overlaps"] == sum(any(overlap(few, a, b) for a in seen) for b in held)
        assert found["family_members"] == sum(any(related(few, a, b) for a in seen) for b in held)
    assert split.audit["train-test"]["window_overlaps"] > 0
    assert split.audit["train-test"]["family_members"] > 0
    assert split.audit["train-test"]["protein_similarity"] > 0.3, "a family shares at least 30 % of its 6-mers"


def test_windows_that_touch_do_not_overlap_and_one_base_more_does() -> None:
    # Gene 0 (+) covers 401..1300. Gene 1 (-) covers end-299..end+600.
    def overlaps(end: int) -> float:
        genes: Any = SimpleNamespace(
            starts=np.array([1001, end - 50]),
            ends=np.array([1050, end]),
            strands=np.array(["+", "-"]),
            chroms=np.array(["I", "I"]),
            family_ids=np.array([0, 1]),
            protein_tokens=np.array([1, 2], np.uint8),
            protein_offsets=np.array([0, 1, 2]),
            num_genes=2,
            notes={},
        )
        nobody = np.array([], np.int64)
        found = audit(genes, {"train": np.array([0]), "valid": nobody, "test": np.array([1])}, WINDOW)
        assert overlap(genes, 0, 1) == bool(found["train-test"]["window_overlaps"])
        return found["train-test"]["window_overlaps"]

    assert overlaps(1600) == 0, "1301 is the first base of gene 1"
    assert overlaps(1599) == 1
    assert overlaps(-200) == 0, "400 is its last"
    assert overlaps(-199) == 1


def test_a_block_split_that_leaks_is_never_handed_out(few: Genes, monkeypatch: pytest.MonkeyPatch) -> None:
    leak = {"train-test": {"window_overlaps": 1, "family_members": 0, "protein_similarity": 0.1}}
    monkeypatch.setattr("raystudy.data.splits.audit", lambda *_: leak)

    with pytest.raises(SplitLeakage, match="train-test"):
        block_split(few)


@pytest.mark.parametrize("by", ["block", "random"])
def test_too_few_genes_for_a_part_are_refused_with_the_count(few: Genes, by: str) -> None:
    labelled = everyone(few)
    labelled[40:] = False

    with pytest.raises(DataError, match=r"part has \d genes of 40 labelled ones, at least 10 are needed"):
        make_split(few, SplitSpec(by=by), WINDOW, labelled)  # type: ignore[arg-type]


def test_a_saved_split_reads_back_the_same(few: Genes, tmp_path: Path) -> None:
    split = block_split(few)
    split.save(tmp_path / "split.json", few)

    again = Split.load(tmp_path / "split.json", few)

    assert again.hash == split.hash
    assert again.summary() == split.summary()
    for part in PARTS:
        assert np.array_equal(getattr(again, part), getattr(split, part))
    document = json.loads((tmp_path / "split.json").read_text())
    assert document["genes"]["test"] == few.gene_ids[split.test].tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["split.json"]


def move_a_test_gene_to_train(document: dict[str, Any]) -> None:
    document["genes"]["train"].append(document["genes"]["test"].pop())


def name_a_gene_that_is_not_there(document: dict[str, Any]) -> None:
    document["genes"]["train"][0] = "NOBODY"


def forget_a_part(document: dict[str, Any]) -> None:
    del document["genes"]["valid"]


@pytest.mark.parametrize("edit", [move_a_test_gene_to_train, name_a_gene_that_is_not_there, forget_a_part])
def test_an_edited_split_is_refused(few: Genes, tmp_path: Path, edit: Any) -> None:
    path = tmp_path / "split.json"
    block_split(few).save(path, few)
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))

    with pytest.raises(DataError, match=r"split\.json"):
        Split.load(path, few)


def test_a_split_file_cut_short_is_refused(few: Genes, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    block_split(few).save(path, few)
    path.write_text(path.read_text()[:200])

    with pytest.raises(DataError, match=r"split\.json"):
        Split.load(path, few)


def test_a_split_of_other_data_is_refused_with_both_hashes(few: Genes, many: Genes, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    block_split(few).save(path, few)

    with pytest.raises(DataError, match=f"made for data {few.hash}, but the data given is {many.hash}"):
        Split.load(path, many)


def test_a_chromosome_that_holds_most_genes_is_cut_into_stretches(tmp_path: Path) -> None:
    table = synthetic.build(num_genes=240, num_chromosomes=9)
    chroms = ["large" if row < 180 else f"small{row % 9}" for row in range(240)]
    starts = np.arange(240) * 2_000 + 1_000
    spread = replace(table, chroms=chroms, starts=starts, ends=starts + 500)
    genes = Genes.open(write_genes(spread, tmp_path / "data"))

    split = make_split(genes, SplitSpec(), (200, 100), np.ones(240, bool))

    assert {str(genes.chroms[row]) for row in split.train} > {"large"}
    assert "large" in {str(genes.chroms[row]) for row in (*split.valid, *split.test)}
