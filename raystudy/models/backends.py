"""Softmax attention three ways, and a probe that finds out which of them a layer can use here.

Shapes: B batch, h heads of width d, N queries, M keys, T keys of a whole batch laid end to end.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raystudy.errors import Infeasible
from raystudy.models.layers import draws_one_by_one, dropout
from raystudy.models.ragged import GeneByGene

BACKENDS = ("sdpa", "xformers", "math")
"""``auto`` takes the first of them unless a later one is clearly faster: noise must not choose, runs must repeat."""
CLEARLY_FASTER = 0.67
GENES_PER_GROUP = 16
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Largest error that a probe forgives: its root mean square as a share of the right answer's."""
_PROBE_LENGTHS, _PROBE_QUERIES, _PROBE_REPEATS = (1, *range(16, 256, 12)), 32, 7


def attend(q_BhNd: Tensor, k_BhMd: Tensor, v_BhMd: Tensor, dropout: float, backend: str) -> Tensor:
    """Every query attends to all M keys of its gene; [B, h, N, d]."""
    if backend == "xformers":
        q, k, v = (part.transpose(1, 2).contiguous() for part in (q_BhNd, k_BhMd, v_BhMd))
        return _xformers().memory_efficient_attention(q, k, v, p=dropout).transpose(1, 2)
    return _attend_padded(q_BhNd, k_BhMd, v_BhMd, None, dropout, backend)


def attend_ragged(q: Tensor, kv_T2d: Tensor, lengths: list[int], dropout: float, backend: str) -> Tensor:
    """One head: queries, shared [N, d] or each gene's own [B, N, d], attend to its stretch of the T keys; [B, N, d].

    ``kv_T2d`` holds keys and values side by side; ``lengths`` are the B stretches' and sum to T. Padding, where a
    backend needs it, happens inside groups of genes, which a batch ordered by length keeps small, and never changes a
    result. On a CPU ``sdpa`` needs none.
    """
    if backend == "sdpa" and draws_one_by_one(kv_T2d):
        # In float32: each gene has a shape of its own, and oneDNN, which bf16 needs, compiles code for each new shape.
        wide = torch.promote_types(q.dtype, torch.float32)
        with torch.autocast("cpu", enabled=False):
            attended_BNd: Tensor = GeneByGene.apply(  # type: ignore[no-untyped-call]
                q.to(wide), kv_T2d.to(wide), lengths, dropout
            )
        return attended_BNd.to(q.dtype)
    q_BNd = q if q.ndim == 3 else q.expand(len(lengths), *q.shape)
    if backend == "xformers":
        bias = _xformers().fmha.BlockDiagonalMask.from_seqlens([q_BNd.shape[1]] * len(lengths), lengths)
        flat = (q_BNd.flatten(0, 1), *kv_T2d.chunk(2, dim=-1))
        q, k, v = (part[None, :, None].contiguous() for part in flat)
        return _xformers().memory_efficient_attention(q, k, v, attn_bias=bias, p=dropout)[0, :, 0].view_as(q_BNd)
    groups = [lengths[first : first + GENES_PER_GROUP] for first in range(0, len(lengths), GENES_PER_GROUP)]
    results = []
    # Split in one operation: the gradient of a slice is as large as all of the keys.
    packed = torch.split(kv_T2d, [sum(group) for group in groups])
    for group, kv_T2d, q_B1Nd in zip(groups, packed, torch.split(q_BNd[:, None], GENES_PER_GROUP), strict=True):
        kv_BM2d, valid_BM = pad_stretches(kv_T2d, group)
        k_B1Md, v_B1Md = kv_BM2d[:, None].chunk(2, dim=-1)
        results.append(_attend_padded(q_B1Nd, k_B1Md, v_B1Md, valid_BM, dropout, backend)[:, 0])
    return torch.cat(results)


def _attend_padded(
    q_BhNd: Tensor, k_BhMd: Tensor, v_BhMd: Tensor, valid_BM: Tensor | None, rate: float, backend: str
) -> Tensor:
    """``sdpa`` or ``math``; keys where ``valid_BM`` is False get no weight."""
    mask = None if valid_BM is None else valid_BM[:, None, None, :]
    if backend == "sdpa" and not (rate and draws_one_by_one(q_BhNd)):
        return F.scaled_dot_product_attention(q_BhNd, k_BhMd, v_BhMd, attn_mask=mask, dropout_p=rate)
    if backend not in ("sdpa", "math"):  # PyTorch's own has no kernel with dropout for a CPU
        raise ValueError(f"no attention backend is called {backend!r}")
    scores_BhNM = q_BhNd @ k_BhMd.transpose(-1, -2) * q_BhNd.shape[-1] ** -0.5
    if mask is not None:
        scores_BhNM = scores_BhNM.masked_fill(~mask, float("-inf"))
    weights_BhNM = scores_BhNM.softmax(-1)
    return (dropout(weights_BhNM, rate) if rate else weights_BhNM) @ v_BhMd


