"""Layers that the networks share; channels stand last throughout.

Shapes: B batch, L positions, N genes and positions, C channels, O outputs, K kernel length, P pool size.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GELU_SLOPE = 1.702


def draws_one_by_one(x: Tensor) -> bool:
    """On a CPU, and on ``meta``, where its memory is measured."""
    return x.device.type in ("cpu", "meta")


def dropout(x: Tensor, rate: float) -> Tensor:
    """Each value is 0 with probability ``rate``, and else 1 / (1 - rate) times itself."""
    return x * kept(x, rate) if draws_one_by_one(x) else F.dropout(x, rate)


def kept(like: Tensor, rate: float) -> Tensor:
    """What `dropout` multiplies by, to the next 1/65,536 of the rate.

    PyTorch's own draws one random number after the other on a CPU, which took a tenth of a training step; here one
    draw decides on four values.
    """
    below = min(round(rate * 2**16), 2**16 - 1)
    drawn = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device).random_(-(2**63), None)
    stays = drawn.view(torch.int16)[: like.numel()].view(like.shape) >= below - 2**15
    return stays.to(like.dtype).mul_(2**16 / (2**16 - below))


class Dropout(nn.Dropout):
    """`dropout` in training."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training and self.p else x


def convolve(x_BLC: Tensor, weight_OCK: Tensor, bias_O: Tensor) -> Tensor:
    """Same-padded convolution along L, [B, L, O].

    As an image of one row, for which PyTorch's libraries have kernels with channels last; an unfolded matrix product
    took two to seven times as long on a CPU.
    """
    kernel = weight_OCK.shape[2]
    if kernel == 1:
        return F.linear(x_BLC, weight_OCK[:, :, 0], bias_O)
    if kernel % 2 == 0:  # reaches one further to the right
        x_BLC = F.pad(x_BLC, (0, 0, 0, 1))
    x_BC1L = x_BLC.transpose(1, 2)[:, :, None]
    y_BO1L = F.conv2d(x_BC1L, weight_OCK[:, :, None], bias_O, padding=(0, (kernel - 1) // 2))
    return y_BO1L[:, :, 0].transpose(1, 2)


class Convolution(nn.Module):
    """A same-padded Conv1d with channels last, initialised as PyTorch's; the weight keeps Conv1d's shape [O, C, K]."""

    def __init__(self, channels: int, outputs: int, kernel: int) -> None:
        super().__init__()
        like = nn.Conv1d(channels, outputs, kernel)
        self.weight_OCK = like.weight
        self.bias_O = cast(nn.Parameter, like.bias)

    def forward(self, x_BLC: Tensor, scale: float = 1.0) -> Tensor:
        """Convolve ``scale`` times the input."""
        return convolve(x_BLC, scale * self.weight_OCK, self.bias_O)


class ScaledBatchNorm(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over N genes and positions of C channels, times a factor."""

    def forward(self, x_NC: Tensor, factor: float = 1.0) -> Tensor:
        return F.batch_norm(
            x_NC,
            self.running_mean,
            self.running_var,
            factor * self.weight,
            factor * self.bias,
            self.training,
            self.momentum or 0.0,
            self.eps,
        )

    def scale_and_shift(self, mean_C: Tensor, variance_C: Tensor, factor: float = 1.0) -> tuple[Tensor, Tensor]:
        """What `forward` multiplies by and then adds, given the statistics that it is to use."""
        scale_C = factor * self.weight * torch.rsqrt(variance_C + self.eps)
        return scale_C, factor * self.bias - mean_C * scale_C

    @torch.no_grad()
    def keep(self, mean_C: Tensor, variance_C: Tensor, count: Tensor) -> None:
        """Move the running statistics, which evaluation uses, towards those of ``count`` genes and positions."""
        for running, now in zip(self.kept(), (mean_C, variance_C * count / (count - 1)), strict=True):
            running.lerp_(now.to(running.dtype), self.momentum or 0.0)

    def kept(self) -> tuple[Tensor, Tensor]:
        """The running mean and variance."""
        return cast(Tensor, self.running_mean), cast(Tensor, self.running_var)

    def over_ranks(self, sums: Tensor) -> Tensor:
        """Sums over a rank's genes as sums over all genes that are normalised together: here the rank's own."""
        return sums


class NormActivateConvolve(nn.Module):
    """BatchNorm over batch and positions, GELU in its sigmoid approximation x * sigmoid(1.702 x), convolution.

    Computed as silu(1.702 x) / 1.702 with both factors moved into the small weights around it, which spares three
    passes over the activations.
    """

    def __init__(self, channels: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.norm = ScaledBatchNorm(channels)
        self.convolution = Convolution(channels, outputs, kernel)

    def forward(self, x_BLC: Tensor) -> Tensor:
        scaled = self.norm(x_BLC.flatten(0, 1), GELU_SLOPE)
        return self.convolution(F.silu(scaled).view_as(x_BLC), scale=1 / GELU_SLOPE)


class AttentionPool(nn.Module):
    """Softmax-weighted mean over windows of P positions, per channel; a tail shorter than P is dropped."""

    def __init__(self, channels: int, pool_size: int) -> None:
        super().__init__()
        self.mix_CC = nn.Parameter(torch.eye(channels))
        self.pool_size = pool_size

    def forward(self, x_BLC: Tensor) -> Tensor:
        num_windows = x_BLC.shape[1] // self.pool_size
        x_BLC = x_BLC[:, : num_windows * self.pool_size]
        windows = (len(x_BLC), num_windows, self.pool_size, x_BLC.shape[2])
        weights = (x_BLC @ self.mix_CC).view(windows).softmax(dim=2)
        return (x_BLC.reshape(windows) * weights).sum(dim=2)


class Residual(nn.Module):
    """x + what a block makes of it."""

    def __init__(self, inner: NormActivateConvolve) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)
