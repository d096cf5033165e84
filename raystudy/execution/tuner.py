"""The search on Ray Tune."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import TuneError

from raystudy.errors import RaystudyError
from raystudy.execution.capacity import CONTROLLER, Capacity, bundle, concurrent_trials
from raystudy.execution.preflight import Preflight
from raystudy.execution.searcher import PolicyScheduler, PolicySearcher
from raystudy.execution.task import Task
from raystudy.execution.trial import run_nested_trial, run_trial
from raystudy.execution.watch import ClusterWatch
from raystudy.search.policy import SearchPolicy
from raystudy.study.sections import ResourcesSpec
from raystudy.study.spec import StudySpec
from raystudy.tracking.records import Records


def search(
    spec: StudySpec,
    records: Records,
    policy: SearchPolicy,
    data_folder: Path,
    capacity: Capacity,
    may_grow: bool = False,
    preflight: Preflight | None = None,
) -> None:
    """Run the policy's proposals until it has none left. Tune's own files, under ``ray/``, are not read again.

    ``may_grow``: more nodes may come by themselves.

    Whatever ends it early (Ctrl-C too) leaves what was running as interrupted, for the next session to go on with.
    """
    session = len(records.read().every("session_started"))
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # what failed is the policy's to tell
    tuner = tune.Tuner(
        _trainable(spec.largest_resources, records.folder / "ray"),
        tune_config=tune.TuneConfig(
            search_alg=PolicySearcher(
                policy,
                lambda trial: Task.of(trial, spec, records, data_folder),
                concurrent_trials(spec.largest_resources, capacity),
            ),
            scheduler=PolicyScheduler(policy),
            num_samples=-1,
            reuse_actors=not spec.largest_resources.nested,  # a TorchTrainer that was stopped is ended with its process
            trial_dirname_creator=lambda trial: f"{trial.config['trial_id']}-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=f"session-{session}",
            storage_path=str((records.folder / "ray").resolve()),
            callbacks=[ClusterWatch(spec.largest_resources, may_grow, preflight)],
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
        if isinstance(error, TuneError) and (cause := _told_by_us(error)) is not None:
            raise cause from None
        raise


def _told_by_us(error: BaseException) -> RaystudyError | None:
    """What searcher, scheduler or callback raised: Tune raises an error of its own with a traceback as its text."""
    cause = error.__cause__ or error.__context__
    while cause is not None and not isinstance(cause, RaystudyError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _trainable(resources: ResourcesSpec, storage: Path) -> Any:
    """What Tune runs for each trial, with what it asks for."""
    if not resources.nested:
        return tune.with_resources(run_trial, bundle(resources))
    nested = partial(run_nested_trial, resources=resources.model_dump(), storage=str(storage.resolve()))
    return tune.with_resources(nested, CONTROLLER)
