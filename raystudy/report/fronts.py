"""The figures of the Pareto front: what validation R2 costs in seconds and parameters, and how a search covered it."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from raystudy.report.drawing import BLUE, GREY, ORANGE, clip_r2, inline_svg, legend_below
from raystudy.report.pareto import Front
from raystudy.tracking.records import TrialRecord

COSTS = {"epoch_seconds": "seconds of an epoch", "parameters": "parameters"}


def pareto_figure(front: Front, cost: str) -> str | None:
    """Validation R2 of trials against ``epoch_seconds`` or ``parameters``, those of the front in colour."""
    trials = [trial for trial in front.trials if None not in (getattr(trial, cost), trial.valid_r2)]
    if not trials:
        return None
    best = {front.trials[row].id for row in front.members}

    def draw(axes: Axes) -> None:
        for label, colour, marker, chosen in (
            ("other trials", GREY, "o", [trial for trial in trials if trial.id not in best]),
            ("Pareto front", ORANGE, "D", [trial for trial in trials if trial.id in best]),
        ):
            if chosen:
                places = [getattr(trial, cost) for trial in chosen]
                heights = [clip_r2(trial.valid_r2) for trial in chosen]
                axes.plot(places, heights, marker, color=colour, ms=6, alpha=0.75, mec="white", label=label)
        _logarithmic(axes, [getattr(trial, cost) for trial in trials], always=cost == "parameters")
        top = max(trials, key=lambda trial: trial.valid_r2 or 0.0)
        _name(axes, top, getattr(top, cost))
        axes.set_xlabel(COSTS[cost])
        axes.set_ylabel("validation R²")
        axes.margins(y=0.12)
        legend_below(axes)

    return inline_svg(draw, f"Pareto front: validation R2 against {COSTS[cost]} of {len(trials)} trials")


def hypervolume_figure(front: Front) -> str | None:
    """Hypervolume of the trials ended so far by the time since the first trial began; of declared objectives."""
    if not front.declared:
        return None
    begun = min(trial.attempts[0].started for trial in front.trials)
    minutes = [0.0, *((ended - begun) / 60 for ended in front.ended)]

    def draw(axes: Axes) -> None:
        axes.step(minutes, [0.0, *front.hypervolume], where="post", color=BLUE)
        axes.set_xlabel("minutes since the first trial began")
        axes.set_ylabel("hypervolume")
        axes.set_ylim(bottom=0)

    return inline_svg(draw, "Hypervolume over time", height_in=2.6)


def _logarithmic(axes: Axes, values: list[float], always: bool) -> None:
    """A logarithmic x-axis with some plain numbers on it, always or where values differ tenfold."""
    low, high = min(values), max(values)
    if low <= 0 or not (always or high > 10 * low):
        return
    axes.set_xscale("log")
    decades = math.log10(high / low)
    subs = (1,) if decades > 3 else (1, 3) if decades > 1.5 else (1, 2, 5)
    axes.xaxis.set_major_locator(MaxNLocator(4) if decades < 0.7 else LogLocator(subs=subs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: _short(value))
    axes.set_xlim(low / 1.3, high * 1.3)


def _short(value: float) -> str:
    """1500000 as ``1.5 M``, 20000 as ``20 k``."""
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _name(axes: Axes, trial: TrialRecord, place: float) -> None:
    """Beside its mark, on the side where the axes have more room."""
    low, high = axes.get_xlim()
    middle = math.sqrt(low * high) if axes.get_xscale() == "log" else (low + high) / 2
    has_room = place < middle  # on its right
    axes.annotate(
        trial.id, (place, clip_r2(trial.valid_r2)), xytext=(7 if has_room else -7, 0), textcoords="offset points",
        ha="left" if has_room else "right", va="center", fontsize=8,
    )  # fmt: skip
