"""When a training has gone on for long enough; asked by who trains and by who decides what to stop."""

from __future__ import annotations

from collections.abc import Sequence


def is_over(valid_r2: Sequence[float], epochs: int, patience: int | None) -> bool:
    """Has a training with these validation R2s behind it run through all its epochs, or out of patience?"""
    if len(valid_r2) >= epochs:
        return True
    if patience is None or not valid_r2:
        return False
    best = max(range(len(valid_r2)), key=lambda row: valid_r2[row])  # of equals the first
    return len(valid_r2) - 1 - best >= patience
