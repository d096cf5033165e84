"""The whole study engine on a simulated cluster: a trainer with a known surface and optimum, and a clock of its own.

What runs is the search policy itself, with its records and Optuna's storage; only training, machines and time are
made up. So a thousand trials on 256 GPUs, with nodes taken away and trials that fail, take seconds.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from optuna.storages import BaseStorage, InMemoryStorage

from raystudy.errors import Reason, SpecError
from raystudy.search.policy import Listener, SearchPolicy
from raystudy.study.space import Categorical, Log, Parameter, PowerOfTwo, canonical_hash, derive_seed
from raystudy.study.spec import StudySpec
from raystudy.tracking.records import MemoryRecords, Records, TrialRecord, TrialState

BEST_R2 = 0.5
NOISE = 0.01
MISSED_PER_KEY = 0.4
"""Validation R2 lost where one key is as far from its best value as it can be."""


@dataclass(frozen=True)
class Conditions:
    """The simulated cluster, and how often what goes wrong. Shares are of attempts, or of configurations."""

    gpus: int = 256
    gpus_per_node: int = 8
    epoch_seconds: float = 60.0
    """Of a typical configuration; others take from half to twice as long."""
    start_seconds: float = 15.0
    """From a proposal to its first step: a process, its imports, its data."""
    node_hours: float = 2.0
    """How long a node stays on average before it is taken away."""
    away_seconds: float = 180.0
    """How long it takes to get another one."""
    straggler_share: float = 0.03
    straggler_factor: float = 4.0
    crash_share: float = 0.01
    """Configurations that always crash."""
    nan_share: float = 0.03
    """Configurations whose loss stops being finite in their second epoch."""
    memory_share: float = 0.04
    """Configurations that do not fit into memory; half of these do with their batches in parts."""
    hang_share: float = 0.003
    """Attempts that hang, until `budget.trial_minutes` or else an hour has passed."""
    worker_lost_share: float = 0.01
    driver_kills: int = 2
    """How often the driver dies and is started again."""
    driver_takes_time: bool = False
    """Does the simulated clock go on while the driver really works? GPUs wait for it then; no two runs are alike."""
    seed: int = 0


class Surface:
    """Validation R2 of every configuration and epoch: a parabola over each searched key around a random best value."""

    def __init__(self, spec: StudySpec, seed: int) -> None:
        random = np.random.default_rng(seed)
        self._best = {
            name: parameter.choices[random.integers(len(parameter.choices))]
            if isinstance(parameter, Categorical)
            else float(random.uniform(0.1, 0.9))
            for name, parameter in spec.search.items()
        }
        self._search = spec.search

    def reachable(self, config: dict[str, Any]) -> float:
        """What this configuration reaches after all its epochs."""
        missed = sum(self._distance(name, parameter, config.get(name)) ** 2 for name, parameter in self._search.items())
        return BEST_R2 - MISSED_PER_KEY * missed

    def __call__(self, trial: TrialRecord, epoch: int) -> float:
        random = np.random.default_rng(derive_seed(trial.seed, epoch))
        progress = 1 - math.exp(-3 * epoch / trial.config["epochs"])
        return float(self.reachable(trial.config) * progress + NOISE * random.standard_normal())

    def _distance(self, name: str, parameter: Parameter, value: Any) -> float:
        """From 0 at the best value to about 1; a key that this configuration does not search costs nothing."""
        best = self._best[name]
        if value is None:
            return 0.0
        if isinstance(parameter, Categorical):
            return 0.0 if value == best else 0.5
        low, high = parameter.low, parameter.high
        if isinstance(parameter, Log | PowerOfTwo):
            low, high, value = math.log(low), math.log(high), math.log(value)
        return abs((value - low) / (high - low) - float(best)) if high > low else 0.0


@dataclass
class _Attempt:
    trial: TrialRecord
    node: int
    started: float
    epoch_seconds: float
    next_epoch: int
    ends_as: Reason | None


@dataclass
class _Node:
    gpus: int
    up: bool = True
    attempts: dict[str, _Attempt] = field(default_factory=dict)


class Simulation:
    """One simulated study; `run` plays it to its end."""

    def __init__(
        self,
        spec: StudySpec,
        conditions: Conditions,
        records: Records | None = None,
        storage: BaseStorage | None = None,
    ) -> None:
        """``records`` and ``storage`` are in memory unless given; ``records`` are to go by this ``clock``."""
        self.spec = spec
        self.now = 0.0
        self.surface = Surface(spec, conditions.seed)
        self._conditions = conditions
        self._random = np.random.default_rng(derive_seed(conditions.seed, "cluster"))
        self.records = records or MemoryRecords(Path(spec.name), self.clock)
        self._storage = storage or InMemoryStorage()
        first_gpus = range(0, conditions.gpus, conditions.gpus_per_node)
        self._nodes = [_Node(min(conditions.gpus_per_node, conditions.gpus - first)) for first in first_gpus]
        self._events: list[tuple[float, int, str, Any]] = []
        self._num_events = 0
        self._held = self._offered = 0.0
        self._busy: tuple[float, float] | None = None
        self._over = False
        self.listeners: list[Listener] = []
        """Told of a trial whenever its record grew, as those of a real study are."""
        self.policy = self._open()

    def clock(self) -> float:
        """Simulated seconds since the study began."""
        return self.now

    def run(self) -> dict[str, Any]:
        """What happened, in numbers; see `raystudy simulate`."""
        began = time.perf_counter()
        for node in range(len(self._nodes)):
            self._later(self._random.exponential(3600 * self._conditions.node_hours), "node taken", node)
        for kill in range(self._conditions.driver_kills):
            self._later((kill + 1) * 5 * self._conditions.epoch_seconds, "driver killed", None)
        self._fill()
        while not self._over:
            at, _, kind, payload = heapq.heappop(self._events)
            if kind == "epoch" and at < self.now and self._runs(payload):
                self._held -= self.now - at  # its GPU stood idle until the driver listened
            self._pass_time(max(at, self.now))
            with self._driver_at_work():
                self._happen(kind, payload)
            self._fill()
        self.policy.close()
        return self._told(time.perf_counter() - began)

    def _happen(self, kind: str, payload: Any) -> None:
        match kind:
            case "epoch":
                self._epoch(payload)
            case "node taken":
                self._take(payload)
            case "node back":
                self._nodes[payload].up = True
                self._later(self._random.exponential(3600 * self._conditions.node_hours), "node taken", payload)
            case "driver killed":
                self._kill_driver()

    @contextmanager
    def _driver_at_work(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        if self._conditions.driver_takes_time:
            self._pass_time(self.now + time.perf_counter() - began)

    def _open(self) -> SearchPolicy:
        return SearchPolicy(self.spec, self.records, math.inf, self.listeners, storage=self._storage, clock=self.clock)

    def _later(self, seconds: float, kind: str, payload: Any) -> None:
        self._num_events += 1  # of events at the same time the first one planned comes first
        heapq.heappush(self._events, (self.now + seconds, self._num_events, kind, payload))

    def _pass_time(self, until: float) -> None:
        passed, self.now = until - self.now, until
        self._held += passed * len(self._running())
        self._offered += passed * sum(node.gpus for node in self._nodes if node.up)

    def _running(self) -> list[_Attempt]:
        return [attempt for node in self._nodes for attempt in node.attempts.values()]

    def _runs(self, attempt: _Attempt) -> bool:
        return self._nodes[attempt.node].attempts.get(attempt.trial.id) is attempt

    def _fill(self) -> None:
        """Start a trial wherever there is room; the study is over when there is none left and none runs."""
        for number, node in enumerate(self._nodes):
            while node.up and len(node.attempts) < node.gpus:
                with self._driver_at_work():
                    trial = self.policy.ask()
                if trial is None:
                    if self._busy is None and self.policy.finished_reason:
                        self._busy = self._held, self._offered  # from here on some GPUs have nothing left to do
                    self._over = not self._running()
                    return
                self._start(trial, number)

    def _start(self, trial: TrialRecord, node: int) -> None:
        conditions = self._conditions
        of_config = np.random.default_rng(derive_seed(conditions.seed, trial.config_hash))
        speed = conditions.epoch_seconds * float(np.clip(of_config.lognormal(sigma=0.3), 0.5, 2.0))
        if self._random.random() < conditions.straggler_share:
            speed *= conditions.straggler_factor
        ends_as = self._fate(trial, float(of_config.random()))
        if any(self.policy.report(trial.id, epoch) for epoch in trial.epochs):  # as a worker replays what it has done
            return
        attempt = _Attempt(trial, node, self.now, speed, len(trial.epochs) + 1, ends_as)
        self._nodes[node].attempts[trial.id] = attempt
        self._later(conditions.start_seconds + speed, "epoch", attempt)

    def _fate(self, trial: TrialRecord, luck: float) -> Reason | None:
        """What this attempt will end as before its time: some by the configuration's nature, some by chance."""
        conditions = self._conditions
        for reason, share in (
            (Reason.CRASH, conditions.crash_share),
            (Reason.NAN, conditions.nan_share),
            (Reason.OUT_OF_MEMORY, conditions.memory_share),
        ):
            if luck < share:
                fits_in_parts = luck < share / 2 and trial.micro_batches > 1
                return None if reason is Reason.OUT_OF_MEMORY and fits_in_parts else reason
            luck -= share
        chance = self._random.random()
        if chance < conditions.hang_share:
            return Reason.TIMEOUT
        return Reason.WORKER_LOST if chance < conditions.hang_share + conditions.worker_lost_share else None

    def _epoch(self, attempt: _Attempt) -> None:
        """The time at which an attempt's next epoch would be done, unless it is gone or goes wrong."""
        trial, node = attempt.trial, self._nodes[attempt.node]
        if not self._runs(attempt):
            return  # its node or its driver died in the meantime
        if attempt.ends_as is Reason.TIMEOUT:
            limit = 60 * (self.spec.budget.trial_minutes or 60)
            if self.now < attempt.started + limit:
                self._later(attempt.started + limit - self.now, "epoch", attempt)
                return
        if attempt.ends_as and (attempt.ends_as is not Reason.NAN or attempt.next_epoch == 2):
            del node.attempts[trial.id]
            self.policy.lost(trial.id, attempt.ends_as, "simulated")
            return
        metrics = {
            "epoch": attempt.next_epoch,
            "valid_r2": self.surface(trial, attempt.next_epoch),
            "epoch_seconds": attempt.epoch_seconds,
            "eval_seconds": 0.0,
        }
        if self.policy.report(trial.id, metrics):
            del node.attempts[trial.id]
        elif attempt.next_epoch == trial.config["epochs"]:
            del node.attempts[trial.id]
            self.policy.end(trial.id, TrialState.COMPLETE)
        else:
            attempt.next_epoch += 1
            self._later(attempt.epoch_seconds, "epoch", attempt)

    def _take(self, number: int) -> None:
        node = self._nodes[number]
        lost, node.attempts, node.up = list(node.attempts), {}, False
        for trial_id in lost:
            self.policy.lost(trial_id, Reason.PREEMPTED, f"node {number}")
        self._later(self._conditions.away_seconds, "node back", number)

    def _kill_driver(self) -> None:
        """The policy is gone, with everything it had in memory; the next one has the storage and the records."""
        for node in self._nodes:
            node.attempts.clear()
        self.policy = self._open()

    def _told(self, seconds: float) -> dict[str, Any]:
        record = self.records.read()
        states = Counter(trial.state.value for trial in record.trials)
        trained = [trial for trial in record.trials if trial.state is not TrialState.INFEASIBLE]
        attempts = [attempt for trial in record.trials for attempt in trial.attempts]
        twice = sum(
            count - 1
            for trial in record.trials
            for count in Counter(epoch["epoch"] for one in trial.attempts for epoch in one.epochs).values()
        )
        useful = sum(epoch["epoch_seconds"] for trial in record.trials for epoch in trial.epochs)
        held, offered = self._busy or (self._held, self._offered)
        best = max((trial for trial in record.trials if trial.best), key=lambda one: one.valid_r2 or 0.0, default=None)
        return {
            "trials": len(trained),
            **{state.value: states[state.value] for state in TrialState if state is not TrialState.INTERRUPTED},
            "failed_for": dict(Counter(trial.reason for trial in trained if trial.state is TrialState.FAILED)),
            "lost_attempts": dict(Counter(one.reason for one in attempts if one.state is TrialState.INTERRUPTED)),
            "attempts": len(attempts),
            "duplicates": len({line["number"] for line in record.every("duplicate")}),
            "unique_configurations": len({canonical_hash(trial.config) for trial in record.trials}),
            "epochs_on_record_twice": twice,
            "finished_reason": self.policy.finished_reason,
            "best_valid_r2": None if best is None else best.valid_r2,
            "best_reachable_r2": None if best is None else self.surface.reachable(best.config),
            "optimum_r2": BEST_R2,
            "gpus": self._conditions.gpus,
            "simulated_hours": self.now / 3600,
            "gpu_hours_held": self._held / 3600,
            "gpu_hours_lost": (self._held - useful) / 3600,
            "utilisation": held / offered if offered else None,
            "utilisation_whole": self._held / self._offered if self._offered else None,
            "seconds": seconds,
            "driver_seconds_per_trial": seconds / max(1, len(trained)),
        }


def simulate(spec: StudySpec, conditions: Conditions, num_trials: int | None = None) -> dict[str, Any]:
    """The study file's search on a simulated cluster, in memory alone; nothing is trained or written.

    ``num_trials`` stands for the study file's own; its limit of minutes does not hold. Raises SpecError for a study
    of arms alone, in which nothing is searched.
    """
    if not spec.search:
        raise SpecError(f"study {spec.name!r} has no `search`, only arms: there is nothing for a search to find")
    changed = {"minutes": 1e9} | ({} if num_trials is None else {"trials": num_trials})
    spec = spec.model_copy(update={"budget": spec.budget.model_copy(update=changed), "arms": ()})
    return Simulation(spec, conditions).run()
