"""What fits on a cluster. Needs no Ray: a plan asks this about machines that are not there."""

from __future__ import annotations

from raystudy.errors import Infeasible
from raystudy.study.spec import ResourcesSpec


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
    """The most workers that there is room for and that share the winner's global batch evenly."""
    fit = int(capacity.get("CPU", 0) // resources.cpus_per_worker)
    if resources.gpus_per_worker:
        fit = min(fit, int(capacity.get("GPU", 0) // resources.gpus_per_worker))
    return next(workers for workers in range(max(fit, 1), 0, -1) if global_batch % workers == 0)
