"""A driver killed at any moment, and trials that end in any way in any order: nothing is lost, judged twice or left."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from raystudy.errors import Reason
from raystudy.tracking.records import TrialRecord, TrialState
from tests.search.killing import TRIALS, Killed, Study

LOSSES = [Reason.PREEMPTED, Reason.WORKER_LOST, Reason.OUT_OF_MEMORY]


def outcome(study: Study) -> list[tuple[Any, ...]]:
    """What became of each trial, but not in how many attempts."""
    return [
        (trial.id, trial.config_hash, trial.seed, trial.state, trial.reason, trial.valid_r2, len(trial.epochs))
        for trial in study.records.read().trials
    ]


SEEDED = 5
"""Trials that an unkilled and a killed study have in common: arms and points; samples follow other random numbers."""


def killed_before(folder: Path, write: int) -> Study:
    study = Study(folder)
    study.killer.left = write
    try:
        study.open()
        study.run_to_the_end()
    except Killed:
        study.open()
        study.check()
        study.run_to_the_end()
    return study


def test_a_driver_killed_before_any_single_write_loses_nothing(folder: Path) -> None:
    unkilled = Study(folder)
    unkilled.open()
    unkilled.run_to_the_end()
    unkilled.check()
    expected, states = outcome(unkilled), {trial.state for trial in unkilled.records.read().trials}
    assert states >= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.INFEASIBLE}
    assert unkilled.records.read().every("duplicate")

    for write in range(1, unkilled.killer.num_writes):
        study = killed_before(folder, write)
        study.check()
        found = outcome(study)
        assert found[:SEEDED] == expected[:SEEDED], f"killed before write {write}"
        trained = [one for one in study.records.read().trials if one.state is not TrialState.INFEASIBLE]
        assert len(trained) == TRIALS, f"killed before write {write}"
        assert study.policy.finished_reason == "trials"
        assert all(trial.state is not TrialState.RUNNING for trial in trained)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_in_whatever_order_records_and_optuna_agree(folder: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (no secret)
    study = Study(folder)
    study.open()

    def lose(trial_id: str) -> None:
        del study.running[trial_id]
        study.policy.lost(trial_id, chance.choice([*LOSSES, Reason.NAN, Reason.CRASH, Reason.TIMEOUT]))

    def refuse(trial_id: str) -> None:
        del study.running[trial_id]
        study.policy.end(trial_id, TrialState.INFEASIBLE, "attention backend", "not here")

    for step in range(250):
        if chance.random() < 0.1:
            study.killer.left = chance.randrange(12)
        try:
            any_running = [*study.running]
            match chance.choices(("ask", "epoch", "lose", "refuse", "interrupt", "reopen"), (20, 40, 12, 1, 2, 2))[0]:
                case "ask" if len(any_running) < 4:
                    study.ask()
                case "epoch" if any_running:
                    study.epoch(chance.choice(any_running))
                case "lose" if any_running:
                    lose(chance.choice(any_running))
                case "refuse" if any_running:
                    refuse(chance.choice(any_running))
                case "interrupt":
                    study.policy.interrupt()
                    study.open()
                case "reopen":
                    study.open()
        except Killed:
            study.killer.left = None
            study.open()
            study.check()
        if step % 5 == 0:
            study.check()
    study.killer.left = None
    study.run_to_the_end()

    study.check()
    trials: list[TrialRecord] = study.records.read().trials
    assert all(trial.state is not TrialState.RUNNING for trial in trials)
    trained = [trial for trial in trials if trial.state is not TrialState.INFEASIBLE]
    assert len(trained) == TRIALS or study.policy.finished_reason == "exhausted"
