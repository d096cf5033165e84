"""A study folder that has something for every section of the page."""

from __future__ import annotations

from collections.abc import Callable

from raystudy.tracking.records import Records, TrialRecord, TrialState

SIZES = [
    ("ridge-s25", "baseline", 0.25, 5, 0.12, None),
    ("ridge-s50", "baseline", 0.5, 10, 0.2, None),
    ("t0001-s25", "network", 0.25, 5, 0.1, 3),
    ("t0001-s50", "network", 0.5, 10, 0.3, 3),
]
"""Name, kind, fraction, number of training genes, validation R2, epochs."""


def add_sizes(records: Records) -> None:
    """What the trainings on parts of the training genes leave."""
    for name, kind, fraction, num_train, valid_r2, epochs in SIZES:
        told = {"kind": kind, "fraction": fraction, "num_train": num_train, "valid_r2": valid_r2, "epochs": epochs}
        records.append("training_size", name=name, model=name.rpartition("-s")[0], **told)


def add_trial(records: Records, trial_id: str, origin: str, valid_r2: float) -> None:
    arm = "narrow" if origin == "arm" else None
    records.trial_started(TrialRecord(trial_id, {}, f"h{trial_id}", 110_000, 1, origin, arm=arm))
    records.trial_epoch(trial_id, {"epoch": 1, "valid_r2": valid_r2, "epoch_seconds": 2.5})
    records.trial_ended(trial_id, TrialState.COMPLETE)


def rich_study(fake_study: Callable[..., Records]) -> Records:
    """A study that has something for every section."""
    records = fake_study(
        name="rich", num_finalists=2, folds=3, seeds=2, reference=True,
        objectives=("valid_r2", "epoch_seconds", "parameters"),
    )  # fmt: skip
    shares = {"fanova": {"latent_dim": 0.7, "encoder": 0.3}, "ped_anova": {"encoder": 0.2}}
    records.append("importances", **shares, num_trials=5, basis="complete trials", refused=None)
    records.append("duplicate", number=7, of="t0001")
    again = records.read().trials[2]
    records.trial_ended("t0002", TrialState.INTERRUPTED, "preempted")
    records.trial_started(again)
    records.trial_ended("t0002", TrialState.PRUNED, "median")
    records.trial_started(TrialRecord("t0005", {}, "h5", 10, 1, "sampled"))
    records.trial_ended("t0005", TrialState.INFEASIBLE, "memory", "needs <much>")
    add_trial(records, "t0006", "warm", 0.35)
    add_trial(records, "t0007", "arm", 0.28)
    add_sizes(records)
    return records
