"""How long a whole study takes with this checkout and with another one: ``python -m benchmarks.study --before FOLDER``.

FOLDER is the root of a checkout of raystudy, such as ``git worktree add ../before COMMIT`` makes. Both run the same
study as a user would, in fresh processes of this interpreter, by turns (before, after, after, before, ...), on the same
prepared data: yeast's search space with a fixed number of trials, sampled at random by the same seed, none stopped
early, each of as many epochs; no dimension is estimated and nothing trained on parts. Where a record shows that the
two did not train the same configurations in the same order, there is no answer but an error that says which differ.
The finalist is the best trial, which may be another one where validation R2s differ by rounding: ``same_finalist`` says
so, and ``search_seconds`` and ``training_ratio`` are free of it.

Seconds are medians of the rounds. ``wall`` is the whole command and the sum of four: ``opening`` (until the first trial
is handed out), ``search`` (until it ends), ``finalists`` (until the test genes are opened), ``ending`` (report, MLflow,
export, exit). ``epoch`` is the sum of all epochs of the search's trials, ``evaluation`` of what follows each. A trial's
``trial_start`` is from being handed out to the beginning of its first epoch, in a process that has trained one before;
``first_trial_start`` in one that has not. ``trial_end`` is from its last epoch to its end. ``driver`` is the time in
which no trial and no finalist was under way. Ratios are before over after: more than 1 is faster now. That of training
is of sums; ``epoch_ratio`` is the median over single epochs, which other work on the machine for a while moves less.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from raystudy.errors import RaystudyError
from raystudy.report.compare import best_finalist
from raystudy.tracking.records import Records, StudyRecord, TrialRecord, TrialState
from raystudy.tune import DEFAULT_STUDY

ROOT = Path(__file__).parents[1]
NAME, MINUTES = "measured", 600.0
ELSEWHERE = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")
"""In the environment, what would take a study off this machine or out of its folder."""
WHERE_FROM = "import raystudy; print(raystudy.__file__)"
PREPARE = "from raystudy.cli import main; main()"

Figures = dict[str, float]


class Precision(StrEnum):
    AUTO = "auto"
    BF16 = "bf16"
    FP32 = "fp32"


class Incomparable(RaystudyError):
    """The two checkouts did not do the same."""


@dataclass(frozen=True)
class Run:
    """One study from the start of its command to its end, in seconds since the epoch as in its records."""

    record: StudyRecord
    began: float
    ended: float


def fixed(document: dict[str, Any], trials: int, epochs: int, precision: str | None) -> dict[str, Any]:
    """The study of a file with everything fixed that could make two runs of it do different things.

    Its data section keeps naming the source: who sampled what is derived from the study, so not from a folder either.
    """
    search = {key: dict(kind) for key, kind in document.get("search", {}).items() if key != "epochs"}
    for kind in search.values():
        kind.pop("seed_from", None)
    training = {**document.get("training", {}), "epochs": epochs} | ({"precision": precision} if precision else {})
    training.pop("patience", None)
    kept = {key: value for key, value in document.items() if key not in ("training_sizes", "warm_start", "tracking")}
    return kept | {
        "name": NAME,
        "search": search,
        "sampler": "random",
        "pruner": "none",
        "training": training,
        "budget": {"trials": trials, "minutes": MINUTES},
        "finalists": 1,
        "replicates": {"folds": 1, "seeds": 1},
    }


def environment(checkout: Path, home: Path) -> dict[str, str]:
    """This process's, with raystudy from that checkout and results in ``home``."""
    kept = {key: value for key, value in os.environ.items() if key not in ELSEWHERE}
    return kept | {"PYTHONPATH": str(checkout), "RAYSTUDY_HOME": str(home)}


