"""Does the intrinsic dimension help a search? The same study with and without it: ``python -m benchmarks.seeding``.

Both arms of a replicate are the package's own search, with the yeast study's space, sampler and pruner, the same seed
and the same surface; the seeded one first tries the latent widths that the estimated dimension proposes, and 16. What
is counted: trials until the best so far reaches 95 % of the best that there is.

Nobody knows how the best width relates to the estimate, so simulated worlds are reported apart and never pooled:
``informed`` (the best width is where the estimate says, so any help is by construction, and the question is how much),
``unrelated`` and ``misleading`` (what it costs where the estimate says nothing, and where it is wrong), the first and
the last also ``steep``, where the width matters more. Then a real one: short trainings on yeast, if its data is
prepared. There 95 % is of the best that either arm found.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import typer
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.surfaces import (
    KINDS,
    SMALL_STUDY,
    Kind,
    Surface,
    Training,
    World,
    measured_estimate,
    planted_estimate,
    widths_of,
)
from raystudy.data.genes import TABLE
from raystudy.errors import TrialFailed
from raystudy.search.policy import Origin, SearchPolicy
from raystudy.study.spec import StudySpec, parse_spec
from raystudy.tracking.provenance import provenance
from raystudy.tracking.records import Records, TrialRecord, TrialState
from raystudy.tune import DEFAULT_STUDY, studies_folder

STUDY = Path(__file__).parents[1] / DEFAULT_STUDY
REPLICATES = {"simulated": 40, "real": 6}
TRIALS = {"simulated": 24, "real": 12}
NEAR = 0.95
RESAMPLES = 10_000
Part = Literal["simulated", "real", "both"]


class _Stopped(Exception):
    """The policy stopped the trial."""


@dataclass(frozen=True)
class Pair:
    """One replicate: what each trial was worth, in their order, with and without seeding."""

    seeded: list[float]
    unseeded: list[float]
    best: float | None
    """The best that there is; None for the best of the two arms."""
    estimate: float | None = None
    """The consensus that the widths came from; None where every estimator refused."""

    @property
    def num_trials(self) -> tuple[int, int]:
        """Trials until 95 % of the best was reached, seeded and unseeded."""
        best = max(*self.seeded, *self.unseeded) if self.best is None else self.best
        enough = best - (1 - NEAR) * abs(best)  # a real R2 can be negative, and 95 % of that would be above the best
        return trials_until(self.seeded, enough), trials_until(self.unseeded, enough)

    @property
    def best_r2(self) -> tuple[float, float]:
        return max(self.seeded), max(self.unseeded)


def trials_until(worths: Sequence[float], enough: float) -> int:
    """How many trials it took until one was worth ``enough``; one more than there were where none was."""
    return next((number for number, worth in enumerate(worths, start=1) if worth >= enough), len(worths) + 1)


def paired_interval(differences: Sequence[float]) -> tuple[float, float]:
    """95 % percentile bootstrap of the mean difference: replicates are resampled, as Efron & Tibshirani 1993, ch. 13.

    Of a handful of replicates it is too narrow, and never wider than their range.
    """
    values = np.asarray(differences, dtype=np.float64)
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def search(spec: StudySpec, surface: Surface, widths: Sequence[int]) -> list[float]:
    """What each trial of one whole search was worth, in their order; ``widths`` are tried first."""
    with tempfile.TemporaryDirectory() as folder:
        records = Records(Path(folder))
        policy = SearchPolicy(spec, records, ends=math.inf)
        for width in widths:
            policy.enqueue({"latent_dim": width}, Origin("seeded"))
        while (trial := policy.ask()) is not None:
            _run(trial, policy, surface, records.trial_folder(trial.id))
        policy.close()
        return [surface.worth(trial) for trial in records.read().trials]


def _run(trial: TrialRecord, policy: SearchPolicy, surface: Surface, folder: Path) -> None:
    def report(metrics: dict[str, float]) -> None:
        if policy.report(trial.id, metrics):
            raise _Stopped

    try:
        surface(trial, folder, report)
    except _Stopped:
        return
    except TrialFailed as failure:
        policy.end(trial.id, TrialState.FAILED, failure.reason)
    else:
        policy.end(trial.id, TrialState.COMPLETE)


def study(part: str, replicate: int) -> StudySpec:
    """The yeast study with this benchmark's budget; its name decides the sampler's seed, which both arms share."""
    document = yaml.safe_load(STUDY.read_text())
    for section, changes in (SMALL_STUDY if part == "real" else {}).items():
        document[section] = document[section] | changes
    document |= {"name": f"{part}-{replicate}", "budget": {"trials": TRIALS[part], "minutes": 60}}
    return parse_spec(document, where=str(STUDY))


def simulated(kind: Kind, replicate: int) -> Pair:
    spec = study("simulated", replicate)
    world = World.draw(kind, replicate, spec)
    widths = widths_of(planted_estimate(world.estimate), spec)
    return Pair(search(spec, world, widths), search(spec, world, ()), world.best, world.estimate)


def real(folder: Path, replicate: int) -> Pair:
    torch.set_num_threads(1)  # trials this small lose time in more
    spec = study("real", replicate)
    training = Training.draw(folder, replicate, spec)
    estimate = measured_estimate(training, spec.data.window_bp)
    widths = widths_of(estimate, spec)
    return Pair(search(spec, training, widths), search(spec, training, ()), training.best, estimate["consensus"])


def compare(pairs: Sequence[Pair]) -> dict[str, float]:
    """Means of each arm, their paired difference (seeded - unseeded) with its interval, and who never got there."""
    found: dict[str, float] = {"replicates": float(len(pairs)), "budget": float(len(pairs[0].seeded))}
    for name, values in (
        ("trials", np.array([pair.num_trials for pair in pairs], dtype=np.float64)),
        ("best_r2", np.array([pair.best_r2 for pair in pairs])),
    ):
        differences = values[:, 0] - values[:, 1]
        low, high = paired_interval(differences.tolist())
        found |= {
            f"{name}_seeded": float(values[:, 0].mean()),
            f"{name}_unseeded": float(values[:, 1].mean()),
            f"{name}_difference": float(differences.mean()),
            f"{name}_difference_low": low,
            f"{name}_difference_high": high,
        }
    if estimates := [pair.estimate for pair in pairs if pair.estimate is not None]:
        found |= {"estimate_smallest": min(estimates), "estimate_largest": max(estimates)}
    never = np.array([pair.num_trials for pair in pairs]) > len(pairs[0].seeded)
    return found | {"never_seeded": float(never[:, 0].sum()), "never_unseeded": float(never[:, 1].sum())}


def verdict(found: dict[str, dict[str, float]], skipped: str | None) -> str:
    """One sentence with every number that it rests on."""
    where = {
        "informed": "on simulated surfaces whose best width lies at the estimate (built in favour of seeding)",
        "unrelated": "where it has nothing to do with the estimate",
        "misleading": "where it lies at the end of the space that is further from the estimate",
        "informed_steep": "where it lies at the estimate and an octave off costs 20 % instead of 5 %",
        "misleading_steep": "where it lies at the far end and an octave off costs 20 %",
        "real": "in small real trainings (of the best of both arms; an interval of few replicates is too narrow)",
    }
    parts = [f"{where[name]}, {_said(figures)}" for name, figures in found.items()]
    if skipped:
        parts.append(f"the small real study was not run ({skipped})")
    counted = f"Trials until {NEAR:.0%} of the best validation R2, with widths seeded from the intrinsic dimension"
    return f"{counted} against without (95 % intervals): {'; '.join(parts)}."


def _said(figures: dict[str, float]) -> str:
    low, high = figures["trials_difference_low"], figures["trials_difference_high"]
    change = "no difference shown" if low <= 0 <= high else "fewer" if high < 0 else "more"
    reached = " and ".join(f"{figures[f'never_{arm}']:.0f}" for arm in ("seeded", "unseeded"))
    return (
        f"{change}: {figures['trials_seeded']:.1f} against {figures['trials_unseeded']:.1f} "
        f"({figures['trials_difference']:+.1f} [{low:+.1f}, {high:+.1f}]; {figures['replicates']:.0f} replicates, of "
        f"which {reached} never got there in {figures['budget']:.0f} trials and count as {figures['budget'] + 1:.0f})"
    )


def _each(one: Callable[[int], Pair], replicates: int, jobs: int, name: str) -> list[Pair]:
    """Every replicate's pair, ``jobs`` at a time, with progress on stderr."""
    numbers = range(replicates)
    with ProcessPoolExecutor(jobs, get_context("spawn")) if jobs > 1 else _Here() as pool:
        done: Iterator[Pair] = pool.map(one, numbers)
        return list(track(done, name, total=replicates, console=Console(stderr=True), transient=True))


