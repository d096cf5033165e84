"""What a worker process is told: everything to run one trial, as plain values that travel anywhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from raystudy.data.batches import StudyData
from raystudy.data.genes import Genes
from raystudy.data.splits import Split
from raystudy.study.model import configure
from raystudy.study.spec import StudySpec
from raystudy.tracking.records import Records, TrialRecord
from raystudy.training.loop import Job

PREDICTIONS = "predictions.safetensors"


@dataclass(frozen=True)
class Task:
    """One trial or finalist on its way to a worker."""

    trial_id: str
    config: dict[str, Any]
    seed: int
    folder: str
    """Where its checkpoints stand."""
    data_folder: str
    split_path: str
    targets: tuple[str, ...]
    cpus: int
    workers: int | tuple[int, int]
    """That train a trial together, or the fewest and the most of them."""
    global_batch: int
    """Genes of one step on all workers together."""
    micro_batches: int
    """Parts in which each batch goes through the network."""
    predicts: bool
    """Is every gene predicted at the end, with the weights of the best epoch? So it is for finalists."""
    reference: bool
    """Are the test genes predicted after each epoch, for the published number?"""
    limit_seconds: float | None
    """What an attempt may take before it counts as hung."""

    @classmethod
    def of(cls, trial: TrialRecord, spec: StudySpec, records: Records, data_folder: Path) -> Task:
        again, minutes = trial.origin == "finalist", spec.budget.trial_minutes
        split = f"split-fold{trial.fold}.json" if again and spec.replicates.folds > 1 else "split.json"
        return cls(
            trial_id=trial.id,
            config=trial.config,
            seed=trial.seed,
            folder=str(records.trial_folder(trial.id).resolve()),
            data_folder=str(data_folder.resolve()),
            split_path=str((records.folder / split).resolve()),
            targets=spec.targets,
            cpus=spec.resources.cpus_per_worker,
            workers=spec.resources_of(trial.arm).workers,
            global_batch=trial.global_batch or trial.config["batch_size"],
            micro_batches=trial.micro_batches,
            predicts=again,
            reference=again and spec.protocol == "reference",
            limit_seconds=None if minutes is None else 60 * minutes,
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def job(self) -> Job:
        return Job(*configure(self.config), self.seed, self.micro_batches, self.global_batch)

    def data(self) -> StudyData:
        """The study's genes as this trial's network reads them."""
        torch.set_num_threads(self.cpus)
        return StudyData.of(*_open(self.data_folder, self.split_path), self.job().model, self.targets)


@lru_cache(maxsize=1)
def _open(data_folder: str, split_path: str) -> tuple[Genes, Split]:
    """The study's arrays, mapped and checked once a process however many trials it runs."""
    genes = Genes.open(Path(data_folder))
    return genes, Split.load(Path(split_path), genes)
