"""Does the intrinsic dimension help a search? The same study with and without it: ``python -m benchmarks.seeding``.

Both arms of a replicate are the package's own search, with the yeast study's space, sampler and pruner, the same seed
and the same surface; the seeded one first tries the latent widths that the estimated dimension proposes, and 16. What
is counted: trials until the best so far reaches 95 % of the best that there is.

Nobody knows how the best width relates to the estimate, so simulated worlds are reported apart and never pooled:
``informed`` (the best width is where the estimate says, so any help is by construction, and the question is how much),
``unrelated`` and ``misleading`` (what it costs where the estimate says nothing, and where it is wrong). Each is there
twice: gentle, where the width hardly matters by construction, and ``steep``, where it does. Then a real one: short
trainings on yeast, if its data is prepared. There 95 % is of the best that either arm found.
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
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from scipy import stats

from benchmarks.surfaces import (
    KINDS,
    SMALL_STUDY,
    STEEP_WIDTH_OCTAVES,
    WIDTH_OCTAVES,
    Kind,
    Surface,
    Training,
    World,
    measured_estimate,
    octave_cost,
    planted_estimate,
    widths_of,
)
from raystudy.data.genes import TABLE
from raystudy.errors import TrialFailed
from raystudy.materials import studies_folder
from raystudy.search.policy import Origin, SearchPolicy
from raystudy.study.reading import parse_spec
from raystudy.study.spec import StudySpec
from raystudy.tracking.provenance import provenance
from raystudy.tracking.records import Records, TrialRecord, TrialState
from raystudy.tune import DEFAULT_STUDY

STUDY = Path(__file__).parents[1] / DEFAULT_STUDY
REPLICATES = {"simulated": 40, "real": 6}
TRIALS = {"simulated": 24, "real": 12}
NEAR = 0.95
CONFIDENCE = 0.95
MIN_CLAIM_REPLICATES = 10
"""Of fewer, the differences' own distribution decides how true the interval is, and nobody can see it."""
TABLE_WIDTH = 120
Part = Literal["simulated", "real", "both"]


class _Stopped(Exception):
    """The policy stopped the trial."""


@dataclass(frozen=True)
class Pair:
    """One replicate: what each trial was worth (-inf if it failed), in their order, with and without seeding."""

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
    def best_r2(self) -> tuple[float, float] | None:
        """The best of each arm; None where every trial of one failed, which leaves nothing to compare."""
        best = max(self.seeded), max(self.unseeded)
        return best if all(map(math.isfinite, best)) else None


def trials_until(worths: Sequence[float], enough: float) -> int:
    """How many trials it took until one was worth ``enough``; one more than there were where none was."""
    reached = (number for number, worth in enumerate(worths, start=1) if math.isfinite(worth) and worth >= enough)
    return next(reached, len(worths) + 1)


