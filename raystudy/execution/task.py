"""What a worker process is told: everything to run one trial, as plain values that travel anywhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from raystudy.data.batches import StudyData
from raystudy.study.spec import DataSpec, StudySpec, configure
from raystudy.tracking.records import Records, TrialRecord
from raystudy.training.loop import Job


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
    window_bp: tuple[int, int]
    max_protein: int
    target: str
    cpus: int

    @classmethod
    def of(cls, trial: TrialRecord, spec: StudySpec, records: Records, data_folder: Path) -> Task:
        return cls(
            trial_id=trial.id,
            config=trial.config,
            seed=trial.seed,
            folder=str(records.trial_folder(trial.id).resolve()),
            data_folder=str(data_folder.resolve()),
            split_path=str((records.folder / "split.json").resolve()),
            window_bp=spec.data.window_bp,
            max_protein=spec.data.max_protein,
            target=spec.target,
            cpus=spec.resources.cpus_per_worker,
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def job(self) -> Job:
        model, training = configure(self.config)
        return Job(model, training, sum(self.window_bp), self.max_protein, self.seed)

    def data(self) -> StudyData:
        """The study's arrays, mapped once a process however many trials it runs."""
        torch.set_num_threads(self.cpus)
        return _load(self.data_folder, self.split_path, tuple(self.window_bp), self.max_protein, self.target)


@lru_cache(maxsize=1)
def _load(data_folder: str, split_path: str, window_bp: tuple[int, int], max_protein: int, target: str) -> StudyData:
    spec = DataSpec(path=Path(data_folder), window_bp=window_bp, max_protein=max_protein)
    return StudyData.load(Path(data_folder), Path(split_path), spec, target)
