"""Batches of genes that stay on a device. Any device will do to show what is taken: here it is the CPU."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from raystudy.data import batches, resident
from raystudy.data.batches import FeatureScale, GeneInputs, half_life_values
from raystudy.data.genes import Genes
from raystudy.study.model import ModelSpec

CPU = torch.device("cpu")
READERS: dict[str, dict[str, Any]] = {
    "protein and dna": {},
    "dna in the Perceiver": {"perceiver_input": "dna"},
    "3-mers": {"family": "dna", "encoder": "kmer"},
    "protein": {"family": "protein"},
    "codons": {"tokens": "codon", "perceiver_input": "dna"},
    "xpresso": {"family": "xpresso"},
}


def inputs_of(genes: Genes, reader: str) -> GeneInputs:
    model = ModelSpec(window_bp=(300, 200), max_protein=120, pool_size=4, **READERS[reader])
    values = half_life_values(genes.features, model)
    return GeneInputs.of(genes, model, FeatureScale.fit(values, np.arange(genes.num_genes)))


@pytest.mark.parametrize("reader", READERS)
def test_what_is_taken_on_a_device_is_what_is_taken_from_the_files(synthetic_dir: Any, reader: str) -> None:
    inputs = inputs_of(Genes.open(synthetic_dir), reader)
    there = inputs._moved(CPU)
    random = np.random.default_rng(0)

    for size in (1, 2, 17):
        rows = random.permutation(inputs.num_genes)[:size]
        expected, found = inputs.batch(rows, CPU), inputs._taken(there, rows)
        for one in fields(expected):
            wanted, got = getattr(expected, one.name), getattr(found, one.name)
            if isinstance(wanted, torch.Tensor):
                assert wanted.dtype == got.dtype, one.name
                assert torch.equal(wanted, got), one.name
            else:
                assert wanted == got, one.name


def test_a_device_gets_the_genes_once_and_none_that_do_not_fit(
    synthetic_dir: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, device = np.array([3, 1]), torch.device("meta")
    moved = list[torch.device]()
    monkeypatch.setattr(GeneInputs, "_moved", lambda self, device: moved.append(device))
    for room in (True, False):
        inputs = inputs_of(Genes.open(synthetic_dir), "protein and dna")
        monkeypatch.setattr(batches, "fits", lambda *_, room=room: room)
        moved.clear()
        for _ in range(2):
            assert inputs.batch(rows, device).sequence_BL.device == device, "put together here and sent there"
        assert moved == ([device] if room else [])


def test_a_quarter_of_the_free_memory_is_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 5000))

    assert resident.fits(249, torch.device("cuda"))
    assert not resident.fits(250, torch.device("cuda"))
    assert resident.fits(10**15, CPU)
