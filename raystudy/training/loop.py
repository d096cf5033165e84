"""The one training loop, for one process or many, on CPU or GPU. It knows a Session, not Ray.

Every epoch's randomness comes from (seed, epoch) alone and the learning rate from the step alone, so a run resumed
after any epoch is the run that was never interrupted. Shapes: B batch, n genes evaluated.
"""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raystudy.data.batches import Floats, GeneInputs, StudyData, shard, training_batches, training_steps
from raystudy.data.splits import Rows
from raystudy.errors import Reason, TrialFailed
from raystudy.models.backends import choose_backends
from raystudy.models.build import build
from raystudy.models.network import ExpressionNetwork
from raystudy.study.model import ModelSpec, TrainingSpec
from raystudy.study.patience import is_over
from raystudy.study.space import derive_seed
from raystudy.training import checkpoint
from raystudy.training.batchnorm import synchronise_norms
from raystudy.training.metrics import scores
from raystudy.training.optimisation import learning_rate, make_optimizer
from raystudy.training.session import Metrics, Session

EVALUATION_BATCH = 64
NORM_GENES = 512
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once; what `training.deterministic` rests on
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in which the system counts a process's memory."""

AfterEpoch = Callable[[int, Callable[[Rows], Floats]], None]
"""Called on every rank with the epoch's number and what predicts genes, standardised, with its weights."""


@dataclass(frozen=True)
class Job:
    """What is trained: one configuration with one seed."""

    model: ModelSpec
    training: TrainingSpec
    seed: int
    micro_batches: int = 1
    """Parts in which a batch goes through the network, for less memory and the same step of the optimizer."""
    global_batch: int | None = None
    """Genes of one step on all ranks, however many there are; None is the batch size times the ranks."""

    def per_step(self, world_size: int) -> int:
        return self.global_batch or self.training.batch_size * world_size

    def parts(self, num_together: int, world_size: int) -> int:
        """In how many parts each rank's genes go through the network: more where ranks are fewer than planned.

        The same on every rank, for BatchNorm over all of them waits for all of them in each part.
        """
        largest, smallest = math.ceil(num_together / world_size), num_together // world_size
        return max(1, min(smallest, self.micro_batches * math.ceil(largest / self.training.batch_size)))

    def state(self, data: StudyData) -> dict[str, Any]:
        """What a checkpoint keeps beside the tensors: the configuration, and the scales that it was trained in."""
        return {
            "config": {**self.model.model_dump(), **self.training.model_dump()},
            "seed": self.seed,
            "targets": list(data.targets),
            "label_scale": {"mean": data.label_scale.mean.tolist(), "std": data.label_scale.std.tolist()},
            "feature_scale": {"mean": data.feature_scale.mean.tolist(), "factor": data.feature_scale.factor.tolist()},
        }


def train(job: Job, data: StudyData, session: Session, after_epoch: AfterEpoch | None = None) -> None:
    """Train from the session folder's last checkpoint, or from the start, reporting after every epoch.

    The folder then holds ``last.safetensors`` (to go on) and ``best.safetensors`` (the weights of the epoch with the
    largest validation R2). Epochs that an earlier attempt finished are reported again; who listens knows them.
    ``after_epoch`` is called before an epoch counts as finished, so one that is lost with its process comes again.

    Raises Infeasible when the attention asked for cannot be used here, TrialFailed (reason ``nan``) when the loss or a
    prediction stops being finite.
    """
    with full_precision(), repeatable() if job.training.deterministic else nullcontext():
        _train(job, data, session, after_epoch)


