"""The intrinsic dimension drawn and put in words; ``found`` is the JSON of `raystudy dimension` or a study's event."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from raystudy.report.drawing import BLUE, GREY, INK, ORANGE, inline_svg, legend_below
from raystudy.tracking.records import JsonObject

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def dimension_view(found: JsonObject) -> JsonObject:
    """What a page shows: ``columns`` of (SVG, caption), one of ``clouds`` a representation, and the ``finding``."""
    name, curve = found["representation"], found.get("curve") or {}
    columns = (
        (
            (
                estimators_figure(found),
                f"Estimates on {name}; a bar spans 10 % to 90 % over resamples of half the genes.",
            ),
            (representations_figure(found), "Consensus and interval of the same genes in several representations."),
        ),
        (
            (
                correlation_figure(found),
                f"Correlation integral C(r), the fraction of pairs at most r apart, and its local slope around the "
                f"scaling region on {name}. The region goes {curve.get('rule') or 'by a rule that was not recorded'}.",
            ),
        ),
    )
    drawn = [[(Markup(svg), caption) for svg, caption in column if svg] for column in columns]  # noqa: S704  (ours)
    return {
        "columns": [column for column in drawn if column],
        "clouds": [_cloud(name, one) for name, one in _by_name(found).items()],
        "finding": finding(found),
    }


def finding(found: JsonObject) -> str:
    """What the representations together say about the answer, in a sentence."""
    known = _consensuses(found)
    if len(known) < 2:
        return "Fewer than two representations gave an answer, so there is nothing to compare."
    low, high = min(known, key=lambda name: known[name]), max(known, key=lambda name: known[name])
    return (
        f"The representation decides the answer: for the same genes the consensus runs from {known[low]:.1f} "
        f"({low}) to {known[high]:.1f} ({high})."
    )


def correlation_figure(found: JsonObject) -> str | None:
    """The correlation integral with the line that was fitted to it, over its local slope; None without a curve.

    Where the correlation integral was refused the region that was looked at is shown without a line.
    """
    curve = found.get("curve")
    if not curve:
        return None
    known = [
        (radius, fraction, math.nan if slope is None else slope)
        for radius, fraction, slope in zip(curve["radius"], curve["fraction"], curve["slope"], strict=True)
        if radius > 0 and fraction > 0
    ]
    nearby = [point for point in known if _is_near(point[0], *curve["region_radius"])]
    shown = nearby if len({radius for radius, *_ in nearby}) > 1 else known
    if len({radius for radius, *_ in shown}) < 2:
        return None
    radii, fractions, slopes = zip(*shown, strict=True)

    def draw(above: Axes, below: Axes) -> None:
        above.set_xscale("log")
        above.set_yscale("log")
        above.plot(radii, fractions, color=INK, label="C(r) and its slope")
        below.plot(radii, slopes, color=INK)
        for axes, label in ((above, "scaling region"), (below, None)):
            axes.axvspan(*curve["region_radius"], color=BLUE, alpha=0.12, lw=0, label=label)
        if curve["fitted_slope"] is not None:
            ends, heights = _fitted_line(curve, radii, fractions)
            above.set_ylim(above.get_ylim())  # the line may leave the picture, not stretch it
            above.plot(ends, heights, color=ORANGE, lw=1.5, label=f"fitted slope {curve['fitted_slope']:.1f}")
            below.plot(curve["region_radius"], [curve["fitted_slope"]] * 2, color=ORANGE, lw=1.5)
        if found["consensus"] is not None:
            below.axhline(found["consensus"], color=BLUE, ls="--", label=f"consensus {found['consensus']:.1f}")
        above.set_ylabel("C(r)")
        above.yaxis.set_major_formatter(lambda value, _: _power_of_ten(value))
        below.set_ylabel("local slope")
        below.set_ylim(bottom=0)
        below.set_xlabel("distance r")
        below.set_xlim(radii[0], radii[-1])
        # Distances in many dimensions are nearly equal: there may be no power of ten among them.
        wide = radii[-1] > 5 * radii[0]
        below.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(6))
        below.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        for axis in (above.yaxis, below.xaxis):
            axis.set_minor_locator(NullLocator())
        legend_below(above, below)

    what = f"Correlation integral and its local slope by distance on {found['representation']}"
    return inline_svg(draw, what, height_in=4.8, num_panels=2)


def estimators_figure(found: JsonObject) -> str | None:
    """Each estimate and its spread, their median and interval, and the widths seeded from them; None without any."""
    estimates = sorted(found["estimates"].items(), key=lambda item: item[1])
    if not estimates:
        return None
    spreads = found.get("spread", {})
    widths = (found.get("seeded") or {}).get("widths", [])

    def draw(axes: Axes) -> None:
        if found["interval"]:
            axes.axvspan(*found["interval"], color=BLUE, alpha=0.12, lw=0, label="interval")
        axes.axvline(found["consensus"], color=BLUE, label="median")
        for row, (name, value) in enumerate(estimates):
            if name in spreads:
                axes.plot(spreads[name], [row, row], color=GREY, lw=2.5, solid_capstyle="butt")
            axes.plot(value, row, "o", color=INK, ms=5, label="estimate" if row == 0 else None)
        if widths:
            axes.plot(widths, [-1] * len(widths), "D", color=ORANGE, ms=5, clip_on=False, label="seeded width")
        rows = {row: name for row, (name, _) in enumerate(estimates)} | ({-1: "seeded"} if widths else {})
        axes.set_yticks(list(rows), list(rows.values()))
        axes.set_ylim(min(rows) - 0.6, len(estimates) - 0.4)
        ends = [end for name, _ in estimates for end in spreads.get(name, ())]
        _dimension_axis(axes, [*found["estimates"].values(), *ends, *(found["interval"] or ()), *widths])
        legend_below(axes)

    return inline_svg(draw, "Intrinsic dimension by estimator", height_in=1.5 + 0.24 * len(estimates))


def representations_figure(found: JsonObject) -> str | None:
    """Consensus and interval of each representation that has one, the chosen one in colour; None with fewer than 2."""
    consensuses = _consensuses(found)
    if len(consensuses) < 2:
        return None
    names = sorted(consensuses, key=lambda name: consensuses[name])
    intervals = {name: one["interval"] for name, one in _by_name(found).items() if one["interval"]}
    chosen = found["representation"]

    def draw(axes: Axes) -> None:
        for row, name in enumerate(names):
            colour = BLUE if name == chosen else INK
            if name in intervals:
                axes.plot(intervals[name], [row, row], color=colour, alpha=0.35, lw=3, solid_capstyle="butt")
            axes.plot(consensuses[name], row, "o", color=colour)
            axes.annotate(
                f"{consensuses[name]:.1f}", (consensuses[name], row), xytext=(0, 5),
                textcoords="offset points", ha="center", fontsize=8, color=colour,
            )  # fmt: skip
        axes.set_yticks(range(len(names)), [f"{name} (chosen)" if name == chosen else name for name in names])
        axes.set_ylim(-0.5, len(names) - 0.3)
        _dimension_axis(axes, [*consensuses.values(), *(end for pair in intervals.values() for end in pair)])

    return inline_svg(draw, "Intrinsic dimension by representation", height_in=0.9 + 0.36 * len(names))


def _by_name(found: JsonObject) -> dict[str, JsonObject]:
    """The chosen representation first, then the others, each under its name."""
    return {found["representation"]: found, **found.get("others", {})}


def _consensuses(found: JsonObject) -> dict[str, float]:
    return {name: one["consensus"] for name, one in _by_name(found).items() if one["consensus"] is not None}


def _cloud(name: str, one: JsonObject) -> JsonObject:
    """A representation's numbers for a table; what was not measured is None."""
    spreads, points = one.get("spread", {}), one.get("points", {})  # records of earlier versions have neither
    rows = [
        {
            "name": estimator,
            "estimate": one["estimates"][estimator],
            "spread": spreads.get(estimator),
            "points": points.get(estimator),
            "seconds": one["seconds"].get(estimator),
        }
        for estimator in sorted(one["estimates"], key=lambda key: one["estimates"][key])
    ]
    refused: dict[str, list[str]] = {}  # reason -> estimators: points that none can measure have one reason for all
    for estimator, reason in one["refused"].items():
        refused.setdefault(reason, []).append(estimator)
    return {"name": name, "summary": _summary(one), "rows": rows, "refused": refused}


