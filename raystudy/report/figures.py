"""The figures of the report page about trials, finalists and baselines, each as inline SVG."""

from __future__ import annotations

from itertools import accumulate

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from raystudy.report.compare import best_finalist, finalists, predictions
from raystudy.report.drawing import BLUE, GREEN, GREY, INK, ORANGE, inline_svg, legend_below
from raystudy.report.pareto import pareto
from raystudy.tracking.records import StudyRecord, TrialRecord, TrialState

LOWEST_R2 = -0.2
"""Values below are drawn here: one bad start must not flatten every other curve."""


def search_history(record: StudyRecord) -> str | None:
    """Best validation R2 of each trial in the order of the trials, by origin, with the best so far."""
    trials = [(number, trial) for number, trial in enumerate(record.trials, 1) if trial.valid_r2 is not None]
    if not trials:
        return None

    def draw(axes: Axes) -> None:
        looks = {"seeded": ("D", ORANGE), "sampled": ("o", BLUE), "arm": ("s", GREEN)}
        for origin, (marker, colour) in looks.items():
            for pruned in (False, True):
                chosen = [
                    (number, _clip(trial.valid_r2))
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
        so_far = list(accumulate((_clip(trial.valid_r2) for _, trial in trials), max))
        axes.step([number for number, _ in trials], so_far, where="post", color=GREY, lw=1, label="best so far")
        for line in record.baselines:
            _reference(axes, line["name"], line["valid_r2"])
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
            axes.plot(*_curve(trial), color=GREY, lw=0.8, alpha=0.7, label=label)
        for trial, colour in zip(best, (BLUE, GREEN, "#CC79A7"), strict=False):
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


def comparison(record: StudyRecord) -> str | None:
    """R2 of finalists and baselines on validation (open) and on the test genes (filled); of replicates, each."""
    lines: list[tuple[str, str, list[float], list[float]]] = [
        (line["name"], GREY, _known([line["valid_r2"]]), _test(record, [line["name"]])) for line in record.baselines
    ]
    for finalist in finalists(record):
        ids = [one.id for one in finalist.replicates]
        name = ids[0] if len(ids) == 1 else f"{finalist.trial} ({len(ids)})"
        lines.append((name, BLUE, _known([one.valid_r2 for one in finalist.replicates]), _test(record, ids)))
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        for row, (_, colour, valid, test) in enumerate(lines):
            for values, face in ((valid, "white"), (test, colour)):
                alpha = 1 if len(values) == 1 else 0.6
                clipped = [_clip(value) for value in values]
                axes.plot(clipped, [row] * len(values), "o", color=colour, markerfacecolor=face, ms=7, alpha=alpha)
        axes.plot([], [], "o", color=INK, markerfacecolor="white", label="validation")
        axes.plot([], [], "o", color=INK, label="test")
        axes.axvline(0, color=GREY, lw=1)
        axes.set_yticks(range(len(lines)), [name for name, *_ in lines])
        axes.set_ylim(-0.6, len(lines) - 0.4)
        axes.set_xlabel("R²")
        legend_below(axes)

    return inline_svg(draw, "Finalists and baselines: R2 on validation and test", height_in=1.5 + 0.3 * len(lines))


def predicted_measured(record: StudyRecord) -> str | None:
    """Predicted against measured level of the best finalist, on test genes once they are opened."""
    finalist = best_finalist(record)
    replicate = finalist.best_replicate if finalist else None
    if replicate is None:
        return None
    part = "test" if replicate.id in record.test_scores else "valid"
    pairs = predictions(record, replicate.id, part)
    if pairs is None:
        return None
    num_genes = len(set().union(*pairs.values()))

    def draw(axes: Axes) -> None:
        values = [value for levels in pairs.values() for pair in levels.values() for value in pair]
        axes.plot([min(values), max(values)], [min(values), max(values)], color=GREY, lw=1)
        for (target, levels), colour in zip(pairs.items(), (BLUE, ORANGE), strict=False):
            predicted, measured = zip(*levels.values(), strict=True)
            axes.plot(measured, predicted, "o", color=colour, ms=3, alpha=0.5, mec="none", label=target)
        axes.set_aspect("equal")
        axes.set_xlabel("measured")
        axes.set_ylabel("predicted")
        axes.set_title(f"{replicate.id} on {num_genes:,} {part} genes", fontsize=9)
        if len(pairs) > 1:
            legend_below(axes)

    return inline_svg(draw, f"Predicted against measured level of {num_genes} {part} genes", height_in=3.8)


def pareto_front(record: StudyRecord) -> str | None:
    """Validation R2 against the seconds of an epoch, points as large as their parameters; of several objectives."""
    front = pareto(record)
    trials = [trial for trial in front.trials if trial.epoch_seconds is not None] if front else []
    if front is None or not trials:
        return None
    best = {front.trials[row].id for row in front.members}
    most = max(trial.parameters for trial in trials) or 1

    def draw(axes: Axes) -> None:
        for label, colour, chosen in (
            ("other trials", GREY, [trial for trial in trials if trial.id not in best]),
            ("Pareto front", ORANGE, [trial for trial in trials if trial.id in best]),
        ):
            if chosen:
                seconds = [trial.epoch_seconds or 0.0 for trial in chosen]
                sizes = [12 + 160 * trial.parameters / most for trial in chosen]
                heights = [_clip(trial.valid_r2) for trial in chosen]
                axes.scatter(seconds, heights, sizes, color=colour, alpha=0.7, label=label, edgecolors="white")
        axes.set_xlabel("seconds of an epoch")
        axes.set_ylabel("validation R²")
        legend_below(axes)

    return inline_svg(draw, f"Pareto front: {len(best)} of {len(front.trials)} complete trials")


def hypervolume_over_time(record: StudyRecord) -> str | None:
    """Hypervolume of the trials ended so far by the time since the first trial began; of several objectives."""
    front = pareto(record)
    if front is None:
        return None
    begun = min(trial.attempts[0].started for trial in front.trials)
    minutes = [0.0, *((ended - begun) / 60 for ended in front.ended)]

    def draw(axes: Axes) -> None:
        axes.step(minutes, [0.0, *front.hypervolume], where="post", color=BLUE)
        axes.set_xlabel("minutes since the first trial began")
        axes.set_ylabel("hypervolume")
        axes.set_ylim(bottom=0)

    return inline_svg(draw, "Hypervolume over time", height_in=2.6)


def _known(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _test(record: StudyRecord, identities: list[str]) -> list[float]:
    return _known([record.test_scores.get(identity, {}).get("test_r2") for identity in identities])


def _curve(trial: TrialRecord) -> tuple[list[int], list[float]]:
    finite = [epoch for epoch in trial.epochs if epoch.get("valid_r2") is not None]
    return [epoch["epoch"] for epoch in finite], [_clip(epoch["valid_r2"]) for epoch in finite]


def _clip(value: float | None) -> float:
    return LOWEST_R2 if value is None else max(value, LOWEST_R2)


def _reference(axes: Axes, name: str, value: float | None) -> None:
    if value is not None:
        axes.axhline(_clip(value), color=INK, lw=0.8, ls="--")
        axes.annotate(
            name, (1, _clip(value)), xycoords=("axes fraction", "data"), xytext=(0, 2),
            textcoords="offset points", ha="right", fontsize=8,
        )  # fmt: skip
