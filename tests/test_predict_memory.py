"""Predicting many genes takes no more memory than predicting few."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import raystudy
from raystudy import predict
from raystudy.data.genes import Genes
from raystudy.data.sequences import Ragged, Sequences
from raystudy.training.trained import TrainedModel
from tests.predict_cases import train_one


def many(num_genes: int) -> Iterator[Sequences]:
    """Made as they are asked for."""
    dna = np.random.default_rng(0).integers(1, 5, 150, dtype=np.uint8)
    for first in range(0, num_genes, 500):
        yield Sequences(
            np.array([f"G{number:06d}" for number in range(first, first + 500)]),
            Ragged.of([dna] * 500),
            Ragged.of([np.empty(0, np.uint8)] * 500),
            Ragged.of([np.empty(0, np.uint8)] * 500),
            np.zeros((500, 8), np.float32),
            np.ones(500, bool),
            100,
            "memory",
        )


def peak_bytes(model: TrainedModel, num_genes: int, out: Path) -> int:
    tracemalloc.start()
    predict.write_levels(model, partial(many, num_genes), out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_genes(
    synthetic_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainedModel, "predict_inputs", lambda _, inputs, *__: np.zeros((inputs.num_genes, 2)))
    model = raystudy.load(train_one(Genes.open(synthetic_dir), tmp_path / "trained", family="dna", half_life="none"))
    peak_bytes(model, 500, tmp_path / "warm.parquet")

    few, lots = (peak_bytes(model, number, tmp_path / f"{number}.parquet") for number in (2_000, 20_000))

    assert pq.read_metadata(tmp_path / "20000.parquet").num_rows == 20_000
    assert lots - few < 250 * 18_000, "no more than their ids, a gene's DNA and protein are thousands of bytes"
