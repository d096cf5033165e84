from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystudy.data.genes import Genes, write_genes
from raystudy.data.sources import xpresso
from raystudy.data.splits import PARTS, Split, make_folds, make_split
from raystudy.errors import DataError
from raystudy.study.sections import SplitSpec
from tests.data.xpresso_cases import COUNTS, GENES, published, write

WINDOW = (7000, 3500)


@pytest.fixture(scope="module")
def human(tmp_path_factory: pytest.TempPathFactory) -> Genes:
    """32 genes of published files, without proteins: neither positions nor families are known."""
    folder = tmp_path_factory.mktemp("published")
    return Genes.open(write_genes(xpresso.build(files=write(folder / "files", published())), folder / "data"))


def everyone(genes: Genes) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.ones(genes.num_genes, bool)


def test_the_published_parts_are_taken_as_they_are_and_nothing_is_dropped(human: Genes) -> None:
    split = make_split(human, SplitSpec(by="published"), WINDOW, everyone(human))

    assert {part: human.gene_ids[getattr(split, part)].tolist() for part in PARTS} == GENES
    assert split.dropped == {"no_label": 0}
    assert split.by == "published"


def test_the_seed_does_not_change_it(human: Genes) -> None:
    splits = [make_split(human, SplitSpec(by="published", seed=seed), WINDOW, everyone(human)) for seed in (0, 1)]

    assert splits[0].hash == splits[1].hash


def test_what_cannot_be_known_of_its_leaks_is_said_to_be_unknown_and_not_none(human: Genes) -> None:
    for spec in (SplitSpec(by="published"), SplitSpec(by="random", valid=0.35, test=0.35)):
        split = make_split(human, spec, WINDOW, everyone(human))
        unknown = {"window_overlaps": None, "family_members": None, "protein_similarity": None}
        assert split.audit == dict.fromkeys(("train-valid", "train-test", "valid-test"), unknown)


def test_genes_without_a_label_are_in_no_part(human: Genes) -> None:
    labelled = everyone(human)
    labelled[:2] = False

    split = make_split(human, SplitSpec(by="published"), WINDOW, labelled)

    assert split.train.tolist() == list(range(2, COUNTS["train"]))
    assert split.dropped == {"no_label": 2}


def test_it_is_kept_and_read_back(human: Genes, tmp_path: Path) -> None:
    split = make_split(human, SplitSpec(by="published"), WINDOW, everyone(human))
    split.save(tmp_path / "split.json", human)

    assert json.loads((tmp_path / "split.json").read_text())["audit"]["train-test"]["window_overlaps"] is None
    again = Split.load(tmp_path / "split.json", human)
    assert again.summary() == split.summary()


def test_folds_keep_its_test_part_and_validate_every_other_gene_once(human: Genes) -> None:
    spec = SplitSpec(by="published")
    split = make_split(human, spec, WINDOW, everyone(human))

    folds = make_folds(split, human, spec, WINDOW, everyone(human), 2)

    assert all(np.array_equal(fold.test, split.test) for fold in folds)
    validated = np.concatenate([fold.valid for fold in folds])
    assert sorted(validated.tolist()) == sorted([*split.train.tolist(), *split.valid.tolist()])


@pytest.mark.parametrize(
    ("by", "why"),
    [
        ("block", "where its genes lie is not known"),
        ("chromosome", "where its genes lie is not known"),
        ("family", "it has no proteins"),
    ],
)
def test_a_way_that_needs_what_is_not_known_is_refused_with_those_that_do_not(by: Any, why: str, human: Genes) -> None:
    with pytest.raises(DataError, match=f"`split.by: {by}` cannot be had.*{why}.*Part it by random or published inst"):
        make_split(human, SplitSpec(by=by), WINDOW, everyone(human))


def test_data_without_a_published_split_refuses_one(few: Genes) -> None:
    with pytest.raises(DataError, match=r"no split was published with it. Part it by block or chromosome or family or"):
        make_split(few, SplitSpec(by="published"), (600, 300), everyone(few))


@pytest.mark.parametrize("sizes", [{"valid": 0.2}, {"test": 0.2}])
def test_sizes_beside_a_published_split_are_refused(sizes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="`by: published` has its own sizes"):
        SplitSpec(by="published", **sizes)


def test_a_published_split_that_does_not_fit_the_genes_is_refused(human: Genes, tmp_path: Path) -> None:
    genes = Genes.open(human.folder)
    genes.notes["published_split"] = COUNTS | {"valid": 11}

    with pytest.raises(DataError, match="does not fit its 32 genes"):
        make_split(genes, SplitSpec(by="published"), WINDOW, everyone(genes))