def pad_stretches(packed_TC: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """Stretches end to end as one zero-padded [B, M, C], and where it is real, bool [B, M]; None where everywhere."""
    B, M = len(lengths), max(lengths)
    if min(lengths) == M:
        return packed_TC.view(B, M, -1), None
    valid_BM = torch.arange(M)[None] < torch.tensor(lengths)[:, None]
    # By number, and not one stretch after the other, each of which would go over all of the gradient.
    places = valid_BM.flatten().nonzero_static(size=sum(lengths))[:, 0].to(packed_TC.device)
    padded = packed_TC.new_zeros(B * M, packed_TC.shape[1]).index_copy(0, places, packed_TC)
    return padded.view(B, M, -1), valid_BM.to(packed_TC.device)


def _xformers() -> Any:
    """The optional package of the ``[gpu]`` extra; imported only where it is asked for."""
    import xformers.ops

    return xformers.ops


@dataclass(frozen=True)
class Need:
    """What one layer asks of attention."""

    num_heads: int
    width: int
    ragged: bool
    """Has every gene its own number of keys?"""
    dropout: float


@dataclass(frozen=True)
class Probed:
    """What a probe found: the seconds of a small call forward and backward, or why the backend cannot be used."""

    seconds: float
    refusal: str | None = None


@lru_cache(maxsize=256)
def probe(need: Need, backend: str, device: torch.device, dtype: torch.dtype) -> Probed:
    """Try a backend with a small real call, forward and backward, against ``math`` in float32; once per process.

    Neither the caller's autocast nor its gradient mode has a say in it.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        try:
            wanted = _call(need, _numbers(need, device, torch.float32), 0.0, "math")
            given = _numbers(need, device, dtype)
            got = _call(need, given, 0.0, backend)
            pairs = zip(got, wanted, strict=True)
            errors = [float((ours.float() - right).norm() / right.norm()) for ours, right in pairs]
            if not all(error <= TOLERANCE[dtype] for error in errors):  # a NaN is no such error either
                worst = next((error for error in errors if error != error), max(errors))
                return Probed(0.0, f"its answer is off by {worst:.2g} of its size, {TOLERANCE[dtype]:g} is allowed")
            return Probed(min(_seconds(need, given, backend, device) for _ in range(_PROBE_REPEATS)))
        except ImportError as missing:
            return Probed(0.0, f"{missing.name or missing} is not installed; install raystudy[gpu]")
        except (MemoryError, torch.OutOfMemoryError):
            raise  # it says nothing about the backend
        except Exception as error:  # whatever kernels and their dispatchers raise
            return Probed(0.0, f"{type(error).__name__}: {' '.join(str(error).split())}"[:600])


def _seconds(need: Need, given: list[Tensor], backend: str, device: torch.device) -> float:
    """One call as in training. The least of several counts: what else the machine does only adds to it."""
    _wait(device)
    started = time.perf_counter()
    _call(need, given, need.dropout, backend)
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _numbers(need: Need, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys and values, and last the gradient that comes back: the same numbers in every precision."""
    generator = torch.Generator().manual_seed(0)
    B, N, d = len(_PROBE_LENGTHS), _PROBE_QUERIES, need.width
    if need.ragged:
        shapes: list[tuple[int, ...]] = [(B, N, d), (sum(_PROBE_LENGTHS), 2 * d), (B, N, d)]
    else:
        shapes = [(B, need.num_heads, N, d) for _ in range(4)]
    made = [torch.randn(*shape, generator=generator).bfloat16().to(device, dtype) for shape in shapes]
    return [*(tensor.requires_grad_() for tensor in made[:-1]), made[-1]]


def _call(need: Need, numbers: list[Tensor], dropout: float, backend: str) -> list[Tensor]:
    """The output, and the gradients of what was given."""
    *given, upstream = numbers
    if need.ragged:
        out = attend_ragged(given[0], given[1], list(_PROBE_LENGTHS), dropout, backend)
    else:
        out = attend(given[0], given[1], given[2], dropout, backend)
    return [out.detach(), *torch.autograd.grad(out, given, upstream)]


def choose(need: Need, asked: str, device: torch.device, dtype: torch.dtype, by_speed: bool = True) -> str:
    """The backend for one layer; Infeasible, with the probe's reason, where the one asked for cannot be used.

    ``auto`` takes the first that can, unless ``by_speed`` and another is clearly faster.
    """
    if asked != "auto":
        refusal = probe(need, asked, device, dtype).refusal
        if refusal is not None:
            raise Infeasible(
                f"attention `{asked}` cannot be used for {need.num_heads} heads of width {need.width} in "
                f"{str(dtype).removeprefix('torch.')} on {device.type}: {refusal}; let `training.attention` be auto"
            )
        return asked
    found = {backend: probe(need, backend, device, dtype) for backend in BACKENDS}
    usable = {backend: probed.seconds for backend, probed in found.items() if probed.refusal is None}
    if not usable:
        reasons = "; ".join(f"{backend}: {probed.refusal}" for backend, probed in found.items())
        raise Infeasible(f"no attention backend works on {device}: {reasons}")
    first, fastest = next(iter(usable)), min(usable, key=lambda backend: usable[backend])
    return fastest if by_speed and usable[fastest] < CLEARLY_FASTER * usable[first] else first


def choose_backends(
    network: nn.Module,
    asked: str,
    device: torch.device,
    dtype: torch.dtype,
    before: dict[str, str] | None = None,
    by_speed: bool = True,
) -> dict[str, str]:
    """Give each attention layer of a network its backend; by the layer's name what was chosen.

    ``before`` is what an interrupted training had: where ``auto`` may take it, it is taken again.
    """
    chosen = {}
    for name, layer in network.named_modules():
        if isinstance(need := getattr(layer, "need", None), Need):
            known = (before or {}).get(name)
            again = known is not None and asked == "auto" and probe(need, known, device, dtype).refusal is None
            layer.backend = chosen[name] = known if again and known else choose(need, asked, device, dtype, by_speed)
    return chosen
