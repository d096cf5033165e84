"""The data report as a page of its own; ``found`` is the JSON that `raystudy prepare --check` prints."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from raystudy.report.drawing import BLUE, GREY, ORANGE, inline_svg, legend_below
from raystudy.report.page import write_template
from raystudy.tracking.records import JsonObject

MOST_CHROMOSOMES = 24
MOST_LETTERS = 18
_CODE = re.compile("`([^`]+)`")
_LENGTH_TICKS = [1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000]


def write_check_page(found: JsonObject, path: Path) -> Path:
    """Write the data report as one HTML file without anything beside it, and return its path."""
    levels = {name: _target_figure(name, one) for name, one in found["targets"].items() if one["n"]}
    context = {
        "found": found,
        "share": share,
        "figures": _markup(_figures(found)),
        "target_figures": _markup(levels),
        "warnings": [_with_code(one) for one in found["warnings"]],
        "notes": dict(flat(found["notes"])),
    }
    return write_template("check.html.j2", context, path)


def _markup(figures: Mapping[str, str | None]) -> dict[str, Markup | None]:
    return {name: Markup(svg) if svg else None for name, svg in figures.items()}  # noqa: S704  (made by matplotlib)


def _with_code(sentence: str) -> Markup:
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(sentence))))  # noqa: S704  (escaped)


def share(part: float, whole: float) -> str:
    return f"{round(100 * part / whole, 2):g} %" if whole else "-"


def flat(nested: JsonObject, prefix: str = "") -> Iterator[tuple[str, str]]:
    """A source's notes as lines, whatever they hold."""
    for key, value in nested.items():
        label = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, dict):
            yield from flat(value, f"{label}: ")
        elif isinstance(value, list):
            yield label, ", ".join(map(str, value)) or "none"
        else:
            yield label, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _figures(found: JsonObject) -> dict[str, str | None]:
    return {
        "lengths": _lengths_figure(found["lengths"]),
        "codons": _codons_figure(found["coding"]),
        "chromosomes": _chromosomes_figure(found["chromosomes"]),
        "features": _features_figure(found["features"]),
    }


def _bars(axes: Axes, histogram: JsonObject, colour: str = BLUE) -> None:
    edges = np.linspace(histogram["low"], histogram["high"], len(histogram["counts"]) + 1)
    axes.stairs(histogram["counts"], edges, fill=True, color=colour)
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))


def _target_figure(name: str, target: JsonObject) -> str:
    """Distribution of the levels, with the value that so many genes have that it may be a default."""

    def draw(axes: Axes) -> None:
        _bars(axes, target["histogram"])
        axes.axvline(target["median"], color=ORANGE, lw=1, label=f"median {target['median']:.3g}")
        axes.set_xlabel(f"{name} level")
        axes.set_ylabel("genes")
        legend_below(axes)

    return inline_svg(draw, f"Distribution of the {name} levels of {target['n']} genes", height_in=2.5)


def _lengths_figure(lengths: JsonObject) -> str | None:
    known = {
        name: one
        for name, one in (("protein, residues", lengths["protein"]), ("CDS, bp", lengths["cds_bp"]))
        if one["n"]
    }
    if not known:
        return None

    def draw(axes: Axes) -> None:
        for (name, one), colour in zip(known.items(), (BLUE, GREY), strict=False):
            histogram = one["histogram"]
            edges = np.linspace(histogram["low"], histogram["high"], len(histogram["counts"]) + 1)
            axes.stairs(histogram["counts"], edges, color=colour, lw=1.8, label=name)
        axes.xaxis.set_major_locator(FixedLocator(np.log10(_LENGTH_TICKS).tolist()))
        axes.xaxis.set_major_formatter(lambda value, _: f"{10**value:,.0f}")
        axes.set_xlabel("length")
        axes.set_ylabel("genes")
        legend_below(axes)

    return inline_svg(draw, "Distribution of the lengths of proteins and CDS", height_in=2.5)


def _codons_figure(coding: JsonObject) -> str | None:
    """Shares of the CDS's first and last codons, and of what the windows read at their anchor."""
    rows = [
        (f"{what} {codon}", count / max(sum(counts.values()), 1), colour)
        for what, counts, colour in (
            ("first", coding["first_codons"], BLUE),
            ("at anchor", coding["codons_at_anchor"], ORANGE),
            ("last", coding["stop_codons"], GREY),
        )
        if sum(counts.values())
        for codon, count in counts.items()
    ]
    if not rows:
        return None
    draw = _named_bars(rows, "share of the genes", lambda part: share(part, 1))
    return inline_svg(draw, "First and last codons", 0.9 + 0.21 * len(rows))


def _chromosomes_figure(chromosomes: dict[str, int]) -> str | None:
    if len(chromosomes) < 2:
        return None
    rows: list[tuple[str, float, str]] = [(_cut(name), count, BLUE) for name, count in chromosomes.items()]
    others = rows[MOST_CHROMOSOMES:]
    rows = rows[:MOST_CHROMOSOMES]
    if others:
        rows.append((f"{len(others):,} others", sum(count for _, count, _ in others), GREY))
    draw = _named_bars(rows, "genes", "{:,.0f}".format)
    return inline_svg(draw, "Genes on each chromosome", 0.9 + 0.21 * len(rows))


def _cut(name: str) -> str:
    """Short enough to leave room for its bar."""
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 3]}..."


def _named_bars(rows: list[tuple[str, float, str]], label: str, form: Callable[[float], str]) -> Callable[[Axes], None]:
    """Horizontal bars from the top down, each with its name and its number."""

    def draw(axes: Axes) -> None:
        names, values, colours = zip(*rows, strict=True)
        places = range(len(rows))
        bars = axes.barh(places, values, color=colours)
        axes.bar_label(bars, [form(value) for value in values], padding=3, fontsize=8)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(lambda value, _: form(value))
        axes.margins(x=0.16, y=0.02)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(label)

    return draw


def _features_figure(features: JsonObject) -> str | None:
    """A small panel for each half-life feature that any gene has."""
    known = {name: one for name, one in features.items() if one["n"]}
    if not known:
        return None
    num_rows = (len(known) + 1) // 2

    def draw(axes: Axes) -> None:
        panels: Any = axes.get_subplotspec().subgridspec(num_rows, 2).subplots(squeeze=False)  # type: ignore[union-attr]
        axes.remove()
        for panel, (name, one) in zip(panels.flat, known.items(), strict=False):
            _bars(panel, one["histogram"], GREY if one["constant"] else BLUE)
            panel.set_title(f"{name}{', constant' if one['constant'] else ''}", fontsize=9, loc="left")
            panel.xaxis.set_major_locator(MaxNLocator(4))
            panel.xaxis.set_minor_locator(NullLocator())
        for panel in panels.flat[len(known) :]:
            panel.set_axis_off()

    return inline_svg(draw, "Distributions of the half-life features", height_in=0.4 + 1.25 * num_rows)
