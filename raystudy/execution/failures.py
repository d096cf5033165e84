"""Why a trial ended without a value: out of memory in its own words, a process that is gone in Ray's, and the mark
that a process leaves behind when it took too long.
"""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from raystudy.errors import Infeasible, Reason, TrialFailed

if TYPE_CHECKING:  # nothing here needs them to run
    import torch
    from ray.train import TrainingFailedError

MARKS, HUNG = "timeout-*.txt", "hung.txt"
LONGEST_DETAIL = 300
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed")
"""PyTorch's on any accelerator, its CPU allocator's, and cuBLAS's."""
_KILLED_FOR_MEMORY = ("running low on memory", "node_out_of_memory")
_NODE_GONE = (
    "owner's node has crashed",
    "its node has died",
    "node it was running on is dead",
    "node was preempted",
    "node preemption",
    "died by preemption",
    "node was terminated",
    "due to draining",
    "worker group startup timed out",
)
_OTHERS_FOLLOW_FROM = (
    Reason.PREEMPTED,
    Reason.NAN,
    Reason.OUT_OF_MEMORY,
    Reason.TIMEOUT,
    Reason.WORKER_LOST,
    Reason.CRASH,
)
"""When one rank fails the others fail too, with broken connections; the earliest of these is the cause."""


@contextmanager
def out_of_memory_told(device: torch.device) -> Iterator[None]:
    """Raise what PyTorch, NumPy and Python raise for want of memory as TrialFailed (reason ``out of memory``)."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = str(error).lower()
        if not (isinstance(error, MemoryError) or any(text in said for text in _OUT_OF_MEMORY)):
            raise
        raise TrialFailed(Reason.OUT_OF_MEMORY, f"{device}: {one_line(error)}") from error


@contextmanager
def lost_ranks_told(limit: TimeLimit, patience_seconds: float = 30.0) -> Iterator[None]:
    """Raise as TrialFailed (reason ``worker lost``) that another rank does not answer any more.

    Only after a while: Ray knows what became of that rank, but a node's death, for one, it notices seconds later than
    the ranks that were connected to it, and the first failure that it hears of ends them all.
    """
    from torch.distributed import DistError

    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, DistError) or "/gloo/" in str(error)):  # gloo raises nothing more special
            raise
        with limit.paused():
            time.sleep(patience_seconds)
        raise TrialFailed(Reason.WORKER_LOST, f"another worker is gone: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """What an exception says, without its line breaks and not too long; its type where it says nothing."""
    return " ".join(str(error).split())[:LONGEST_DETAIL] or type(error).__name__


def classify_loss(text: str) -> Reason:
    """What became of a process that is gone, by what Ray says of it (the texts are of Ray 2.60).

    A node that died, or never came, counts as preempted, whatever the cause: the trial had no part in it. Ray cannot
    see the kernel's own OOM killer and names it as one of several possible causes of any sudden death: that is a lost
    worker.
    """
    said = text.lower()
    if any(phrase in said for phrase in _KILLED_FOR_MEMORY):
        return Reason.OUT_OF_MEMORY
    if any(phrase in said for phrase in _NODE_GONE):
        return Reason.PREEMPTED
    return Reason.WORKER_LOST


def why_training_failed(error: TrainingFailedError) -> TrialFailed | Infeasible:
    """The cause of a failure of Ray Train, out of what its ranks ended with."""
    ranks = getattr(error, "worker_failures", {})
    failures = list(ranks.values()) or [getattr(error, "controller_failure", error)]
    refusals = [failure for failure in failures if isinstance(failure, Infeasible)]
    if refusals:
        return refusals[0]
    return min((_why(failure) for failure in failures), key=lambda told: _OTHERS_FOLLOW_FROM.index(told.reason))


def _why(failure: Exception) -> TrialFailed:
    if isinstance(failure, TrialFailed):
        return failure
    if type(failure).__module__.startswith("ray."):  # what the loop raises is PyTorch's, Python's or our own
        cause = getattr(failure, "health_check_failure", failure)
        return TrialFailed(classify_loss(str(cause)), one_line(cause))
    return TrialFailed(Reason.CRASH, f"{type(failure).__name__}: {one_line(failure)}")


class TimeLimit:
    """Ends this process when a block of code takes longer than it may, leaving a mark in the trial's folder.

    A trial that hangs cannot be asked to stop, and may hold the interpreter's lock, so that no Python thread would
    get to run. Hence `faulthandler`, whose thread needs no lock: it writes where the process hung (the mark) and ends
    it. There can be one block at a time in a process, and one process of each ``rank``.
    """

    def __init__(self, folder: Path, seconds: float | None, rank: int = 0) -> None:
        self._path = folder / MARKS.replace("*", str(rank))
        self._left = seconds
        self._since = 0.0
        self._mark: IO[str] | None = None

    def __enter__(self) -> Self:
        if self._left is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._mark = self._path.open("w")
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._mark is not None:
            faulthandler.cancel_dump_traceback_later()
            self._mark.close()
            self._path.unlink(missing_ok=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent in here does not count; an exception leaves the limit for good."""
        if self._left is not None:
            faulthandler.cancel_dump_traceback_later()
            self._left -= time.monotonic() - self._since
        yield
        self._start()

    def _start(self) -> None:
        self._since = time.monotonic()
        if self._left is not None and self._mark is not None:
            faulthandler.dump_traceback_later(max(self._left, 1e-3), file=self._mark, exit=True)


def timed_out(folder: Path) -> bool:
    """Has the last attempt at this trial been ended by its `TimeLimit`?

    True once: the mark becomes ``hung.txt``, which tells a reader where, and judges no later attempt.
    """
    hung = [mark for mark in sorted(folder.glob(MARKS)) if mark.stat().st_size]  # empty while the trial runs
    for mark in hung:
        mark.replace(folder / HUNG)
    return bool(hung)