def check_import(checkout: Path, folder: Path) -> None:
    """Raise BadParameter unless a child, started in ``folder`` as studies are, has its raystudy from that checkout."""
    expected = checkout / "raystudy" / "__init__.py"
    if not expected.exists():
        raise typer.BadParameter(
            f"{checkout} has no raystudy/__init__.py; give the root of a checkout, such as `git worktree add ../before "
            "COMMIT` makes",
            param_hint="--before",
        )
    command = [sys.executable, "-c", WHERE_FROM]
    done = subprocess.run(  # noqa: S603
        command, cwd=folder, env=environment(checkout, folder), capture_output=True, text=True
    )
    found = done.stdout.strip()
    if done.returncode or Path(found).resolve() != expected:
        raise typer.BadParameter(
            f"with PYTHONPATH={checkout} a child of this interpreter has raystudy from "
            f"{found or done.stderr.strip()[-500:]}, not from {expected}; another installation wins: use an "
            "interpreter without it",
            param_hint="--before",
        )


def prepared(document: dict[str, Any], folder: Path) -> Path:
    """The study's data, prepared with this checkout where the file names a source."""
    data = document["data"]
    if "path" in data:
        return Path(data["path"]).resolve()
    command = [sys.executable, "-c", PREPARE, "prepare", data["source"], "--out", str(folder / "data")]
    _call(command, folder, ROOT, folder)
    return folder / "data"


def run_study(checkout: Path, study_path: Path, data_folder: Path, home: Path) -> Run:
    """Run the study as a user does, in processes of its own; RaystudyError where it fails."""
    home.mkdir()
    command = [sys.executable, "-m", "raystudy.tune", str(study_path), "--data", str(data_folder)]
    began = time.time()
    _call(command, home, checkout, home)  # in a folder without a raystudy, which `-m` would import first
    ended = time.time()
    return Run(Records(home / NAME).read(), began, ended)


def _call(command: Sequence[str], folder: Path, checkout: Path, home: Path) -> None:
    done = subprocess.run(  # noqa: S603
        command, cwd=folder, env=environment(checkout, home), capture_output=True, text=True
    )
    if done.returncode:
        said = done.stderr.strip()[-2000:]
        raise RaystudyError(f"{' '.join(command)} ended with {done.returncode} in {checkout}: {said}")


