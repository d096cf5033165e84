from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raystudy.data.batches import (
    LabelScale,
    StudyData,
    sealed_labels,
    shard,
    standardise,
    training_batches,
    training_steps,
)
from raystudy.data.genes import Genes
from raystudy.data.splits import Split, make_split
from raystudy.errors import DataError
from raystudy.study.spec import DataSpec, SplitSpec

WINDOW = (200, 100)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def genes(synthetic_dir: Path) -> Genes:
    return Genes.open(synthetic_dir)


@pytest.fixture(scope="module")
def split_path(genes: Genes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("split") / "split.json"
    labelled = np.isfinite(genes.target("mrna"))
    make_split(genes, SplitSpec(valid=0.15, test=0.2), WINDOW, labelled).save(path, genes)
    return path


def load(synthetic_dir: Path, split_path: Path, max_protein: int = 60) -> StudyData:
    spec = DataSpec(path=synthetic_dir, window_bp=WINDOW, max_protein=max_protein)
    return StudyData.load(synthetic_dir, split_path, spec, "mrna")


def test_training_columns_get_mean_0_and_variance_1() -> None:
    values = np.random.default_rng(0).normal([5, -300, 0], [2, 0.01, 40], (200, 3))
    train = np.arange(0, 200, 2)

    scaled = standardise(values, train)

    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[train].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled[train].std(axis=0), 1, atol=1e-4)
    np.testing.assert_allclose(scaled, (values - values[train].mean(axis=0)) / values[train].std(axis=0), atol=1e-3)


def test_other_genes_have_no_say_in_the_scale() -> None:
    values = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    train, others = np.arange(30), np.arange(30, 50)
    altered = values.copy()
    altered[others] = 1e6
    altered[others[0]] = np.nan

    assert np.array_equal(standardise(values, train)[train], standardise(altered, train)[train])


def test_missing_values_are_left_out_of_the_scale_and_become_the_mean() -> None:
    values = np.array([[1.0], [np.nan], [3.0], [np.nan], [5.0]])

    scaled = standardise(values, np.array([0, 1, 2]))

    assert scaled[:, 0].tolist() == [-1, 0, 1, 0, 3]


@pytest.mark.parametrize("constant", [0.0, -1.0, 2.7, 1234.567, np.nan])
def test_a_constant_or_missing_column_becomes_0_without_a_warning(constant: float) -> None:
    values = np.full((5000, 2), constant, np.float32)
    values[:, 1] = np.arange(5000)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaled = standardise(values, np.arange(4500))

    assert not scaled[:, 0].any()
    assert scaled[:, 1].any()


def test_the_label_scale_goes_there_and_back_and_refuses_a_constant() -> None:
    labels = np.array([1.0, 3.0, 8.0])
    scale = LabelScale.fit(labels)

    np.testing.assert_allclose(scale.to_unit(((labels - scale.mean) / scale.std).astype(np.float32)), labels, rtol=1e-6)
    with pytest.raises(DataError, match="the 3 training labels are all 2"):
        LabelScale.fit(np.full(3, 2.0))


def test_sealed_labels_hold_train_and_valid_only(genes: Genes, split_path: Path) -> None:
    split = Split.load(split_path, genes)

    labels = sealed_labels(genes, "mrna", split)

    seen = np.concatenate([split.train, split.valid])
    assert np.array_equal(labels[seen], genes.target("mrna")[seen])
    assert np.isnan(np.delete(labels, seen)).all()
    assert np.isnan(labels[split.test]).all()