def _summary(one: JsonObject) -> str:
    """Consensus, points and shared seconds of one representation, in sentences."""
    if one["consensus"] is None:
        sentences = ["Every estimator refused."]
    else:
        interval = f", interval {one['interval'][0]:.1f} to {one['interval'][1]:.1f}" if one["interval"] else ""
        sentences = [f"Consensus (median) {one['consensus']:.1f}, mean {one['mean']:.1f}{interval}."]
    if "num_points" in one:
        of = {"dna": " of DNA", "protein": " of proteins", "both": " of DNA and protein"}.get(one.get("input", ""), "")
        dropped = f"; {one['num_duplicates']:,} copies were dropped" if one["num_duplicates"] else ""
        sentences.append(f"{one['num_points']:,} distinct points{of}{dropped}.")
    sentences += [f"{flag[0].upper()}{flag[1:]}." for flag in one.get("flags", [])]
    shared = {
        step: one["seconds"][step] for step in ("distances", "coordinates", "resamples") if step in one["seconds"]
    }
    if shared:
        took = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in shared.items())
        sentences.append(f"Beside the estimators: {took}.")
    return " ".join(sentences)


def _is_near(radius: float, low: float, high: float) -> bool:
    """Within five widths of the region: the farthest pairs would press it into a line."""
    margin = 5 * math.log(high / low)
    return math.log(low) - margin <= math.log(radius) <= math.log(high) + margin


def _fitted_line(
    curve: JsonObject, radii: tuple[float, ...], fractions: tuple[float, ...]
) -> tuple[list[float], list[float]]:
    """The line through the middle of the region, half the region's width longer at each end: radii, heights."""
    low, high = (math.log(radius) for radius in curve["region_radius"])
    middle, half = (low + high) / 2, (high - low) / 2
    pairs = zip(radii, fractions, strict=True)
    nearest = min(pairs, key=lambda pair: abs(math.log(pair[0]) - middle))
    ends = [math.exp(middle - 2 * half), math.exp(middle + 2 * half)]
    return ends, [nearest[1] * (end / nearest[0]) ** curve["fitted_slope"] for end in ends]


def _dimension_axis(axes: Axes, values: Iterable[Any]) -> None:
    """Octaves, from the power of two at or below the values to that at or above them."""
    known = [math.log2(value) for value in values if value > 0]
    low, high = math.floor(min(known)), max(math.ceil(max(known)), math.floor(min(known)) + 1)
    axes.set_xscale("log", base=2)
    axes.set_xlim(2**low, 2**high)
    axes.xaxis.set_major_locator(LogLocator(base=2, subs=(1,) if high - low > 3 else (1, 1.25, 1.5, 1.75)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("dimension")


def _power_of_ten(value: float) -> str:
    exponent = round(math.log10(value))
    return f"{value:g}" if exponent > -3 else "10" + str(exponent).translate(SUPERSCRIPTS)
