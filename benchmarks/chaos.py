"""Does a study lose or repeat anything when it is killed? ``python -m benchmarks.chaos --runs 20 --kills 10 --jobs 2``.

Each run is a small real study (arms, seeded widths, sampled trials, a retrained finalist) whose driver, trial workers
or Ray head are killed with SIGKILL at random moments, and which the same command takes up again, at once, until it
has ended. What it left (records, Optuna's storage, MLflow's, checkpoints, the report) is then held against what every
study must leave and against the same study unkilled. A loss is a fact that does not hold. A kill after the study has
ended does not count. Runs take turns: without pruning and with it, a Ray of each driver's own and one that outlives
the drivers, as a cluster's does.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import optuna
import typer
import yaml
from optuna.trial import FrozenTrial
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.evidence import Evidence, Tracked, counted, losses
from benchmarks.victims import Driver, Ray, below, end_session, kill
from raystudy.data.genes import write_genes
from raystudy.data.sources import synthetic
from raystudy.tracking.records import Records, StudyRecord, TrialRecord, TrialState

NAME = "chaos"
NUM_TRIALS, EPOCHS = 10, 6
ARMS = ("slow", "fast")
BASELINE = "ridge"
KINDS = {"driver": 0.5, "worker": 0.4, "head": 0.1}
"""What is killed, and how often."""
VARIANTS = tuple(product(("none", "successive_halving"), (False, True)))
"""The pruner, and whether one Ray outlives the drivers; runs take turns."""
START_SHARE = 0.35
"""Of a session's first kills, those that are timed from its start rather than by what it has done."""
START_SECONDS, FINALIST_SECONDS, JITTER_SECONDS = 10.0, 8.0, 0.5
KILLS_OF_ONE_TRIAL = 2  # a third lost worker ends it as failed, and rightly
HEAD_SILENCE_SECONDS = 5
"""After which Ray gives up a head that does not answer; a minute by its own default."""
PATIENCE_SECONDS, HEAD_PATIENCE_SECONDS = 600.0, 120.0
WORKER_SECONDS, POLL_SECONDS = 2.0, 0.1
TRIAL_WORKERS = ("ray::ImplicitFunc", "ray::RayTrainWorker")
HEAD = ("gcs/gcs_server", "raylet/raylet")


@dataclass(frozen=True)
class Kill:
    """One that counted."""

    kind: str
    session: int
    """Which start of the command it hit, from 0."""
    seconds: float
    """Since that start."""
    during: str
    """``start`` (nothing recorded in that session yet), ``trials`` or ``finalist``."""


@dataclass
class Outcome:
    """One run: its kills, the losses by name, and how long it took."""

    seed: int
    pruner: str
    shared_head: bool
    kills: list[Kill]
    losses: list[str]
    num_sessions: int
    num_trials: int
    num_attempts: int
    seconds: float


def document(data: Path, pruner: str, num_trials: int, epochs: int = EPOCHS) -> dict[str, Any]:
    """A study file whose trials take a second or two."""
    return {
        "name": NAME,
        "data": {"path": str(data), "window_bp": [300, 150], "max_protein": 100},
        "model": {"num_latents": 4, "queries_dim": 8, "latent_dim": 16},
        "arms": [{"name": name, "learning_rate": 0.001 * rate} for rate, name in enumerate(ARMS, start=2)],
        "search": {
            "latent_dim": {"kind": "pow2", "low": 8, "high": 32, "seed_from": "intrinsic_dimension"},
            "learning_rate": {"kind": "log", "low": 1e-3, "high": 1e-2},
        },
        "training": {"epochs": epochs, "batch_size": 16, "attention": "sdpa"},
        "baselines": [BASELINE],
        "pruner": pruner,
        "budget": {"trials": num_trials, "minutes": 60},
    }


