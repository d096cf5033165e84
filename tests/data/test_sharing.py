"""How the genes of an epoch are shared among ranks and steps."""

from __future__ import annotations

import numpy as np
import pytest

from raystudy.data.batches import shard, training_batches, training_steps


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
    together = batch_size * world_size
    epochs = [list(training_batches(rows, together, rank, world_size, seed=5)) for rank in range(world_size)]
    seen = [row for epoch in epochs for mine, _ in epoch for row in mine.tolist()]
    rest = num_train % together
    assert len(seen) == len(set(seen)) == num_train - (rest if rest < world_size else 0)
    assert set(seen) <= set(rows.tolist())
    assert {len(epoch) for epoch in epochs} == {training_steps(num_train, together, world_size)}
    for step in zip(*epochs, strict=True):
        sizes = [len(mine) for mine, _ in step]
        assert min(sizes) >= 1, "a rank without genes would leave the others waiting"
        assert max(sizes) <= batch_size
        shared = sorted(row for mine, _ in step for row in mine.tolist())
        assert all(sorted(genes.tolist()) == shared for _, genes in step)


def test_the_order_of_an_epoch_depends_on_its_seed_alone() -> None:
    def order(seed: int) -> list[int]:
        return [row for mine, _ in training_batches(np.arange(64), 8, 0, 1, seed) for row in mine.tolist()]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != list(range(64))


def test_one_step_holds_the_same_genes_however_many_ranks_share_it() -> None:
    rows = np.arange(64)
    alone = [together.tolist() for _, together in training_batches(rows, 16, 0, 1, seed=3)]
    shared = [[together.tolist() for _, together in training_batches(rows, 16, rank, 4, seed=3)] for rank in range(4)]
    assert shared == [alone] * 4
