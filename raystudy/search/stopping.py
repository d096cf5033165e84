"""When a search is over: out of trials, time or money, good enough, or not getting better."""

from __future__ import annotations

from collections.abc import Callable

from raystudy.errors import Reason
from raystudy.study.spec import StudySpec
from raystudy.tracking.records import TrialRecord, TrialState

FINALIST_START_SECONDS = 45.0
TRAINED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)


class Budget:
    """What a search has used up, kept up to date trial by trial; `enough` says why no further trial should start."""

    def __init__(self, spec: StudySpec, ends: float, clock: Callable[[], float]) -> None:
        """``ends`` is the time (of ``clock``, in seconds) at which the whole study is to have ended."""
        self._spec = spec
        self._ends = ends
        self._clock = clock
        self._slowest_seconds = 0.0
        self._trained: set[str] = set()
        self._arms: set[str] = set()
        self._seconds: dict[str, float] = {}
        self._cost = 0.0
        self._ended: dict[str, float | None] = {}

    def count(self, trial: TrialRecord) -> None:
        """Take in how a trial stands now."""
        if trial.state is not TrialState.INFEASIBLE:
            self._trained.add(trial.id)
            hourly = self._spec.prices.hourly(self._spec.resources_of(trial.arm))
            self._cost += (trial.seconds - self._seconds.get(trial.id, 0.0)) / 3600 * hourly
            self._seconds[trial.id] = trial.seconds
        else:
            self._trained.discard(trial.id)
        if trial.arm is not None:
            self._arms.add(trial.id)
        if trial.epochs:
            newest = trial.epochs[-1]
            epoch_seconds = newest["epoch_seconds"] + newest["eval_seconds"]
            self._slowest_seconds = max(self._slowest_seconds, trial.config["epochs"] * epoch_seconds)
        if trial.state in TRAINED and trial.id not in self._ended:
            self._ended[trial.id] = trial.valid_r2

    @property
    def cost(self) -> float:
        """What the trials so far have cost, in the currency of the study's prices."""
        return self._cost

    @property
    def exceeded(self) -> tuple[str, Reason] | None:
        """Why trials under way should end too, as a word and as their reason."""
        limits = self._spec.budget
        if self._out_of_time:
            return "minutes", Reason.BUDGET
        if limits.cost is not None and self.cost >= limits.cost:
            return "cost", Reason.BUDGET
        reached = [value for value in self._ended.values() if value is not None]
        if limits.valid_r2 is not None and max(reached, default=-1.0) >= limits.valid_r2:
            return "target", Reason.TARGET
        return None

    @property
    def enough(self) -> str | None:
        """Why no new configuration should be tried."""
        limits = self._spec.budget
        if len(self._trained) >= limits.trials or (not self._spec.search and len(self._arms) >= len(self._spec.arms)):
            return "trials"
        if self.exceeded:
            return self.exceeded[0]
        if limits.no_improvement is not None and self._fruitless() >= limits.no_improvement:
            return "no improvement"
        return None

    @property
    def _out_of_time(self) -> bool:
        """Is what is left of the study needed for training finalists again, and the best one on fewer genes?"""
        if not self._slowest_seconds:
            return False  # a study without one trained epoch has nothing to say
        replicates = self._spec.replicates.folds * self._spec.replicates.seeds
        retraining = self._spec.finalists * replicates * (FINALIST_START_SECONDS + self._slowest_seconds)
        for share in self._spec.training_sizes:
            retraining += FINALIST_START_SECONDS + share * self._slowest_seconds
        return self._clock() >= self._ends - retraining

    def _fruitless(self) -> int:
        """Trials that ended after the best one, in the order of their endings."""
        values = [float("-inf") if value is None else value for value in self._ended.values()]
        return len(values) - 1 - values.index(max(values)) if values else 0
