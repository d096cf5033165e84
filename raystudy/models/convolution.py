"""The convolution branch: a DNA window, or a protein at its padded length, to one query vector per gene.

Channels stand last throughout. Shapes: B batch, L positions, C channels,
P pool size, Q query width, H half-life features.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raystudy.data.batches import num_half_life
from raystudy.models.layers import AttentionPool, Dropout, NormActivateConvolve, Residual
from raystudy.models.stem import Stem, make_stem, pooled_stem
from raystudy.study.model import ModelSpec

STEM_KERNEL = 15
TOWER_KERNEL = 5


def round_even(value: float) -> int:
    return 2 * round(value / 2)


class ConvolutionBranch(nn.Module):
    """Stem, two tower blocks, and a dense layer that the half-life features join.

    The first three ``blocks`` hold weights only: what they do is done by `pooled_stem`.
    """

    def __init__(self, model: ModelSpec) -> None:
        super().__init__()
        Q, P = model.queries_dim, model.pool_size
        widths = [Q, round_even(Q / math.sqrt(2)), Q // 2]
        blocks: list[nn.Module] = [
            make_stem(model, Q, STEM_KERNEL),
            Residual(NormActivateConvolve(Q, Q, 1)),
            AttentionPool(Q, P),
        ]
        for channels, outputs in pairwise(widths):
            blocks += [
                NormActivateConvolve(channels, outputs, TOWER_KERNEL),
                Residual(NormActivateConvolve(outputs, outputs, 1)),
                AttentionPool(outputs, P // 2),
            ]
        self.blocks = nn.Sequential(*blocks)
        num_positions = model.convolution_length // P // (P // 2) // (P // 2)
        self.joins_half_life = model.half_life_joins_query
        num_flat = num_positions * widths[-1] + (num_half_life(model) if self.joins_half_life else 0)
        self.to_query = nn.Linear(num_flat, Q)
        self.dropout = Dropout(model.dropout)

    def forward(self, tokens_BL: Tensor, lengths: list[int] | None, half_life_BH: Tensor) -> Tensor:
        """One query vector per gene, [B, Q]. The flatten is channel-major, the half-life values come last.

        ``lengths``: how many tokens of each gene stand before its padding; None where there is none.
        """
        blocks = list(self.blocks)
        stem, residual, pool = cast(tuple[Stem, Residual, AttentionPool], blocks[:3])
        x_BLC = pooled_stem(stem, residual.inner, pool, tokens_BL, lengths)
        for block in blocks[3:]:
            x_BLC = block(x_BLC)
        flat = x_BLC.transpose(1, 2).flatten(1)
        if self.joins_half_life:
            flat = torch.cat([flat, half_life_BH], dim=1)
        return self.dropout(F.relu(self.to_query(flat)))
