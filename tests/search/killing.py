"""A study in memory whose driver can be killed before anything it writes, and what must hold of it whatever happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from raystudy.search.policy import Origin, SearchPolicy
from raystudy.search.retries import RETRIES
from raystudy.tracking.records import MemoryRecords, TrialRecord, TrialState
from tests.search.cases import ARMS, enqueue_arms, make_spec, metrics

EPOCHS, TRIALS = 3, 7
STUDY: dict[str, Any] = {
    "search": {
        "batch_size": {"kind": "pow2", "low": 16, "high": 128},
        "dropout": {"kind": "categorical", "choices": [0.0, 0.1, 0.2, 0.3]},
    },
    "constraints": ["batch_size * dropout <= 30"],  # refuses 128 with 0.3
    "arms": ARMS,
    "sampler": "random",
    "pruner": "successive_halving",
    "training": {"epochs": EPOCHS},
    "budget": {"trials": TRIALS, "minutes": 10},
}
POINTS: list[dict[str, Any]] = [
    {"batch_size": 16, "dropout": 0.0},
    {"batch_size": 128, "dropout": 0.3},
    {"batch_size": 64, "dropout": 0.1},
]
TOLD = {
    TrialState.RUNNING: OptunaState.RUNNING,
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
    TrialState.INFEASIBLE: OptunaState.PRUNED,
}


class Killed(Exception):
    """Stands for the end of the driver."""


class Killer:
    """Counts writes; kills before the one whose turn it is."""

    def __init__(self) -> None:
        self.num_writes = 0
        self.left: int | None = None

    def __call__(self) -> None:
        self.num_writes += 1
        if self.left == 0:
            self.left = None
            raise Killed
        if self.left is not None:
            self.left -= 1


class KillableRecords(MemoryRecords):
    def __init__(self, folder: Path, killer: Killer) -> None:
        super().__init__(folder)
        self._killer = killer

    def _write(self, log: str, line: dict[str, Any]) -> None:
        self._killer()
        super()._write(log, line)


WRITES = (
    "create_new_trial",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "set_study_user_attr",
)
"""What Optuna's storage is told by a study."""


class KillableStorage(InMemoryStorage):
    """Optuna's storage; it outlives the driver."""

    def __init__(self, killer: Killer) -> None:
        super().__init__()
        self._killer = killer


def _killable(name: str) -> Any:
    def write(self: KillableStorage, *arguments: Any, **named: Any) -> Any:
        self._killer()
        return getattr(InMemoryStorage, name)(self, *arguments, **named)

    return write


for _name in WRITES:
    setattr(KillableStorage, _name, _killable(_name))


class Study:
    """The study and whoever trains its trials: each attempt reports again what its checkpoint remembers."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.killer = Killer()
        self.records = KillableRecords(folder, self.killer)
        self.storage = KillableStorage(self.killer)
        self.spec = make_spec(**(STUDY | changes))
        self.running: dict[str, TrialRecord] = {}
        self.reported: dict[str, int] = {}

    def open(self) -> None:
        """Start a driver, which knows of nothing but what is written."""
        self.running.clear()
        self.policy = SearchPolicy(self.spec, self.records, 1e12, storage=self.storage)
        enqueue_arms(self.policy)
        for point in POINTS:
            for origin in ("seeded", "warm"):
                self.policy.enqueue(point, Origin(origin))

    def ask(self) -> bool:
        trial = self.policy.ask()
        if trial is not None:
            assert trial.id not in self.running, "handed out twice at a time"
            self.running[trial.id], self.reported[trial.id] = trial, 0
        return trial is not None

    def epoch(self, trial_id: str) -> None:
        """Report one more epoch; after the last the trial ends."""
        number = self.reported[trial_id] = self.reported[trial_id] + 1
        if self.policy.report(trial_id, metrics(number, value_of(self.running[trial_id], number))):
            del self.running[trial_id]
        elif number == EPOCHS:
            self.policy.end(trial_id, TrialState.COMPLETE)
            del self.running[trial_id]

    def run_to_the_end(self) -> None:
        while self.ask() or self.running:
            for trial_id in list(self.running):
                while trial_id in self.running:
                    self.epoch(trial_id)

    def check(self) -> None:
        """What must hold whenever no method is under way."""
        record = self.records.read()
        told = {f"t{trial.number:04d}": trial for trial in self.storage.get_all_trials(0)}
        sampled = [trial.config_hash for trial in record.trials if trial.arm is None]
        assert len(sampled) == len({*sampled}), "each configuration has one record"
        arms = [trial.arm for trial in record.trials if trial.arm]
        assert len(arms) == len({*arms})
        assert sum(trial.state is not TrialState.INFEASIBLE for trial in record.trials) <= TRIALS
        for trial in record.trials:
            self._check_trial(trial, told[trial.id])
        duplicates = {f"t{line['number']:04d}": line["of"] for line in record.every("duplicate")}
        assert len(duplicates) == len(record.every("duplicate"))
        known = {trial.id for trial in record.trials}
        waiting = {name for name, trial in told.items() if trial.state is OptunaState.WAITING}
        asked = {name for name, trial in told.items() if trial.state is OptunaState.RUNNING} - known
        assert asked <= {f"t{trial.number:04d}" for trial in self.policy._unrecorded}, "to be adopted"
        assert told.keys() - known - waiting - asked == duplicates.keys()
        assert {name: told[name].user_attrs["duplicate_of"] for name in duplicates} == duplicates
        assert self.running.keys() == {trial.id for trial in self.policy._running()}

    def _check_trial(self, trial: TrialRecord, theirs: FrozenTrial) -> None:
        assert theirs.state is TOLD[trial.state], trial
        seen = [epoch["epoch"] for attempt in trial.attempts for epoch in attempt.epochs]
        assert seen == list(range(1, len(seen) + 1)), "no epoch twice, and none left out"
        if trial.state is TrialState.COMPLETE:
            assert len(seen) == EPOCHS
            assert theirs.value == trial.valid_r2
        if trial.state is not TrialState.RUNNING:
            assert theirs.user_attrs["raystudy.state"] == trial.state.value
            assert theirs.user_attrs["raystudy.reason"] == trial.explanation
        if trial.arm is None and trial.state is not TrialState.RUNNING:
            assert theirs.intermediate_values == {epoch["epoch"]: epoch["valid_r2"] for epoch in trial.epochs}
        assert bool(theirs.constraints) == (trial.state is TrialState.INFEASIBLE)
        for reason, most in RETRIES.items():
            assert sum(attempt.reason == reason for attempt in trial.attempts) <= most + 1
        assert {attempt.state for attempt in trial.attempts[:-1]} <= {TrialState.INTERRUPTED}


def value_of(trial: TrialRecord, epoch: int) -> float:
    """Without ties between configurations."""
    return trial.config["batch_size"] / 1000 - trial.config["dropout"] + 0.01 * epoch
