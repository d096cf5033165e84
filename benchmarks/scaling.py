"""What more workers bring, and what starting them costs: ``python -m benchmarks.scaling executors``, or ``packed``.

``executors`` runs the same one-trial study three times on a Ray of this machine: its trial in the process that Tune
gives it, as a TorchTrainer of one worker, and as a TorchTrainer of two that share the same global batch. The records
say how many genes a second it trained on, how long it took from being handed out to its first step, and from its last
epoch to its end; the log of Ray Train's controller says where a TorchTrainer's start goes.

``packed`` trains 1, 2 and 4 networks at once, each in a process of its own, on one GPU, or on this machine's CPUs where
there is none. It needs no Ray.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
import yaml
from rich.console import Console
from rich.table import Table

from raystudy.data.batches import StudyData
from raystudy.data.genes import Genes, write_genes
from raystudy.data.sources import synthetic
from raystudy.data.splits import make_split
from raystudy.study.model import configure
from raystudy.study.sections import SplitSpec
from raystudy.tracking.records import Records, TrialRecord
from raystudy.training.loop import Job, train
from raystudy.training.session import LocalSession, Metrics

SEED, NUM_CHROMOSOMES, GLOBAL_BATCH, TARGET = 3, 16, 32, "protein"
ON_CPU: dict[str, Any] = {
    "data": {"window_bp": (300, 200), "max_protein": 300},
    "model": {"num_latents": 32, "queries_dim": 32, "latent_dim": 32},
    "training": {"batch_size": GLOBAL_BATCH, "attention": "sdpa", "precision": "fp32"},
}
ON_GPU: dict[str, Any] = {
    "data": {"window_bp": (7000, 3500), "max_protein": 600},
    "model": {"preset": "table1"},
    "training": {"batch_size": GLOBAL_BATCH, "attention": "sdpa", "precision": "bf16"},
}
EXECUTORS: dict[str, dict[str, Any]] = {
    "inprocess": {"executor": "inprocess"},
    "torch_trainer": {"executor": "torch_trainer"},
    "torch_trainer, 2 workers": {"workers": 2},
}
STAGES = {
    "No checkpoint manager snapshot found": "the trial's process and the controller's",
    "Attempting to start training worker group": "controller",
    "worker actors created": "workers' processes",
    "Train context initialized": "process group",
    "Started training worker group": "callbacks",
}
"""What Ray Train 2.60's controller logs at the end of each stage of a start."""
FIRST_STEP = "data and network"

app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


def genes_in(folder: Path, num_genes: int, settings: dict[str, Any]) -> Path:
    """Write a synthetic genome whose windows are as long as the settings read."""
    window_bp = settings["data"]["window_bp"]
    table = synthetic.build(SEED, num_genes, NUM_CHROMOSOMES, window_bp)
    return write_genes(table, folder / "genes")


def document(name: str, data_folder: Path, epochs: int, **resources: Any) -> dict[str, Any]:
    """A study of one trial, whose global batch is the same however many workers it has."""
    batch_size = GLOBAL_BATCH // resources.get("workers", 1)
    return {
        "name": name,
        "data": {**ON_CPU["data"], "window_bp": list(ON_CPU["data"]["window_bp"]), "path": str(data_folder)},
        "model": ON_CPU["model"],
        "arms": [{"name": "one"}],
        "training": {**ON_CPU["training"], "epochs": epochs, "batch_size": batch_size},
        "baselines": [],
        "budget": {"trials": 1, "minutes": 60},
        "resources": {"cpus_per_worker": 1, **resources},
    }


