"""What every network of this package is to its callers."""

from __future__ import annotations

from torch import nn


class ExpressionNetwork(nn.Module):
    """``Inputs`` of B genes -> standardised levels, [B, num_targets]."""

    num_targets: int
