"""raystudy's policy, with a trainer that plays what training loop and executor tell it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.bare_tune.script import (
    BROKEN_EPOCH,
    HIGH,
    LOW,
    MAX_WIDTH,
    SLOTS,
    DriverEnd,
    Run,
    note_epoch,
    note_rungs,
)
from raystudy.errors import Reason
from raystudy.search.policy import Origin, SearchPolicy
from raystudy.study.reading import parse_spec
from raystudy.tracking.records import Records, TrialRecord, TrialState

OURS = {"x": "dropout", "width": "num_latents", "depth": "depth"}
"""The searched keys that play those of the scenarios."""
SPACES: dict[str, dict[str, Any]] = {
    "x": {"dropout": {"kind": "float", "low": LOW, "high": HIGH}},
    "categories": {
        "dropout": {"kind": "categorical", "choices": [0.6, 0.7]},
        "depth": {"kind": "categorical", "choices": [1, 2]},
    },
    "width": {"num_latents": {"kind": "int", "low": 1, "high": 2 * MAX_WIDTH}},
}
FAILURES = {"nan": Reason.NAN, "crash": Reason.CRASH, "timeout": Reason.TIMEOUT}
LOSSES = {"out of memory": Reason.OUT_OF_MEMORY, "killed": Reason.WORKER_LOST}
DETAIL = f"in epoch {BROKEN_EPOCH}"


def session(run: Run) -> None:
    """Run a search, or go on with one; its records are retold in ``results.json``."""
    policy = make_policy(run)
    running: list[Iterator[None]] = []
    try:
        while True:
            while len(running) < SLOTS and (trial := policy.ask()):
                running.append(attempt(policy, trial, run))
            if not running:
                break
            for one in list(running):
                if next(one, "ended") == "ended":
                    running.remove(one)
        policy.close()
    except KeyboardInterrupt:
        policy.interrupt()
    said = [
        {
            "config": _config(trial, run),
            "failed": trial.state is TrialState.FAILED,
            "said": str([(attempt.reason, attempt.detail) for attempt in trial.attempts]),
        }
        for trial in policy.records.read().trials
    ]
    (run.folder / "results.json").write_text(json.dumps(said))


def make_policy(run: Run) -> SearchPolicy:
    objectives = [{"metric": "valid_r2"}, {"metric": "epoch_seconds"}]
    spec = parse_spec(
        {
            "name": "study",
            "data": {"source": "synthetic", "window_bp": [200, 100], "max_protein": 50},
            "model": {"latent_dim": 8, "queries_dim": 8} | ({} if run.space == "width" else {"num_latents": 4}),
            "search": SPACES[run.space],
            "training": {"epochs": run.epochs},
            "pruner": "successive_halving" if run.early_stopping else "none",
            "objectives": objectives if run.several else objectives[:1],
            "constraints": [f"num_latents <= {MAX_WIDTH}"] if run.space == "width" else [],
            "budget": {"trials": run.total or run.num_trials, "minutes": 600},
        }
    )
    end = DriverEnd(run)

    def ends_driver(trial: TrialRecord) -> None:
        if trial.epochs and trial.state is TrialState.RUNNING:  # it grew by an epoch, of which Optuna knows nothing yet
            end.result()

    policy = SearchPolicy(spec, Records(run.folder), time.time() + 36000, [ends_driver])
    for point in run.points:
        policy.enqueue({OURS[key]: value for key, value in point.items()}, Origin("seeded"))
    return policy


def attempt(policy: SearchPolicy, trial: TrialRecord, run: Run) -> Iterator[None]:
    """One attempt at a trial, an epoch at a time; like the training loop it reports again what it finds trained."""
    saved = policy.records.trial_folder(trial.id) / "epoch"
    done = int(saved.read_text()) if saved.exists() else 0
    x = trial.config["dropout"]
    for epoch in range(1, run.epochs + 1):
        if epoch > done:
            note_epoch(run.folder, _config(trial, run), epoch)
            ending = run.ending_at(x, epoch)
            if ending in FAILURES:
                policy.end(trial.id, TrialState.FAILED, FAILURES[ending], DETAIL)
                return
            if ending == "out of memory" or (ending == "killed" and run.once("killed")):
                policy.lost(trial.id, LOSSES[ending], DETAIL)
                return
            saved.write_text(str(epoch))
        if run.early_stopping:
            known = policy._study.get_trials(deepcopy=False)
            note_rungs(run.folder, sum("completed_rung" in key for one in known for key in one.system_attrs))
        metrics = {"epoch": epoch, "valid_r2": run.r2(x, epoch), "epoch_seconds": 1 + x, "eval_seconds": 0.0}
        if policy.report(trial.id, metrics):
            return
        yield
    policy.end(trial.id, TrialState.COMPLETE)


def _config(trial: TrialRecord, run: Run) -> dict[str, Any]:
    """A trial's configuration in the words of the scenarios."""
    keys = {"x": ("x",), "categories": ("x", "depth"), "width": ("width",)}[run.space]
    return {key: trial.config[OURS[key]] for key in keys if OURS[key] in trial.config}