def started(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """In the order in which they were handed out."""
    return sorted(trials, key=lambda trial: (trial.attempts[0].started, trial.id))


def differences(before: StudyRecord, after: StudyRecord) -> list[str]:
    """What the trials of the two studies did differently, each in words; none where they can be compared."""
    found = []
    for which, record in (("before", before), ("after", after)):
        unfinished = [trial for trial in record.trials if trial.state is not TrialState.COMPLETE]
        found += [f"{trial.id} is {trial.state} {which} ({trial.explanation})" for trial in unfinished]
        found += [
            f"{trial.id} took {len(trial.attempts)} attempts {which}"
            for trial in record.trials
            if len(trial.attempts) > 1
        ]
    theirs, ours = started(before.trials), started(after.trials)
    if len(theirs) != len(ours):
        found.append(f"{len(theirs)} trials before, {len(ours)} after")
    for number, (one, other) in enumerate(zip(theirs, ours, strict=False), start=1):
        if one.config == other.config and one.seed != other.seed:
            found.append(f"trial {number}: seed {one.seed} before, {other.seed} after")
        for key in sorted(one.config.keys() | other.config.keys()):
            was, now = one.config.get(key), other.config.get(key)
            if was != now:
                found.append(f"trial {number}: {key} {was!r} before, {now!r} after")
        if len(one.epochs) != len(other.epochs):
            found.append(f"trial {number}: {len(one.epochs)} epochs before, {len(other.epochs)} after")
    return found


def check_same(before: StudyRecord, after: StudyRecord) -> None:
    """Raise Incomparable, naming what differs, unless both trained the same configurations in the same order."""
    if found := differences(before, after):
        raise Incomparable(
            f"the two checkouts did not train the same: {'; '.join(found)}. They are compared only where every "
            "configuration, its seed and its number of epochs agree, in the order handed out; take a checkout that "
            "samples the same, or correct what made a trial fail"
        )


def figures_of(run: Run) -> Figures:
    """One run's seconds and R2s; the names are explained at the top."""
    record, trials = run.record, started(run.record.trials)
    times = {line["event"]: line["time"] for line in record.events}
    first_ended = min(_ended(trial) for trial in trials)
    starts = {trial.id: _start_seconds(trial) for trial in trials}
    # A process has trained before if it is given another trial, which is when one has ended.
    warm = [starts[trial.id] for trial in trials if trial.attempts[0].started >= first_ended]
    cold = [starts[trial.id] for trial in trials if trial.attempts[0].started < first_ended]
    under_way = _seconds_covered(
        (attempt.started, attempt.started + attempt.seconds)
        for trial in (*trials, *record.finalists)
        for attempt in trial.attempts
    )
    best = best_finalist(record)
    replicate = best and best.best_replicate
    epochs = [epoch for trial in trials for epoch in trial.epochs]
    return {
        "wall_seconds": run.ended - run.began,
        "opening_seconds": trials[0].attempts[0].started - run.began,
        "search_seconds": times["search_finished"] - trials[0].attempts[0].started,
        "finalists_seconds": times["test_opened"] - times["search_finished"],
        "ending_seconds": run.ended - times["test_opened"],
        "epoch_seconds": sum(epoch["epoch_seconds"] for epoch in epochs),
        "evaluation_seconds": sum(epoch["eval_seconds"] for epoch in epochs),
        "finalist_epoch_seconds": sum(epoch["epoch_seconds"] for one in record.finalists for epoch in one.epochs),
        "first_trial_start_seconds": statistics.median(cold),
        **({"trial_start_seconds": statistics.median(warm)} if warm else {}),
        "trial_end_seconds": statistics.median(_ended(trial) - trial.epochs[-1]["time"] for trial in trials),
        "driver_seconds": run.ended - run.began - under_way,
        "best_valid_r2": max(trial.valid_r2 for trial in trials if trial.valid_r2 is not None),
        **({"test_r2": record.test_scores[replicate.id]["test_r2"]} if replicate else {}),
    }


def _ended(trial: TrialRecord) -> float:
    return trial.attempts[-1].started + trial.attempts[-1].seconds


def _start_seconds(trial: TrialRecord) -> float:
    first = trial.epochs[0]
    return float(first["time"] - first["eval_seconds"] - first["epoch_seconds"] - trial.attempts[0].started)


def _seconds_covered(spans: Iterable[tuple[float, float]]) -> float:
    """How long at least one of them was under way."""
    covered, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        covered += max(0.0, end - max(begin, until))
        until = max(until, end)
    return covered


def compared(before: Sequence[Run], after: Sequence[Run]) -> dict[str, Any]:
    """Medians of each checkout's rounds side by side, and their ratios. Raises Incomparable."""
    for run in (*before[1:], *after):
        check_same(before[0].record, run.record)
    theirs, ours = _medians(before), _medians(after)
    found: dict[str, Any] = {
        "study_ratio": theirs["wall_seconds"] / ours["wall_seconds"],
        "search_ratio": theirs["search_seconds"] / ours["search_seconds"],
        "training_ratio": theirs["epoch_seconds"] / ours["epoch_seconds"],
        "epoch_ratio": statistics.median(_epoch_ratios(before, after)),
    }
    for name in theirs:
        if name in ours:
            found |= {f"{name}_before": theirs[name], f"{name}_after": ours[name]}
    first = before[0].record
    finalists = {tuple(one.config_hash for one in run.record.finalists) for run in (*before, *after)}
    return found | {
        "same_finalist": len(finalists) == 1,
        "precision_before": first.trials[0].epochs[0]["precision"],
        "precision_after": after[0].record.trials[0].epochs[0]["precision"],
        "trials": len(first.trials),
        "epochs": len(first.trials[0].epochs),
        "rounds": len(before),
    }


def _epoch_ratios(before: Sequence[Run], after: Sequence[Run]) -> Iterator[float]:
    """Of each epoch of each trial with itself, round by round."""
    for theirs, ours in zip(before, after, strict=True):
        for one, other in zip(started(theirs.record.trials), started(ours.record.trials), strict=True):
            for was, now in zip(one.epochs, other.epochs, strict=True):
                yield was["epoch_seconds"] / now["epoch_seconds"]


def _medians(runs: Sequence[Run]) -> Figures:
    rows = [figures_of(run) for run in runs]
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def table_of(found: dict[str, Any]) -> Table:
    """Before beside after; what is a ratio of seconds stands behind them."""
    rounds = f"{found['rounds']} round{'s' if found['rounds'] > 1 else ''}"
    what = f"{found['trials']} trials of {found['epochs']} epochs, {rounds}, on {os.cpu_count()} cores"
    table = Table("figure", "before", "after", "before / after", title=what)
    for name in figures_in_order(found):
        was, now = found[f"{name}_before"], found[f"{name}_after"]
        ratio = f"{was / now:.2f}" if name.endswith("_seconds") and now > 0 else ""
        form = ".1f" if name.endswith("_seconds") else ".3f"
        table.add_row(name, f"{was:{form}}", f"{now:{form}}", ratio)
    table.add_row("precision", found["precision_before"], found["precision_after"], "")
    return table


def figures_in_order(found: dict[str, Any]) -> list[str]:
    """What was measured of both, wall time and its parts first."""
    first = [f"{part}_seconds" for part in ("wall", "opening", "search", "finalists", "ending", "epoch", "evaluation")]
    measured = [key.removesuffix("_before") for key in found if key.endswith("_before")]
    return first + [name for name in measured if name not in ("precision", *first)]


def main(
    before: Annotated[Path, typer.Option(help="Root of the other checkout of raystudy.")],
    study: Annotated[Path, typer.Option(help="Whose search space is taken.")] = ROOT / DEFAULT_STUDY,
    data: Annotated[Path | None, typer.Option(help="A prepared folder; else the study's source is prepared.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Studies of each checkout; the medians count.")] = 1,
    trials: Annotated[int, typer.Option(min=1, help="Of each study.")] = 4,
    epochs: Annotated[int, typer.Option(min=1, help="Of each trial.")] = 3,
    precision: Annotated[
        Precision | None, typer.Option(help="Of training; as the study file says unless given.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="A new folder to keep the studies in, to look at their records.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with the figures as JSON on stdout.")] = False,
) -> None:
    """Run the same study with the other checkout and with this one, and compare their times."""
    if keep is not None and keep.exists():
        raise typer.BadParameter(f"{keep} is there already; name a folder that is not", param_hint="--keep")
    err = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="raystudy-") as temporary:
        folder = (keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        checkouts = {"before": before.resolve(), "after": ROOT.resolve()}
        for checkout in checkouts.values():
            check_import(checkout, folder)
        document = yaml.safe_load(study.read_text())
        study_path = folder / f"{NAME}.yaml"
        study_path.write_text(yaml.safe_dump(fixed(document, trials, epochs, precision)))
        runs: dict[str, list[Run]] = {which: [] for which in checkouts}
        try:
            data_folder = prepared(document, folder) if data is None else data.resolve()
            for number in range(rounds):
                # By turns, so that neither is always the one that finds the machine as the other has left it.
                for which in list(checkouts)[:: -1 if number % 2 else 1]:
                    home = folder / f"{which}-{number}"
                    runs[which].append(run_study(checkouts[which], study_path, data_folder, home))
                    took = runs[which][-1].ended - runs[which][-1].began
                    load = os.getloadavg()[1]
                    err.print(f"round {number + 1} of {rounds}, {which}: {took:.1f} s, load {load:.1f} at its end")
            found = compared(runs["before"], runs["after"])
        except RaystudyError as error:
            err.print(str(error), style="red", markup=False)
            raise typer.Exit(error.exit_code) from None
    if as_json:
        print(json.dumps(found))
        return
    Console().print(table_of(found))
    ratios = ("study_ratio", "search_ratio", "training_ratio", "epoch_ratio")
    print(", ".join(f"{name} {found[name]:.2f}" for name in ratios))
    if not found["same_finalist"]:
        print("The finalists are of different configurations, so compare search and training rather than the whole.")


if __name__ == "__main__":
    typer.run(main)
