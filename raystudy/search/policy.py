"""The search policy: what to try next, what to stop early, and the one who tells Optuna and the records.

It knows neither Ray nor training; execution/ (or a simulation) asks it for proposals and reports what happened.
Optuna's storage keeps what the sampler and the pruner need, the records keep what a reader needs. Everything that
happens passes through here, so the two always say the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState as OptunaState
from pydantic import ValidationError

from raystudy.models.build import count_parameters
from raystudy.search.sampler import make_pruner, make_sampler, optuna_name, optuna_value, suggest
from raystudy.study.model import configure
from raystudy.study.space import canonical_hash, derive_seed
from raystudy.study.spec import StudySpec, first_rule
from raystudy.tracking.records import Records, TrialRecord, TrialState

_TOLD = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
    TrialState.INFEASIBLE: OptunaState.FAIL,
}

FINALIST_START_SECONDS = 45.0

optuna.logging.set_verbosity(optuna.logging.WARNING)  # its log lines would interrupt our progress display

Listener = Callable[[TrialRecord], None]
"""Told of a trial whenever its record grew."""


@dataclass(frozen=True)
class Origin:
    """Where a proposal comes from, as an enqueued point carries it through Optuna's storage."""

    kind: str
    arm: str | None = None
    provenance: dict[str, Any] | None = None


