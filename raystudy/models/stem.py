"""First convolutions, from tokens to pooled windows: every position is read here, and P times fewer afterwards.

At full length a layer's activations do not fit into any cache, and keeping them all would take nearly all of a step's
memory. So windows are taken a chunk at a time through everything up to their pooling, and the backward pass computes
each chunk again. In the way stands BatchNorm, which needs mean and variance over all positions beforehand: the
convolution before it is linear in one-hot symbols, so both follow from how often which symbols stand together, and that
can be counted without any activation.

Shapes: B batch, L positions, S symbols, K kernel length, I = K * one-hot channels, O outputs, P pool size, X windows
of P positions, H = P + K - 1 symbols that such a window looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from raystudy.data.encode import NUM_SYMBOLS
from raystudy.models.layers import GELU_SLOPE, AttentionPool, Convolution, NormActivateConvolve, ScaledBatchNorm
from raystudy.study.model import ModelSpec, Tokens

CHUNK_FLOATS = {"cpu": 2**19, "meta": 2**17}
"""Positions times channels in one chunk, by the kind of device: so many stay in a core's cache. On ``meta``, where memory
is measured (`memory.training_bytes`), a chunk is to take little of what is measured."""
CHUNK_FLOATS_ELSEWHERE = 2**23
"""A GPU needs work for all of its processors at a time."""


class Stem(nn.Module):
    """A same-padded convolution of symbols; beyond the ends of a sequence is zero."""

    def __init__(self, reads: Tokens, channels: int, outputs: int, kernel: int, num_blank: int = 0) -> None:
        """Symbols below ``num_blank`` are zero like what lies beyond the ends."""
        super().__init__()
        self.outside = NUM_SYMBOLS[reads]
        self.num_blank = num_blank
        self.kernel_length = kernel
        self.sides = (kernel - 1) // 2, kernel // 2
        """Positions that it looks at before and after its own."""
        self.num_places = kernel * (self.outside - num_blank)
        self.convolution = Convolution(channels, outputs, kernel)

    def kernel_IO(self) -> Tensor:
        """The kernel that one-hot symbols are multiplied with."""
        raise TypeError(f"{type(self).__name__} has no kernel")

    def windows(self, tokens_BL: Tensor, size: int) -> Tensor:
        """Every whole window of ``size`` positions with what it looks at on both sides, uint8 [B, L // size, H]."""
        padded = F.pad(tokens_BL, self.sides, value=self.outside)
        return padded.unfold(1, size + self.kernel_length - 1, size)

    def unfolded(self, windows_XH: Tensor, dtype: torch.dtype) -> Tensor:
        """What the kernel meets at every position of the windows, one after the other, [X * P, I]."""
        onehot_SC = torch.eye(self.outside + 1, dtype=dtype, device=windows_XH.device)[:, self.num_blank : self.outside]
        onehot = onehot_SC[windows_XH.int()].flatten(1)
        channels = onehot_SC.shape[1]
        return onehot.unfold(1, self.kernel_length * channels, channels).flatten(0, 1)


class OneHotStem(Stem):
    """Over one-hot symbols. An N is all zeros; the pad that follows a protein is a symbol like any other."""

    def __init__(self, reads: Tokens, outputs: int, kernel: int) -> None:
        num_blank = 1 if reads == "base" else 0
        super().__init__(reads, NUM_SYMBOLS[reads] - num_blank, outputs, kernel, num_blank)

    def kernel_IO(self) -> Tensor:
        return self.convolution.weight_OCK.permute(2, 1, 0).flatten(0, 1)


class EmbeddingStem(Stem):
    """A dense embedding of the bases in front of the same convolution, computed folded.

    With nothing nonlinear between, embedding then convolving is a one-hot convolution with the kernel
    sum_e W[q,e,k] Emb[s,e] and a learnable N: a reparameterisation of `OneHotStem`, not a richer function.
    """

    def __init__(self, embedding_dim: int, outputs: int, kernel: int) -> None:
        super().__init__("base", embedding_dim, outputs, kernel)
        self.embedding_SE = nn.Embedding(NUM_SYMBOLS["base"], embedding_dim)

    def kernel_IO(self) -> Tensor:
        return torch.einsum("oek,se->kso", self.convolution.weight_OCK, self.embedding_SE.weight).flatten(0, 1)


def make_stem(model: ModelSpec, outputs: int, kernel: int) -> Stem:
    """The first convolution of a configuration."""
    if model.encoder == "embedding":
        return EmbeddingStem(model.embedding_dim, outputs, kernel)
    return OneHotStem(model.convolution_reads, outputs, kernel)


def in_chunks(compute: Callable[[Tensor], Tensor], windows_XH: Tensor, floats_per_window: int) -> Tensor:
    """``compute`` of all windows, a chunk after the other; for the backward pass only its results are kept."""
    chunks = windows_XH.split(_windows_per_chunk(windows_XH, floats_per_window))
    if not torch.is_grad_enabled():
        return torch.cat([compute(chunk) for chunk in chunks])
    again = partial(checkpoint, compute, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([again(chunk) for chunk in chunks])


def _windows_per_chunk(windows_XH: Tensor, floats_per_window: int) -> int:
    return max(1, CHUNK_FLOATS.get(windows_XH.device.type, CHUNK_FLOATS_ELSEWHERE) // floats_per_window)


@dataclass(frozen=True)
class Windows:
    """All windows of a batch, of which those that hold only padding, most of a batch of proteins', are kept once."""

    distinct_XH: Tensor
    rows: Tensor | None = None
    """Where all but the last of these stand among all, which are the last one elsewhere; None where these are all."""
    num_all: int = 0

    @classmethod
    def of(cls, stem: Stem, tokens_BL: Tensor, size: int, lengths: list[int] | None) -> Windows:
        """``lengths``: how many symbols of each gene stand before its padding; None where there is none."""
        windows_BWH = stem.windows(tokens_BL, size)
        num_windows, all_XH = windows_BWH.shape[1], windows_BWH.flatten(0, 1)
        if lengths is None:
            return cls(all_XH)
        before, after = stem.sides
        ends = list(range(max(0, (tokens_BL.shape[1] - after) // size), num_windows))  # they look beyond the padding
        rows = list[int]()
        for gene, length in enumerate(lengths):
            filled = min(-(-(length + before) // size), num_windows)
            rows += (gene * num_windows + place for place in [*range(filled), *(end for end in ends if end >= filled)])
        kept = torch.tensor(rows, device=tokens_BL.device)
        return cls(torch.cat([all_XH[kept], all_XH.new_zeros(1, all_XH.shape[1])]), kept, len(all_XH))

    def spread(self, results_XO: Tensor) -> Tensor:
        """The distinct windows' results as those of all."""
        if self.rows is None:
            return results_XO
        return results_XO[-1].expand(self.num_all, -1).index_copy(0, self.rows, results_XO[:-1])

    def summed(self, count: Callable[[Tensor], Tensor]) -> Tensor:
        """``count`` of windows, which is a sum over them, for all of them."""
        if self.rows is None:
            return count(self.distinct_XH)
        return count(self.distinct_XH[:-1]) + (self.num_all - len(self.rows)) * count(self.distinct_XH[-1:])


def pooled_stem(
    stem: Stem, block: NormActivateConvolve, pool: AttentionPool, tokens_BL: Tensor, lengths: list[int] | None
) -> Tensor:
    """Stem, x + block(x) and attention pooling, [B, L // P, O], in autocast's precision where that is on.

    ``lengths``: how many symbols of each gene stand before its padding; None where there is none.
    """

    def compute(windows_XH: Tensor) -> Tensor:
        # Weights are cast in here, so that the chunks' gradients are added up in their own precision.
        kernel_IO, bias_O, scale_O, shift_O, mix_OO, mix_O, pool_OO = (weight.to(dtype) for weight in weights)
        x_NO = torch.addmm(bias_O, stem.unfolded(windows_XH, dtype), kernel_IO)
        y_NO = torch.addmm(mix_O, F.silu(torch.addcmul(shift_O, x_NO, scale_O)), mix_OO) + x_NO
        y_XPO, logits_XPO = (z_NO.unflatten(0, (len(windows_XH), -1)) for z_NO in (y_NO, y_NO.mm(pool_OO)))
        return (y_XPO * logits_XPO.softmax(dim=1)).sum(dim=1)

    with _cast_by_hand(stem.convolution.weight_OCK) as dtype:
        windows = Windows.of(stem, tokens_BL, pool.pool_size, lengths)
        kernel_IO, bias_O = stem.kernel_IO(), stem.convolution.bias_O
        if block.norm.training:
            tail_BLH = stem.windows(tokens_BL, 1)[:, tokens_BL.shape[1] // pool.pool_size * pool.pool_size :]
            together = Together.of(stem, windows, tail_BLH.flatten(0, 1), tokens_BL.numel()).over_ranks(block.norm)
            mean_O, variance_O = together.moments(kernel_IO.to(dtype), bias_O.to(dtype))
            block.norm.keep(mean_O, variance_O, together.count)
        else:
            mean_O, variance_O = block.norm.running_mean, block.norm.running_var
        scale_O, shift_O = block.norm.scale_and_shift(mean_O, variance_O, GELU_SLOPE)
        mix_OO, mix_O = block.convolution.weight_OCK[:, :, 0].T / GELU_SLOPE, block.convolution.bias_O
        weights = (kernel_IO, bias_O, scale_O, shift_O, mix_OO, mix_O, pool.mix_CC)
        results_XO = in_chunks(compute, windows.distinct_XH, pool.pool_size * len(bias_O))
    return windows.spread(results_XO).unflatten(0, (len(tokens_BL), -1))


@dataclass(frozen=True)
class Together:
    """How often symbols stand in two places of a kernel together, over the positions of a batch; exact, in float64."""

    pairs_II: Tensor
    """On the diagonal how often a place has its symbol at all."""
    count: Tensor
    """Positions."""

    @classmethod
    @torch.no_grad()
    def of(cls, stem: Stem, windows: Windows, tail_XH: Tensor, num_positions: int) -> Together:
        """Over windows and, each position a window of its own, what is too short for one."""

        def pairs(windows_XH: Tensor) -> Tensor:
            places = stem.num_places
            total_II = torch.zeros(places, places, dtype=torch.float64, device=windows_XH.device)
            per_window = places * (windows_XH.shape[1] - stem.kernel_length + 1)
            for chunk in windows_XH.split(_windows_per_chunk(windows_XH, per_window)):
                onehot_NI = stem.unfolded(chunk, torch.float32)
                total_II += onehot_NI.T @ onehot_NI
            return total_II

        count = torch.tensor(float(num_positions), dtype=torch.float64, device=tail_XH.device)
        return cls(windows.summed(pairs) + pairs(tail_XH), count)

    def over_ranks(self, norm: ScaledBatchNorm) -> Together:
        return Together(norm.over_ranks(self.pairs_II), norm.over_ranks(self.count))

    def moments(self, kernel_IO: Tensor, bias_O: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of a stem's outputs over those positions, [O], float32; they pass gradients on."""
        kernel_IO, share_II = kernel_IO.double(), self.pairs_II / self.count
        share_I = share_II.diagonal()
        covariance_II = share_II - share_I[:, None] * share_I
        variance_O = ((covariance_II @ kernel_IO) * kernel_IO).sum(dim=0)
        return (share_I @ kernel_IO + bias_O.double()).float(), variance_O.float()


@contextmanager
def _cast_by_hand(weight: Tensor) -> Iterator[torch.dtype]:
    """The precision in which matrix products of a weight would be computed here, and autocast switched off."""
    kind, one = weight.device.type, weight.detach().flatten()[:1, None]
    dtype = F.linear(one, one).dtype
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) and dtype != one.dtype else nullcontext():
        yield dtype


def max_pooled_stem(stem: Stem, tokens_BL: Tensor, size: int) -> Tensor:
    """Stem, ReLU and the largest of every ``size`` positions, [B, L // size, O]; a tail shorter than that is dropped."""

    def compute(windows_XH: Tensor) -> Tensor:
        x_NO = torch.addmm(bias_O.to(dtype), stem.unfolded(windows_XH, dtype), kernel_IO.to(dtype))
        return F.relu(x_NO).unflatten(0, (len(windows_XH), -1)).amax(dim=1)

    with _cast_by_hand(stem.convolution.weight_OCK) as dtype:
        kernel_IO, bias_O = stem.kernel_IO(), stem.convolution.bias_O
        windows_BWH = stem.windows(tokens_BL, size)
        results_XO = in_chunks(compute, windows_BWH.flatten(0, 1), size * len(bias_O))
    return results_XO.unflatten(0, windows_BWH.shape[:2])
