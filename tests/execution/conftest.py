"""A real Ray for the whole session, and tiny studies to run on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from raystudy.data.genes import Genes, GeneTable, write_genes
from raystudy.data.sources import synthetic
from raystudy.data.splits import make_split
from raystudy.execution.capacity import Node
from raystudy.execution.cluster import ray_cluster
from raystudy.progress import Progress
from raystudy.study.reading import parse_spec
from raystudy.study.sections import SplitSpec
from raystudy.tracking.records import StudyRecord
from raystudy.tune import run_study

SYNTHETIC_WINDOW = (300, 150)


@pytest.fixture(scope="session")
def ray() -> Iterator[tuple[Node, ...]]:
    with ray_cluster() as capacity:
        yield capacity


@pytest.fixture(scope="session")
def table() -> GeneTable:
    return synthetic.build(seed=3, num_genes=500, num_chromosomes=10)


@pytest.fixture(scope="session")
def data_folder(table: GeneTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_genes(table, tmp_path_factory.mktemp("data") / "synthetic")


@pytest.fixture
def relabelled(table: GeneTable, data_folder: Path, tmp_path: Path) -> Callable[[Callable[[Any, Any], Any]], Path]:
    """Write the same genes with other protein labels, always to the same folder, which is part of a study's identity.

    ``change`` gets the labels and the split's parts and returns the labels to write.
    """
    genes = Genes.open(data_folder)
    labels = genes.target("protein")
    split = make_split(genes, SplitSpec(), SYNTHETIC_WINDOW, np.isfinite(labels))

    def write(change: Callable[[Any, Any], Any]) -> Path:
        target = replace(table.targets["protein"], values=change(labels.copy(), split))
        return write_genes(replace(table, targets={**table.targets, "protein": target}), tmp_path / "relabelled")

    return write


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "studies"
    monkeypatch.setenv("RAYSTUDY_HOME", str(folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture
def tiny_study(studies: Path) -> Callable[..., dict[str, Any]]:
    """Makes a study file's content whose trials take about a second; ``changes`` replace its keys."""
    return _tiny_study


def _tiny_study(name: str, data: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "data": {"path": str(data), "window_bp": list(SYNTHETIC_WINDOW), "max_protein": 200},
        "model": {"num_latents": 8, "queries_dim": 16},
        "search": {
            "latent_dim": {"kind": "pow2", "low": 8, "high": 32, "seed_from": "intrinsic_dimension"},
            "encoder": {"kind": "categorical", "choices": ["onehot", "embedding"]},
            "half_life": {"kind": "categorical", "choices": ["concat", "mlp"]},
            "learning_rate": {"kind": "log", "low": 1e-3, "high": 1e-2},
        },
        "training": {"epochs": 3, "batch_size": 32, "attention": "sdpa"},  # two runs equal to the last bit
        "budget": {"trials": 4, "minutes": 5},
        **changes,
    }


@pytest.fixture
def run() -> Callable[[dict[str, Any]], StudyRecord]:
    """Runs a study to its end in this process."""

    def run_document(document: dict[str, Any]) -> StudyRecord:
        with Progress(Console(stderr=True)) as progress:
            return run_study(parse_spec(document), progress)

    return run_document
