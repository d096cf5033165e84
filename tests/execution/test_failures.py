"""Why a trial ended: memory, what Ray says of a process that is gone, and the limit on what a trial may take."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ray.train import ControllerError, PreemptionError, TrainingFailedError, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)

from raystudy.errors import Infeasible, Reason, TrialFailed
from raystudy.execution import trial as trial_module
from raystudy.execution.failures import (
    HUNG,
    MARKS,
    TimeLimit,
    classify_loss,
    lost_ranks_told,
    out_of_memory_told,
    timed_out,
    why_training_failed,
)
from raystudy.execution.task import Task
from raystudy.execution.trial import EPOCH, FAILURE, REFUSAL, run_trial

CPU = torch.device("cpu")

# What Ray 2.60 said when each of these was done to a real actor; cut short, and addresses made up.
DIED = "The actor died unexpectedly before finishing this task.\n\tclass_name: A\n\tpid: 31677\n\tip: 192.0.2.2\n"
SIGKILL = (
    f"{DIED}The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
    "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the "
    "process was killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker "
    "crashed unexpectedly due to SIGSEGV or another unexpected error. If the process was killed by the kernel OOM "
    "killer (verifiable by checking for OOM in dmesg of the OOMing node), consider enabling resource isolation via "
    "--enable-resource-isolation to prevent node deaths by resource contention and significant loss of progress by "
    "uninformed kernel OOM killing."
)
NODE = f"{DIED}The actor died because its node has died. Node Id: 0b61\n\tthe actor's node was "
MEMORY_MONITOR = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, ID: ddbe) was "
    "1.18GB used / 23.54GB limit (0.050116)\nOOM kill reason: Memory usage 1200791552B exceeded threshold of 252765136B"
)
UNAVAILABLE = (
    "The actor fde4 is unavailable: The actor is temporarily unavailable: RpcError: RPC error: Socket closed "
    "rpc_code: 14. The task may or may not have been executed on the actor."
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (SIGKILL, Reason.WORKER_LOST),
        (UNAVAILABLE, Reason.WORKER_LOST),
        ("", Reason.WORKER_LOST),
        (f"{NODE}preempted: preemption", Reason.PREEMPTED),
        (f"{NODE}terminated expectedly: received SIGTERM", Reason.PREEMPTED),
        (f"{NODE}terminated unexpectedly: health check failed", Reason.PREEMPTED),
        (str(WorkerGroupStartupTimeoutError(2)), Reason.PREEMPTED),
        (MEMORY_MONITOR, Reason.OUT_OF_MEMORY),
        (f"{DIED}Worker exit type: NODE_OUT_OF_MEMORY Worker exit detail: killed", Reason.OUT_OF_MEMORY),
    ],
)
def test_what_ray_says_of_a_lost_process_becomes_a_reason(text: str, reason: Reason) -> None:
    assert classify_loss(text) is reason


def cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of ...")


def driver() -> None:
    raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported")


@pytest.mark.parametrize(
    ("exhaust", "said"),
    [
        (lambda: torch.empty(10**15), "you tried to allocate 4000000000000000 bytes"),
        (lambda: np.ones(2**46), "Unable to allocate 512. TiB"),
        (lambda: bytearray(2**60), "MemoryError"),
        (cuda, "Tried to allocate 2.00 GiB. GPU 0 has"),
        (driver, "CUDA error: out of memory CUDA kernel"),
    ],
)
def test_whoever_is_out_of_memory_says_so_in_one_line_with_the_device(exhaust: Callable[[], Any], said: str) -> None:
    with pytest.raises(TrialFailed) as caught, out_of_memory_told(CPU):
        exhaust()

    assert caught.value.reason is Reason.OUT_OF_MEMORY
    assert caught.value.detail.startswith("cpu: ")
    assert said in caught.value.detail
    assert "\n" not in caught.value.detail
    assert len(caught.value.detail) < 320


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("memory")])
def test_any_other_error_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, out_of_memory_told(CPU):
        raise error

    assert caught.value is error


def group(*failures: Exception) -> WorkerGroupError:
    return WorkerGroupError("two ranks failed", dict(enumerate(failures)))


def lost(text: str) -> WorkerHealthCheckFailedError:
    return WorkerHealthCheckFailedError("A worker health check failed.", failure=RuntimeError(text))


BROKEN = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [192.0.2.2]:4242")


@pytest.mark.parametrize(
    ("error", "reason", "detail"),
    [
        (group(TrialFailed(Reason.NAN, "epoch 3"), TrialFailed(Reason.NAN, "epoch 3")), Reason.NAN, "epoch 3"),
        (group(BROKEN, TrialFailed(Reason.OUT_OF_MEMORY, "cuda:1: full")), Reason.OUT_OF_MEMORY, "cuda:1: full"),
        (group(BROKEN, lost(SIGKILL)), Reason.WORKER_LOST, "connection error code 2"),
        (group(lost(SIGKILL), lost(MEMORY_MONITOR)), Reason.OUT_OF_MEMORY, "running low on memory"),
        (group(BROKEN, lost(f"{NODE}preempted: spot")), Reason.PREEMPTED, "was preempted: spot"),
        (group(ValueError("a\nb")), Reason.CRASH, "ValueError: a b"),
        (ControllerError(WorkerGroupStartupFailedError(f"{NODE}terminated")), Reason.PREEMPTED, "node has died"),
        (ControllerError(TypeError("ours")), Reason.CRASH, "TypeError: ours"),
        (PreemptionError(SimpleNamespace(preempted_ranks=[1])), Reason.PREEMPTED, "preempted_ranks=[1]"),  # type: ignore[arg-type]
    ],
)
def test_a_failed_training_has_the_reason_of_the_rank_that_failed_first(
    error: TrainingFailedError, reason: Reason, detail: str
) -> None:
    told = why_training_failed(error)

    assert told.reason is reason
    assert detail in told.detail


UNLIMITED = TimeLimit(Path(), None)
GLOO = (
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:6345: Connection reset by peer"
)


@pytest.mark.parametrize(
    "error", [RuntimeError(GLOO), torch.distributed.DistBackendError("NCCL error: remote process")]
)
def test_a_rank_that_lost_another_blames_no_configuration(error: RuntimeError) -> None:
    with (
        pytest.raises(TrialFailed, match="another worker is gone") as told,
        lost_ranks_told(UNLIMITED, patience_seconds=0),
    ):
        raise error
    assert told.value.reason is Reason.WORKER_LOST


def test_what_else_a_rank_raises_is_its_own_and_told_at_once() -> None:
    with pytest.raises(RuntimeError, match="shapes"), lost_ranks_told(UNLIMITED):
        raise RuntimeError("shapes cannot be multiplied")


def in_a_process(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    lines = (
        "import re, sys, time",
        "from pathlib import Path",
        "from raystudy.execution.failures import TimeLimit",
        f"folder = Path({str(folder)!r})",
        code,
        "print('lived')",
    )
    return subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60)


HOLDS_THE_LOCK = "    re.match('(a+)+$', 'a' * 60 + 'b')"


@pytest.mark.parametrize("hang", ["    time.sleep(50)", HOLDS_THE_LOCK])
def test_a_trial_that_hangs_is_ended_and_leaves_where_it_hung(hang: str, tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    ended = in_a_process(f"with TimeLimit(folder, 0.3):\n{hang}", folder)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert timed_out(folder)
    assert not timed_out(folder), "the next attempt is not judged by it"
    assert 'File "<string>", line 6' in (folder / HUNG).read_text()
    assert not list(folder.glob(MARKS))


def test_a_trial_that_ends_in_time_leaves_neither_mark_nor_timer_to_the_next_one(tmp_path: Path) -> None:
    code = """
