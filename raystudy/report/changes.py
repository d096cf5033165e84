"""What one row of a table has more than another, and whether that is what was claimed or printed."""

from __future__ import annotations

from dataclasses import dataclass

REPRODUCED, NOT, UNDECIDED = "reproduced", "not reproduced", "undecided"
NOT_RUN, FAILED, NOT_YET = "not runnable here", "failed here", "not measured yet"
WORDS = {"pearson_r2": "Pearson r2", "epoch_seconds": "seconds an epoch", "parameters": "parameters"}
WORDS |= {"train_loss": "training loss"}
RELATIVE = ("epoch_seconds", "parameters")
"""Measures of which a change is a share of the comparator's."""


@dataclass(frozen=True)
class Change:
    """What one row has more than another: of R2 and loss the difference, of times and sizes a share of the other's."""

    value: float
    interval: tuple[float, float] | None
    """95 %; (value, value) for what is counted and not measured, None for fewer than two seeds a row."""

    def verdict(self, expected: str, similar: float) -> str:
        """Does it go as expected? Undecided where its interval allows both answers."""
        if self.interval is None:
            return UNDECIDED
        low, high = self.interval
        least = similar if low == high else 0.0  # what is counted, and not measured, can differ by next to nothing
        yes, no = {
            "lower": (high < -least, low > -least),
            "higher": (low > least, high < least),
            "highest": (low > 0, high < 0),
            "similar": (-similar <= low and high <= similar, low > similar or high < -similar),
            "not higher": (high <= similar, low > 0),
        }[expected]
        return NOT if no else REPRODUCED if yes else UNDECIDED

    def holds(self, printed: float, similar: float) -> str:
        """Is the printed change ours? Not where it is well outside of our interval; a wide interval cannot say so."""
        if self.interval is None:
            return UNDECIDED
        low, high = self.interval
        if not low - similar <= printed <= high + similar:
            return NOT
        return REPRODUCED if low <= printed <= high and high - low <= 2 * similar else UNDECIDED


def change_said(measure: str, value: float, interval: tuple[float, float] | None = None) -> str:
    """``+0.012 (-0.010 to +0.034)``, or ``+12 % (+9 % to +15 %)``; what is counted has no interval to show."""
    if measure in RELATIVE:
        value, interval = 100 * value, interval and (100 * interval[0], 100 * interval[1])
    shape = "{:+.0f} %" if measure in RELATIVE else "{:+.4f}"
    if interval is None or interval[0] == interval[1]:
        return shape.format(value)
    return f"{shape.format(value)} ({' to '.join(shape.format(end) for end in interval)})"
