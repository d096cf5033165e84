"""Predicted against measured levels of the best finalist, and the genes that it is most wrong about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import pstdev

from matplotlib.axes import Axes

from raystudy.report.compare import Pairs, best_finalist, predictions
from raystudy.report.drawing import BLUE, GREY, INK, ORANGE, inline_svg, legend_below
from raystudy.tracking.records import StudyRecord

NUM_LISTED = 15
NUM_LABELLED = 6
"""More names than that hide the points."""


@dataclass(frozen=True)
class Residual:
    """One gene and target, in the label's own units."""

    gene_id: str
    target: str
    part: str
    measured: float
    predicted: float

    @property
    def residual(self) -> float:
        """Measured minus predicted."""
        return self.measured - self.predicted


def best_predictions(record: StudyRecord) -> tuple[str, str, Pairs] | None:
    """Replicate, part and predictions of the best finalist: of the test genes once they are open, else validation's."""
    finalist = best_finalist(record)
    replicate = finalist.best_replicate if finalist else None
    if replicate is None:
        return None
    part = "test" if replicate.id in record.test_scores else "valid"
    pairs = predictions(record, replicate.id, part)
    return None if pairs is None else (replicate.id, part, pairs)


def largest_residuals(record: StudyRecord, count: int = NUM_LISTED) -> list[Residual]:
    """The genes that the best finalist is most wrong about, the worst first; empty without predictions."""
    found = best_predictions(record)
    return [] if found is None else _largest(found[1], found[2], count)


def _largest(part: str, pairs: Pairs, count: int) -> list[Residual]:
    """By the share of their target's standard deviation, so that one target's unit does not hide another's genes."""
    spread = {target: pstdev(measured for _, measured in levels.values()) or 1.0 for target, levels in pairs.items()}
    every = [
        Residual(gene, target, part, measured, predicted)
        for target, levels in pairs.items()
        for gene, (predicted, measured) in levels.items()
    ]
    return sorted(every, key=lambda one: (-abs(one.residual) / spread[one.target], one.gene_id, one.target))[:count]


def predicted_measured(record: StudyRecord) -> str | None:
    """Predicted against measured level of the best finalist, the largest residuals circled and some of them named."""
    found = best_predictions(record)
    if found is None:
        return None
    replicate, part, pairs = found
    num_genes = len(set().union(*pairs.values()))
    largest = _largest(part, pairs, NUM_LISTED)

    def draw(axes: Axes) -> None:
        values = [value for levels in pairs.values() for pair in levels.values() for value in pair]
        low, high = min(values), max(values)
        axes.plot([low, high], [low, high], color=GREY, lw=1)
        for (target, levels), colour in zip(pairs.items(), (BLUE, ORANGE), strict=False):
            predicted, measured = zip(*levels.values(), strict=True)
            axes.plot(
                measured,
                predicted,
                "o",
                color=colour,
                ms=3,
                alpha=0.5,
                mec="none",
                label=target if len(pairs) > 1 else None,
            )
        circled = [(one.measured, one.predicted) for one in largest]
        axes.plot(*zip(*circled, strict=True), "o", ms=6, mfc="none", mec=INK, mew=0.8, label="largest residuals")
        for one in _with_room(largest, (high - low) or 1.0):
            side = 1 if one.residual > 0 else -1  # away from the line, where there are the fewest points
            axes.annotate(
                one.gene_id, (one.measured, one.predicted), xytext=(5 * side, -3 * side), textcoords="offset points",
                ha="left" if side > 0 else "right", va="center", fontsize=8,
            )  # fmt: skip
        axes.set_xlim(low - 0.25 * (high - low), high + 0.25 * (high - low))  # room for the names
        axes.set_aspect("equal")
        axes.set_xlabel("measured")
        axes.set_ylabel("predicted")
        axes.set_title(f"{replicate} on {num_genes:,} {'validation' if part == 'valid' else part} genes", fontsize=9)
        legend_below(axes)

    return inline_svg(draw, f"Predicted against measured level of {num_genes} {part} genes", height_in=4)


def _with_room(largest: Sequence[Residual], span: float) -> list[Residual]:
    """Those whose names do not run into that of a worse one, on axes that span so much."""
    named: list[Residual] = []
    for one in largest:
        near = (abs(one.predicted - other.predicted) < 0.06 * span for other in named)
        close = (abs(one.measured - other.measured) < 0.3 * span for other in named)
        if not any(map(all, zip(near, close, strict=True))):
            named.append(one)
    return named[:NUM_LABELLED]
