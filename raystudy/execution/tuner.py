"""The search on Ray Tune."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ray import tune
from ray.tune import TuneError

from raystudy.errors import RaystudyError
from raystudy.execution.capacity import Capacity, bundle, concurrent_trials
from raystudy.execution.searcher import PolicyScheduler, PolicySearcher
from raystudy.execution.task import Task
from raystudy.execution.trial import run_trial
from raystudy.execution.watch import ClusterWatch
from raystudy.search.policy import SearchPolicy
from raystudy.study.spec import StudySpec
from raystudy.tracking.records import Records


def search(spec: StudySpec, records: Records, policy: SearchPolicy, data_folder: Path, capacity: Capacity) -> None:
    """Run the policy's proposals until it has none left. Tune's own files, under ``ray/``, are not read again.

    Whatever ends it early (Ctrl-C too) leaves what was running as interrupted, for the next session to go on with.
    """
    session = len(records.read().every("session_started"))
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # what failed is the policy's to tell
    tuner = tune.Tuner(
        tune.with_resources(run_trial, bundle(spec.resources)),
        tune_config=tune.TuneConfig(
            search_alg=PolicySearcher(
                policy,
                lambda trial: Task.of(trial, spec, records, data_folder),
                concurrent_trials(spec.resources, capacity),
            ),
            scheduler=PolicyScheduler(policy),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"{trial.config['trial_id']}-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=f"session-{session}",
            storage_path=str((records.folder / "ray").resolve()),
            callbacks=[ClusterWatch(spec.resources, may_grow=spec.cluster is not None)],
            failure_config=tune.FailureConfig(max_failures=0),  # a lost attempt is handed out again by the policy
            verbose=0,
        ),
    )
    # Whatever the environment says: with Tune's own handler Ctrl-C would look like the search's regular end.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    try:
        tuner.fit()
    except BaseException as error:
        policy.interrupt()
        if isinstance(error, TuneError) and (ours := _told_by_us(error)) is not None:
            raise ours from None
        raise


def _told_by_us(error: BaseException) -> RaystudyError | None:
    """What searcher, scheduler or callback raised: Tune raises an error of its own with a traceback as its text."""
    cause = error.__cause__ or error.__context__
    while cause is not None and not isinstance(cause, RaystudyError):
        cause = cause.__cause__ or cause.__context__
    return cause