def test_a_trial_sees_nothing_of_the_test_labels(
    synthetic_dir: Path, split_path: Path, genes: Genes, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = load(synthetic_dir, split_path)
    test = Split.load(split_path, genes).test
    original = Genes.target

    def poisoned(self: Genes, name: str) -> Any:
        labels = original(self, name)
        labels[test] = 1e9
        return labels

    monkeypatch.setattr(Genes, "target", poisoned)
    data = load(synthetic_dir, split_path)

    assert np.isnan(data.labels[test]).all()
    assert np.array_equal(data.labels, clean.labels, equal_nan=True)
    assert data.label_scale == clean.label_scale
    assert np.isfinite(data.labels[data.split.train]).all()
    assert abs(data.labels[data.split.train].mean()) < 1e-6
    assert abs(data.labels[data.split.train].std() - 1) < 1e-6


def test_a_batch_holds_each_genes_own_window_features_and_protein(
    synthetic_dir: Path, split_path: Path, genes: Genes
) -> None:
    data = load(synthetic_dir, split_path, max_protein=60)
    rows = np.array([7, 3, 90])

    batch = data.inputs(rows, CPU)

    assert np.array_equal(batch.window_BL.numpy(), genes.windows(WINDOW)[rows])
    assert np.array_equal(batch.half_life_BH.numpy(), standardise(genes.features, data.split.train)[rows])
    assert len(batch.residues_T) == len(batch.positions_T) == sum(batch.lengths)
    start = 0
    for row, length in zip(rows, batch.lengths, strict=True):
        whole = genes.protein_tokens[genes.protein_offsets[row] : genes.protein_offsets[row + 1]]
        assert length == min(len(whole), 60)
        assert batch.residues_T[start : start + length].tolist() == whole[:60].tolist()
        assert batch.positions_T[start : start + length].tolist() == list(range(length))
        start += length
    assert max(np.diff(genes.protein_offsets)[rows]) > 60, "one of them had to be cut"
    assert np.array_equal(data.targets(rows, CPU).numpy(), data.labels[rows], equal_nan=True)


def test_ordering_by_length_keeps_every_gene(synthetic_dir: Path, split_path: Path) -> None:
    data = load(synthetic_dir, split_path, max_protein=1000)
    rows = np.random.default_rng(0).permutation(data.split.train)

    ordered = data.by_length(rows)

    assert sorted(ordered.tolist()) == sorted(rows.tolist())
    assert (np.diff(data.protein_lengths[ordered]) >= 0).all()


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("num_rows", [0, 1, 7, 40])
def test_shards_are_a_partition(num_rows: int, world_size: int) -> None:
    rows = np.random.default_rng(0).permutation(num_rows)

    shards = [shard(rows, rank, world_size) for rank in range(world_size)]

    assert sorted(np.concatenate(shards).tolist()) == list(range(num_rows))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [2, 8, 50])
@pytest.mark.parametrize("num_train", [3, 16, 49, 50, 101])
def test_an_epoch_shows_every_gene_once_except_those_that_cannot_feed_every_rank(
    num_train: int, batch_size: int, world_size: int
) -> None:
    rows = 1000 + np.arange(num_train)
    epochs = [list(training_batches(rows, batch_size, rank, world_size, seed=5)) for rank in range(world_size)]

    seen = [row for epoch in epochs for mine, _ in epoch for row in mine.tolist()]
    rest = num_train % (batch_size * world_size)
    assert len(seen) == len(set(seen)) == num_train - (rest if rest < world_size else 0)
    assert set(seen) <= set(rows.tolist())
    assert {len(epoch) for epoch in epochs} == {training_steps(num_train, batch_size, world_size)}
    for step in zip(*epochs, strict=True):
        sizes = [len(mine) for mine, _ in step]
        assert min(sizes) >= 1, "a rank without genes would leave the others waiting"
        assert max(sizes) <= batch_size
        assert {together for _, together in step} == {sum(sizes)}


def test_the_order_of_an_epoch_depends_on_its_seed_alone() -> None:
    def order(seed: int) -> list[int]:
        return [row for mine, _ in training_batches(np.arange(64), 8, 0, 1, seed) for row in mine.tolist()]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != list(range(64))


def test_one_step_holds_the_same_genes_however_many_ranks_share_it() -> None:
    rows = np.arange(64)
    alone = [set(mine.tolist()) for mine, _ in training_batches(rows, 16, 0, 1, seed=3)]
    shared = [list(training_batches(rows, 4, rank, 4, seed=3)) for rank in range(4)]

    together = [set(np.concatenate([mine for mine, _ in step]).tolist()) for step in zip(*shared, strict=True)]
    assert together == alone
