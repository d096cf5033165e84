"""The append-only record of a study: one JSON line an event; MLflow and the report are made from it.

Layout of a study's folder (everything that is written while it runs)::

    spec.json                 the validated study file and its hash
    split.json                train, valid and test genes, written once; split-fold0.json, ... where there are folds
    study.jsonl               events of the study as a whole
    trials/t0007/record.jsonl events of one trial; its checkpoints stand beside it
    finalists/t0007-r0/...    the same for a finalist's replicate

Only the driver writes, so a line is either whole or the last one of a killed process; such a torn line is
dropped when reading and cut off before the next one is appended.
"""

from __future__ import annotations

import json
import math
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from raystudy.errors import Reason

JsonObject = dict[str, Any]

LOG = "record.jsonl"
_IDENTITY = ("config", "config_hash", "parameters", "seed", "origin", "arm", "global_batch", "fold", "replicate")
"""What a trial is, on the line of each attempt; the first one counts."""


class TrialState(StrEnum):
    """How a trial stands; the words of the contract's JSON. Only an attempt is ever ``interrupted``."""

    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    INFEASIBLE = "infeasible"
    INTERRUPTED = "interrupted"
    """Cut short by something that says nothing about the configuration: the trial goes on in another attempt."""


@dataclass
class Attempt:
    """One run of a trial's configuration; a trial interrupted and resumed has several.

    ``reason`` is one of few words (`raystudy.errors.Reason`, a pruner's name, or which rule was broken), ``detail``
    whatever else is known. ``micro_batches`` is into how many parts each batch was cut to fit into memory.
    """

    number: int
    started: float
    epochs: list[JsonObject] = field(default_factory=list)
    state: TrialState = TrialState.RUNNING
    reason: str | None = None
    detail: str | None = None
    ended: float | None = None
    micro_batches: int = 1

    @property
    def seconds(self) -> float:
        """How long it held its resources, as far as is known: until its end, or else its last epoch."""
        last = self.ended if self.ended is not None else max((one["time"] for one in self.epochs), default=self.started)
        return last - self.started

    def summary(self) -> JsonObject:
        return {
            "attempt": self.number,
            "state": self.state.value,
            "reason": self.reason,
            "detail": self.detail,
            "micro_batches": self.micro_batches,
            "started": self.started,
            "ended": self.ended,
            "epochs": [epoch["epoch"] for epoch in self.epochs],
        }