@contextmanager
def full_precision() -> Iterator[None]:
    """Let fp32 be fp32: by itself cuDNN computes convolutions in TF32, which has 10 bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def repeatable() -> Iterator[None]:
    """Let PyTorch use no algorithm whose result depends on which of its threads was first."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _train(job: Job, data: StudyData, session: Session, after_epoch: AfterEpoch | None) -> None:
    torch.manual_seed(job.seed)
    network = build(job.model, len(data.targets)).to(session.device)
    optimizer = make_optimizer(network, job.training)
    history = _resume(network, optimizer, session)
    for metrics in history:
        session.report(metrics)
    precision = resolve_precision(job.training.precision, session.device)
    before = history[-1]["attention"] if history else None
    attention = choose_backends(
        network,
        job.training.attention,
        session.device,
        DTYPES[precision],
        before,
        by_speed=not job.training.deterministic,
    )
    if session.world_size > 1 and job.training.sync_batchnorm:
        synchronise_norms(network)
    parallel = DistributedDataParallel(network) if session.world_size > 1 else network
    bf16 = precision == "bf16"
    if session.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(session.device)
    while not is_over([past["valid_r2"] for past in history], job.training.epochs, job.training.patience):
        epoch = len(history) + 1
        torch.manual_seed(derive_seed(job.seed, epoch, session.rank))
        started = time.perf_counter()
        train_loss = _train_epoch(parallel, optimizer, job, data, session, epoch, bf16)
        epoch_seconds = _largest(time.perf_counter() - started, session)
        started = time.perf_counter()
        recalibrate_norms(network, job, data, session, epoch, bf16)
        predicted = predict(network, data.inputs, data.split.valid, session, bf16)
        if not (math.isfinite(train_loss) and np.isfinite(predicted).all()):
            finite = int(np.isfinite(predicted).all(axis=1).sum())
            raise TrialFailed(
                Reason.NAN,
                f"epoch {epoch}: training loss {train_loss}, {finite} of {len(predicted)} predictions finite",
            )
        found = scores(data.labels[data.split.valid], predicted, data.targets)
        metrics = {
            "epoch": epoch,
            "train_loss": train_loss,
            **{f"valid_{name}": value for name, value in found.items()},
            "epoch_seconds": epoch_seconds,
            "eval_seconds": time.perf_counter() - started,
            "samples_per_second": len(data.split.train) / epoch_seconds,
            "precision": precision,
            "attention": attention,
            "peak_memory_gb": _largest(_peak_memory_gb(session.device), session),
            **({"micro_batches": job.micro_batches} if job.micro_batches > 1 else {}),
            **({"workers": session.world_size} if session.world_size > 1 else {}),
        }
        if after_epoch is not None:
            after_epoch(epoch, partial(predict, network, data.inputs, session=session, bf16=bf16))
        history.append(metrics)
        if session.rank == 0:
            _save(network, optimizer, job.state(data), session, history)
        session.report(metrics)


def _train_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    job: Job,
    data: StudyData,
    session: Session,
    epoch: int,
    bf16: bool,
) -> float:
    """One pass over the training genes; the mean loss over all ranks and measured levels."""
    network.train()
    num_train, rank, world_size = len(data.split.train), session.rank, session.world_size
    steps = training_steps(num_train, job.per_step(world_size), world_size)
    total, seen = torch.zeros((), device=session.device), 0
    batches = training_batches(
        data.split.train, job.per_step(world_size), rank, world_size, derive_seed(job.seed, "order", epoch)
    )
    for step, (rows, together) in enumerate(batches, start=(epoch - 1) * steps):
        rows = data.inputs.by_length(rows)
        num_together = max(1, data.num_labels(together))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps * job.training.epochs, job.model, job.training)
        optimizer.zero_grad(set_to_none=True)
        num_parts = job.parts(len(together), world_size)
        total += _accumulate_gradients(network, num_parts, data, session, rows, num_together, bf16)
        optimizer.step()
        seen += num_together
    if world_size > 1:
        dist.all_reduce(total)
    return float(total) / seen


def _accumulate_gradients(
    network: nn.Module, num_parts: int, data: StudyData, session: Session, rows: Rows, num_together: int, bf16: bool
) -> Tensor:
    """Add the gradients of the mean squared error, to which these genes' labels are a share; their squared errors' sum.

    The parts of a batch are dealt out by length, so that none holds all of the long genes.
    """
    total = torch.zeros((), device=session.device)
    for number, part in enumerate(_parts(rows, num_parts)):
        with _unsynchronised(network) if number < num_parts - 1 else nullcontext():
            with torch.autocast(session.device.type, torch.bfloat16, enabled=bf16):
                predicted_BK = network(data.inputs.batch(part, session.device))
            measured_BK = data.labels_of(part, session.device)
            error_BK = torch.where(measured_BK.isnan(), 0.0, predicted_BK.float() - measured_BK.nan_to_num())
            squared = error_BK.square().sum()
            # DDP averages gradients over ranks; this makes that average the mean over the labels of all of them.
            torch.autograd.backward(squared * session.world_size / num_together)
        total += squared.detach()
    return total