class SearchPolicy:
    """One study's search. Every method is called from one thread, the driver's."""

    def __init__(self, spec: StudySpec, records: Records, ends: float, listeners: Sequence[Listener] = ()) -> None:
        """``ends`` is the time (seconds since the epoch) at which the whole study is to have ended."""
        self.spec = spec
        self.records = records
        self._ends = ends
        self._listeners = listeners
        known = records.read().trials
        self._trials = {trial.id: trial for trial in known}
        self._storage = RDBStorage(f"sqlite:///{records.folder / 'optuna.db'}")
        self._pruner = make_pruner(spec.pruner)
        self._study = optuna.create_study(
            study_name=spec.name,
            storage=self._storage,
            sampler=make_sampler(spec.sampler, derive_seed(spec.hash, "sampler", len(known))),
            pruner=self._pruner,
            direction="maximize",
            load_if_exists=True,
        )
        self._unfinished = self._reconcile()

    def note(self, name: str, content: dict[str, Any]) -> None:
        """Keep something about the whole search in Optuna's storage, for who reads only that."""
        self._study.set_user_attr(name, content)

    def enqueue(self, overrides: dict[str, Any], origin: Origin) -> None:
        """Put a point first, once: the same point is not queued again when a study is taken up again."""
        mark = canonical_hash([overrides, origin.kind, origin.arm])
        for queued in self._study.get_trials(deepcopy=False):
            lost = queued.state is OptunaState.FAIL and trial_id_of(queued.number) not in self._trials
            if queued.user_attrs.get("point") == mark and not lost:
                return
        params = {
            optuna_name(name, self.spec.search[name]): optuna_value(value, self.spec.search[name])
            for name, value in overrides.items()
            if origin.kind != "arm"
        }
        attributes = {"point": mark, "origin": origin.kind, "arm": origin.arm, "provenance": origin.provenance}
        self._study.enqueue_trial(params, user_attrs=attributes)

    def ask(self) -> TrialRecord | None:
        """The next trial to run, its new attempt already on record; None when the search is to end."""
        while not self.out_of_time:
            refusal = None
            if self._unfinished:
                trial = self._trials[self._unfinished.pop(0)]
                _, _, refusal = self._configure(trial.config)
            elif len(self._trials) < self.num_trials:
                trial, refusal = self._propose()
            else:
                break
            self.records.trial_started(trial)
            self._changed(trial.id)
            if refusal is None:
                return trial
            self.end(trial.id, TrialState.INFEASIBLE, refusal)
        return None

    def report(self, trial_id: str, metrics: dict[str, Any]) -> bool:
        """Take in one epoch; True when the trial should stop here. An epoch already on record is not recorded again."""
        known = self._trials[trial_id]
        if metrics["epoch"] not in {epoch["epoch"] for epoch in known.epochs}:
            self.records.trial_epoch(trial_id, metrics)
            self._changed(trial_id)
        if known.arm is None:  # a replayed epoch too: the driver may have died between the record and this line
            self._storage.set_trial_intermediate_value(
                self._storage_id(trial_id), metrics["epoch"], metrics["valid_r2"]
            )
        if metrics["epoch"] >= known.config["epochs"]:
            return False  # it ends by itself
        if self.out_of_time:
            self.end(trial_id, TrialState.PRUNED, "budget")
            return True
        if known.arm is None and self._pruner.prune(self._study, self._storage.get_trial(self._storage_id(trial_id))):
            self.end(trial_id, TrialState.PRUNED, self.spec.pruner)
            return True
        return False

    def end(self, trial_id: str, state: TrialState, reason: str | None = None) -> None:
        """Close a trial everywhere, with its best validation value; a trial closed already stays as it is."""
        if self._trials[trial_id].state is not TrialState.RUNNING:
            return
        self.records.trial_ended(trial_id, state, reason)
        self._changed(trial_id)
        self._tell(self._trials[trial_id])

    def interrupted(self, trial_id: str, reason: str) -> None:
        """An attempt was lost (a worker died) and the same trial starts another one."""
        self.records.trial_ended(trial_id, TrialState.FAILED, reason)
        self.records.trial_started(self._trials[trial_id])
        self._changed(trial_id)

    def close(self) -> None:
        """End the search: what an earlier session left running and no time was left for is pruned by the budget."""
        for trial_id in self._unfinished:
            self.end(trial_id, TrialState.PRUNED, "budget")

    @property
    def num_trials(self) -> int:
        """Trials to run in all; a study of arms alone ends with them."""
        return self.spec.budget.trials if self.spec.search else min(self.spec.budget.trials, len(self.spec.arms))

    @property
    def num_running(self) -> int:
        return sum(trial.state is TrialState.RUNNING for trial in self._trials.values()) - len(self._unfinished)

    @property
    def out_of_time(self) -> bool:
        """Is what is left of the study needed for retraining the finalists? Then no trial starts or goes on."""
        trained = [trial for trial in self._trials.values() if trial.epochs]
        if not trained:
            return False  # a study without one trained epoch has nothing to say
        slowest = max(
            trial.config["epochs"] * max(epoch["epoch_seconds"] + epoch["eval_seconds"] for epoch in trial.epochs)
            for trial in trained
        )
        return time.time() >= self._ends - self.spec.finalists * (FINALIST_START_SECONDS + slowest)

    def _propose(self) -> tuple[TrialRecord, str | None]:
        """A new trial, and why it cannot be trained: values that break a rule together, or too many parameters."""
        asked = self._study.ask()
        arm = asked.user_attrs.get("arm")
        if arm is None:
            overrides: dict[str, Any] = {
                name: suggest(asked, name, parameter) for name, parameter in self.spec.search.items()
            }
        else:
            overrides = next(given.overrides for given in self.spec.arms if given.name == arm)
        config, parameters, refusal = self._configure(self.spec.merge(overrides))
        config_hash = canonical_hash(config)
        repeats = sum(trial.config_hash == config_hash for trial in self._trials.values())
        trial = TrialRecord(
            id=trial_id_of(asked.number),
            config=config,
            config_hash=config_hash,
            parameters=parameters,
            seed=derive_seed(self.spec.hash, config_hash, repeats),
            origin=asked.user_attrs.get("origin", "sampled"),
            arm=arm,
            global_batch=config["batch_size"] * self.spec.resources.workers,
        )
        self._trials[trial.id] = trial
        return trial, refusal

    def _configure(self, flat: dict[str, Any]) -> tuple[dict[str, Any], int, str | None]:
        """All keys that this network reads, and its parameter count; or what was given, and the rule that it breaks."""
        try:
            model, training = configure(flat)
        except ValidationError as error:
            return flat, 0, first_rule(error)
        meaningless = model.unread - {"window_bp", "max_protein"}  # these also say what was offered
        config = {**model.model_dump(mode="json", exclude=meaningless), **training.model_dump()}
        parameters, most = count_parameters(model, len(self.spec.targets)), self.spec.budget.parameters
        refusal = None
        if most is not None and parameters > most:
            refusal = f"{parameters:,} parameters, and `budget.parameters` allows {most:,}"
        return config, parameters, refusal

    def _reconcile(self) -> list[str]:
        """Make Optuna agree with the records; trials that a killed driver left running, to be gone on with.

        The records are written first, so Optuna can only lag behind: it has not been told an ending, or it knows a
        trial that never started (killed between asking and recording), which is told as failed.
        """
        for stale in self._study.get_trials(deepcopy=False, states=(OptunaState.RUNNING,)):
            trial = self._trials.get(trial_id_of(stale.number))
            if trial is None:
                self._study.tell(stale.number, state=OptunaState.FAIL)
            elif trial.state is not TrialState.RUNNING:
                self._tell(trial)
        return [trial.id for trial in self._trials.values() if trial.state is TrialState.RUNNING]

    def _tell(self, trial: TrialRecord) -> None:
        value = trial.valid_r2 if trial.state is TrialState.COMPLETE else None
        self._study.tell(_number(trial.id), value, state=_TOLD[trial.state], skip_if_finished=True)

    def _storage_id(self, trial_id: str) -> int:
        study_id = self._storage.get_study_id_from_name(self.spec.name)
        return self._storage.get_trial_id_from_study_id_trial_number(study_id, _number(trial_id))

    def _changed(self, trial_id: str) -> None:
        """Read the trial's record again, so that memory and disk cannot differ, and pass it on."""
        self._trials[trial_id] = self.records.read_trial(trial_id)
        for listener in self._listeners:
            listener(self._trials[trial_id])


def trial_id_of(number: int) -> str:
    """The name of a trial everywhere outside Optuna."""
    return f"t{number:04d}"


def _number(trial_id: str) -> int:
    return int(trial_id.removeprefix("t"))
