"""Fixtures that several rooms share."""

from __future__ import annotations

import json
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

REFERENCE = {
    "test_r2_best_epoch": 0.71,
    "epoch_by_test_r2": 2,
    "selection_bias_r2": 0.002,
    "test_pearson_r2_best_epoch": 0.73,
    "epoch_by_test_pearson_r2": 1,
    "selection_bias_pearson_r2": 0.012,
}

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


def make_trial(trial_id: str, number: int = 0, fold: int = 0, replicate: int = 0) -> TrialRecord:
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
    known = (trial_id, config, f"hash{number}", 100_000 + 1000 * number, 7 + number, origin)
    return TrialRecord(*known, fold=fold, replicate=replicate)


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
    num_finalists: int = 1,
    folds: int = 1,
    seeds: int = 1,
    reference: bool = False,
    objectives: Sequence[str] = ("valid_r2",),
) -> Records:
    """A study folder as the driver leaves it: trials in every state, a finalist, a baseline, the test opened.

    The finalists are t0001, t0002, ..., each a little worse than the one before. ``reference`` adds the numbers of the
    reference protocol; ``objectives`` are metrics.
    """
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
    directions = [{"metric": one, "direction": "maximize" if one == "valid_r2" else "minimize"} for one in objectives]
    replicates = {"folds": folds, "seeds": seeds}
    spec = {"name": "fake", "target": "protein", "objectives": directions, "replicates": replicates}
    (folder / "spec.json").write_text(json.dumps({"hash": "h1", "spec": spec}))
    records.append("dimension", **DIMENSION)
    for number in range(num_trials):
        trial_id, state = f"t{number:04d}", ENDS[number % len(ENDS)]
        records.trial_started(make_trial(trial_id, number))
        for epoch in range(1, 4):
            value = float("nan") if state is TrialState.FAILED else 0.1 * epoch + 0.01 * number
            write_epoch(records, trial_id, epoch, value)
        why = {TrialState.FAILED: ("nan", "non-finite loss <nan>"), TrialState.PRUNED: ("successive_halving", None)}
        records.trial_ended(trial_id, state, *why.get(state, (None, None)))
    records.append("search_finished", reason="trials", trials=num_trials, cost=1.25, currency="EUR", duplicates=0)
    records.append("baseline", name="ridge", valid_r2=0.30, valid_pearson_r2=0.31, seconds=1.0)
    if opened:
        scores = _train_finalists(records, [finalist_r2 - 0.05 * rank for rank in range(num_finalists)], seeds, targets)
        if reference:
            for found in scores.values():
                found |= REFERENCE
        ridges = ["ridge", *(f"ridge-fold{fold}" for fold in range(folds) if folds > 1)]
        for fold, ridge in enumerate(ridges):
            scores[ridge] = write_predictions(records, ridge, noise=ridge_noise, targets=targets)
            if fold:
                known = {"valid_r2": 0.30 + 0.01 * fold, "valid_pearson_r2": 0.31 + 0.01 * fold}
                records.append("fold_baseline", name="ridge", fold=fold - 1, **known)
        records.append("test_opened", scores=scores)
        records.append("study_finished", seconds=12.0)
    return records


def _train_finalists(
    records: Records, values: Sequence[float], seeds: int, targets: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Test scores by replicate. Every fold and seed moves a finalist's R2 a little, and finalists not quite alike."""
    folds = json.loads((records.folder / "spec.json").read_text())["spec"]["replicates"]["folds"]
    scores = {}
    for rank, value in enumerate(values):
        for number in range(folds * seeds):
            fold, seed = divmod(number, seeds)
            trial_id = f"t{rank + 1:04d}-r{number}"
            records.trial_started(make_trial(trial_id, rank + 1, fold, seed))
            last = value + 0.02 * fold - 0.01 * seed - 0.002 * (number % 3) * rank
            for epoch in range(1, 4):
                write_epoch(records, trial_id, epoch, last - 0.1 * (3 - epoch))
            records.trial_ended(trial_id, TrialState.COMPLETE)
            (records.trial_folder(trial_id) / "best.safetensors").write_bytes(b"weights")
            noise = 0.5 + 0.05 * rank + 0.01 * number
            scores[trial_id] = write_predictions(records, trial_id, noise=noise, targets=targets)
    return scores


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
