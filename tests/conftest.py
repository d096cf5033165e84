"""Fixtures that several rooms share."""

from __future__ import annotations

import os

# Before anything loads an OpenMP library: threads waiting for each other on a busy machine made tests 50 times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from raystudy.data.sources import prepare
from raystudy.tracking import predictions
from raystudy.tracking.records import Records, TrialRecord, TrialState

ATTENTION = {"perceiver.cross": "sdpa", "perceiver.latents": "sdpa", "head": "sdpa"}
ENDS = (TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAILED)

DIMENSION = {
    "representation": "kmer3",
    "input": "dna",
    "window_bp": [1000, 500],
    "estimates": {"TwoNN": 12.0, "MLE": 14.0, "correlation_integral": 13.0},
    "spread": {"TwoNN": [10.0, 15.0], "MLE": [13.0, 14.5]},
    "consensus": 13.0,
    "mean": 13.0,
    "interval": [11.0, 17.0],
    "refused": {"lPCA": "needs more windows than dimensions"},
    "seconds": {
        "TwoNN": 0.1,
        "MLE": 0.2,
        "correlation_integral": 0.01,
        "lPCA": 0.1,
        "distances": 1.5,
        "resamples": 2.5,
    },
    "points": {"TwoNN": 64, "MLE": 64, "correlation_integral": 64, "lPCA": 64},
    "num_points": 64,
    "num_duplicates": 3,
    "curve": {
        "radius": [1.0, 1.2, 1.44, 1.728, 2.0736],
        "fraction": [0.0005, 0.005, 0.05, 0.4, 1.0],
        "slope": [None, 12.6, 12.0, 8.0, None],
        "region_fraction": [0.0005, 0.05],
        "region_radius": [1.0, 1.44],
        "fitted_slope": 13.0,
        "rule": "up to C = 0.05",
    },
    "others": {
        "composition": {
            "representation": "composition",
            "input": "dna",
            "window_bp": [1000, 500],
            "estimates": {"TwoNN": 3.0, "MLE": 3.2},
            "spread": {},
            "consensus": 3.1,
            "mean": 3.1,
            "interval": [3.0, 3.2],
            "refused": {},
            "seconds": {"TwoNN": 0.1, "MLE": 0.1},
            "points": {"TwoNN": 60, "MLE": 60},
            "num_points": 60,
            "num_duplicates": 7,
            "curve": None,
        }
    },
    "seeded": {
        "widths": [16, 8],
        "clamped": False,
        "provenance": {
            "representation": "kmer3",
            "input": "dna",
            "estimates": {"TwoNN": 12.0, "MLE": 14.0, "correlation_integral": 13.0},
            "consensus": 13.0,
            "interval": [11.0, 17.0],
            "note": "powers of two around the consensus 13.0",
        },
    },
}