class Run:
    """One study, its sessions and its kills; random numbers decide when, and the machine does the rest."""

    def __init__(self, folder: Path, study: dict[str, Any], seed: int, shared_head: bool) -> None:
        folder.mkdir(parents=True)
        self.folder, self.study, self.rng = folder, study, np.random.default_rng(seed)
        self.study_file = folder / "study.yaml"
        self.study_file.write_text(yaml.safe_dump(study))
        self.records = Records(folder / "studies" / NAME)
        self.ray = Ray(folder) if shared_head else None
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "MLFLOW_"))}
        self.environment |= {
            "RAYSTUDY_HOME": str(folder / "studies"),
            "OMP_NUM_THREADS": "1",
            "RAY_gcs_rpc_server_reconnect_timeout_s": str(HEAD_SILENCE_SECONDS),
        }
        self.drivers: list[Driver] = []
        self.kills: list[Kill] = []
        self.losses: list[str] = []
        self._workers_lost: Counter[str] = Counter()

    def go(self, kinds: Sequence[str]) -> Evidence:
        """Start, kill and take up again until every kill of ``kinds`` has counted, then until the study has ended."""
        try:
            if self.ray is not None:
                self.environment = self.ray.start(self.environment)
            driver = self._start()
            for remaining, kind in zip(range(len(kinds), 0, -1), kinds, strict=True):
                if not (self._moment(driver, kind, remaining) and self._strike(driver, kind)):
                    break
                if driver.exit_code is not None:
                    driver = self._start()
            if driver.exit_code == -signal.SIGKILL:  # killed when the study had ended: that did not count
                driver = self._start()
            try:
                driver.process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self.losses.append(f"the study did not end within {PATIENCE_SECONDS:.0f} s of its last kill")
        finally:
            for one in self.drivers:
                end_session(one.process.pid)
                one.process.wait()
            if self.ray is not None:
                self.ray.stop()
        return Evidence(
            self.records.read(), _stored(self.records), _tracked(self.records), driver.report, driver.exit_code
        )

    def _start(self) -> Driver:
        number, before = len(self.drivers), progress(self.records.read())
        driver = Driver(self.study_file, self.folder / f"session-{number}.out", self.environment, before)
        self.drivers.append(driver)
        return driver

    def _moment(self, driver: Driver, kind: str, remaining: int) -> bool:
        """Wait for the moment of the next kill; False where the driver ended before it."""
        fresh = all(kill.session != len(self.drivers) - 1 for kill in self.kills)
        before = self.records.read()
        from_start, share, pause = self.rng.random(3)
        if kind != "worker" and fresh and from_start < START_SHARE:
            moment = driver.started + pause * START_SECONDS
            return self._wait(driver, lambda: time.time() >= moment)
        # What is left to be recorded is shared by the kills that are left, so that none comes after the end.
        whole = self.study["budget"]["trials"] * (self.study["training"]["epochs"] + 2)
        goal = progress(before) + 1 + round(2 * share * max(0, whole - progress(before)) / (remaining + 1))

        def arrived() -> bool:
            record = self.records.read()
            return progress(record) >= goal or _searched(record)

        if not self._wait(driver, arrived):
            return False
        moment = time.time() + pause * (FINALIST_SECONDS if _searched(self.records.read()) else JITTER_SECONDS)
        moment += START_SECONDS * (fresh and _searched(before))  # what retrains is still to start
        return self._wait(
            driver,
            lambda: (
                time.time() >= moment
                and (kind != "worker" or bool(self._victims(driver)) or time.time() > moment + WORKER_SECONDS)
            ),
        )

    def _wait(self, driver: Driver, arrived: Callable[[], bool]) -> bool:
        deadline = time.time() + PATIENCE_SECONDS
        while driver.exit_code is None and time.time() < deadline:
            if arrived():
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _victims(self, driver: Driver) -> list[int]:
        """Workers of which none can be the one that a trial must not lose any more."""
        if any(self._workers_lost[trial.id] >= KILLS_OF_ONE_TRIAL for trial in _running(self.records.read())):
            return []
        return below(self._root(driver), TRIAL_WORKERS)

    def _root(self, driver: Driver) -> int:
        """The process that Ray's are below."""
        return driver.process.pid if self.ray is None or self.ray.process is None else self.ray.process.pid

    def _strike(self, driver: Driver, kind: str) -> bool:
        """Kill; where there is nothing of that kind to be killed, the driver. False where the study has ended."""
        record, seconds = self.records.read(), time.time() - driver.started
        victims = {"worker": self._victims, "head": lambda of: below(self._root(of), HEAD)}
        found = victims[kind](driver) if kind in victims else []
        if kind == "worker" and found:
            killed = kill(int(self.rng.choice(found)))
            self._workers_lost.update(trial.id for trial in _running(record))
        elif kind == "head" and found:
            killed = sum(kill(pid) for pid in found) > 0
            self._outlive_head(driver)
        else:
            kind = "driver"
            driver.process.kill()
            killed = driver.process.wait() == -signal.SIGKILL
        if not killed or self.records.read().last("study_finished") is not None:
            return False
        during = "finalist" if _searched(record) else "trials" if progress(record) > driver.progress else "start"
        self.kills.append(Kill(kind, len(self.drivers) - 1, round(seconds, 2), during))
        return True

    def _outlive_head(self, driver: Driver) -> None:
        """A driver without a Ray cannot go on, and must not wait for ever either."""
        try:
            driver.process.wait(HEAD_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.losses.append(f"the driver did not end within {HEAD_PATIENCE_SECONDS:.0f} s of losing its Ray")
            driver.process.kill()
            driver.process.wait()
        if self.ray is not None:
            self.ray.stop()
            self.environment = self.ray.start(self.environment)


def progress(record: StudyRecord) -> int:
    """How much is on record: every start, epoch and end of a trial, each once."""
    return sum(1 + len(trial.epochs) + (trial.state is not TrialState.RUNNING) for trial in record.trials)


def _searched(record: StudyRecord) -> bool:
    return record.last("search_finished") is not None


def _running(record: StudyRecord) -> list[TrialRecord]:
    return [trial for trial in [*record.trials, *record.finalists] if trial.state is TrialState.RUNNING]


def _stored(records: Records) -> list[FrozenTrial]:
    path = records.folder / "optuna.db"
    return optuna.load_study(study_name=NAME, storage=f"sqlite:///{path}").trials if path.exists() else []


def _tracked(records: Records) -> list[Tracked]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{records.folder.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(NAME)
    return [
        Tracked(
            run.data.tags.get("raystudy.trial_id", run.info.run_id),
            run.info.status,
            sorted(one.step for one in client.get_metric_history(run.info.run_id, "vs_epoch/valid_r2")),
        )
        for run in (client.search_runs([experiment.experiment_id], max_results=1000) if experiment else [])
    ]


def prepare_data(folder: Path) -> Path:
    """Genes for every run; their folder is part of the study, so that all runs are of the same one."""
    return write_genes(synthetic.build(seed=3, num_genes=240, num_chromosomes=8), folder)


def chaos(
    folder: Path,
    study: dict[str, Any],
    seed: int,
    num_kills: int,
    *,
    kinds: Sequence[str] | None = None,
    shared_head: bool = False,
    unkilled: StudyRecord | None = None,
) -> Outcome:
    """Run a study in a new ``folder``, kill it ``num_kills`` times and say what was lost.

    ``kinds`` are what is killed, in that order; drawn as `KINDS` says where None. Fewer kills than asked are a loss
    too: the run says nothing of the others.
    """
    started = time.perf_counter()
    drawn = np.random.default_rng([seed, num_kills]).choice(list(KINDS), num_kills, p=list(KINDS.values())).tolist()
    run = Run(folder, study, seed, shared_head)
    found = run.go(drawn if kinds is None else kinds)
    if len(run.kills) != num_kills:
        run.losses.append(f"the study ended after {len(run.kills)} of {num_kills} kills")
    return Outcome(
        seed=seed,
        pruner=study["pruner"],
        shared_head=shared_head,
        kills=run.kills,
        losses=[*run.losses, *losses(found, study, unkilled)],
        num_sessions=len(run.drivers),
        num_trials=len(counted(found.record)),
        num_attempts=sum(len(trial.attempts) for trial in [*found.record.trials, *found.record.finalists]),
        seconds=round(time.perf_counter() - started, 1),
    )


def once(folder: Path, seed: int, num_kills: int, unkilled: dict[str, StudyRecord]) -> Outcome:
    """The run of this seed; its folder is kept only where something was lost."""
    pruner, shared_head = VARIANTS[seed % len(VARIANTS)]
    place, study = folder / f"run-{seed}", document(folder / "data", pruner, NUM_TRIALS)
    found = chaos(place, study, seed, num_kills, shared_head=shared_head, unkilled=unkilled[pruner])
    if not found.losses:
        shutil.rmtree(place)
    return found


def without_kills(folder: Path) -> dict[str, StudyRecord]:
    """The same studies, never killed, by their pruner. RuntimeError where even these lose something."""
    records = {}
    for pruner in dict.fromkeys(pruner for pruner, _ in VARIANTS):
        place = folder / f"unkilled-{pruner}"
        found = chaos(place, document(folder / "data", pruner, NUM_TRIALS), seed=0, num_kills=0)
        if found.losses:
            raise RuntimeError(f"without a kill, too: {'; '.join(found.losses)} (see {place})")
        records[pruner] = Records(place / "studies" / NAME).read()
    return records


def figures(outcomes: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Sums over the runs; a run is as long as its seconds, whatever ran beside it."""
    kills = [kill for one in outcomes for kill in one["kills"]]
    by_kind, during = (Counter(kill[key] for kill in kills) for key in ("kind", "during"))
    seconds = [one["seconds"] for one in outcomes]
    return {
        "runs": len(outcomes),
        "kills": len(kills),
        **{f"kills_of_{kind}": by_kind[kind] for kind in KINDS},
        **{f"kills_during_{phase}": during[phase] for phase in ("start", "trials", "finalist")},
        "losses": sum(len(one["losses"]) for one in outcomes),
        "sessions": sum(one["num_sessions"] for one in outcomes),
        "trials": sum(one["num_trials"] for one in outcomes),
        "attempts": sum(one["num_attempts"] for one in outcomes),
        "run_seconds_median": float(np.median(seconds)) if seconds else 0.0,
    }


def main(
    runs: Annotated[int, typer.Option(min=1, help="How many studies are killed; a run's number is its seed.")] = 20,
    kills: Annotated[int, typer.Option(min=1, help="Kills in each, that count.")] = 10,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time; each uses about two cores.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Gets a line a run; runs in it are not repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with the figures as JSON on stdout.")] = False,
) -> None:
    """Kill studies at random moments and take them up again; exits with 1 where anything was lost."""
    known = [json.loads(line) for line in out.read_text().splitlines()] if out and out.exists() else []
    outcomes = [one for one in known if one["asked"] == kills and one["seed"] < runs]
    missing = sorted(set(range(runs)) - {one["seed"] for one in outcomes})
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    stderr = Console(stderr=True)
    with Progress(console=stderr) as progress, ThreadPoolExecutor(jobs) as pool:
        bar = progress.add_task("runs", total=runs, completed=len(outcomes))
        prepare_data(folder / "data")
        unkilled = without_kills(folder) if missing else {}
        for done in as_completed([pool.submit(once, folder, seed, kills, unkilled) for seed in missing]):
            outcome = asdict(done.result()) | {"asked": kills}
            outcomes.append(outcome)
            if out is not None:
                with out.open("a") as file:
                    file.write(json.dumps(outcome) + "\n")
            for loss in outcome["losses"]:
                stderr.print(f"run {outcome['seed']}: {loss}", soft_wrap=True, highlight=False, markup=False)
            progress.advance(bar)
    found = figures(outcomes)
    if found["losses"]:
        stderr.print(f"What is left of runs with losses is in {folder}", soft_wrap=True)
    else:
        shutil.rmtree(folder)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        table = Table("run", "pruner", "Ray", "kills", "sessions", "attempts", "seconds", "losses", title="Chaos")
        for one in sorted(outcomes, key=lambda one: one["seed"]):
            ray = "outlives drivers" if one["shared_head"] else "each driver's own"
            numbers = (len(one["kills"]), one["num_sessions"], one["num_attempts"], one["seconds"], len(one["losses"]))
            table.add_row(str(one["seed"]), one["pruner"], ray, *map(str, numbers))
        Console().print(table)
    if found["losses"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
