"""BatchNorm over the genes of all ranks, on any backend (PyTorch's own computes on GPUs only)."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn import functional

from raystudy.models.convolution import ScaledBatchNorm


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
        self._keep(mean_C.detach(), variance_C.detach() * count / (count - 1))
        scaled_C = factor * self.weight * torch.rsqrt(variance_C + self.eps)
        return (centered_NC * scaled_C + factor * self.bias).to(x_NC.dtype)

    @torch.no_grad()
    def _keep(self, mean_C: Tensor, variance_C: Tensor) -> None:
        """Move the running statistics, which evaluation uses."""
        for running, now in ((self.running_mean, mean_C), (self.running_var, variance_C)):
            if running is not None:
                running.lerp_(now, self.momentum or 0.0)


def _over_ranks(sums_C: Tensor) -> Tensor:
    """Their sum, through which gradients flow back to every rank."""
    total_C: Tensor = functional.all_reduce(sums_C)  # type: ignore[no-untyped-call]
    return total_C


def synchronise_norms(network: nn.Module) -> None:
    """Make every BatchNorm of ``network`` look at all ranks; its weights and their names stay as they are."""
    for module in network.modules():
        if isinstance(module, ScaledBatchNorm):
            module.__class__ = SynchronisedBatchNorm