def make_trial(trial_id: str, number: int = 0) -> TrialRecord:
    config = {
        "family": "dna_protein",
        "window_bp": [1000, 500],
        "latent_dim": 2 ** (3 + number % 5),
        "encoder": ("onehot", "embedding")[number % 2],
        "half_life": ("concat", "mlp")[number // 2 % 2],
        "batch_size": 64,
        "learning_rate": 0.001 * (1 + number),
    }
    origin = "finalist" if "-r" in trial_id else "seeded" if number < 2 else "sampled"
    return TrialRecord(trial_id, config, f"hash{number}", 100_000 + 1000 * number, 7 + number, origin)


def write_epoch(records: Records, trial_id: str, epoch: int, valid_r2: float) -> None:
    measured = {"train_loss": 1 / epoch, "valid_r2": valid_r2, "valid_pearson_r2": valid_r2 + 0.01}
    times = {"epoch_seconds": 2.0 + epoch, "eval_seconds": 0.5, "samples_per_second": 900.0}
    records.trial_epoch(trial_id, {"epoch": epoch, **measured, **times, "precision": "fp32", "attention": ATTENTION})


def write_predictions(records: Records, identity: str, noise: float, targets: Sequence[str]) -> dict[str, float]:
    """Predictions of 60 genes, a third in each part; returns the scores of the test genes."""
    measured = np.random.default_rng(0).normal(size=(60, len(targets)))
    predicted = measured + noise * np.random.default_rng(len(identity)).normal(size=measured.shape)
    parts = {"train": np.arange(20), "valid": np.arange(20, 40), "test": np.arange(40, 60)}
    genes = np.array([f"Y{number:03d}W" for number in range(60)])
    records.folder.mkdir(parents=True, exist_ok=True)
    predictions.write_predictions(records.folder, identity, genes, parts, targets, predicted, measured)
    error, total = (predicted - measured)[40:], measured[40:] - measured[40:].mean(axis=0)
    by_target = 1 - (error**2).sum(axis=0) / (total**2).sum(axis=0)
    test_r2 = float(by_target.mean())
    own = {f"test_r2_{target}": float(r2) for target, r2 in zip(targets, by_target, strict=True)}
    means = {"test_r2": test_r2, "test_pearson_r2": test_r2 + 0.01, "test_spearman": 0.6, "num_genes": 20}
    return means | (own if len(targets) > 1 else {})


def write_study(
    folder: Path,
    num_trials: int = 5,
    opened: bool = True,
    ridge_noise: float = 0.8,
    finalist_r2: float = 0.45,
    targets: Sequence[str] = ("protein",),
) -> Records:
    """A study folder as the driver leaves it: trials in every state, a finalist, a baseline, the test opened."""
    records = Records(folder)
    split = {
        "hash": "s1",
        "by": "block",
        "train": 20,
        "valid": 20,
        "test": 20,
        "dropped": 4,
        "max_identity": 0.29,
    }
    made = {
        "raystudy": "0.1.0",
        "git": {"commit": "abc", "dirty": False},
        "packages": {"ray": "2.60.0"},
        "gpus": [],
    }
    records.append(
        "session_started",
        spec_hash="h1",
        data={"hash": "d1", "num_genes": 64, "source": "synthetic"},
        split=split,
        provenance=made,
        workers=1,
        cpus=2,
    )
    (folder / "spec.json").write_text('{"hash": "h1", "spec": {"name": "fake", "target": "protein"}}')
    records.append("dimension", **DIMENSION)
    for number in range(num_trials):
        trial_id, state = f"t{number:04d}", ENDS[number % len(ENDS)]
        records.trial_started(make_trial(trial_id, number))
        for epoch in range(1, 4):
            value = float("nan") if state is TrialState.FAILED else 0.1 * epoch + 0.01 * number
            write_epoch(records, trial_id, epoch, value)
        reason = "non-finite loss <nan>" if state is TrialState.FAILED else None
        records.trial_ended(trial_id, state, reason)
    records.append("search_finished", reason="trials", trials=num_trials)
    records.append("baseline", name="ridge", valid_r2=0.30, valid_pearson_r2=0.31, seconds=1.0)
    if opened:
        _finish(records, ridge_noise, finalist_r2, targets)
    return records


def _finish(records: Records, ridge_noise: float, finalist_r2: float, targets: Sequence[str]) -> None:
    records.trial_started(make_trial("t0001-r0", 1))
    for epoch in range(1, 4):
        write_epoch(records, "t0001-r0", epoch, finalist_r2 - 0.1 * (3 - epoch))
    records.trial_ended("t0001-r0", TrialState.COMPLETE)
    (records.trial_folder("t0001-r0") / "best.safetensors").write_bytes(b"weights")
    ours = write_predictions(records, "t0001-r0", noise=0.5, targets=targets)
    ridge = write_predictions(records, "ridge", noise=ridge_noise, targets=targets)
    records.append("test_opened", scores={"t0001-r0": ours, "ridge": ridge})
    records.append("study_finished", seconds=12.0)


@pytest.fixture
def fake_study(tmp_path: Path) -> Callable[..., Records]:
    """Makes a study folder ``studies/NAME`` under the test's own folder; see write_study for the options."""

    def make(name: str = "fake", **options: object) -> Records:
        return write_study(tmp_path / "studies" / name, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def synthetic_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared synthetic table: 120 genes on 4 chromosomes, window [-600, +300), targets mrna and protein."""
    return prepare("synthetic", tmp_path_factory.mktemp("data") / "synthetic", num_genes=120, num_chromosomes=4).folder
