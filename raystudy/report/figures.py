"""The figures of the report page about trials, finalists and baselines, each as inline SVG."""

from __future__ import annotations

from itertools import accumulate

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from raystudy.report.compare import finalists
from raystudy.report.drawing import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, clip_r2, inline_svg, legend_below
from raystudy.report.intervals import Intervals
from raystudy.tracking.records import StudyRecord, TrialRecord, TrialState

ORIGINS = {
    "seeded": ("D", ORANGE),
    "warm": ("^", PURPLE),
    "sampled": ("o", BLUE),
    "arm": ("s", GREEN),
}
"""How trials of each origin are drawn; a word that is not among them is drawn like a sampled one, in ink."""


def search_history(record: StudyRecord) -> str | None:
    """Best validation R2 of each trial in the order of the trials, by origin, with the best so far."""
    trials = [(number, trial) for number, trial in enumerate(record.trials, 1) if trial.valid_r2 is not None]
    if not trials:
        return None

    def draw(axes: Axes) -> None:
        for origin in dict.fromkeys((*ORIGINS, *(trial.origin for _, trial in trials))):
            marker, colour = ORIGINS.get(origin, ("o", INK))
            for pruned in (False, True):
                chosen = [
                    (number, clip_r2(trial.valid_r2))
                    for number, trial in trials
                    if trial.origin == origin and (trial.state is TrialState.PRUNED) is pruned
                ]
                if chosen:
                    face = "white" if pruned else colour
                    label = f"{origin}, pruned" if pruned else origin
                    axes.plot(
                        *zip(*chosen, strict=True),
                        marker,
                        color=colour,
                        markerfacecolor=face,
                        label=label,
                        zorder=3,
                    )
        so_far = list(accumulate((clip_r2(trial.valid_r2) for _, trial in trials), max))
        axes.step([number for number, _ in trials], so_far, where="post", color=GREY, lw=1, label="best so far")
        for line in record.baselines:
            _reference(axes, line["name"], line["valid_r2"])
        axes.margins(y=0.1)
        axes.set_xlabel("trial, in the order of starting")
        axes.set_ylabel("validation R²")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend_below(axes)

    return inline_svg(draw, f"Search history: validation R2 of {len(trials)} trials in order")


def learning_curves(record: StudyRecord) -> str | None:
    """Validation R2 by epoch: the three best trials and the finalists in colour, the others in grey."""
    trials = [trial for trial in record.trials if trial.valid_r2 is not None]
    best = sorted(trials, key=lambda trial: trial.valid_r2 or 0.0, reverse=True)[:3]
    if not trials and not any(trial.valid_r2 is not None for trial in record.finalists):
        return None

    def draw(axes: Axes) -> None:
        others = [trial for trial in trials if trial not in best]
        for number, trial in enumerate(others):
            label = f"{len(others)} other trials" if number == 0 else None
            axes.plot(*_curve(trial), color=GREY, marker=".", ms=4, lw=0.8, alpha=0.7, label=label)
        for trial, colour in zip(best, (BLUE, GREEN, PURPLE), strict=False):
            axes.plot(*_curve(trial), color=colour, marker=".", label=trial.id)
        for finalist in finalists(record):
            count = len(finalist.replicates)
            for number, trial in enumerate(finalist.replicates):
                named = f"{trial.id} (finalist)" if count == 1 else f"{finalist.trial} ({count} replicates)"
                label = named if number == 0 else None
                axes.plot(*_curve(trial), color=ORANGE, marker="D", ms=3.5, alpha=0.5 + 0.5 / count, label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation R²")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend_below(axes)

    return inline_svg(draw, "Learning curves: validation R2 by epoch")


def comparison(record: StudyRecord, intervals: Intervals) -> str | None:
    """R2 of finalists and baselines on validation (open) and on the test genes (filled); of replicates, each.

    A bar is the interval over genes.
    """
    lines: list[tuple[str, str, str, list[float], list[float]]] = [
        (line["name"], line["name"], GREY, _known([line["valid_r2"]]), _test(record, [line["name"]]))
        for line in record.baselines
    ]
    for finalist in finalists(record):
        ids = [one.id for one in finalist.replicates]
        name = ids[0] if len(ids) == 1 else f"{finalist.trial} ({len(ids)})"
        valid = _known([one.valid_r2 for one in finalist.replicates])
        lines.append((finalist.trial, name, BLUE, valid, _test(record, ids)))
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        for row, (identity, _, colour, valid, test) in enumerate(lines):
            known = intervals.get(identity, {})
            for values, metric, height, face in (
                (valid, "valid_r2", row + 0.16, "white"),
                (test, "test_r2", row - 0.16, colour),
            ):
                if interval := known.get(metric):
                    ends = [clip_r2(end) for end in interval]
                    axes.plot(ends, [height, height], color=colour, alpha=0.35, lw=2.5, solid_capstyle="butt")
                alpha = 1 if len(values) == 1 else 0.6
                clipped = [clip_r2(value) for value in values]
                axes.plot(clipped, [height] * len(values), "o", color=colour, markerfacecolor=face, ms=6, alpha=alpha)
        axes.plot([], [], "o", color=INK, markerfacecolor="white", label="validation")
        axes.plot([], [], "o", color=INK, label="test")
        axes.axvline(0, color=GREY, lw=1)
        axes.set_yticks(range(len(lines)), [name for _, name, *_ in lines])
        axes.set_ylim(-0.6, len(lines) - 0.4)
        axes.set_xlabel("R²")
        legend_below(axes)

    return inline_svg(draw, "Finalists and baselines: R2 on validation and test", height_in=1.4 + 0.36 * len(lines))


def _known(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _test(record: StudyRecord, identities: list[str]) -> list[float]:
    return _known([record.test_scores.get(identity, {}).get("test_r2") for identity in identities])


def _curve(trial: TrialRecord) -> tuple[list[int], list[float]]:
    finite = [epoch for epoch in trial.epochs if epoch.get("valid_r2") is not None]
    return [epoch["epoch"] for epoch in finite], [clip_r2(epoch["valid_r2"]) for epoch in finite]


def _reference(axes: Axes, name: str, value: float | None) -> None:
    if value is not None:
        axes.axhline(clip_r2(value), color=INK, lw=0.8, ls="--")
        axes.annotate(
            name, (1, clip_r2(value)), xycoords=("axes fraction", "data"), xytext=(0, 2),
            textcoords="offset points", ha="right", fontsize=8,
        )  # fmt: skip
