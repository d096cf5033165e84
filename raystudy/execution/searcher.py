"""Ray Tune's two ears, searcher and scheduler, as thin adapters of one `SearchPolicy`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ray.tune import Callback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from raystudy.execution.task import Task
from raystudy.execution.trial import EPOCH, FAILURE, REFUSAL
from raystudy.search.policy import SearchPolicy
from raystudy.tracking.records import TrialRecord, TrialState

WORKER_LOST = "worker lost"
Config = dict[str, Any]


class _NotPickled:
    """Tune pickles these for a restore that raystudy does not use: Optuna's storage is the truth."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class PolicySearcher(_NotPickled, Searcher):
    """Hands the policy's proposals to Tune, and Tune's endings to the policy."""

    def __init__(self, policy: SearchPolicy, make_task: Callable[[TrialRecord], Task], max_concurrent: int) -> None:
        super().__init__()
        self._policy = policy
        self._make_task = make_task
        self._max_concurrent = max_concurrent
        self._trial_ids: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Config | str | None:
        if self._policy.num_running >= self._max_concurrent:
            return None
        proposal = self._policy.ask()
        if proposal is None:
            return Searcher.FINISHED
        self._trial_ids[trial_id] = proposal.id
        return self._make_task(proposal).as_json()

    def on_trial_complete(self, trial_id: str, result: Config | None = None, error: bool = False) -> None:
        ours = self._trial_ids[trial_id]
        if error:
            self._policy.end(ours, TrialState.FAILED, WORKER_LOST)
        elif result and REFUSAL in result:
            self._policy.end(ours, TrialState.INFEASIBLE, result[REFUSAL])
        elif result and FAILURE in result:
            self._policy.end(ours, TrialState.FAILED, result[FAILURE])
        else:
            self._policy.end(ours, TrialState.COMPLETE)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the policy's state is in Optuna's storage and the records."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore, see `save`."""


class PolicyScheduler(_NotPickled, FIFOScheduler):
    """Passes each epoch to the policy and stops the trials that it prunes."""

    def __init__(self, policy: SearchPolicy) -> None:
        super().__init__()
        self._policy = policy

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Config) -> str:
        if EPOCH not in result:
            return TrialScheduler.CONTINUE
        stop = self._policy.report(trial.config["trial_id"], json.loads(result[EPOCH]))
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE


class LostAttempts(_NotPickled, Callback):
    """Tells the policy when Tune starts a trial again after losing its worker."""

    def __init__(self, policy: SearchPolicy) -> None:
        self._policy = policy

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._policy.interrupted(trial.config["trial_id"], WORKER_LOST)
