from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from raystudy.data.batches import StudyData
from raystudy.data.genes import Genes
from raystudy.data.splits import Split
from raystudy.export import export_best, export_ensemble
from raystudy.study.model import ModelSpec, TrainingSpec
from raystudy.training.checkpoint import BEST
from raystudy.training.loop import Job, train
from raystudy.training.program import NoProgram
from raystudy.training.session import LocalSession
from tests.conftest import write_study

MAKE_STORE = """
from pathlib import Path
from raystudy.tracking.mlflow import MlflowMirror
from raystudy.tracking.records import Records
records = Records(Path("studies/empty"))
records.append("session_started")
MlflowMirror(None, records).sync(records.read())
"""


@pytest.fixture(scope="session")
def first_use(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store as the first sync makes it, in a process of its own: (its file, what was printed)."""
    folder = tmp_path_factory.mktemp("store")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    done = subprocess.run(
        [sys.executable, "-c", MAKE_STORE], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return folder / "studies" / "mlflow.db", done.stdout + done.stderr


@pytest.fixture
def studies(tmp_path: Path, first_use: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of studies with a store in it already: making its tables takes seconds."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "studies"
    folder.mkdir(exist_ok=True)
    shutil.copy(first_use[0], folder / "mlflow.db")
    return folder


@pytest.fixture(scope="session")
def checkpoints(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two networks that read DNA, proteins and features, trained for an epoch with different seeds."""
    genes = Genes.open(synthetic_dir)
    rows = np.split(np.random.default_rng(0).permutation(genes.num_genes), [70, 95])
    split = Split("random", genes.hash, *(np.sort(part) for part in rows), dropped={}, audit={})
    sizes = {"latent_dim": 8, "num_latents": 4, "queries_dim": 8, "token_dim": 8, "pool_size": 6}
    model = ModelSpec(window_bp=(100, 50), max_protein=60, **sizes)
    training = TrainingSpec(epochs=1, batch_size=32, precision="fp32", attention="sdpa")
    folders = [tmp_path_factory.mktemp("trained") for _ in range(2)]
    for seed, folder in enumerate(folders):
        data = StudyData.of(genes, split, model, ("protein",))
        train(Job(model, training, seed=seed), data, LocalSession(folder))
    return [folder / BEST for folder in folders]


@dataclass(frozen=True)
class Exports:
    """Folders that raystudy wrote, of replicates of a study "fake"."""

    best: Path
    """One network, t0001-r0."""
    ensemble: Path
    """Both, with an interval."""


def no_program(*_: object) -> float:
    """Tracing takes seconds; tests/training/test_exported.py is about it."""
    raise NoProgram("not traced in this test")


@pytest.fixture(scope="session")
def exports(checkpoints: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Exports:
    folder = tmp_path_factory.mktemp("exported")
    records = write_study(folder / "fake", folds=2)
    for number, checkpoint in enumerate(checkpoints):
        shutil.copy(checkpoint, records.trial_folder(f"t0001-r{number}") / BEST)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("raystudy.export.write_program", no_program)
        best = export_best(records.read())
        export_ensemble(records.read(), folder / "ensemble")
    assert best is not None
    return Exports(best, folder / "ensemble")
