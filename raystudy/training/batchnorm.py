"""BatchNorm over the genes of all ranks, on any backend (PyTorch's own computes on GPUs only)."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn import functional


class SynchronisedBatchNorm(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` whose statistics in training are those of every rank's genes together, in float32.

    B genes of this rank, C channels, L positions; the same L on every rank, as windows have.
    """

    def forward(self, x_BCL: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x_BCL)
        values_BCL = x_BCL.float()
        count = x_BCL.new_tensor(x_BCL.numel() / x_BCL.shape[1], dtype=torch.float32)
        dist.all_reduce(count)
        mean_C1 = (_over_ranks(values_BCL.sum((0, 2))) / count)[:, None]
        centered_BCL = values_BCL - mean_C1
        variance_C1 = (_over_ranks(centered_BCL.square().sum((0, 2))) / count)[:, None]
        self._keep(mean_C1.detach()[:, 0], variance_C1.detach()[:, 0] * count / (count - 1))
        scaled_BCL = centered_BCL * torch.rsqrt(variance_C1 + self.eps)
        return (scaled_BCL * self.weight[:, None] + self.bias[:, None]).to(x_BCL.dtype)

    @torch.no_grad()
    def _keep(self, mean_C: Tensor, variance_C: Tensor) -> None:
        """Move the running statistics, which evaluation uses."""
        momentum = 0.1 if self.momentum is None else self.momentum
        for running, now in ((self.running_mean, mean_C), (self.running_var, variance_C)):
            if running is not None:
                running.lerp_(now, momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1


def _over_ranks(sums_C: Tensor) -> Tensor:
    """Their sum, through which gradients flow back to every rank."""
    total_C: Tensor = functional.all_reduce(sums_C)  # type: ignore[no-untyped-call]
    return total_C


def synchronise_norms(network: nn.Module) -> None:
    """Make every BatchNorm of ``network`` look at all ranks; its weights and their names stay as they are."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.__class__ = SynchronisedBatchNorm
