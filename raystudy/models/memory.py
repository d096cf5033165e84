"""The memory that training a configuration takes, before anything is trained.

Shapes: B batch, H half-life features, T symbols of a batch end to end, L positions.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from raystudy.data.batches import Inputs, num_half_life
from raystudy.models.backends import GENES_PER_GROUP
from raystudy.models.build import build, count_parameters
from raystudy.models.stem import CHUNK_BYTES
from raystudy.study.model import ModelSpec, TrainingSpec

EVALUATED_TOGETHER = 64
"""Genes that the training loop predicts in one pass, however small the training's own batches are."""
HELD_BY_CHUNK = 8 * CHUNK_BYTES["cpu"]
"""What the backward pass of a chunk of windows holds, however many genes there are; a GPU's chunks take 0.3 GB."""
HALVED: set[Callable[..., Any]] = {F.linear, torch.einsum, torch.matmul, Tensor.matmul, Tensor.__matmul__}
HALVED |= {F.scaled_dot_product_attention, F.conv2d}
"""What a network calls and autocast computes in bf16."""


def training_bytes(model: ModelSpec, training: TrainingSpec, num_targets: int = 1, micro_batches: int = 1) -> int:
    """About how many bytes one worker needs to train, beyond those of its process.

    Weights, gradients and AdamW's two moments, and the most that a step or an evaluation holds at once: forward and
    backward are run on PyTorch's ``meta`` device, which has shapes and no numbers, and every tensor is counted from
    the operation that makes it until it is freed. It is an estimate, and a high one where kernels fuse: every gene is
    as long as the configuration allows, attention is taken to keep its weights (on a GPU it need not), and precision
    ``auto`` counts as fp32. What allocators keep for themselves is not in it: on CPU real steps took 0.66 to 0.92 of it
    with every tensor mapped by itself, an Xpresso of 12 MB 0.47, and by chance 1.2 to 2.6 times as much with glibc's
    heap as workers use it. Genes that stay on a GPU (`data/resident.py`) are not in it either.
    """
    similar = model.model_copy(update={"preset": None, "dropout": 0.5 if model.dropout else 0.0})
    bf16, num_genes = training.precision == "bf16", -(-training.batch_size // micro_batches)
    most = num_genes * _measured(similar, bf16, num_targets, evaluating=False)
    if num_genes < EVALUATED_TOGETHER:  # a gene that is trained on never needs less than one that is evaluated
        most = max(most, EVALUATED_TOGETHER * _measured(similar, bf16, num_targets, evaluating=True))
    return 4 * 4 * count_parameters(model, num_targets) + HELD_BY_CHUNK + most // GENES_PER_GROUP


@lru_cache(maxsize=1024)
def _measured(model: ModelSpec, bf16: bool, num_targets: int, evaluating: bool) -> int:
    """Bytes that a step, or an evaluation, of ``GENES_PER_GROUP`` genes holds besides weights and their gradients.

    It grows in proportion to the genes, since attention pads within groups of so many.
    """
    with torch.device("meta"):
        network, inputs = build(model, num_targets), _longest_genes(model)
        with _Held() as held, torch.set_grad_enabled(not evaluating), _Halving() if bf16 else nullcontext():
            for tensor in (*network.parameters(), *network.buffers(), *vars(inputs).values()):
                if isinstance(tensor, Tensor):
                    tensor.detach()  # so that it is known
            for parameter in network.parameters():
                parameter.grad = torch.empty_like(parameter)
            held.most = before = held.now
            predicted = network.train(not evaluating)(inputs)
            if not evaluating:
                predicted.float().square().sum().backward()
    return held.most - before


def _longest_genes(model: ModelSpec) -> Inputs:
    """As many genes as are attended to together, as long as this network reads them; not all of one length, since
    attention pays for that."""
    B, longest = GENES_PER_GROUP, model.perceiver_length if model.perceiver_reads else 0
    lengths = [max(longest - number % 2, 0) for number in range(B)]
    return Inputs(
        sequence_BL=torch.zeros(B, model.convolution_length, dtype=torch.uint8),
        half_life_BH=torch.zeros(B, num_half_life(model)),
        tokens_T=torch.zeros(sum(lengths), dtype=torch.int32),
        positions_T=torch.zeros(sum(lengths), dtype=torch.int32),
        lengths=lengths,
    )


class _Held(TorchDispatchMode):
    """Bytes of all storages that live operations' results have, each counted once: a view has its base's."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._bytes: dict[int, int] = {}
        self.now = self.most = 0

    def __torch_dispatch__(
        self, operation: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._bytes:
            self._bytes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        self.now -= self._bytes.pop(key)


class _Halving(TorchFunctionMode):
    """Autocast to bf16 for the ``meta`` device, which has none of its own."""

    def __torch_function__(
        self, function: Any, types: Sequence[Any], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in HALVED:
            args, kwargs = tree_map_only(Tensor, _halved, (args, kwargs))
        return function(*args, **kwargs)


def _halved(tensor: Tensor) -> Tensor:
    return tensor.bfloat16() if tensor.dtype == torch.float32 else tensor
