"""What fits on a cluster. Needs no Ray: a plan asks this about machines that are not there."""

from __future__ import annotations

from raystudy.errors import Infeasible
from raystudy.study.spec import ResourcesSpec

FEWEST_GENES_PER_WORKER = 16


def concurrent_trials(resources: ResourcesSpec, capacity: dict[str, float]) -> int:
    """How many trials fit at once; Infeasible, naming what is missing, when not one does."""
    asked = {
        "CPU": float(resources.workers * resources.cpus_per_worker),
        "GPU": float(resources.workers * resources.gpus_per_worker),
    }
    for name, amount in asked.items():
        if amount > capacity.get(name, 0):
            raise Infeasible(
                f"one trial needs {amount:g} {name} ({resources.workers} workers), but there are "
                f"{capacity.get(name, 0):g}; lower `resources` in the study file or start more nodes"
            )
    return min(int(capacity[name] // amount) for name, amount in asked.items() if amount)


def finalist_workers(resources: ResourcesSpec, capacity: dict[str, float], global_batch: int) -> int:
    """The most workers that there is room for and that share the winner's global batch evenly.

    Each keeps at least ``FEWEST_GENES_PER_WORKER`` genes a step, for BatchNorm, and a GPU of its own, for NCCL.
    """
    fit = int(capacity.get("CPU", 0) // resources.cpus_per_worker)
    if resources.gpus_per_worker:
        fit = min(fit, int(capacity.get("GPU", 0) // max(1, resources.gpus_per_worker)))
    fit = min(fit, global_batch // FEWEST_GENES_PER_WORKER)
    return next(workers for workers in range(max(fit, 1), 0, -1) if global_batch % workers == 0)
