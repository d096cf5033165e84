"""What every figure shares: one look, and a drawing as inline SVG that scales with the page and needs no network."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, PURPLE, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#9AA3AD", "#25303B"
LOWEST_R2 = -0.2
"""An R2 below is drawn here: one bad start must not flatten every other curve."""
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, searchable, read aloud
    "svg.hashsalt": "raystudy",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E9EC",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
WIDTH_IN = 4.6
"""Its text is still read where a phone shrinks it."""
LEGEND_LETTERS = 44
"""More than that do not fit beside each other under a figure."""


def inline_svg(draw: Callable[..., None], description: str, height_in: float = 3.2, num_panels: int = 1) -> str:
    """The SVG of what ``draw`` puts on its axes, one for each of the panels, which share the x-axis.

    ``description`` is what a screen reader says.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        draw(*np.atleast_1d(figure.subplots(num_panels, sharex=True)))
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    # Without a size of its own the picture takes that of the page; matplotlib's metadata links elsewhere.
    head, rest = svg.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    rest = re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    return f'{head} role="img" aria-label="{escape(description)}">{rest}'


def legend_below(*panels: Axes) -> None:
    """One legend under the figure for everything on the panels that has a label."""
    handles: list[Any] = [handle for axes in panels for handle in axes.get_legend_handles_labels()[0]]
    num_letters = sum(len(str(handle.get_label())) for handle in handles)
    ncols = min(4 if num_letters < LEGEND_LETTERS else 2, len(handles))
    panels[0].figure.legend(handles=handles, loc="outside lower center", ncols=ncols)


def clip_r2(value: float | None) -> float:
    """Where an R2 is drawn."""
    return LOWEST_R2 if value is None else max(value, LOWEST_R2)
