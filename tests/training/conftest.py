"""A tiny study's data, as training sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystudy.data.batches import StudyData
from raystudy.data.genes import Genes
from raystudy.data.splits import make_split
from raystudy.study.spec import DataSpec, ModelSpec, SplitSpec, TrainingSpec
from raystudy.training.loop import Job, train
from raystudy.training.session import LocalSession, Metrics

WINDOW, MAX_PROTEIN = (100, 50), 60
TINY: dict[str, Any] = {"latent_dim": 8, "num_latents": 4, "queries_dim": 8, "token_dim": 8, "pool_size": 6}


@dataclass(frozen=True)
class Tiny:
    """Where the tiny study's files are, and what is in them."""

    folder: Path
    split_path: Path
    genes: Genes
    data: StudyData


@pytest.fixture(scope="session")
def tiny(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    genes = Genes.open(synthetic_dir)
    path = tmp_path_factory.mktemp("tiny") / "split.json"
    split_spec = SplitSpec(valid=0.2, test=0.2)
    make_split(genes, split_spec, WINDOW, np.ones(genes.num_genes, bool)).save(path, genes)
    spec = DataSpec(path=synthetic_dir, window_bp=WINDOW, max_protein=MAX_PROTEIN)
    return Tiny(synthetic_dir, path, genes, StudyData.load(synthetic_dir, path, spec, "protein"))


def make_job(seed: int = 7, model: dict[str, Any] | None = None, **training: Any) -> Job:
    settings = {"epochs": 4, "batch_size": 16, "precision": "fp32", **training}
    return Job(ModelSpec(**{**TINY, **(model or {})}), TrainingSpec(**settings), sum(WINDOW), MAX_PROTEIN, seed)


@pytest.fixture
def job() -> Callable[..., Job]:
    """Makes a tiny job: `job(seed=..., model={...}, epochs=..., ...)`."""
    return make_job


def run(job: Job, data: StudyData, folder: Path) -> list[Metrics]:
    """Train in this process; what was reported."""
    reported: list[Metrics] = []
    train(job, data, LocalSession(folder, reported.append))
    return reported
