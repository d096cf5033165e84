"""Every network can learn 64 genes by heart: labels are random, so nothing but the whole path from input to output,
gradients and steps included, can bring the R2 up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.conftest import READERS, Tiny, make_job, run

NUM_GENES, BATCH_SIZE = 64, 16
STEPS = {"xpresso": 400}
SEED = {"xpresso": 5}
"""Xpresso ends in two ReLU units; from some starts one of them never answers, and 64 genes are then too many."""
QUICK = "protein asked by dna"
"""The one of `make test`; the others hold the same parts, and take up to half a minute each."""
WIDER: dict[str, Any] = {"latent_dim": 16, "num_latents": 8, "queries_dim": 16, "dropout": 0.0, "half_life": "none"}


@pytest.mark.parametrize(
    "reader", [pytest.param(reader, marks=[] if reader == QUICK else [pytest.mark.slow]) for reader in READERS]
)
def test_a_network_learns_64_genes_by_heart(reader: str, tiny: Tiny, tmp_path: Path) -> None:
    steps = STEPS.get(reader, 200)
    settings = READERS[reader] if reader == "xpresso" else {**READERS[reader], **WIDER}
    job = make_job(
        SEED.get(reader, 0),
        settings,
        epochs=steps * BATCH_SIZE // NUM_GENES,
        batch_size=BATCH_SIZE,
        learning_rate=0.003 if reader == "xpresso" else 0.005,
        weight_decay=0.0,
    )
    random = np.random.default_rng(0)
    rows = np.sort(random.permutation(tiny.genes.num_genes)[:NUM_GENES])
    labels = np.full((tiny.genes.num_genes, 1), np.nan, np.float32)
    labels[rows, 0] = random.normal(size=NUM_GENES)
    data = replace(tiny.read_by(job), labels=labels, split=replace(tiny.split, train=rows, valid=rows))

    reported = run(job, data, tmp_path)

    assert reported[0]["valid_r2"] < 0.5, "it is not known beforehand"
    assert reported[-1]["valid_r2"] > 0.95
    assert len(reported) * NUM_GENES // BATCH_SIZE == steps
