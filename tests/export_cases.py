"""A small study that was really trained, to be exported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import raystudy
from raystudy.data.batches import StudyData
from raystudy.data.genes import Genes
from raystudy.data.splits import PARTS, Split, make_folds, make_split
from raystudy.study.model import ModelSpec, TrainingSpec
from raystudy.study.sections import SplitSpec
from raystudy.tracking.predictions import read_predictions, write_predictions
from raystudy.tracking.records import Records, StudyRecord, TrialRecord, TrialState
from raystudy.training.loop import Job, train
from raystudy.training.metrics import scores
from raystudy.training.session import LocalSession

WINDOW, TARGET = (100, 50), "protein"
MODEL = ModelSpec(
    window_bp=WINDOW, max_protein=60, latent_dim=8, num_latents=4, queries_dim=8, token_dim=8, pool_size=6
)
TRAINING = TrainingSpec(epochs=2, batch_size=16, precision="fp32", attention="sdpa")
FOLDS, SEEDS = 2, 2


@dataclass(frozen=True)
class Study:
    """A finished study of one finalist, with what it was made from."""

    folder: Path
    genes: Genes
    split: Split

    @property
    def record(self) -> StudyRecord:
        return Records(self.folder).read()

    def stored(self, *names: str) -> np.ndarray:
        """Mean of the stored predictions of the test genes."""
        ids = self.genes.gene_ids[self.split.test]
        return np.mean([read_predictions(self.folder, name, ids, [TARGET])[:, 0] for name in names], axis=0)

    def measured(self) -> np.ndarray:
        return self.genes.target(TARGET)[self.split.test]


REPLICATES = [f"t0000-r{number}" for number in range(FOLDS * SEEDS)]


def make_study(
    folder: Path, genes: Genes, *, opened: bool = True, ridge_noise: float = 0.1, targets: tuple[str, ...] = (TARGET,)
) -> Study:
    """As the driver leaves it: checkpoints, predictions, records, and a ridge as good as ``ridge_noise`` is small."""
    by, labelled = SplitSpec(valid=0.2, test=0.2), np.isfinite(genes.target(TARGET))
    split = make_split(genes, by, WINDOW, labelled)
    folds = make_folds(split, genes, by, WINDOW, labelled, FOLDS)
    records = Records(folder)
    config = {**MODEL.model_dump(mode="json"), **TRAINING.model_dump(mode="json")}
    records.append(
        "session_started",
        spec_hash="h1",
        data={"hash": genes.hash, "num_genes": genes.num_genes, "source": genes.source, "units": genes.units},
        split=split.summary(),
        folds=[fold.summary() for fold in folds],
        provenance={"git": {"commit": "abc123", "dirty": True}, "packages": {"torch": "2"}},
    )
    data = {"path": "/home/somebody/yeast"}
    spec = {"name": folder.name, "data": data, "replicates": {"folds": FOLDS, "seeds": SEEDS}}
    (folder / "spec.json").write_text(json.dumps({"spec": spec}))
    searched = TrialRecord("t0000", config, "hash", 1000, 3, "sampled")
    records.trial_started(searched)
    records.trial_epoch("t0000", {"epoch": 1, "valid_r2": 0.125, "epoch_seconds": 1.0})
    records.trial_ended("t0000", TrialState.COMPLETE)
    levels, random = np.stack([genes.target(target) for target in targets], axis=1), np.random.default_rng(0)
    known, found = [(split, "ridge"), *((fold, f"ridge-fold{n}") for n, fold in enumerate(folds))], {}

    def keep(name: str, predicted: np.ndarray, fold: Split) -> dict[str, float]:
        shown = levels.copy()
        if not opened:
            shown[fold.test] = np.nan
        parts = {part: getattr(fold, part) for part in PARTS}
        write_predictions(folder, name, genes.gene_ids, parts, targets, predicted, shown)
        found[name] = {f"test_{key}": value for key, value in scored(fold.test, predicted).items()}
        return scored(fold.valid, predicted)

    def scored(rows: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        return scores(levels[rows], predicted[rows], targets)

    for fold, name in known:
        valid = keep(name, levels + ridge_noise * levels.std(axis=0) * random.normal(size=levels.shape), fold)
        kind = {"name": name} if name == "ridge" else {"name": "ridge", "fold": int(name[-1])}
        event = "baseline" if name == "ridge" else "fold_baseline"
        records.append(event, valid_r2=valid["r2"], **kind)
    for number, name in enumerate(REPLICATES):
        fold, seed = divmod(number, SEEDS)
        trial = TrialRecord(name, config, "hash", 1000, 10 + number, "finalist", fold=fold, replicate=seed)
        records.trial_started(trial)
        study_data = StudyData.of(genes, folds[fold], MODEL, targets)
        session = LocalSession(records.trial_folder(name), partial(records.trial_epoch, name))
        train(Job(MODEL, TRAINING, 10 + number), study_data, session)
        records.trial_ended(name, TrialState.COMPLETE)
        keep(name, raystudy.load(records.trial_folder(name)).predict(genes).to_numpy(), folds[fold])
    if opened:
        records.append("test_opened", scores=found)
    return Study(folder, genes, split)
