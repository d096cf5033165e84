"""Xpresso (Agarwal & Shendure, Cell Reports 2020): a CNN over the window and the half-life features.

Channels stand last, as in its published Keras code, and so does the order in which positions are flattened.
Shapes: B batch, L positions, C channels, H half-life features, K targets.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raystudy.data.batches import Inputs, num_half_life
from raystudy.models.layers import Convolution
from raystudy.models.network import ExpressionNetwork
from raystudy.models.stem import make_stem, max_pooled_stem
from raystudy.study.model import XPRESSO_POOLS, ModelSpec

CHANNELS, KERNELS = (128, 32), (6, 9)
DENSE, DROPOUTS = (64, 2), (0.00099, 0.01546)


def max_pool(x_BLC: Tensor, size: int) -> Tensor:
    """The largest of every ``size`` positions; a tail shorter than that is dropped."""
    num_windows = x_BLC.shape[1] // size
    return x_BLC[:, : num_windows * size].reshape(len(x_BLC), num_windows, size, -1).amax(dim=2)


class Xpresso(ExpressionNetwork):
    """Two convolutions with pooling, then three dense layers; ReLU throughout."""

    def __init__(self, model: ModelSpec, half_life: nn.Module, num_targets: int) -> None:
        super().__init__()
        self.num_targets = num_targets
        first, second = XPRESSO_POOLS
        self.stem = make_stem(model, CHANNELS[0], KERNELS[0])
        self.convolution = Convolution(CHANNELS[0], CHANNELS[1], KERNELS[1])
        self.half_life = half_life
        self.joins_half_life = model.half_life_joins_query
        num_flat = sum(model.window_bp) // first // second * CHANNELS[1]
        self.dense = nn.Sequential(
            nn.Linear(num_flat + (num_half_life(model) if self.joins_half_life else 0), DENSE[0]),
            nn.ReLU(),
            nn.Dropout(DROPOUTS[0]),
            nn.Linear(DENSE[0], DENSE[1]),
            nn.ReLU(),
            nn.Dropout(DROPOUTS[1]),
            nn.Linear(DENSE[1], num_targets),
        )

    def forward(self, inputs: Inputs) -> Tensor:
        x_BLC = max_pooled_stem(self.stem, inputs.sequence_BL, XPRESSO_POOLS[0])
        flat = max_pool(F.relu(self.convolution(x_BLC)), XPRESSO_POOLS[1]).flatten(1)
        if self.joins_half_life:
            flat = torch.cat([flat, self.half_life(inputs.half_life_BH)], dim=1)
        return self.dense(flat)
