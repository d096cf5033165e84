"""What the benchmarks of training share: genes to train on, taking turns with time, peaks of memory, and a roofline.

FLOP are floating point operations, an addition and a multiplication each counted as one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from raystudy.data.batches import FeatureScale, GeneInputs, LabelScale, StudyData, cut_proteins, num_half_life
from raystudy.data.encode import NUM_SYMBOLS
from raystudy.data.splits import Split
from raystudy.study.model import ModelSpec

Task = Callable[[], object]
Figures = dict[str, float]

QUANTILES = (0, 0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 1)
YEAST_RESIDUES = (16, 48, 96, 125, 227, 399, 624, 946, 1218, 1796, 4910)
"""Residues of yeast's proteins at those quantiles: `raystudy prepare yeast --out yeast`, then
``numpy.quantile(pandas.read_parquet("yeast/genes.parquet").protein.str.len(), QUANTILES).round()``."""
SHARE_OF_N = 0.001


def yeast_lengths(num_genes: int, random: np.random.Generator) -> np.ndarray:
    """Protein lengths distributed as yeast's, in random order, int64 [n].

    They stand at evenly spaced quantiles rather than random ones, so that a batch of eight is like any other.
    """
    quantiles = (np.arange(num_genes) + 0.5) / num_genes
    return random.permutation(np.interp(quantiles, QUANTILES, YEAST_RESIDUES).round().astype(np.int64))


def made_genes(
    model: ModelSpec,
    num_train: int,
    num_valid: int = 0,
    targets: Sequence[str] = ("protein",),
    lengths: Sequence[int] | None = None,
    seed: int = 0,
) -> StudyData:
    """Random genes as this network reads them; proteins as long as yeast's unless ``lengths`` says otherwise.

    The training genes come first, the validation genes after them.
    """
    random = np.random.default_rng(seed)
    num_genes = num_train + num_valid
    residues = yeast_lengths(num_genes, random) if lengths is None else np.asarray(lengths, np.int64)
    offsets = np.concatenate([[0], np.cumsum(residues)])
    tokens = random.integers(1, NUM_SYMBOLS[model.tokens], offsets[-1], dtype=np.uint8)
    windows_NL = random.integers(1, 5, (num_genes, sum(model.window_bp)), dtype=np.uint8)
    unknown = random.integers(0, windows_NL.shape, (round(SHARE_OF_N * windows_NL.size), 2))
    windows_NL[unknown[:, 0], unknown[:, 1]] = 0
    half_life_NH = random.standard_normal((num_genes, num_half_life(model)), np.float32)
    rows = np.arange(num_genes)
    split = Split("none", "made", rows[:num_train], rows[num_train:], rows[:0], {}, {})
    return StudyData(
        inputs=GeneInputs(model, windows_NL, *cut_proteins(tokens, offsets, model.max_protein), half_life_NH),
        labels=random.standard_normal((num_genes, len(targets)), np.float32),
        targets=tuple(targets),
        label_scale=LabelScale(np.zeros(len(targets)), np.ones(len(targets))),
        feature_scale=FeatureScale(np.zeros(half_life_NH.shape[1]), np.ones(half_life_NH.shape[1])),
        split=split,
    )


# Time


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(task: Task, device: torch.device, repeats: int = 1) -> float:
    """Of one call, as the mean over ``repeats``; on a GPU until it has finished them."""
    wait_for(device)
    started = time.perf_counter()
    for _ in range(repeats):
        task()
    wait_for(device)
    return (time.perf_counter() - started) / repeats


def alternate(
    tasks: Mapping[str, Task], rounds: int, device: torch.device, least_seconds: float = 0.1
) -> dict[str, list[float]]:
    """Seconds of each task in each round: they take turns, every second round backwards, so that whatever else the
    machine does falls on all of them. A short task is repeated until its turn lasts ``least_seconds``."""
    repeats = {}
    for name, task in tasks.items():
        seconds = seconds_of(task, device)  # with what is done once only: choosing kernels, filling caches
        if seconds < least_seconds:
            seconds = seconds_of(task, device)
        repeats[name] = max(1, round(least_seconds / seconds))
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds):
        for name in list(tasks)[:: -1 if number % 2 else 1]:
            found[name].append(seconds_of(tasks[name], device, repeats[name]))
    return found


@dataclass(frozen=True)
class Ratio:
    """How many times as long one task took as another: the median over rounds, the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, slower: Sequence[float], faster: Sequence[float]) -> Ratio:
        """Each round's own ratio, of what was timed next to each other."""
        ratios = [one / other for one, other in zip(slower, faster, strict=True)]
        return cls(statistics.median(ratios), min(ratios), max(ratios))

    def figures(self, name: str) -> Figures:
        return {name: self.median, f"{name}_low": self.low, f"{name}_high": self.high}

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


