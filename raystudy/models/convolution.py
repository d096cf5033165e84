"""The convolution branch: a DNA window, or a protein at its padded length, to one query vector per gene.

Channels stand last throughout, so that convolutions are matrix products. Shapes: B batch, L positions, S symbols,
C channels, P pool size, Q query width, H half-life features, K kernel length.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raystudy.data.batches import num_half_life
from raystudy.data.encode import NUM_SYMBOLS
from raystudy.study.model import ModelSpec, Tokens

STEM_KERNEL = 15
TOWER_KERNEL = 5
GELU_SLOPE = 1.702


def round_even(value: float) -> int:
    return 2 * round(value / 2)


def convolve(x_BLC: Tensor, weight_KCO: Tensor, bias_O: Tensor | None) -> Tensor:
    """Same-padded convolution along L as one matrix product over unfolded positions, [B, L, O]."""
    kernel, channels, outputs = weight_KCO.shape
    padded = F.pad(x_BLC, (0, 0, (kernel - 1) // 2, kernel // 2))
    unfolded_BLKC = padded.unfold(1, kernel, 1).transpose(2, 3).flatten(2)
    return F.linear(unfolded_BLKC, weight_KCO.reshape(kernel * channels, outputs).T, bias_O)


class Convolution(nn.Module):
    """A same-padded Conv1d with channels last, initialised as PyTorch's; the weight keeps Conv1d's shape [O, C, K]."""

    def __init__(self, channels: int, outputs: int, kernel: int) -> None:
        super().__init__()
        like = nn.Conv1d(channels, outputs, kernel)
        self.weight_OCK = like.weight
        self.bias_O = like.bias

    def forward(self, x_BLC: Tensor, scale: float = 1.0) -> Tensor:
        """Convolve ``scale`` times the input."""
        weight_OCK = scale * self.weight_OCK
        if weight_OCK.shape[2] == 1:
            return F.linear(x_BLC, weight_OCK[:, :, 0], self.bias_O)
        return convolve(x_BLC, weight_OCK.permute(2, 1, 0), self.bias_O)


class OneHotStem(nn.Module):
    """First convolution, over one-hot symbols. An N, and what lies beyond a DNA window, is all zeros; the pad that
    follows a protein is a symbol like any other."""

    def __init__(self, reads: Tokens, outputs: int, kernel: int) -> None:
        super().__init__()
        self.num_blank = 1 if reads == "base" else 0
        self.convolution = Convolution(NUM_SYMBOLS[reads] - self.num_blank, outputs, kernel)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        weight_KSO = F.pad(self.convolution.weight_OCK.permute(2, 1, 0), (0, 0, self.num_blank, 0))
        return convolve_tokens(tokens_BL, weight_KSO, self.convolution.bias_O)


class EmbeddingStem(nn.Module):
    """A dense embedding of the bases in front of the same convolution, computed folded.

    With nothing nonlinear between, embedding then convolving is a one-hot convolution with the kernel
    sum_e W[q,e,k] Emb[s,e] and a learnable N: a reparameterisation of `OneHotStem`, not a richer function.
    """

    def __init__(self, embedding_dim: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.embedding_SE = nn.Embedding(NUM_SYMBOLS["base"], embedding_dim)
        self.convolution = Convolution(embedding_dim, outputs, kernel)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        weight_KSO = torch.einsum("oek,se->kso", self.convolution.weight_OCK, self.embedding_SE.weight)
        return convolve_tokens(tokens_BL, weight_KSO, self.convolution.bias_O)


def make_stem(model: ModelSpec, outputs: int, kernel: int) -> nn.Module:
    """The first convolution of a configuration, [B, L] tokens -> [B, L, outputs]."""
    if model.encoder == "embedding":
        return EmbeddingStem(model.embedding_dim, outputs, kernel)
    return OneHotStem(model.convolution_reads, outputs, kernel)


def convolve_tokens(tokens_BL: Tensor, weight_KSO: Tensor, bias_O: Tensor | None) -> Tensor:
    """Same-padded convolution of one-hot tokens; beyond the window's ends is zero, not the symbol N."""
    onehot_BLS = F.one_hot(tokens_BL.long(), weight_KSO.shape[1]).to(weight_KSO.dtype)
    return convolve(onehot_BLS, weight_KSO, bias_O)


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
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class ConvolutionBranch(nn.Module):
    """Stem, two tower blocks, and a dense layer that the half-life features join."""

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
        self.dropout = nn.Dropout(model.dropout)

    def forward(self, tokens_BL: Tensor, half_life_BH: Tensor) -> Tensor:
        """One query vector per gene, [B, Q]. The flatten is channel-major, the half-life values come last."""
        flat = self.blocks(tokens_BL).transpose(1, 2).flatten(1)
        if self.joins_half_life:
            flat = torch.cat([flat, half_life_BH], dim=1)
        return self.dropout(F.relu(self.to_query(flat)))
