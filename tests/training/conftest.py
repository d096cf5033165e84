"""A tiny study's data, as training sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raystudy.data.batches import StudyData
from raystudy.data.genes import Genes
from raystudy.data.splits import Split, make_split
from raystudy.study.model import ModelSpec, TrainingSpec
from raystudy.study.sections import SplitSpec
from raystudy.training.loop import Job, train
from raystudy.training.session import LocalSession, Metrics

WINDOW, MAX_PROTEIN = (100, 50), 60
TINY: dict[str, Any] = {
    "window_bp": WINDOW, "max_protein": MAX_PROTEIN, "latent_dim": 8, "num_latents": 4, "queries_dim": 8,
    "token_dim": 8, "pool_size": 6,
}  # fmt: skip
XPRESSO: dict[str, Any] = {"family": "xpresso", "window_bp": (200, 100)}
"""The smallest window that it pools."""
READERS: dict[str, dict[str, Any]] = {
    "dna": {**TINY, "family": "dna"},
    "dna as 3-mers": {**TINY, "family": "dna", "encoder": "kmer"},
    "protein": {**TINY, "family": "protein"},
    "protein as codons": {**TINY, "family": "protein", "tokens": "codon"},
    "protein asked by dna": {**TINY, "family": "dna_protein", "perceiver_input": "protein"},
    "dna asked by protein": {**TINY, "family": "dna_protein", "perceiver_input": "dna"},
    "xpresso": XPRESSO,
}
"""Every family, and every way in which the Perceiver reads a gene."""


@dataclass(frozen=True)
class Tiny:
    """Where the tiny study's files are, and what is in them."""

    folder: Path
    split_path: Path
    genes: Genes
    split: Split
    data: StudyData
    """As the network of `make_job()` reads it."""

    def read_by(self, job: Job, *targets: str) -> StudyData:
        """As another network reads it, with these levels as labels."""
        return StudyData.of(self.genes, self.split, job.model, targets or ("protein",))


@pytest.fixture(scope="session")
def tiny(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    genes = Genes.open(synthetic_dir)
    path = tmp_path_factory.mktemp("tiny") / "split.json"
    split_spec = SplitSpec(valid=0.2, test=0.2)
    split = make_split(genes, split_spec, WINDOW, np.ones(genes.num_genes, bool))
    split.save(path, genes)
    data = StudyData.of(genes, split, make_job().model, ("protein",))
    return Tiny(synthetic_dir, path, genes, split, data)


def make_job(seed: int = 7, model: dict[str, Any] | None = None, **training: Any) -> Job:
    """A tiny job: ``model`` replaces keys of `TINY`; a whole network may be one of `READERS`."""
    whole = model is not None and "family" in model
    settings = {"epochs": 4, "batch_size": 16, "precision": "fp32", **training}
    return Job(ModelSpec(**{**({} if whole else TINY), **(model or {})}), TrainingSpec(**settings), seed)


def run(job: Job, data: StudyData, folder: Path) -> list[Metrics]:
    """Train in this process; what was reported."""
    reported: list[Metrics] = []
    train(job, data, LocalSession(folder, reported.append))
    return reported


def without_times(metrics: Metrics) -> Metrics:
    """What a repeated run repeats: not how long it took, nor how much memory the process once had."""
    return {key: value for key, value in metrics.items() if "second" not in key and key != "peak_memory_gb"}


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch) -> list[list[torch.Tensor]]:
    """Those of every step of an optimizer from here on."""
    found: list[list[torch.Tensor]] = []
    step = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *arguments: Any) -> Any:
        found.append([value.grad.clone() for group in self.param_groups for value in group["params"]])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    return found
