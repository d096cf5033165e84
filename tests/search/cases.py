"""Small studies, and what their trials reach, for tests of the search policy."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage

from raystudy.search.policy import Origin, SearchPolicy
from raystudy.study.reading import parse_spec
from raystudy.study.spec import StudySpec
from raystudy.tracking.records import Records, TrialRecord, TrialState

EPOCHS = 3
SEARCH: dict[str, Any] = {
    "latent_dim": {"kind": "pow2", "low": 8, "high": 64},
    "encoder": {"kind": "categorical", "choices": ["onehot", "embedding"]},
    "learning_rate": {"kind": "log", "low": 1e-4, "high": 1e-2},
}
Value = Callable[[TrialRecord, int], float]


def make_spec(**changes: Any) -> StudySpec:
    return parse_spec(
        {
            "name": "fake",
            "data": {"source": "synthetic", "window_bp": [200, 100], "max_protein": 50},
            "model": {"num_latents": 4, "queries_dim": 8},
            "search": SEARCH,
            "training": {"epochs": EPOCHS},
            "budget": {"trials": 6, "minutes": 10},
            "pruner": "none",
            **changes,
        }
    )


def open_policy(
    folder: Path, ends_in: float = 3600, storage: BaseStorage | None = None, **changes: Any
) -> SearchPolicy:
    """The study's policy as a driver that has just started would make it; ``storage`` instead of the study's file."""
    return SearchPolicy(make_spec(**changes), Records(folder), time.time() + ends_in, storage=storage)


def ask(policy: SearchPolicy) -> TrialRecord:
    """The next trial, of which there must be one."""
    trial = policy.ask()
    assert trial is not None, policy.finished_reason
    return trial


def metrics(epoch: int, valid_r2: float, seconds: float = 0.01) -> dict[str, Any]:
    return {"epoch": epoch, "valid_r2": valid_r2, "epoch_seconds": seconds, "eval_seconds": 0.0}


def width_value(trial: TrialRecord, epoch: int) -> float:
    return trial.config["latent_dim"] / 100 + 0.01 * epoch


def train(policy: SearchPolicy, trial: TrialRecord, value: Value = width_value, until: int = EPOCHS) -> bool:
    """Run a trial to epoch ``until``, from its first as the loop replays it; True when it was stopped."""
    for epoch in range(1, until + 1):
        if policy.report(trial.id, metrics(epoch, value(trial, epoch))):
            return True
    if until == EPOCHS:
        policy.end(trial.id, TrialState.COMPLETE)
    return False


def run_all(policy: SearchPolicy, value: Value = width_value) -> list[TrialRecord]:
    ran = []
    while (trial := policy.ask()) is not None:
        ran.append(trial)
        train(policy, trial, value)
    return ran


def in_optuna(folder: Path, name: str = "fake") -> list[optuna.trial.FrozenTrial]:
    """What Optuna's storage says, read afresh, by plain Optuna as its dashboard would."""
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder / 'optuna.db'}").get_trials()


ARMS = [{"name": "wide", "latent_dim": 64}, {"name": "narrow", "latent_dim": 8}]


def enqueue_arms(policy: SearchPolicy) -> None:
    for arm in policy.spec.arms:
        policy.enqueue({}, Origin("arm", arm=arm.name))
