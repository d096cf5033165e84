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

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from raystudy.data.encode import NUM_SYMBOLS
from raystudy.models.layers import GELU_SLOPE, AttentionPool, Convolution, NormActivateConvolve, ScaledBatchNorm
from raystudy.study.model import ModelSpec, Tokens

CHUNK_BYTES = {"cpu": 2**21, "meta": 2**19}
"""Of one layer's activations, by the kind of device: so many stay in a core's cache. On ``meta``, where memory is
measured (`memory.training_bytes`), a chunk is to take little of what is measured."""
CHUNK_BYTES_ELSEWHERE = 2**25
"""A GPU needs work for all of its processors at a time."""


class Stem(nn.Module):
    """A same-padded convolution of symbols; beyond the ends of a sequence is zero."""

    convolution: Convolution

    def __init__(self, reads: Tokens, kernel_length: int, num_blank: int = 0) -> None:
        """Symbols below ``num_blank`` are zero like what lies beyond the ends."""
        super().__init__()
        self.outside = NUM_SYMBOLS[reads]
        """The symbol that stands for what lies beyond the ends."""
        self.num_blank = num_blank
        self.kernel_length = kernel_length
        self.sides = (kernel_length - 1) // 2, kernel_length // 2
        """Positions that it looks at before and after its own."""

    def kernel(self) -> Tensor:
        """The kernel that one-hot symbols are multiplied with, [I, O]."""
        raise TypeError(f"{type(self).__name__} has no kernel")

    def windows(self, tokens_BL: Tensor, size: int) -> Tensor:
        """Every whole window of ``size`` positions with what it looks at on both sides, uint8 [B, L // size, H]."""
        return self._padded(tokens_BL, *self.sides).unfold(1, size + self.kernel_length - 1, size)

    def beyond(self, tokens_BL: Tensor) -> Tensor:
        """Every position beyond the ends that looks at something within, as a window, [B * (K - 1), K]."""
        before, after = self.sides
        reach = before + after
        padded = self._padded(tokens_BL, reach, reach).unfold(1, self.kernel_length, 1)
        return torch.cat([padded[:, :after], padded[:, padded.shape[1] - before :]], dim=1).flatten(0, 1)

    def unfolded(self, windows_XH: Tensor, dtype: torch.dtype) -> Tensor:
        """What the kernel meets at every position of the windows, one after the other, [X * P, I]."""
        onehot_SC = torch.eye(self.outside + 1, dtype=dtype, device=windows_XH.device)[:, self.num_blank : self.outside]
        onehot = onehot_SC[windows_XH.int()].flatten(1)
        channels = onehot_SC.shape[1]
        return onehot.unfold(1, self.kernel_length * channels, channels).flatten(0, 1)

    def _padded(self, tokens_BL: Tensor, before: int, after: int) -> Tensor:
        return F.pad(tokens_BL, (before, after), value=self.outside)


class OneHotStem(Stem):
    """Over one-hot symbols. An N is all zeros; the pad that follows a protein is a symbol like any other."""

    def __init__(self, reads: Tokens, outputs: int, kernel_length: int) -> None:
        super().__init__(reads, kernel_length, num_blank=1 if reads == "base" else 0)
        self.convolution = Convolution(self.outside - self.num_blank, outputs, kernel_length)

    def kernel(self) -> Tensor:
        return self.convolution.weight_OCK.permute(2, 1, 0).flatten(0, 1)


class EmbeddingStem(Stem):
    """A dense embedding of the bases in front of the same convolution, computed folded.

    With nothing nonlinear between, embedding then convolving is a one-hot convolution with the kernel
    sum_e W[q,e,k] Emb[s,e] and a learnable N: a reparameterisation of `OneHotStem`, not a richer function.
    """

    def __init__(self, embedding_dim: int, outputs: int, kernel_length: int) -> None:
        super().__init__("base", kernel_length)
        self.embedding_SE = nn.Embedding(self.outside, embedding_dim)
        self.convolution = Convolution(embedding_dim, outputs, kernel_length)

    def kernel(self) -> Tensor:
        return torch.einsum("oek,se->kso", self.convolution.weight_OCK, self.embedding_SE.weight).flatten(0, 1)


def make_stem(model: ModelSpec, outputs: int, kernel: int) -> Stem:
    """The first convolution of a configuration."""
    if model.encoder == "embedding":
        return EmbeddingStem(model.embedding_dim, outputs, kernel)
    return OneHotStem(model.convolution_reads, outputs, kernel)


