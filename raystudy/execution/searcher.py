"""Ray Tune's two ears, searcher and scheduler, as thin adapters of one `SearchPolicy`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from raystudy.errors import Reason
from raystudy.execution.failures import classify_loss, timed_out
from raystudy.execution.task import Task
from raystudy.execution.trial import FAILURE, REFUSAL
from raystudy.execution.worker import EPOCH
from raystudy.search.policy import SearchPolicy
from raystudy.tracking.records import TrialRecord, TrialState

Config = dict[str, Any]


class _NotPickled:
    """Tune pickles these for a restore that raystudy does not use: Optuna's storage is the truth."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class PolicySearcher(_NotPickled, Searcher):
    """Hands the policy's proposals to Tune, and what became of them to the policy.

    To Tune each attempt is a trial of its own: a lost one goes back to the policy, which hands it out again.
    """

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
            return None if self._policy.num_running else Searcher.FINISHED
        self._trial_ids[trial_id] = proposal.id
        return self._make_task(proposal).as_json()

    def on_trial_complete(self, trial_id: str, result: Config | None = None, error: bool = False) -> None:
        """Close a trial that ended by itself; of a process that died `PolicyScheduler` has told already."""
        ours = self._trial_ids[trial_id]
        if error:
            return
        if result and REFUSAL in result:
            self._policy.end(ours, TrialState.INFEASIBLE, **json.loads(result[REFUSAL]))
        elif result and FAILURE in result:
            told = json.loads(result[FAILURE])
            self._policy.lost(ours, Reason(told["reason"]), told["detail"])  # ends it, unless another try may help
        else:
            self._policy.end(ours, TrialState.COMPLETE)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the policy's state is in Optuna's storage and the records."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore, see `save`."""


class PolicyScheduler(_NotPickled, FIFOScheduler):
    """Passes each epoch to the policy and stops the trials that it prunes; says why a process is gone."""

    def __init__(self, policy: SearchPolicy) -> None:
        super().__init__()
        self._policy = policy

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Config) -> str:
        if EPOCH not in result:
            return TrialScheduler.CONTINUE
        stop = self._policy.report(trial.config["trial_id"], json.loads(result[EPOCH]))
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        trial_id, folder = trial.config["trial_id"], Path(trial.config["folder"])
        limit = trial.config["limit_seconds"]
        if timed_out(folder):
            self._policy.lost(trial_id, Reason.TIMEOUT, f"it took longer than {limit:g} s, see {folder / 'hung.txt'}")
            return
        said = Path(trial.error_file).read_text() if trial.error_file else ""
        self._policy.lost(trial_id, classify_loss(said))
