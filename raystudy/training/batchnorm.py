"""BatchNorm over the genes of all ranks, on any backend (PyTorch's own computes on GPUs only)."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn import functional

from raystudy.models.layers import ScaledBatchNorm


class SynchronisedBatchNorm(ScaledBatchNorm):
    """Its statistics in training are those of every rank's N genes and positions together, in float32."""

    def forward(self, x_NC: Tensor, factor: float = 1.0) -> Tensor:
        if not self.training:
            return super().forward(x_NC, factor)
        count = torch.tensor(float(len(x_NC)), device=x_NC.device)
        dist.all_reduce(count)
        mean_C = _over_ranks(x_NC.float().sum(0)) / count
        centered_NC = x_NC.float() - mean_C
        variance_C = _over_ranks(centered_NC.square().sum(0)) / count
        self.keep(mean_C, variance_C, count)
        scale_C, shift_C = self.scale_and_shift(mean_C, variance_C, factor)
        return (x_NC.float() * scale_C + shift_C).to(x_NC.dtype)

    def over_ranks(self, sums: Tensor) -> Tensor:
        total = sums.clone()
        dist.all_reduce(total)
        return total


def _over_ranks(sums_C: Tensor) -> Tensor:
    """Their sum, through which gradients flow back to every rank."""
    total_C: Tensor = functional.all_reduce(sums_C)  # type: ignore[no-untyped-call]
    return total_C


def synchronise_norms(network: nn.Module) -> None:
    """Make every BatchNorm of ``network`` look at all ranks; its weights and their names stay as they are."""
    for module in network.modules():
        if isinstance(module, ScaledBatchNorm):
            module.__class__ = SynchronisedBatchNorm