class _Here:
    """This process, where no other is asked for."""

    map = staticmethod(map)

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *error: object) -> None:
        return None


def _table(found: dict[str, dict[str, float]]) -> Table:
    title = f"Trials until {NEAR:.0%} of the best R2, paired differences with 95 % intervals"
    table = Table("surface", "seeded", "unseeded", "difference", "never reached", "difference of best R2", title=title)
    for name, figures in found.items():
        spans = [
            f"{figures[f'{of}_difference']:+.{digits}f} "
            f"[{figures[f'{of}_difference_low']:+.{digits}f}, {figures[f'{of}_difference_high']:+.{digits}f}]"
            for of, digits in (("trials", 1), ("best_r2", 4))
        ]
        means = [f"{figures[f'trials_{arm}']:.1f}" for arm in ("seeded", "unseeded")]
        never = f"{figures['never_seeded']:.0f} / {figures['never_unseeded']:.0f} of {figures['replicates']:.0f}"
        table.add_row(name, *means, spans[0].replace("[", r"\["), never, spans[1].replace("[", r"\["))
    return table


def _machine() -> str:
    about = provenance()
    return f"{about['processor']}, {about['num_cores']} cores, {about['memory_gib']} GiB, Python {about['python']}"


def main(
    part: Annotated[Part, typer.Option(help="Which surfaces to search.")] = "both",
    replicates: Annotated[int | None, typer.Option(min=1, help=f"Of each surface; {REPLICATES} unless said.")] = None,
    data: Annotated[Path | None, typer.Option(help="Prepared yeast; the studies folder's own unless said.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Replicates at a time, each in a process of its own.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Where to write; the studies folder unless said.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with the figures as JSON on stdout.")] = False,
) -> None:
    """Search every surface with and without seeded widths, and say what that changed, whatever it is."""
    folder = data or studies_folder() / "data" / "yeast"
    skipped = None if (folder / TABLE).exists() else f"no prepared data in {folder}; see `raystudy prepare yeast`"
    if skipped and part != "simulated" and (data or part == "real"):
        raise typer.BadParameter(skipped, param_hint="--data")
    counts = REPLICATES if replicates is None else dict.fromkeys(REPLICATES, replicates)
    found: dict[str, dict[str, float]] = {}

    def measure(name: str, one: Callable[[int], Pair], num_replicates: int) -> None:
        started = time.perf_counter()
        pairs = _each(one, num_replicates, jobs, name)
        found[name] = compare(pairs) | {"seconds": time.perf_counter() - started}

    if part != "real":
        for kind in KINDS:
            measure(kind, partial(simulated, kind), counts["simulated"])
    if part != "simulated" and not skipped:
        measure("real", partial(real, folder), counts["real"])

    figures = {f"{name}_{figure}": value for name, row in found.items() for figure, value in row.items()}
    options = "".join(f" {flag} {value}" for flag, value in (("--replicates", replicates), ("--data", data)) if value)
    document = {
        "figures": figures,
        "verdict": verdict(found, skipped if part != "simulated" else None),
        "machine": _machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"python -m benchmarks.seeding --part {part} --jobs {jobs}{options}",
    }
    out = out or studies_folder() / "benchmarks" / "seeding.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1, allow_nan=False))
    if as_json:
        typer.echo(json.dumps(figures))
    else:
        Console().print(_table(found), document["verdict"])


if __name__ == "__main__":
    typer.run(main)