def _parts(rows: Rows, num_parts: int) -> list[Rows]:
    return [shard(rows, number, num_parts) for number in range(num_parts)]


def _unsynchronised(network: nn.Module) -> AbstractContextManager[None]:
    """Gradients stay on their rank until a pass outside of this."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


@torch.no_grad()
@full_precision()
def predict(network: ExpressionNetwork, inputs: GeneInputs, rows: Rows, session: Session, bf16: bool) -> Floats:
    """Standardised predictions for ``rows`` in their order, float32 [n, K], the same on every rank."""
    network.eval()
    mine = shard(inputs.length_order(rows), session.rank, session.world_size)
    predicted = torch.zeros(len(rows), network.num_targets, device=session.device)
    for start in range(0, len(mine), EVALUATION_BATCH):
        places = mine[start : start + EVALUATION_BATCH]
        with torch.autocast(session.device.type, torch.bfloat16, enabled=bf16):
            predicted_BK = network(inputs.batch(rows[places], session.device))
        predicted[torch.from_numpy(places).to(session.device)] = predicted_BK.float()
    if session.world_size > 1:
        dist.all_reduce(predicted)  # each gene is one rank's; the others hold 0 there
    return predicted.cpu().numpy()


def resolve_precision(asked: str, device: torch.device) -> str:
    """``bf16`` or ``fp32``; ``auto`` is bf16 where the device computes in it rather than emulating it."""
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capable = torch.cpu.get_capabilities()
    return "bf16" if capable.get("amx_bf16") or capable.get("avx512_bf16") else "fp32"


@torch.no_grad()
def recalibrate_norms(network: nn.Module, job: Job, data: StudyData, session: Session, epoch: int, bf16: bool) -> None:
    """Give BatchNorm the statistics of the weights as they are now, over ``NORM_GENES`` training genes.

    Its running averages lag behind the weights, which in the first epochs of a short training costs more R2 than the
    choice of a model (docs/log.md). Statistics are averaged over ranks, so every rank evaluates the same network.
    See Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d)]
    if not norms:
        return
    world_size = session.world_size
    per_step, order = job.per_step(world_size), derive_seed(job.seed, "norms", epoch)
    batches = training_batches(data.split.train, per_step, session.rank, world_size, order)
    network.train()
    parts = (
        part
        for rows, together in islice(batches, max(1, NORM_GENES // per_step))
        for part in _parts(data.inputs.by_length(rows), job.parts(len(together), world_size))
    )
    for number, part in enumerate(parts):
        for norm in norms:
            norm.momentum = 1 / (number + 1)  # a plain mean over the parts
        with torch.autocast(session.device.type, torch.bfloat16, enabled=bf16):
            network(data.inputs.batch(part, session.device))
    if world_size > 1:
        for buffer in network.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= world_size


def _largest(value: float, session: Session) -> float:
    """Of all ranks' values."""
    if session.world_size == 1:
        return value
    largest = torch.tensor(value, device=session.device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return float(largest)


def _peak_memory_gb(device: torch.device) -> float:
    """The most memory (10^9 bytes) held so far: on a GPU by this training's tensors, else by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 1e9


def _resume(network: nn.Module, optimizer: torch.optim.Optimizer, session: Session) -> list[Metrics]:
    """Load the last checkpoint where there is one; the epochs it has behind it."""
    path, history = session.folder / checkpoint.LAST, list[Metrics]()
    if path.exists():
        tensors, state = checkpoint.load(path, session.device)
        checkpoint.restore_training(network, optimizer, tensors)
        history = state["history"]
    if (most := int(_largest(len(history), session))) != len(history):
        raise TrialFailed(
            Reason.WORKER_LOST,
            f"rank {session.rank} sees {len(history)} finished epochs in {session.folder}, another rank {most}: the "
            "file system that they share was late",
        )
    return history


def _save(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    session: Session,
    history: list[Metrics],
) -> None:
    newest = history[-1]
    if newest is max(history, key=lambda metrics: metrics["valid_r2"]):  # of equals the first, as the records count
        checkpoint.save(session.folder / checkpoint.BEST, network.state_dict(), {**state, "metrics": newest})
    checkpoint.save(
        session.folder / checkpoint.LAST,
        checkpoint.training_tensors(network, optimizer),
        {**state, "history": history},
    )