@dataclass
class TrialRecord:
    """One configuration: what it was, where it came from, and every attempt at it.

    ``origin`` says who proposed it: ``arm``, ``seeded`` (from the intrinsic dimension), ``warm`` (from an earlier
    study), ``sampled``, or ``finalist`` for a trial that is trained again, on ``fold`` with the seed of ``replicate``.
    """

    id: str
    config: JsonObject
    config_hash: str
    parameters: int
    seed: int
    origin: str
    arm: str | None = None
    global_batch: int | None = None
    fold: int = 0
    replicate: int = 0
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def state(self) -> TrialState:
        last = self.attempts[-1].state if self.attempts else TrialState.RUNNING
        return TrialState.RUNNING if last is TrialState.INTERRUPTED else last

    @property
    def reason(self) -> str | None:
        return self.attempts[-1].reason if self.attempts else None

    @property
    def detail(self) -> str | None:
        return self.attempts[-1].detail if self.attempts else None

    @property
    def explanation(self) -> str | None:
        """Reason and detail in one text."""
        return ": ".join(filter(None, (self.reason, self.detail))) or None

    @property
    def micro_batches(self) -> int:
        return self.attempts[-1].micro_batches if self.attempts else 1

    @property
    def seconds(self) -> float:
        """How long all its attempts held their resources."""
        return sum(attempt.seconds for attempt in self.attempts)

    @cached_property
    def epochs(self) -> list[JsonObject]:
        """Every epoch once, in order; where a resumed attempt repeated an epoch, the later one counts."""
        by_epoch = {epoch["epoch"]: epoch for attempt in self.attempts for epoch in attempt.epochs}
        return [by_epoch[number] for number in sorted(by_epoch)]

    @cached_property
    def best(self) -> JsonObject | None:
        """The epoch with the largest validation R2; None before the first finite one."""
        finite = [epoch for epoch in self.epochs if epoch.get("valid_r2") is not None]
        return max(finite, key=lambda epoch: epoch["valid_r2"], default=None)

    @property
    def valid_r2(self) -> float | None:
        return None if self.best is None else float(self.best["valid_r2"])

    @property
    def best_epoch(self) -> int | None:
        return None if self.best is None else int(self.best["epoch"])

    @cached_property
    def epoch_seconds(self) -> float | None:
        """Median training-only seconds an epoch after the first (the first pays for warming up)."""
        seconds = sorted(epoch["epoch_seconds"] for epoch in self.epochs[1:] or self.epochs)
        return seconds[len(seconds) // 2] if seconds else None


@dataclass
class StudyRecord:
    """Everything one study's folder says."""

    name: str
    folder: Path
    events: list[JsonObject]
    trials: list[TrialRecord]
    finalists: list[TrialRecord]

    def last(self, event: str) -> JsonObject | None:
        """The last study event of that name, or None."""
        return next((line for line in reversed(self.events) if line["event"] == event), None)

    def every(self, event: str) -> list[JsonObject]:
        return [line for line in self.events if line["event"] == event]

    @property
    def baselines(self) -> list[JsonObject]:
        """The baselines, each once; where a resumed study fitted one again, the later one counts."""
        return list({line["name"]: line for line in self.every("baseline")}.values())

    @property
    def test_scores(self) -> dict[str, JsonObject]:
        """Test numbers by finalist replicate or baseline; empty while the test genes are sealed.

        The first opening counts: whatever was chosen after it has seen the test genes.
        """
        openings = self.every("test_opened")
        return openings[0]["scores"] if openings else {}

    @property
    def seconds(self) -> float:
        """Time a driver was at work: each session from its start to the last event before the next one."""
        starts = sorted(line["time"] for line in self.every("session_started"))
        times = sorted([*(line["time"] for line in self.events), *self._trial_times()])
        lasts = [times[bisect_left(times, start) - 1] for start in starts[1:]] + times[-1:]
        return sum(last - start for start, last in zip(starts, lasts, strict=False))

    def _trial_times(self) -> Iterator[float]:
        for trial in [*self.trials, *self.finalists]:
            for attempt in trial.attempts:
                yield attempt.started
                yield from (epoch["time"] for epoch in attempt.epochs)
                if attempt.ended is not None:
                    yield attempt.ended


class Records:
    """Writes and reads one study's folder. ``clock`` gives the time of each line, in seconds since the epoch."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._clock = clock

    def append(self, event: str, **fields: Any) -> JsonObject:
        """Add an event of the study as a whole."""
        return self._append("study.jsonl", event, fields)

    def trial_folder(self, trial_id: str) -> Path:
        """Where the record and the checkpoints of a trial (``t0007``) or a finalist (``t0007-r0``) stand."""
        return self.folder / ("finalists" if "-r" in trial_id else "trials") / trial_id

    def trial_started(self, trial: TrialRecord, micro_batches: int = 1) -> JsonObject:
        """Open a new attempt. The first one also fixes what the trial is."""
        known = self._read(self._trial_log(trial.id))
        attempt = 1 + sum(line["event"] == "started" for line in known)
        identity = {key: getattr(trial, key) for key in _IDENTITY}
        parts = {"micro_batches": micro_batches} if micro_batches > 1 else {}
        return self._append(self._trial_log(trial.id), "started", {"attempt": attempt, **identity, **parts})

    def trial_epoch(self, trial_id: str, metrics: JsonObject) -> JsonObject:
        """Add an epoch: ``epoch`` (from 1), ``valid_r2``, ``train_loss``, ``epoch_seconds``, what else was measured."""
        return self._append(self._trial_log(trial_id), "epoch", metrics)

    def trial_ended(
        self,
        trial_id: str,
        state: TrialState,
        reason: str | None = None,
        detail: str | None = None,
        time: float | None = None,
    ) -> JsonObject:
        """Close the open attempt, now or at the ``time`` of its last sign of life."""
        ending: JsonObject = {"state": state.value, "reason": reason, "detail": detail}
        ending |= {} if time is None else {"time": time}
        return self._append(self._trial_log(trial_id), "ended", ending)

    def trial_lost_with_driver(self, trial: TrialRecord) -> JsonObject:
        """Close an attempt that a dead driver left open, at its last sign of life."""
        last = trial.attempts[-1].started + trial.attempts[-1].seconds
        return self.trial_ended(trial.id, TrialState.INTERRUPTED, Reason.DRIVER_LOST, time=last)

    def read_trial(self, trial_id: str) -> TrialRecord:
        """One trial or finalist that has started."""
        trial = _fold_trial(trial_id, self._read(self._trial_log(trial_id)))
        if trial is None:
            raise KeyError(f"{trial_id} has never started in {self.folder}")
        return trial

    def read(self) -> StudyRecord:
        return StudyRecord(
            name=self.folder.name,
            folder=self.folder,
            events=self._read("study.jsonl"),
            trials=self._read_trials("trials"),
            finalists=self._read_trials("finalists"),
        )

    def _trial_log(self, trial_id: str) -> str:
        return str(self.trial_folder(trial_id).relative_to(self.folder) / LOG)

    def _read_trials(self, kind: str) -> list[TrialRecord]:
        folded = (_fold_trial(Path(log).parent.name, self._read(log)) for log in self._logs(kind))
        return [trial for trial in folded if trial is not None]

    def _append(self, log: str, event: str, fields: JsonObject) -> JsonObject:
        line: JsonObject = jsonable({"event": event, "time": self._clock(), **fields})
        self._write(log, line)
        return line

    def _write(self, log: str, line: JsonObject) -> None:
        path = self.folder / log
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            _cut_torn_line(file)
            file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self, log: str) -> list[JsonObject]:
        path = self.folder / log
        if not path.exists():
            return []
        whole, _, _torn = path.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line]

    def _logs(self, kind: str) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in (self.folder / kind).glob(f"*/{LOG}"))


class MemoryRecords(Records):
    """The same in memory alone, for a simulation; ``folder`` is a name that nothing is written to."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        super().__init__(folder, clock)
        self._lines: dict[str, list[JsonObject]] = {}

    def _write(self, log: str, line: JsonObject) -> None:
        self._lines.setdefault(log, []).append(line)

    def _read(self, log: str) -> list[JsonObject]:
        return self._lines.get(log, [])

    def _logs(self, kind: str) -> list[str]:
        return sorted(log for log in self._lines if log.startswith(f"{kind}/"))


def _fold_trial(trial_id: str, lines: list[JsonObject]) -> TrialRecord | None:
    trial: TrialRecord | None = None
    for line in lines:
        if line["event"] == "started":
            if trial is None:
                trial = TrialRecord(id=trial_id, **{key: line[key] for key in _IDENTITY if key in line})
            parts = line.get("micro_batches", 1)
            trial.attempts.append(Attempt(number=line["attempt"], started=line["time"], micro_batches=parts))
        elif trial is not None and line["event"] == "epoch":
            trial.attempts[-1].epochs.append({key: line[key] for key in line if key != "event"})
        elif trial is not None and line["event"] == "ended":
            attempt = trial.attempts[-1]
            attempt.state, attempt.ended = TrialState(line["state"]), line["time"]
            attempt.reason, attempt.detail = line["reason"], line.get("detail")
    return trial


def jsonable(value: Any) -> Any:
    """The value with each number that strict JSON cannot hold (NaN, infinities) as None, and paths as text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return jsonable(value.tolist()) if hasattr(value, "tolist") else value  # arrays, tensors and their scalars


def _cut_torn_line(file: BinaryIO) -> None:
    """Remove what a killed process wrote of its last line."""
    if file.tell() == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