with TimeLimit(folder / "first", 0.4):
    pass
try:
    with TimeLimit(folder / "stopped", 0.4) as limit, limit.paused():
        sys.exit(0)  # as Tune ends a trial that is waiting to go on
except SystemExit:
    pass
with TimeLimit(folder / "second", None):
    time.sleep(0.9)
with TimeLimit(folder / "third", 30):
    assert not (folder / "third/timeout-0.txt").read_text()
time.sleep(0.1)
"""
    ended = in_a_process(code, tmp_path)

    assert (ended.returncode, ended.stdout) == (0, "lived\n"), ended.stderr
    assert not list(tmp_path.rglob("*.txt"))


def test_time_spent_waiting_for_the_driver_does_not_count_and_the_rest_adds_up(tmp_path: Path) -> None:
    code = """
with TimeLimit(folder / "waiting", 0.6) as limit:
    with limit.paused():
        time.sleep(1)
    time.sleep(0.1)
with TimeLimit(folder / "working", 0.6) as limit:
    for _ in range(30):
        with limit.paused():
            pass
        time.sleep(0.1)
"""
    assert in_a_process(code, tmp_path).returncode == 1
    assert not timed_out(tmp_path / "waiting")
    assert timed_out(tmp_path / "working")


def test_each_rank_has_its_own_mark_and_one_that_hangs_is_enough(tmp_path: Path) -> None:
    hangs = "with TimeLimit(folder, 0.3, rank=1):\n    time.sleep(50)"
    (tmp_path / "timeout-0.txt").touch()  # of a rank that runs on, until Ray ends it

    assert in_a_process(hangs, tmp_path).returncode == 1
    assert timed_out(tmp_path)
    assert not timed_out(tmp_path)


def test_a_trial_that_never_ran_or_was_killed_has_not_timed_out(tmp_path: Path) -> None:
    assert not timed_out(tmp_path / "nothing")
    (tmp_path / "timeout-0.txt").touch()  # what a killed process leaves
    assert not timed_out(tmp_path)


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What a trial told Tune."""
    told: list[dict[str, str]] = []
    monkeypatch.setattr(trial_module.tune, "report", told.append)
    monkeypatch.setattr(Task, "data", lambda _: None)
    return told


