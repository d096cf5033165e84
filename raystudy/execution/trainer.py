"""One training on Ray Train: a TorchTrainer whose workers go on from the last checkpoint, and why one failed."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import ray
import ray.train
from ray.exceptions import RayError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client import (
    TrainAutoscalingCoordinatorClient,
)

from raystudy.errors import RaystudyError, Reason, TrialFailed
from raystudy.execution.capacity import bundle, nodes_of
from raystudy.execution.failures import HUNG, classify_loss, one_line, timed_out, why_training_failed
from raystudy.execution.task import PREDICTIONS, Task
from raystudy.execution.worker import run_worker
from raystudy.study.sections import ResourcesSpec
from raystudy.training import checkpoint
from raystudy.training.session import Metrics

RESIZE_SECONDS = 30.0
"""How often a trial with fewer workers than it may have looks for more; each change costs the epoch under way."""


def train_on_workers(
    task: Task,
    num_workers: int | tuple[int, int],
    resources: ResourcesSpec,
    storage: Path,
    callbacks: Sequence[ray.train.UserCallback] = (),
) -> None:
    """Train on ``num_workers``, or on as many between two numbers as there is room for, from the last checkpoint.

    Raises TrialFailed when training fails for good, with the reason that its workers or Ray gave, and Infeasible when
    a worker refuses the configuration.
    """
    if isinstance(num_workers, tuple):  # can begin with fewer, where a machine that Ray still counts has just gone
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "60"
    timed_out(Path(task.folder))  # of an earlier session, which did not live to tell
    several = num_workers != 1
    # Two ranks on parts of one GPU are refused by NCCL.
    alone = resources.model_copy(update={"gpus_per_worker": math.ceil(resources.gpus_per_worker)})
    trainer = TorchTrainer(
        run_worker,
        train_loop_config=task.as_json(),
        torch_config=TorchConfig(backend="nccl" if resources.gpus_per_worker else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=num_workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=bundle(alone if several else resources),
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        run_config=ray.train.RunConfig(
            name=task.trial_id,
            storage_path=str(storage.resolve()),
            callbacks=list(callbacks),
            # Ray would try a NaN again too; which failures are worth another attempt is for the policy to say.
            failure_config=ray.train.FailureConfig(
                max_failures=0, max_preemption_failures=0, controller_failure_limit=3
            ),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        failure = why_training_failed(error)
        if timed_out(Path(task.folder)):
            failure = TrialFailed(
                Reason.TIMEOUT, f"it took longer than {task.limit_seconds:g} s, see {Path(task.folder) / HUNG}"
            )
        raise failure from error
    except RayError as error:  # Train's own process is gone, and perhaps all of Ray
        raise TrialFailed(classify_loss(str(error)), one_line(error)) from error


def cancel_reservation(run_id: str) -> None:
    """Give back the workers that a training may grow to.

    Its controller does so when it ends, and not when it is killed: they would stay reserved for three minutes, and the
    next elastic training waits for them. Ray 2.60 has no public way to say it.
    """
    TrainAutoscalingCoordinatorClient(f"train-{run_id}").cancel_resource_request()


def train_finalist(task: Task, num_workers: int, resources: ResourcesSpec, storage: Path) -> list[Metrics]:
    """Train a finalist from the driver; the metrics of every epoch.

    Raises what `train_on_workers` does, and RaystudyError when the cluster has no node left.
    """
    # In the main thread Ray Train would take over Ctrl-C, end the process with code 0, and not give it back.
    background = ThreadPoolExecutor(max_workers=1)
    try:
        background.submit(train_on_workers, task, num_workers, resources, storage).result()
    except TrialFailed:
        if not nodes_of(ray.nodes()):
            raise RaystudyError(
                f"{task.trial_id} cannot be trained any more: no node of the cluster is left. Everything so far is "
                "kept; the same command goes on when the machines are back"
            ) from None
        raise
    finally:
        background.shutdown(wait=False)
    _, state = checkpoint.load(Path(task.folder) / checkpoint.LAST)
    history: list[Metrics] = state["history"]
    return history


def finalist_predictions(task: Task) -> npt.NDArray[np.float64]:
    """What `run_worker` predicted for every gene, in the labels' own units, [num_genes, K]."""
    tensors, _ = checkpoint.load(Path(task.folder) / PREDICTIONS)
    return tensors["predicted"].numpy()
