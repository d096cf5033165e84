"""A tiny network to predict with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from raystudy.data.batches import StudyData
from raystudy.data.genes import Genes
from raystudy.data.splits import make_split
from raystudy.study.model import ModelSpec, TrainingSpec
from raystudy.study.sections import SplitSpec
from raystudy.training.loop import Job, train
from raystudy.training.session import LocalSession

WINDOW = (100, 50)
TARGETS = ("protein", "mrna")
NETWORK: dict[str, Any] = {
    "window_bp": WINDOW, "max_protein": 60, "latent_dim": 8, "num_latents": 4, "queries_dim": 8, "token_dim": 8,
    "pool_size": 6,
}  # fmt: skip


def train_one(genes: Genes, folder: Path, **network: Any) -> Path:
    split = make_split(genes, SplitSpec(by="random"), WINDOW, np.ones(genes.num_genes, bool))
    job = Job(ModelSpec(**{**NETWORK, **network}), TrainingSpec(epochs=2, batch_size=16, precision="fp32"), seed=3)
    train(job, StudyData.of(genes, split, job.model, TARGETS), LocalSession(folder))
    return folder
