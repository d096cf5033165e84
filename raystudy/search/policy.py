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
from uuid import uuid4

import optuna
from optuna.samplers import GridSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from raystudy.errors import DataError, Reason
from raystudy.search.proposals import Refusal, check
from raystudy.search.retries import may_go_on, parts_of_batch
from raystudy.search.sampler import optuna_name, optuna_value, suggest
from raystudy.search.stopping import Budget
from raystudy.search.storage import DurableStudy, open_storage
from raystudy.study.patience import is_over
from raystudy.study.space import canonical_hash, conditions_first, derive_seed
from raystudy.study.spec import StudySpec
from raystudy.tracking.records import Records, TrialRecord, TrialState

MOST_FRUITLESS = 200
"""Proposals in a row that are known or refused, after which the space counts as exhausted."""
STUBBORN = 3
"""As many, after which the next is drawn at random: some samplers know no failures and insist on them."""
_TOLD = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
    TrialState.INFEASIBLE: OptunaState.PRUNED,  # with a broken constraint: of failed ones a sampler learns nothing
}
DUPLICATE_OF = "duplicate_of"
STATE, NEVER_STARTED = "raystudy.state", "never started"
EXHAUSTED = "exhausted"

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

    def __init__(
        self,
        spec: StudySpec,
        records: Records,
        ends: float,
        listeners: Sequence[Listener] = (),
        storage: BaseStorage | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``ends`` is the time (of ``clock``, in seconds) at which the whole study is to have ended.

        ``storage`` is Optuna's, where it is not to be the study file's. Raises SpecError where that holds another
        study of this name, DataError where it and the records tell of different trials.
        """
        self.spec = spec
        self.records = records
        self._listeners = listeners
        known = records.read()
        self._trials = {trial.id: trial for trial in known.trials}
        self._id_of_config = {trial.config_hash: trial.id for trial in reversed(known.trials)}
        self._budget = Budget(spec, ends, clock)
        for trial in sorted(known.trials, key=lambda one: one.attempts[-1].ended or 0.0):
            self._budget.count(trial)
        owner = known.last("storage") or records.append("storage", owner=uuid4().hex)
        storage = storage or open_storage(spec, records.folder)
        self._optuna = DurableStudy(spec, storage, owner["owner"], len(known.trials))
        self._study = self._optuna.study
        self._random = RandomSampler(seed=derive_seed(spec.hash, "by chance", len(known.trials)))
        self._exhausted = False
        self._unrecorded: list[FrozenTrial] = []
        self._unfinished: list[str] = []
        self._reconcile({line["number"] for line in known.every("duplicate")})

    def note(self, name: str, content: dict[str, Any]) -> None:
        """Keep something about the whole search in Optuna's storage, for who reads only that."""
        self._optuna.note(name, content)

    def enqueue(self, overrides: dict[str, Any], origin: Origin) -> None:
        """Put a point first, once: the same point is not queued again when a study is taken up again."""
        mark = canonical_hash([overrides, origin.kind, origin.arm])
        if any(queued.user_attrs.get("point") == mark for queued in self._study.get_trials(deepcopy=False)):
            return
        params = {
            optuna_name(name, self.spec.search[name]): optuna_value(value, self.spec.search[name])
            for name, value in overrides.items()
            if origin.kind != "arm"
        }
        attributes = {"point": mark, "origin": origin.kind, "arm": origin.arm, "provenance": origin.provenance}
        self._study.enqueue_trial(params, user_attrs=attributes)
        self._optuna.write(len(self._study.get_trials(deepcopy=False)) - 1)

    def ask(self) -> TrialRecord | None:
        """The next trial to run, its new attempt already on record; None when there is none to start now.

        The search is over when nothing runs either: what runs may be lost, and is then handed out again.
        """
        fruitless = 0
        while True:
            refusal = None
            if self._unfinished and not self._budget.exceeded:
                trial: TrialRecord | None = self._trials[self._unfinished.pop(0)]
                refusal = None if trial is None else check(self.spec, trial.config)[2]  # a limit may have changed
            elif self.finished_reason is None:
                trial, refusal = self._propose(by_chance=fruitless >= STUBBORN)
                fruitless += 1
                self._exhausted = self._is_exhausted(fruitless)
            else:
                return None
            if trial is None:
                continue
            started = self._start(trial)
            if refusal is None:
                return started
            self.end(trial.id, TrialState.INFEASIBLE, refusal.reason, refusal.detail)

    def report(self, trial_id: str, metrics: dict[str, Any]) -> bool:
        """Take in one epoch; True when the trial should stop here. An epoch already on record is not recorded again."""
        trial = self._trials[trial_id]
        if trial.state is not TrialState.RUNNING:
            return True
        epoch, last = metrics["epoch"], trial.epochs[-1]["epoch"] if trial.epochs else 0
        if epoch > last:
            self.records.trial_epoch(trial_id, metrics)
            self._changed(trial_id)
        elif epoch < last:
            return False  # replayed by a resumed attempt, and decided on long ago
        if trial.arm is None:  # the last epoch again too: the driver may have died between the record and this line
            self._optuna.set_epoch(_number(trial_id), epoch, metrics[self.spec.prune_on])
            self._optuna.write(_number(trial_id))
        values = [line["valid_r2"] for line in self._trials[trial_id].epochs]
        if is_over(values, trial.config["epochs"], trial.config.get("patience")):
            return False  # it ends by itself
        if exceeded := self._budget.exceeded:
            self.end(trial_id, TrialState.PRUNED, exceeded[1])
            return True
        if trial.arm is None and self._prunes(trial_id):
            self.end(trial_id, TrialState.PRUNED, self.spec.pruner)
            return True
        return False

    def end(self, trial_id: str, state: TrialState, reason: str | None = None, detail: str | None = None) -> None:
        """Close a trial everywhere, with its best validation value; a trial closed already stays as it is."""
        trial = self._trials[trial_id]
        if trial.state is not TrialState.RUNNING:
            return
        if state is TrialState.COMPLETE and trial.valid_r2 is None:
            state, reason, detail = TrialState.FAILED, Reason.CRASH, "it ended without a validation R2"
        self.records.trial_ended(trial_id, state, reason, detail)
        self._changed(trial_id)
        self._tell(self._trials[trial_id])

    def lost(self, trial_id: str, reason: Reason, detail: str | None = None) -> bool:
        """An attempt is gone for a reason that says little about the configuration.

        True where the trial is handed out again, to go on from its last checkpoint; after an out-of-memory with its
        batches in parts. False where that was tried often enough, and it has failed.
        """
        trial = self._trials[trial_id]
        if trial.state is not TrialState.RUNNING:
            return False
        if not may_go_on(trial, reason):
            self.end(trial_id, TrialState.FAILED, reason, detail)
            return False
        self.records.trial_ended(trial_id, TrialState.INTERRUPTED, reason, detail)
        self._unfinished.append(trial_id)
        self._changed(trial_id)
        return True

    def interrupt(self) -> None:
        """The session is being ended from outside, perhaps amid another method: whatever runs goes on in the next."""
        for trial in self.records.read().trials:  # what is in memory may lag behind
            if trial.attempts[-1].state is TrialState.RUNNING:
                self.records.trial_ended(trial.id, TrialState.INTERRUPTED, Reason.INTERRUPTED)
                self._changed(trial.id)

    def close(self) -> None:
        """End the search: what an earlier session left running and nothing is left for is pruned by the budget."""
        for never_started in self._unrecorded:
            self._optuna.set_attributes(never_started.number, **{STATE: NEVER_STARTED})
            self._study.tell(never_started.number, state=OptunaState.FAIL)
            self._optuna.write(never_started.number)
        self._unrecorded.clear()
        reason = self._budget.exceeded[1] if self._budget.exceeded else Reason.BUDGET
        while self._unfinished:
            trial = self._start(self._trials[self._unfinished.pop(0)])
            self.end(trial.id, TrialState.PRUNED, reason)

    @property
    def num_running(self) -> int:
        return len(self._running())

    @property
    def finished_reason(self) -> str | None:
        """Why no new configuration is tried any more: minutes, cost, target, trials, no improvement or exhausted."""
        return self._budget.enough or (EXHAUSTED if self._exhausted else None)

    @property
    def cost(self) -> float:
        """What the trials have cost, in the currency of the study's prices."""
        return self._budget.cost

    def _running(self) -> list[TrialRecord]:
        return [
            trial
            for trial in self._trials.values()
            if trial.attempts and trial.attempts[-1].state is TrialState.RUNNING
        ]

    def _start(self, trial: TrialRecord) -> TrialRecord:
        """Open an attempt; after an out-of-memory, with half of each batch at a time."""
        self._trials[trial.id] = trial
        self._id_of_config.setdefault(trial.config_hash, trial.id)
        self.records.trial_started(trial, micro_batches=parts_of_batch(trial))
        self._changed(trial.id)
        return self._trials[trial.id]

    def _propose(self, by_chance: bool) -> tuple[TrialRecord | None, Refusal | None]:
        """A new trial, and why it cannot be trained; no trial where the configuration is known."""
        sampler = self._study.sampler
        if by_chance and not isinstance(sampler, GridSampler):
            self._study.sampler = self._random
        if self._unrecorded:  # asked for by a driver that was killed before it could record it
            waiting = self._unrecorded.pop(0)
            asked = optuna.trial.Trial(self._study, waiting.number)
        else:
            asked = self._study.ask()
        arm = asked.user_attrs.get("arm")
        if arm is None:
            overrides: dict[str, Any] = {}
            for name in conditions_first(self.spec.search):
                if self.spec.search[name].applies(overrides):
                    overrides[name] = suggest(asked, name, self.spec.search[name])
        else:
            overrides = next(given.overrides for given in self.spec.arms if given.name == arm)
        self._study.sampler = sampler
        config, parameters, refusal = check(self.spec, self.spec.merge(overrides))
        config_hash = canonical_hash(config)
        known = self._id_of_config.get(config_hash)
        if known is not None and arm is None:
            self._repeat(asked, known)
            return None, None
        repeats = sum(trial.config_hash == config_hash for trial in self._trials.values()) if known else 0
        trial = TrialRecord(
            id=trial_id_of(asked.number),
            config=config,
            config_hash=config_hash,
            parameters=parameters,
            seed=derive_seed(self.spec.hash, config_hash, repeats),
            origin=asked.user_attrs.get("origin", "sampled"),
            arm=arm,
            global_batch=config["batch_size"] * self.spec.resources_of(arm).most_workers,
        )
        self._optuna.write(asked.number)
        return trial, refusal

    def _repeat(self, asked: optuna.Trial, known: str) -> None:
        """Answer a proposal that was made before with what is known of it, without training it again."""
        self._optuna.set_attributes(asked.number, **{DUPLICATE_OF: known})
        if self._trials[known].state is TrialState.PRUNED:  # how far it got is all that there is to know
            for epoch in self._trials[known].epochs:
                self._optuna.set_epoch(asked.number, epoch["epoch"], epoch[self.spec.prune_on])
        self._tell_as(asked.number, self._trials[known])
        self.records.append("duplicate", number=asked.number, of=known)

    def _prunes(self, trial_id: str) -> bool:
        pruned = self._study.pruner.prune(self._study, self._optuna.trial(_number(trial_id)))
        if not pruned:  # else its end is recorded first: to a driver killed in between, the rung would be passed
            self._optuna.write(_number(trial_id))
        return pruned

    def _is_exhausted(self, fruitless: int) -> bool:
        """A grid knows when each of its points was proposed; of any other space a long run of repetitions tells."""
        sampler = self._study.sampler
        if not isinstance(sampler, GridSampler):
            return fruitless > MOST_FRUITLESS
        trials = self._study.get_trials(deepcopy=False)
        proposed = {trial.system_attrs["grid_id"] for trial in trials if "grid_id" in trial.system_attrs}
        waiting = any(trial.state is OptunaState.WAITING for trial in trials)
        return not waiting and len(proposed) == len(sampler._all_grids)

    def _reconcile(self, repeated: set[int]) -> None:
        """Make Optuna agree with the records, and find what a killed driver left behind.

        The records are written first, so Optuna can only lag behind: it has not been told an ending, or it knows a
        trial that was asked for and never recorded. ``repeated`` are the duplicates on record.
        """
        for trial in self._running():
            self.records.trial_lost_with_driver(trial)
            self._changed(trial.id)
        told = self._study.get_trials(deepcopy=False)
        if missing := self._trials.keys() - {trial_id_of(trial.number) for trial in told}:
            raise DataError(_disagree(self.records, f"{len(missing)} trials of the records, {min(missing)} first"))
        for frozen in told:
            trial_id = trial_id_of(frozen.number)
            known = self._trials.get(trial_id)
            if known is not None and not frozen.state.is_finished():
                self._complete(frozen, known)
            elif known is None and DUPLICATE_OF in frozen.user_attrs:
                if not frozen.state.is_finished():
                    self._tell_as(frozen.number, self._trials[frozen.user_attrs[DUPLICATE_OF]])
                if frozen.number not in repeated:
                    self.records.append("duplicate", number=frozen.number, of=frozen.user_attrs[DUPLICATE_OF])
            elif known is None and frozen.state is OptunaState.RUNNING:
                self._unrecorded.append(frozen)
            elif known is None and frozen.state.is_finished() and frozen.user_attrs.get(STATE) != NEVER_STARTED:
                raise DataError(_disagree(self.records, f"trial {frozen.number}, which the records do not know"))
        self._unfinished = [trial.id for trial in self._trials.values() if trial.state is TrialState.RUNNING]

    def _complete(self, frozen: FrozenTrial, trial: TrialRecord) -> None:
        """Tell Optuna the epochs, and the ending, that it has not heard of."""
        for line in trial.epochs if trial.arm is None else []:
            if line["epoch"] not in frozen.intermediate_values:
                value = line[self.spec.prune_on]
                self._optuna.set_epoch(frozen.number, line["epoch"], float("nan") if value is None else value)
        if trial.state is TrialState.RUNNING:
            self._optuna.write(frozen.number)
        else:
            self._tell(trial)

    def _tell(self, trial: TrialRecord) -> None:
        """Tell Optuna how a trial ended."""
        told = {STATE: trial.state.value, "raystudy.reason": trial.explanation}
        self._optuna.set_attributes(_number(trial.id), **told)
        self._tell_as(_number(trial.id), trial)

    def _tell_as(self, number: int, trial: TrialRecord) -> None:
        """Tell Optuna that its trial ``number`` came out as ``trial`` did; of one that still runs nothing is known."""
        if trial.state is TrialState.INFEASIBLE:
            _, _, refusal = check(self.spec, trial.config)
            excess = 1.0 if refusal is None else refusal.violation
            self._optuna.set_violation(number, str(trial.reason), excess)
        values = None
        if trial.state is TrialState.COMPLETE:
            values = [getattr(trial, objective.metric) for objective in self.spec.objectives]
        self._study.tell(number, values, state=_TOLD.get(trial.state, OptunaState.FAIL), skip_if_finished=True)
        self._optuna.write(number)

    def _changed(self, trial_id: str) -> None:
        """Read the trial's record again, so that memory and disk cannot differ, and pass it on."""
        self._trials[trial_id] = self.records.read_trial(trial_id)
        self._budget.count(self._trials[trial_id])
        for listener in self._listeners:
            listener(self._trials[trial_id])


def trial_id_of(number: int) -> str:
    """The name of a trial everywhere outside Optuna."""
    return f"t{number:04d}"


def _number(trial_id: str) -> int:
    return int(trial_id.removeprefix("t"))


def _disagree(records: Records, what: str) -> str:
    return (
        f"Optuna's storage and the records in {records.folder} do not belong together: one of them lacks {what}. "
        "A folder or a database was removed or replaced; put it back, or give the study another `name`"
    )