def paired_interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean of paired differences, by Student's t of n - 1 degrees of freedom; None where n < 2.

    Right for few replicates, where a percentile bootstrap is too narrow and never wider than their range: t knows that
    a standard deviation of few values is itself uncertain. It takes the differences for about normal.
    """
    num = len(differences)
    if num < 2:
        return None
    mean, deviation = float(np.mean(differences)), float(np.std(differences, ddof=1))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, num - 1)) * deviation / math.sqrt(num)
    return mean - reach, mean + reach


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
    estimate = measured_estimate(training, spec)
    widths = widths_of(estimate, spec)
    return Pair(search(spec, training, widths), search(spec, training, ()), training.best, estimate["consensus"])


def compare(pairs: Sequence[Pair]) -> dict[str, float]:
    """Means of each arm, their paired difference (seeded - unseeded) with its interval, and who never got there.

    ``..._low`` and ``..._high`` are missing where there is no interval, and ``best_r2_...`` where no pair has two
    values; ``best_r2_left_out`` counts the pairs that have not.
    """
    trials = np.array([pair.num_trials for pair in pairs], dtype=np.float64)
    best = [pair.best_r2 for pair in pairs if pair.best_r2 is not None]
    budget = len(pairs[0].seeded)
    never = (trials > budget).sum(axis=0)
    found = {"replicates": float(len(pairs)), "budget": float(budget)}
    found |= _paired("trials", trials) | (_paired("best_r2", np.array(best)) if best else {})
    if estimates := [pair.estimate for pair in pairs if pair.estimate is not None]:
        found |= {"estimate_smallest": min(estimates), "estimate_largest": max(estimates)}
    return found | {
        "best_r2_left_out": float(len(pairs) - len(best)),
        "never_seeded": float(never[0]),
        "never_unseeded": float(never[1]),
    }


def _paired(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    differences = values[:, 0] - values[:, 1]
    found = {
        f"{name}_seeded": float(values[:, 0].mean()),
        f"{name}_unseeded": float(values[:, 1].mean()),
        f"{name}_difference": float(differences.mean()),
    }
    if interval := paired_interval(differences.tolist()):
        found |= {f"{name}_difference_low": interval[0], f"{name}_difference_high": interval[1]}
    return found


def verdict(found: dict[str, dict[str, float]], missing: Sequence[str] = ()) -> str:
    """One sentence with every number that it rests on, and what is ``missing``."""
    places = {
        "informed": "lies at the estimate (built in favour of seeding)",
        "unrelated": "has nothing to do with the estimate",
        "misleading": "lies at the end of the space that is further from the estimate",
    }
    gentle, steep = (f"an octave off costs {octave_cost(of):.0%}" for of in (WIDTH_OCTAVES, STEEP_WIDTH_OCTAVES))
    where = {"real": "in small real trainings (of the best of both arms)"}
    for kind, place in places.items():
        where[kind] = f"simulated, the best width {place} and hardly matters by construction ({gentle})"
        where[f"{kind}_steep"] = f"simulated, the best width {place} and matters ({steep})"
    parts = [f"{where[name]}, {_said(figures)}" for name, figures in found.items()]
    counted = f"Trials until {NEAR:.0%} of the best validation R2, with widths seeded from the intrinsic dimension"
    return f"{counted} against without ({CONFIDENCE:.0%} paired t intervals): {'; '.join([*parts, *missing])}."


def _said(figures: dict[str, float]) -> str:
    low, high = figures.get("trials_difference_low"), figures.get("trials_difference_high")
    replicates = f"{figures['replicates']:.0f} replicate{'s' * (figures['replicates'] != 1)}"
    if low is None or high is None or figures["replicates"] < MIN_CLAIM_REPLICATES:
        change = f"{replicates} {'is' if figures['replicates'] == 1 else 'are'} too few for a claim"
    else:
        change = "no difference shown" if low <= 0 <= high else "fewer" if high < 0 else "more"
    reached = " and ".join(f"{figures[f'never_{arm}']:.0f}" for arm in ("seeded", "unseeded"))
    left_out = figures["best_r2_left_out"]
    return (
        f"{change}: {figures['trials_seeded']:.1f} against {figures['trials_unseeded']:.1f} "
        f"({_span(figures, 'trials', 1)}; {replicates}, of which {reached} never got there in "
        f"{figures['budget']:.0f} trials and count as {figures['budget'] + 1:.0f}"
        + (f"; the best R2 is not compared in {left_out:.0f}, where every trial of an arm failed)" if left_out else ")")
    )


def _span(figures: dict[str, float], name: str, digits: int) -> str:
    """The difference, with its interval where it has one."""
    if f"{name}_difference" not in figures:
        return "-"
    ends = [figures[key] for end in ("low", "high") if (key := f"{name}_difference_{end}") in figures]
    interval = ", ".join(f"{end:+.{digits}f}" for end in ends) or "no interval"
    return f"{figures[f'{name}_difference']:+.{digits}f} [{interval}]"


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
    title = f"Trials until {NEAR:.0%} of the best R2, paired differences with {CONFIDENCE:.0%} intervals"
    table = Table("surface", "seeded", "unseeded", "difference", "never reached", "difference of best R2", title=title)
    for name, figures in found.items():
        means = [f"{figures[f'trials_{arm}']:.1f}" for arm in ("seeded", "unseeded")]
        trials, best_r2 = (escape(_span(figures, of, digits)) for of, digits in (("trials", 1), ("best_r2", 4)))
        never = f"{figures['never_seeded']:.0f} / {figures['never_unseeded']:.0f} of {figures['replicates']:.0f}"
        if left_out := figures["best_r2_left_out"]:
            best_r2 += f" ({left_out:.0f} left out)"
        table.add_row(name, *means, trials, never, best_r2)
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
    surfaces: dict[str, Callable[[int], Pair]] = {}
    if part != "real":
        surfaces |= {kind: partial(simulated, kind) for kind in KINDS}
    if part != "simulated" and not skipped:
        surfaces["real"] = partial(real, folder)
    options = "".join(f" {flag} {value}" for flag, value in (("--replicates", replicates), ("--data", data)) if value)
    told = f"python -m benchmarks.seeding --part {part} --jobs {jobs}{options}"
    never_run = [f"the small real study was not run ({skipped})"] if skipped and part != "simulated" else []
    out = out or studies_folder() / "benchmarks" / "seeding.json"

    found: dict[str, dict[str, float]] = {}
    for name, one in surfaces.items():
        started = time.perf_counter()
        pairs = _each(one, counts["real" if name == "real" else "simulated"], jobs, name)
        found[name] = compare(pairs) | {"seconds": time.perf_counter() - started}
        to_come = [f"{other} was not finished when this was written" for other in surfaces if other not in found]
        _write(out, found, verdict(found, [*to_come, *never_run]), told)
    if as_json:
        typer.echo(json.dumps(_flat(found), allow_nan=False))
    else:
        console = Console()
        console.width = max(console.width, TABLE_WIDTH)
        console.print(_table(found), escape(verdict(found, never_run)))


def _write(out: Path, found: dict[str, dict[str, float]], said: str, told: str) -> None:
    """After each surface anew, so that a run that is stopped loses only the one it was at."""
    document = {
        "figures": _flat(found),
        "verdict": said,
        "machine": _machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "command": told,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f"{out.name}.unfinished")
    unfinished.write_text(json.dumps(document, indent=1, allow_nan=False))
    unfinished.replace(out)


def _flat(found: dict[str, dict[str, float]]) -> dict[str, float]:
    return {f"{name}_{figure}": value for name, row in found.items() for figure, value in row.items()}


if __name__ == "__main__":
    typer.run(main)