def _chunks(windows: Tensor, floats_per_window: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    size = CHUNK_BYTES.get(windows.device.type, CHUNK_BYTES_ELSEWHERE) // dtype.itemsize
    return torch.split(windows, max(1, size // floats_per_window))


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


def pooled_stem(
    stem: Stem, block: NormActivateConvolve, pool: AttentionPool, tokens_BL: Tensor, lengths: list[int] | None
) -> Tensor:
    """Stem, x + block(x) and attention pooling, [B, L // P, O], in autocast's precision where that is on.

    ``lengths``: how many symbols of each gene stand before its padding; None where there is none.
    """
    windows = Windows.of(stem, tokens_BL, pool.pool_size, lengths)
    with _cast_by_hand(stem.convolution.weight_OCK) as dtype:
        kernel_IO, bias_O = stem.kernel(), stem.convolution.bias_O
        mix_OO, mix_O = block.convolution.weight_OCK[:, :, 0].T / GELU_SLOPE, block.convolution.bias_O
        if block.norm.training:
            together = Together.of(stem, tokens_BL, lengths).over_ranks(block.norm)
            moments = together.moments(kernel_IO, bias_O)
            block.norm.keep(*moments, together.count)
        else:
            moments = block.norm.kept()
        scale_O, shift_O = block.norm.scale_and_shift(*moments, GELU_SLOPE)
        # What is normalised is as linear in the symbols as what is not, and the block's bias can be added beforehand.
        weights = (kernel_IO, bias_O + mix_O, kernel_IO * scale_O, bias_O * scale_O + shift_O, mix_OO, pool.mix_CC)
        results_XO: Tensor = _PooledBlock.apply(  # type: ignore[no-untyped-call]
            stem, dtype, windows.distinct_XH, *weights
        )
    return windows.spread(results_XO).reshape(len(tokens_BL), -1, len(bias_O))


class _PooledBlock(torch.autograd.Function):
    """x = S k + b, y = x + silu(S k' + b') m, and of every window the mean of y weighted by softmax(y p); [X, O].

    S are a chunk's one-hot symbols, the weights come in the order k, b, k', b', m, p. It is a function of its own since
    autograd would go over a chunk's activations twice as often. Its gradient has no gradient itself.
    """

    @staticmethod
    def forward(context: Any, stem: Stem, dtype: torch.dtype, windows_XH: Tensor, *weights: Tensor) -> Tensor:
        cast = [weight.detach().to(dtype) for weight in weights]
        results = []
        for chunk in _chunks(windows_XH, _per_window(stem, windows_XH, cast[0]), dtype):
            *_, y_XPO, share_XPO = _activations(stem.unfolded(chunk, dtype), len(chunk), cast)
            results.append((share_XPO * y_XPO).sum(dim=1))
        pooled_XO = torch.cat(results)
        context.stem, context.dtype = stem, dtype
        context.save_for_backward(windows_XH, pooled_XO, *weights)
        return pooled_XO

    @staticmethod
    @once_differentiable
    def backward(context: Any, upstream_XO: Tensor) -> tuple[Tensor | None, ...]:
        windows_XH, pooled_XO, *weights = context.saved_tensors
        stem, dtype = context.stem, context.dtype
        cast = [weight.to(dtype) for weight in weights]
        totals = [torch.zeros_like(weight) for weight in weights]
        per_window = _per_window(stem, windows_XH, cast[0])
        chunks = (_chunks(z, per_window, dtype) for z in (windows_XH, pooled_XO, upstream_XO))
        for chunk, pooled, upstream in zip(*chunks, strict=True):
            found = _gradients(stem.unfolded(chunk, dtype), pooled, upstream, cast)
            for total, part in zip(totals, found, strict=True):
                total += part
        return None, None, None, *totals


def _per_window(stem: Stem, windows_XH: Tensor, kernel_IO: Tensor) -> int:
    """Values of the widest layer in a window."""
    return max(kernel_IO.shape) * (windows_XH.shape[1] - stem.kernel_length + 1)


def _activations(onehot_NI: Tensor, num_windows: int, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """A chunk's normalised values and their SiLU [N, O], its values y and their shares in the pooling [X, P, O]."""
    kernel_IO, bias_O, normed_IO, shift_O, mix_OO, pool_OO = weights
    normed_NO = torch.addmm(shift_O, onehot_NI, normed_IO)
    active_NO = F.silu(normed_NO)
    y_NO = torch.addmm(bias_O, onehot_NI, kernel_IO).addmm_(active_NO, mix_OO)
    y_XPO, logits_XPO = (z_NO.view(num_windows, -1, len(pool_OO)) for z_NO in (y_NO, y_NO.mm(pool_OO)))
    return normed_NO, active_NO, y_XPO, logits_XPO.softmax(dim=1)


def _gradients(
    onehot_NI: Tensor, pooled_XO: Tensor, upstream_XO: Tensor, weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """What a chunk adds to the weights' gradients, in their order; its activations are computed again."""
    normed_NO, active_NO, y_XPO, share_XPO = _activations(onehot_NI, len(pooled_XO), weights)
    *_, mix_OO, pool_OO = weights
    dy_XPO = share_XPO * upstream_XO[:, None]
    dlogits_NO = ((y_XPO - pooled_XO[:, None]) * dy_XPO).flatten(0, 1)
    dy_NO = torch.addmm(dy_XPO.flatten(0, 1), dlogits_NO, pool_OO.T)
    dnormed_NO = torch.ops.aten.silu_backward(dy_NO.mm(mix_OO.T), normed_NO)
    return (
        onehot_NI.T.mm(dy_NO),
        dy_NO.sum(dim=0),
        onehot_NI.T.mm(dnormed_NO),
        dnormed_NO.sum(dim=0),
        active_NO.T.mm(dy_NO),
        y_XPO.flatten(0, 1).T.mm(dlogits_NO),
    )


@dataclass(frozen=True)
class Together:
    """How often symbols stand in two places of a kernel together, over the positions of a batch; exact, in float64."""

    pairs_II: Tensor
    """On the diagonal how often a place has its symbol at all."""
    count: Tensor
    """Positions."""

    @classmethod
    @torch.no_grad()
    def of(cls, stem: Stem, tokens_BL: Tensor, lengths: list[int] | None) -> Together:
        """``lengths``: how many symbols of each gene stand before its padding; None where there is none.

        How often two places have their symbols hangs on how far apart they are, if positions beyond the ends counted
        too: so pairs of symbols are counted by distance, and what those positions would see is taken off again.
        """
        B, L = tokens_BL.shape
        K, S = stem.kernel_length, stem.outside
        read = L if lengths is None else min(L, max(lengths) + K - 1)  # behind it is padding of every gene
        tokens_BL = tokens_BL[:, :read]
        apart = F.pad(tokens_BL.long(), (0, K - 1), value=S).flatten()  # no pair is of two genes
        once, counts = torch.ones_like(apart), apart.new_zeros(K, (S + 1) ** 2)
        for distance, counted in enumerate(counts):
            pairs = apart[: len(apart) - distance] * (S + 1) + apart[distance:]
            counted.scatter_add_(0, pairs, once)
        forward = counts.view(K, S + 1, S + 1)[:, :S, :S].double()
        forward[:, 0, 0] += B * (L - read)
        forward = forward[:, stem.num_blank :, stem.num_blank :]
        both = torch.cat([forward[1:].flip(0).transpose(1, 2), forward])  # from distance 1 - K to K - 1
        place = torch.arange(K, device=tokens_BL.device)
        all_II = both[place - place[:, None] + K - 1].transpose(1, 2).reshape(2 * [K * forward.shape[1]])
        beyond_NI = stem.unfolded(stem.beyond(tokens_BL), torch.float32)
        count = torch.tensor(float(B * L), dtype=torch.float64, device=tokens_BL.device)
        return cls(all_II - (beyond_NI.T @ beyond_NI).double(), count)

    def over_ranks(self, norm: ScaledBatchNorm) -> Together:
        return Together(norm.over_ranks(self.pairs_II), norm.over_ranks(self.count))

    def moments(self, kernel_IO: Tensor, bias_O: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of a stem's outputs over those positions, [O]; they pass gradients on."""
        dtype, kernel_IO, share_II = kernel_IO.dtype, kernel_IO.double(), self.pairs_II / self.count
        share_I = share_II.diagonal()
        covariance_II = share_II - share_I[:, None] * share_I
        variance_O = ((covariance_II @ kernel_IO) * kernel_IO).sum(dim=0)
        return (share_I @ kernel_IO + bias_O.double()).to(dtype), variance_O.to(dtype)


@contextmanager
def _cast_by_hand(weight: Tensor) -> Iterator[torch.dtype]:
    """The precision in which matrix products of a weight would be computed here, and autocast switched off."""
    kind, one = weight.device.type, weight.detach().flatten()[:1, None]
    dtype = F.linear(one, one).dtype
    casts = dtype != one.dtype and torch.amp.is_autocast_available(kind)
    with torch.autocast(kind, enabled=False) if casts else nullcontext():
        yield dtype


def max_pooled_stem(stem: Stem, tokens_BL: Tensor, size: int) -> Tensor:
    """Stem, ReLU and the largest of every ``size`` positions, [B, L // size, O]; a shorter tail is dropped."""

    def compute(windows_XH: Tensor) -> Tensor:
        x_NO = torch.addmm(bias_O.to(dtype), stem.unfolded(windows_XH, dtype), kernel_IO.to(dtype))
        return F.relu(x_NO).view(len(windows_XH), size, -1).amax(dim=1)

    with _cast_by_hand(stem.convolution.weight_OCK) as dtype:
        kernel_IO, bias_O = stem.kernel(), stem.convolution.bias_O
        windows_BWH = stem.windows(tokens_BL, size)
        windows_XH = windows_BWH.flatten(0, 1)
        again = partial(checkpoint, compute, use_reentrant=False, preserve_rng_state=False)
        each = again if torch.is_grad_enabled() else compute
        results_XO = torch.cat(
            [each(chunk) for chunk in _chunks(windows_XH, _per_window(stem, windows_XH, kernel_IO), dtype)]
        )
    return results_XO.view(*windows_BWH.shape[:2], -1)