def run(study: dict[str, Any], folder: Path) -> tuple[TrialRecord, int]:
    """Run it as a user does; its trial, and how many genes that is trained on in each epoch."""
    path = folder / f"{study['name']}.yaml"
    path.write_text(yaml.safe_dump(study))
    environment = os.environ | {"RAYSTUDY_HOME": str(folder / "studies"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "raystudy.tune", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    study_folder = folder / "studies" / study["name"]
    (trial,) = Records(study_folder).read().trials
    return trial, json.loads((study_folder / "split.json").read_text())["train"]


def figures_of(trial: TrialRecord, num_genes: int) -> dict[str, float]:
    """Seconds of its start and of its end, and genes a second after the first epoch."""
    (attempt,) = trial.attempts
    first, last = attempt.epochs[0], attempt.epochs[-1]
    return {
        "start_seconds": first["time"] - first["epoch_seconds"] - attempt.started,
        "end_seconds": (attempt.ended or last["time"]) - last["time"],
        "genes_per_second": num_genes / statistics.median(epoch["epoch_seconds"] for epoch in attempt.epochs[1:]),
    }


def stages_of(logs: Path, trial: TrialRecord) -> dict[str, float]:
    """Seconds of each stage of the start of the trial's TorchTrainer, from the log of its controller.

    ``logs`` is the folder where Ray Train's controllers write, a JSON object a line; the first that was started after
    the trial was handed out is the trial's.
    """
    started, first = trial.attempts[0].started, trial.attempts[0].epochs[0]
    starts = sorted(ends for log in logs.glob("ray-train-sys-controller-*.log") if (ends := list(_ends(log))))
    found: dict[str, float] = {}
    before = started
    for ended, stage in next(ends for ends in starts if ends[0][0] >= started):
        if stage not in found:
            found[stage], before = ended - before, ended
    return found | {FIRST_STEP: first["time"] - first["epoch_seconds"] - before}


def _ends(log: Path) -> Iterator[tuple[float, str]]:
    for line in log.read_text().splitlines():
        said = json.loads(line)
        for phrase, stage in STAGES.items():
            if phrase in said["message"]:
                yield datetime.strptime(said["asctime"], "%Y-%m-%d %H:%M:%S,%f").timestamp(), stage


@app.command()
def executors(
    genes: Annotated[int, typer.Option(min=200, help="Genes of the synthetic genome.")] = 1200,
    epochs: Annotated[int, typer.Option(min=2, help="Of each trial.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Studies of each kind; the medians count.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with the figures as JSON on stdout.")] = False,
) -> None:
    """Throughput with one worker and with two, and what it costs to start and to end a trial."""
    found: dict[str, dict[str, float]] = {}
    stages: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data_folder = genes_in(folder, genes, ON_CPU)
        for kind, resources in EXECUTORS.items():
            runs, starts = [], []
            for number in range(repeats):
                study = document(f"{list(EXECUTORS).index(kind)}-{number}", data_folder, epochs, **resources)
                trial, num_genes = run(study, folder)
                runs.append(figures_of(trial, num_genes))
                if kind != "inprocess":
                    starts.append(stages_of(Path(tempfile.gettempdir()) / "ray/session_latest/logs/train", trial))
            found[kind] = _medians(runs)
            if starts:
                stages[kind] = _medians(starts)
    if as_json:
        typer.echo(json.dumps({"executors": found, "stages": stages}))
        return
    one = found["inprocess"]
    table = Table("executor", "genes a second", "of inprocess", "start s", "end s")
    for kind, row in found.items():
        share = row["genes_per_second"] / one["genes_per_second"]
        numbers = (f"{row['genes_per_second']:.0f}", f"{share:.2f}", f"{row['start_seconds']:.1f}")
        table.add_row(kind, *numbers, f"{row['end_seconds']:.1f}")
    Console().print(table)
    table = Table("seconds of a TorchTrainer's start", *stages)
    for stage in next(iter(stages.values())):
        table.add_row(stage, *(f"{row.get(stage, 0):.1f}" for row in stages.values()))
    Console().print(table)


def _medians(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row.get(name, 0.0) for row in rows) for name in rows[0]}


def train_one(folder: Path, data_folder: Path, settings: dict[str, Any], together: Barrier, seconds: Any) -> None:
    """Train a network on the first CUDA device or on one CPU; puts the seconds of all epochs but the first.

    ``together`` is waited for after the first epoch, so that all are under way while the time is taken.
    """
    torch.set_num_threads(1)
    began: list[float] = []

    def after(metrics: Metrics) -> None:
        if metrics["epoch"] == 1:
            together.wait(timeout=600)  # one that has failed does not come
            began.append(time.perf_counter())

    model, training = configure(settings)
    genes = Genes.open(data_folder)
    split = make_split(genes, SplitSpec(), model.window_bp, np.isfinite(genes.target(TARGET)))
    data = StudyData.of(genes, split, model, (TARGET,))
    session = LocalSession(folder, after, "cuda" if torch.cuda.is_available() else "cpu")
    train(Job(model, training, SEED), data, session)
    seconds.put(time.perf_counter() - began[0])


@app.command()
def packed(
    genes: Annotated[int, typer.Option(min=200, help="Genes of the synthetic genome.")] = 1200,
    epochs: Annotated[int, typer.Option(min=2, help="Of each network; the first is not counted.")] = 4,
    at_once: Annotated[list[int], typer.Option(min=1, help="Networks at once; may be repeated.")] = [1, 2, 4],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Answer with the figures as JSON on stdout.")] = False,
) -> None:
    """Throughput of several networks at once on one GPU; on this machine's CPUs where it has none."""
    on_gpu = torch.cuda.is_available()
    chosen = ON_GPU if on_gpu else ON_CPU
    settings = {**chosen["data"], **chosen["model"], **chosen["training"], "epochs": epochs}
    processes = multiprocessing.get_context("spawn")  # CUDA cannot be used in a process that was forked
    found: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data_folder = genes_in(folder, genes, chosen)
        for count in at_once:
            together, seconds = processes.Barrier(count), processes.SimpleQueue()
            arguments = [
                (folder / f"{count}-{number}", data_folder, settings, together, seconds) for number in range(count)
            ]
            started = [processes.Process(target=train_one, args=one) for one in arguments]
            for one in started:
                one.start()
            for one in started:
                one.join()
            if any(one.exitcode for one in started):
                raise typer.Exit(1)
            slowest = max(seconds.get() for _ in started)
            found[count] = count * (epochs - 1) / slowest
    if as_json:
        typer.echo(json.dumps({"epochs_per_second": found}))
        return
    device = torch.cuda.get_device_name() if on_gpu else f"{os.cpu_count()} CPU cores"
    table = Table("networks at once", "epochs a second, all together", f"of {at_once[0]}", title=f"on {device}")
    for count, rate in found.items():
        table.add_row(str(count), f"{rate:.3f}", f"{rate / found[at_once[0]]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    app()