def task(folder: Path, limit_seconds: float | None = 60.0) -> dict[str, Any]:
    made = Task(
        trial_id="t0000",
        config={},
        seed=1,
        folder=str(folder),
        data_folder="",
        split_path="",
        targets=("protein",),
        cpus=1,
        workers=1,
        global_batch=64,
        micro_batches=2,
        predicts=False,
        reference=False,
        limit_seconds=limit_seconds,
    )
    return json.loads(json.dumps(made.as_json()))


@pytest.mark.parametrize(
    ("error", "kind", "reason", "detail"),
    [
        (TrialFailed(Reason.NAN, "epoch 2: loss nan"), FAILURE, "nan", "epoch 2: loss nan"),
        (
            torch.OutOfMemoryError("CUDA out of memory.\nTried"),
            FAILURE,
            "out of memory",
            "cpu: CUDA out of memory. Tried",
        ),
        (Infeasible("no backend works"), REFUSAL, "attention backend", "no backend works"),
        (KeyError("width"), FAILURE, "crash", "KeyError: 'width' (see "),
    ],
)
def test_a_failure_is_reported_with_reason_and_detail_apart(
    error: Exception,
    kind: str,
    reason: str,
    detail: str,
    tmp_path: Path,
    reported: list[dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(trial_module, "train", fail)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run_trial(task(tmp_path))

    (told,) = reported
    assert told.keys() == {kind}
    words = json.loads(told[kind])
    assert words.keys() == {"reason", "detail"}
    assert words["reason"] == reason
    assert words["detail"].startswith(detail)
    assert (tmp_path / "error.txt").exists() == (reason == "crash")
    if reason == "crash":
        assert "KeyError: 'width'" in (tmp_path / "error.txt").read_text()
    assert not list(tmp_path.glob(MARKS))


def test_what_a_failed_trial_held_is_free_before_the_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: list[dict[str, str]]
) -> None:
    alive: list[Any] = []
    seen: list[int] = []

    class Held:
        def __init__(self) -> None:
            alive.append(id(self))

        def __del__(self) -> None:
            alive.remove(id(self))

    def fail(*_: Any) -> None:
        held = Held()
        raise MemoryError(f"{held}")

    monkeypatch.setattr(trial_module, "train", fail)
    monkeypatch.setattr(trial_module.tune, "report", lambda _: seen.append(len(alive)))
    run_trial(task(tmp_path))

    assert seen == [0]


def test_each_epoch_is_reported_outside_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: list[dict[str, str]]
) -> None:
    def train(job: Any, _data: Any, session: Any) -> None:
        session.report({"epoch": 1, "micro_batches": job})

    monkeypatch.setattr(trial_module, "train", train)
    monkeypatch.setattr(Task, "job", lambda self: self.micro_batches)
    before = threading.active_count()
    run_trial(task(tmp_path))

    assert [json.loads(one[EPOCH]) for one in reported] == [{"epoch": 1, "micro_batches": 2}]
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("origin", "folds", "fold", "protocol", "split", "reference"),
    [
        ("sampled", 1, 0, "reference", "split.json", False),
        ("sampled", 3, 0, "sealed", "split.json", False),
        ("finalist", 1, 0, "sealed", "split.json", False),
        ("finalist", 3, 0, "sealed", "split-fold0.json", False),
        ("finalist", 3, 2, "reference", "split-fold2.json", True),
    ],
)
def test_a_task_says_on_which_fold_and_under_which_protocol_it_is_trained(
    origin: str, folds: int, fold: int, protocol: str, split: str, reference: bool, tmp_path: Path
) -> None:
    trial = SimpleNamespace(
        id="t0", config={}, seed=1, origin=origin, fold=fold, global_batch=64, micro_batches=2, arm=None
    )
    spec = SimpleNamespace(
        targets=("protein",),
        resources=SimpleNamespace(cpus_per_worker=1),
        resources_of=lambda arm: SimpleNamespace(workers=1),
        replicates=SimpleNamespace(folds=folds),
        protocol=protocol,
        budget=SimpleNamespace(trial_minutes=1.5 if reference else None),
    )
    records: Any = SimpleNamespace(folder=tmp_path, trial_folder=lambda name: tmp_path / name)
    made = Task.of(trial, spec, records, tmp_path)  # type: ignore[arg-type]

    assert Path(made.split_path) == tmp_path.resolve() / split
    assert made.reference is reference
    assert made.limit_seconds == (90 if reference else None)
    assert made.micro_batches == 2
    assert Task(**json.loads(json.dumps(made.as_json()))).split_path == made.split_path
