"""What each way of parting genes leaks, against comparing every pair, and as a person reads it."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

from raystudy import printing
from raystudy.data.genes import Genes
from raystudy.data.split_audit import compare_splits
from raystudy.data.splits import PAIRS, Split, make_split
from raystudy.errors import DataError, SpecError
from raystudy.study.sections import SplitSpec

WINDOW = (600, 300)
SPEC = SplitSpec(valid=0.15, test=0.2, seed=1)
WAYS = ("block", "chromosome", "family", "random")


def parted(genes: Genes, way: str) -> Split:
    spec = SplitSpec.model_validate({**SPEC.model_dump(), "by": way})
    return make_split(genes, spec, WINDOW, np.ones(genes.num_genes, np.bool_))


def shared_bases(genes: Genes, one: int, other: int) -> int:
    """How many genomic bases the windows of two genes have in common."""
    if genes.chroms[one] != genes.chroms[other]:
        return 0
    up, down = WINDOW
    spans = []
    for row in (one, other):
        start, end = int(genes.starts[row]), int(genes.ends[row])
        spans.append(
            range(start - up, start + down) if genes.strands[row] == "+" else range(end - down + 1, end + up + 1)
        )
    return len(range(max(span[0] for span in spans), min(span[-1] for span in spans) + 1))


@pytest.fixture(scope="module")
def compared(few: Genes) -> dict[str, Any]:
    return compare_splits(few, SPEC, WAYS, WINDOW)


@pytest.mark.parametrize("way", ["block", "random"])
def test_leaks_are_those_of_comparing_every_pair(few: Genes, compared: dict[str, Any], way: str) -> None:
    split, proteins = parted(few, way), few.texts("protein")
    words = [{text[at : at + 6] for at in range(len(text) - 5)} for text in proteins]
    for seen, held in PAIRS:
        found = compared["ways"][way]["pairs"][f"{seen}-{held}"]
        there, here = getattr(split, seen).tolist(), getattr(split, held).tolist()
        shared = [max(shared_bases(few, row, other) for other in there) for row in here]
        likeness = [
            max(len(words[row] & words[other]) / min(len(words[row]), len(words[other])) for other in there)
            for row in here
        ]
        assert found["held_out"] == len(here)
        assert found["window_overlaps"] == sum(bases > 0 for bases in shared)
        assert found["window_overlaps_half"] == sum(2 * bases > sum(WINDOW) for bases in shared)
        assert found["family_members"] == sum(few.family_ids[row] in few.family_ids[there] for row in here)
        assert found["identical_proteins"] == sum(proteins[row] in {proteins[other] for other in there} for row in here)
        assert found["protein_similarity"] == {
            "largest": pytest.approx(max(likeness), abs=1e-4),
            "median": pytest.approx(float(np.median(likeness)), abs=1e-4),
            "close": sum(share >= 0.3 for share in likeness),
        }


def test_a_random_split_leaks_and_a_block_split_pays_with_genes(few: Genes, compared: dict[str, Any]) -> None:
    block, random = compared["ways"]["block"], compared["ways"]["random"]
    assert random["pairs"]["train-test"]["window_overlaps"] > random["pairs"]["train-test"]["window_overlaps_half"] > 0
    assert random["pairs"]["train-test"]["window_similarity"]["close"] > 0
    assert random["pairs"]["train-test"]["family_members"] > 0
    assert block["pairs"]["train-test"]["window_overlaps"] == block["pairs"]["train-test"]["family_members"] == 0
    assert block["dropped"]["window_overlap"] + block["dropped"]["family"] > 0
    assert sum(random[part] for part in ("train", "valid", "test")) == few.num_genes
    assert block["hash"] == parted(few, "block").hash


def test_a_copied_protein_is_counted(few: Genes) -> None:
    genes = copy.copy(few)
    split = parted(few, "random")
    one, other = split.train[0], split.test[0]
    tokens, lengths = np.split(few.protein_tokens, few.protein_offsets[1:-1]), np.diff(few.protein_offsets)
    tokens[other], lengths[other] = tokens[one], lengths[one]
    genes.protein_tokens, genes.protein_offsets = np.concatenate(tokens), np.concatenate([[0], np.cumsum(lengths)])
    before, after = (
        compare_splits(data, SPEC, ["random"], WINDOW)["ways"]["random"]["pairs"]["train-test"]["identical_proteins"]
        for data in (few, genes)
    )
    assert after == before + 1


def test_the_comparison_is_json_without_nan(compared: dict[str, Any]) -> None:
    assert json.loads(json.dumps(compared, allow_nan=False)) == compared


def test_a_target_leaves_genes_without_it_out_and_counts_them(few: Genes) -> None:
    found = compare_splits(few, SPEC, ["random"], WINDOW, "mrna")
    num_labelled = int(np.isfinite(few.target("mrna")).sum())
    assert num_labelled < few.num_genes
    assert found["num_labelled"] == num_labelled
    assert found["ways"]["random"]["dropped"]["no_label"] == few.num_genes - num_labelled
    with pytest.raises(DataError, match="no 'half_life' level"):
        compare_splits(few, SPEC, ["random"], WINDOW, "half_life")


def test_a_way_that_cannot_be_made_says_why_beside_the_others(few: Genes) -> None:
    genes = copy.copy(few)
    genes.chroms = np.full(few.num_genes, "I")
    found = compare_splits(genes, SPEC, ["chromosome", "random"], WINDOW)["ways"]
    assert list(found) == ["chromosome", "random"]
    assert "part has" in found["chromosome"]["refused"]
    assert "at least 10 are needed" in found["chromosome"]["refused"]
    assert found["random"]["test"] > 10


def test_what_is_not_known_is_no_number(few: Genes, capsys: pytest.CaptureFixture[str]) -> None:
    genes = copy.copy(few)
    genes.notes = {**few.notes, "coordinates": False, "families": False}
    found = compare_splits(genes, SPEC, WAYS, WINDOW)
    assert {way for way, one in found["ways"].items() if "refused" in one} == {"block", "chromosome", "family"}
    for leak in found["ways"]["random"]["pairs"].values():
        known = {key for key, value in leak.items() if value is not None}
        assert known == {"held_out", "window_similarity"}
    printing.print_split(found)
    row = next(line for line in capsys.readouterr().out.splitlines() if "train-test" in line)
    assert row.split()[1:6] == ["-", "-", "-", "-", "-"]


def test_without_an_audit_the_sizes_are_the_same_and_nothing_else_is_said(
    few: Genes, compared: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = compare_splits(few, SPEC, WAYS, WINDOW, audit=False)
    without = {way: {key: one[key] for key in one if key != "pairs"} for way, one in compared["ways"].items()}
    assert found == {**compared, "ways": without}
    printing.print_split(found)
    out = capsys.readouterr().out
    assert all(way in out for way in WAYS)
    assert "train-test" not in out
    assert "homolog" not in out


def test_an_unknown_way_or_window_is_refused(few: Genes) -> None:
    with pytest.raises(SpecError, match=r"parted by block, chromosome, family, random.*but got 'gene'"):
        compare_splits(few, SPEC, ["block", "gene"], WINDOW)
    with pytest.raises(DataError, match=r"window \[7000, 3500\]"):
        compare_splits(few, SPEC, ["block"], (7000, 3500))


def test_the_tables_hold_every_number_on_a_narrow_screen(
    few: Genes, compared: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    refused = {"refused": "there are too few of them"}
    printing.print_split({**compared, "ways": {**compared["ways"], "published": refused}})
    out = capsys.readouterr().out
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= 80
    assert f"synthetic: {few.num_genes} genes in all; windows: 600 bp up, 300 down" in out
    assert "published: there are too few of them" in out
    leak = compared["ways"]["random"]["pairs"]["train-test"]
    assert f"{100 * leak['window_overlaps'] / leak['held_out']:.1f}%" in out
    likeness = leak["protein_similarity"]
    assert f"{likeness['largest']:.0%}, {likeness['median']:.0%}, {likeness['close']}" in out
    assert out.count("train-valid") == len(WAYS)
