"""Bare Ray Tune, as its documentation writes it: `OptunaSearch` over SQLite, `ASHAScheduler`, `Tuner.restore`."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
import ray
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.bare_tune.script import (
    HIGH,
    LOW,
    MAX_WIDTH,
    SLOTS,
    DriverEnd,
    Run,
    note_epoch,
    note_rungs,
    storage_url,
)

AS_IT_COMES = {
    "TUNE_DISABLE_SIGINT_HANDLER": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
}
"""raystudy switches off what Tune does at Ctrl-C and the files that `Tuner.restore` reads; here it is to have them. And
it is to save as often, for a search of seconds, as it does by itself (every 10 s) for one of minutes."""
EPOCH_SECONDS = 0.1
HANG_SECONDS, TRIAL_LIMIT_SECONDS = 3600, 3


def session(run: Run, address: str) -> None:
    """Run a search, or go on with one, on the Ray at ``address``; its results are written to ``results.json``."""
    os.environ |= AS_IT_COMES
    ray.init(address, log_to_driver=False)
    tuner = make_tuner(run)
    results = tuner.get_results() if run.restore else []  # all that can be read where going on fails
    try:
        results = tuner.fit()
    finally:
        (run.folder / "results.json").write_text(json.dumps([_said(result) for result in results]))


def make_tuner(run: Run) -> tune.Tuner:
    trainable = tune.with_parameters(train, run=run)
    if run.restore:
        return tune.Tuner.restore(str(run.folder / run.name), trainable)
    spaces = {
        "x": {"x": tune.uniform(LOW, HIGH)},
        "categories": {"x": tune.choice([0.6, 0.7]), "depth": tune.choice([1, 2])},
        "width": {"width": tune.randint(1, 2 * MAX_WIDTH + 1)},
    }
    objectives: dict[str, Any] = {"metric": "r2", "mode": "max"}
    if run.several:
        objectives = {"metric": ["r2", "epoch_seconds"], "mode": ["max", "min"]}
    search = OptunaSearch(
        # With several objectives OptunaSearch takes the space itself.
        space={"x": optuna.distributions.FloatDistribution(LOW, HIGH)} if run.several else None,
        points_to_evaluate=list(run.points),
        sampler=optuna.samplers.TPESampler(seed=run.seed, constraints_func=_excess if run.constrained else None),
        storage=RDBStorage(storage_url(run.folder)),
        study_name="study",
        **objectives,
    )
    scheduler = WatchedASHA(run.folder, metric="r2", mode="max", max_t=run.epochs, grace_period=1, reduction_factor=2)
    return tune.Tuner(
        trainable,
        param_space={} if run.several else spaces[run.space],
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=scheduler if run.early_stopping else None,
            num_samples=run.num_trials,
            max_concurrent_trials=SLOTS,
            reuse_actors=True,
            time_budget_s=run.seconds,
        ),
        run_config=tune.RunConfig(
            name=run.name,
            storage_path=str(run.folder),
            failure_config=tune.FailureConfig(max_failures=run.max_failures),
            stop={"time_total_s": TRIAL_LIMIT_SECONDS} if run.ending == "timeout" else None,
            callbacks=[EndDriver(run)] if run.end_driver else [],
            verbose=0,
        ),
    )


def train(config: dict[str, Any], run: Run) -> None:
    """The trainable: a known curve, a checkpoint each epoch, and an ending of its own where the script says so."""
    if config.get("width", 0) > MAX_WIDTH:
        note_epoch(run.folder, config, 0)
        if run.constrained:
            return
        raise ValueError(f"width {config['width']} has too many parameters")
    first = 1
    if checkpoint := tune.get_checkpoint():
        with checkpoint.as_directory() as folder:
            first = 1 + int(Path(folder, "epoch").read_text())
    for epoch in range(first, run.epochs + 1):
        time.sleep(EPOCH_SECONDS)
        note_epoch(run.folder, config, epoch)
        x = config.get("x", 0.5)
        _meet(run.ending_at(x, epoch), run)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "epoch").write_text(str(epoch))
            checkpoint = tune.Checkpoint.from_directory(folder)
            tune.report({"r2": run.r2(x, epoch), "epoch_seconds": 1 + x}, checkpoint=checkpoint)


def _meet(ending: str | None, run: Run) -> None:
    if ending == "crash":
        raise RuntimeError("a mistake in the code")
    if ending == "out of memory":
        raise MemoryError("no more memory")
    if ending == "killed" and run.once("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if ending == "timeout":
        time.sleep(HANG_SECONDS)


def _excess(trial: FrozenTrial) -> list[float]:
    """By how much a trial is too wide; a lambda could not be saved with the searcher."""
    return [trial.params["width"] - MAX_WIDTH]


def _said(result: tune.Result) -> dict[str, Any]:
    """What one result says, with Tune's own list of the trial's failures, also of those that it survived."""
    r2 = (result.metrics or {}).get("r2")
    failures = Path(result.path, "error.txt")
    said = f"{result.error or ''} {failures.read_text() if failures.exists() else ''} r2={r2}"
    return {"config": result.config, "failed": result.error is not None, "said": said}


class WatchedASHA(ASHAScheduler):
    """ASHA that notes how many entries its rungs hold when a result comes in."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(**options)
        self._folder = folder

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        note_rungs(self._folder, sum(len(recorded) for bracket in self._brackets for _, recorded in bracket._rungs))
        return str(super().on_trial_result(tune_controller, trial, result))


class EndDriver(tune.Callback):
    def __init__(self, run: Run) -> None:
        self._end = DriverEnd(run)

    def on_trial_result(self, *_: Any, **__: Any) -> None:
        self._end.result()
