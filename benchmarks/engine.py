"""What the engine itself costs: ``python -m benchmarks.engine``.

A simulated study (`raystudy simulate`) of a thousand trials, once in memory and once as a real one keeps it: Optuna's
storage in SQLite, a record of JSON lines for each trial, each line synced to disk. Training takes no real time here:
all that passes is the driver's: asking the sampler, writing, pruning. Where it goes is counted by taking the time of
the calls themselves; what a call spends in another one that is counted too belongs to that one alone.

The simulated GPUs wait while the driver works, so ``utilisation`` says whether one driver keeps them all busy: of the
time until the last proposal was handed out. After it GPUs fall idle, because there is nothing left to train; with
that ``utilisation_whole`` is of the whole study.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import optuna
import psutil
import typer
from rich.console import Console
from rich.table import Table

from raystudy.models import build
from raystudy.search import policy as engine
from raystudy.simulate import Conditions, Simulation
from raystudy.study.reading import load_spec
from raystudy.tracking.records import Records
from raystudy.tune import DEFAULT_STUDY

STUDY = Path(__file__).parents[1] / DEFAULT_STUDY
LARGEST_SECONDS_PER_TRIAL = 0.1
SMALLEST_UTILISATION = 0.95
MB = 2**20

COUNTED: dict[str, list[tuple[Any, str]]] = {
    "sampler": [(optuna.samplers.TPESampler, "sample_relative"), (optuna.samplers.TPESampler, "sample_independent")],
    "pruner": [(engine.SearchPolicy, "_prunes")],
    "records": [(Records, "_write"), (Records, "read_trial"), (Records, "read")],
    "storage": [
        (optuna.storages.RDBStorage, name)
        for name in (
            "create_new_trial",
            "set_trial_param",
            "set_trial_state_values",
            "set_trial_intermediate_value",
            "set_trial_user_attr",
            "set_trial_system_attr",
            "get_all_trials",
            "get_trial_number_from_id",
        )
    ],
    "counting parameters": [(build, "_count")],
}
"""Where time goes, by the calls that spend it."""


class Stopwatch:
    """Seconds by purpose, without those that an inner counted call spends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    def taking(self, purpose: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            began = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                whole = time.perf_counter() - began
                self.seconds[purpose] += whole - self._inner.pop()
                if self._inner:
                    self._inner[-1] += whole

        return counted

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count every call of `COUNTED` while inside."""
        kept = [(where, name, getattr(where, name)) for calls in COUNTED.values() for where, name in calls]
        for purpose, calls in COUNTED.items():
            for where, name in calls:
                setattr(where, name, self.taking(purpose, getattr(where, name)))
        try:
            yield
        finally:
            for where, name, call in kept:
                setattr(where, name, call)


def measure(num_trials: int, gpus: int, folder: Path | None) -> tuple[dict[str, Any], Stopwatch]:
    """One simulated study, in memory or with everything on disk in ``folder``; its outcome and where time went.

    The outcome's ``megabytes_first_half`` and ``megabytes_second_half`` are by how much this process grew in each.
    """
    spec = load_spec(STUDY)
    budget = spec.budget.model_copy(update={"trials": num_trials, "minutes": 1e9})
    spec = spec.model_copy(update={"budget": budget})
    clock: list[Callable[[], float]] = []  # the simulation's, which does not exist yet
    records = None if folder is None else Records(folder, lambda: clock[0]() if clock else 0.0)
    storage = None if folder is None else optuna.storages.RDBStorage(f"sqlite:///{folder / 'optuna.db'}")
    simulation = Simulation(spec, Conditions(gpus=gpus, driver_takes_time=True), records, storage)
    clock.append(simulation.clock)
    process, sizes = psutil.Process(), {}

    def watch(trial: Any) -> None:
        number = int(trial.id.removeprefix("t"))
        if number in (num_trials // 2, num_trials - 1):
            sizes.setdefault(number, process.memory_info().rss / MB)

    before, watchman = process.memory_info().rss / MB, Stopwatch()
    simulation.listeners.append(watch)
    with watchman.running():
        found = simulation.run()
    half, whole = (sizes.get(number, math.nan) for number in (num_trials // 2, num_trials - 1))
    return found | {"megabytes_first_half": half - before, "megabytes_second_half": whole - half}, watchman


def main(
    trials: Annotated[int, typer.Option(min=10, help="In each study.")] = 1000,
    gpus: Annotated[int, typer.Option(min=1, help="Simulated GPUs.")] = 256,
    folder: Annotated[
        Path | None, typer.Option(help="Where the study on disk is written; a temporary one else.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with the figures as JSON on stdout.")] = False,
) -> None:
    """Exits with 1 where a trial costs the driver more than 100 ms on disk, or the GPUs were less than 95 % in use."""
    figures: dict[str, float] = {}
    table = Table("", "in memory", "on disk", title=f"{trials:,} trials on {gpus} simulated GPUs")
    rows: dict[str, list[str]] = defaultdict(list)
    for where in ("memory", "disk"):
        with tempfile.TemporaryDirectory(dir=folder, prefix="engine-") as temporary:
            found, watch = measure(trials, gpus, None if where == "memory" else Path(temporary))
        told = {
            "ms_per_trial": 1000 * found["driver_seconds_per_trial"],
            **{
                f"{purpose.replace(' ', '_')}_ms": 1000 * watch.seconds[purpose] / found["trials"]
                for purpose in COUNTED
            },
            "utilisation": found["utilisation"],
            "utilisation_whole": found["utilisation_whole"],
            "megabytes_first_half": found["megabytes_first_half"],
            "megabytes_second_half": found["megabytes_second_half"],
            "attempts": found["attempts"],
            "lost_attempts": sum(found["lost_attempts"].values()),
            "epochs_on_record_twice": found["epochs_on_record_twice"],
            "seconds": found["seconds"],
        }
        counted = sum(told[f"{purpose.replace(' ', '_')}_ms"] for purpose in COUNTED)
        told["other_ms"] = told["ms_per_trial"] - counted
        figures |= {f"{where}_{name}": value for name, value in told.items()}
        for name, value in told.items():
            rows[name].append(f"{value:,.3f}" if "utilisation" in name else f"{value:,.1f}")
    for name, values in rows.items():
        table.add_row(name.replace("_", " "), *values)
    if as_json:
        typer.echo(json.dumps(figures))
    else:
        Console().print(table)
    if figures["disk_ms_per_trial"] > 1000 * LARGEST_SECONDS_PER_TRIAL:
        raise typer.Exit(1)
    if min(figures["disk_utilisation"], figures["memory_utilisation"]) < SMALLEST_UTILISATION:
        raise typer.Exit(1)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the sampler's small matrices lose time in more
    typer.run(main)
