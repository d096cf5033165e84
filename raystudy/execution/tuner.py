"""The search on Ray Tune."""

from __future__ import annotations

from pathlib import Path

from ray import tune

from raystudy.execution.capacity import concurrent_trials
from raystudy.execution.searcher import LostAttempts, PolicyScheduler, PolicySearcher
from raystudy.execution.task import Task
from raystudy.execution.trial import run_trial
from raystudy.search.policy import SearchPolicy
from raystudy.study.spec import StudySpec
from raystudy.tracking.records import Records

WORKER_LOSSES = 2


def search(
    spec: StudySpec, records: Records, policy: SearchPolicy, data_folder: Path, capacity: dict[str, float]
) -> None:
    """Run the policy's proposals until it has none left. Tune's own files, under ``ray/``, are not read again."""
    resources = spec.resources
    per_trial = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    session = len(records.read().every("session_started"))
    tuner = tune.Tuner(
        tune.with_resources(run_trial, per_trial),
        tune_config=tune.TuneConfig(
            search_alg=PolicySearcher(
                policy,
                lambda trial: Task.of(trial, spec, records, data_folder),
                concurrent_trials(resources, capacity),
            ),
            scheduler=PolicyScheduler(policy),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.config["trial_id"],
        ),
        run_config=tune.RunConfig(
            name=f"session-{session}",
            storage_path=str((records.folder / "ray").resolve()),
            callbacks=[LostAttempts(policy)],
            failure_config=tune.FailureConfig(max_failures=WORKER_LOSSES),
            verbose=0,
        ),
    )
    tuner.fit()