# Memory


def peak_bytes(prepare: Callable[..., Task], arguments: tuple[Any, ...], device: torch.device) -> int:
    """The most that one call of a task holds besides what was held before it.

    ``prepare(*arguments)`` makes what stands before (weights, a batch) and gives back the task. The weights' gradients
    and the optimizer's state, which a first step makes, count as the step's.

    On a GPU: bytes of tensors, by PyTorch's own count. On a CPU: by how much the physical memory of a fresh process
    rose above what it had before the call, as the system saw it. That is more than the tensors: glibc keeps freed
    blocks below its threshold for mapping (up to 32 MiB) in its arenas, and libraries keep work space. ``prepare``
    shall therefore have made a small step before, and what it freed is given back to the system before the count
    begins.
    """
    if device.type == "cuda":
        return _peak_on_gpu(prepare(*arguments), device)
    processes = multiprocessing.get_context("spawn")
    answer = processes.SimpleQueue()
    process = processes.Process(target=_answer_peak, args=(answer, torch.get_num_threads(), prepare, arguments))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the process that measured memory ended with {process.exitcode}; its message stands above")
    return int(answer.get())


def _peak_on_gpu(task: Task, device: torch.device) -> int:
    gc.collect()
    wait_for(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    task()
    wait_for(device)
    return torch.cuda.max_memory_allocated(device) - before


def _answer_peak(answer: Any, num_threads: int, prepare: Callable[..., Task], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(num_threads)
    task = prepare(*arguments)
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another libc has no such call
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):  # Linux: the high-water mark comes down to what is held now
        Path("/proc/self/clear_refs").write_text("5")
    before = _high_water_bytes()
    task()
    answer.put(_high_water_bytes() - before)


def _high_water_bytes() -> int:
    """The most physical memory that this process has held.

    Linux counts ``ru_maxrss`` on from the process that started this one, so its own mark is read where there is one.
    """
    with contextlib.suppress(FileNotFoundError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# What the machine can do, and what a step asks of it


@dataclass(frozen=True)
class Peaks:
    """Measured on this machine with the threads it was given: the fastest of several large operations."""

    fp32_gflops: float
    bf16_gflops: float
    copy_gbps: float
    """GB/s read and written."""

    def gflops(self, precision: str) -> float:
        return self.bf16_gflops if precision == "bf16" else self.fp32_gflops


def measure_peaks(device: torch.device, size: int | None = None, repeats: int = 5) -> Peaks:
    """From products of two square matrices of ``size`` and copies of 16 times as many bytes as such a float32 matrix.

    float32 as PyTorch computes it unless told otherwise: matrix products without TF32.
    """
    size = size or (8192 if device.type == "cuda" else 3072)
    gflops = []
    for dtype in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(left)
        gflops.append(2 * size**3 / _least_seconds(lambda: torch.mm(left, right, out=out), device, repeats) / 1e9)  # noqa: B023
    source = torch.ones(16 * size**2, device=device)
    target = torch.empty_like(source)
    seconds = _least_seconds(lambda: target.copy_(source), device, repeats)
    return Peaks(gflops[0], gflops[1], 2 * source.nbytes / seconds / 1e9)


def _least_seconds(task: Task, device: torch.device, repeats: int) -> float:
    task()
    return min(seconds_of(task, device) for _ in range(repeats))


def counted_flops(task: Task) -> int:
    """FLOP of a task's matrix products, convolutions and attention as PyTorch counts them, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        task()
    return int(counter.get_total_flops())


def useful_flops(model: ModelSpec, protein_lengths: Sequence[int], training: bool = False) -> int:
    """FLOP that a forward pass over these genes needs in matrix products and convolutions, or one forward and back:
    3 times as many, but for the first convolution's, whose input needs no gradient.

    Needed are products on symbols that a gene has, not on padding: a protein costs its own length also in the
    convolution, where the pad behind it is one constant. Queries that do not depend on the gene are counted once. A
    one-hot convolution counts as the dense one it is written as. Normalisation, activations and softmax are left out.
    ValueError for ``family: xpresso``.
    """
    reads = model.perceiver_reads
    if reads is None:
        raise ValueError(f"`useful_flops` counts Perceivers, but got `family: {model.family}`")
    lengths = np.minimum(protein_lengths, model.max_protein)
    B, N, D, E, H = len(lengths), model.num_latents, model.latent_dim, model.token_dim, num_half_life(model)
    W = D + (H if model.half_life_joins_latents else 0)
    num_tokens = int(lengths.sum()) if reads in ("residue", "codon") else B * model.perceiver_length
    num_positions = int(lengths.sum()) if model.convolution_reads != "base" else B * model.convolution_length
    macs = _convolution_macs(model, num_positions, B)
    macs += num_tokens * (E * 128 + 2 * N * 64)  # keys and values, scores and weighted sums
    macs += (B if model.half_life_joins_latents else 1) * N * W * 64 + B * N * 64 * W  # queries, and the way back
    macs += B * (1 + model.depth) * N * 6 * W**2  # feed-forwards: W to 4 W, 2 W to W
    macs += B * model.depth * (N * 4 * W * D + 2 * N * N * D)  # among the latents
    Q = model.queries_dim
    macs += B * (2 * Q * 64 + N * W * 128 + 2 * N * 64)  # the head
    macs += B * (Q * W * model.latent_summary + Q * (1 + model.latent_summary))
    return 2 * (3 * macs - _stem_macs(model, num_positions) if training else macs)


def _stem_macs(model: ModelSpec, num_positions: int) -> int:
    symbols = NUM_SYMBOLS[model.convolution_reads] - (model.convolution_reads == "base")
    return num_positions * 15 * symbols * model.queries_dim


def _convolution_macs(model: ModelSpec, num_positions: int, num_genes: int) -> int:
    Q, pools = model.queries_dim, model.pools
    widths = [Q, 2 * round(Q / 2**0.5 / 2), Q // 2]
    macs = _stem_macs(model, num_positions) + num_positions * 2 * Q * Q  # and of the residual and the pooling
    for (channels, outputs), pool in zip(pairwise(widths), pools, strict=False):
        num_positions //= pool
        macs += num_positions * (5 * channels * outputs + 2 * outputs * outputs)
    left = model.convolution_length // pools[0] // pools[1] // pools[2]
    return macs + num_genes * (left * widths[-1] + num_half_life(model) * model.half_life_joins_query) * Q


def least_bytes(model: ModelSpec, num_genes: int, bytes_per_value: int) -> int:
    """Bytes that a training step moves at least between memory and processor if it goes through the convolution branch
    norm by norm, and recomputes or keeps near whatever stands between.

    BatchNorm must have seen all of its input before it gives any output. So each of the tower's four inputs of one is
    written and read going forward, read twice going back (for the statistics' gradients, then for its own), and its
    gradient written and read: six times. The first norm's statistics are counted from symbols. The Perceiver branch,
    whose tensors fit into caches, and the weights are not counted.
    """
    Q, (first, second, _) = model.queries_dim, model.pools
    widths = [Q, 2 * round(Q / 2**0.5 / 2), Q // 2]
    length, values = model.convolution_length, 0
    for (channels, outputs), pool in zip(pairwise(widths), (first, second), strict=True):
        length //= pool
        values += (channels + outputs) * length
    return 6 * num_genes * values * bytes_per_value
