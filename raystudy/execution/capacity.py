"""What fits on a cluster, node by node. Needs no Ray: a plan asks this about machines that are not there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from raystudy.errors import Infeasible
from raystudy.study.sections import NodeSpec, ResourcesSpec

FEWEST_GENES_PER_WORKER = 16
CONTROLLER = {"node:__internal_head__": 0.001}
"""What a nested trial's own process asks for: no CPU, and a place on the head, which no spot market takes away."""
_KIND = "accelerator_type:"
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Node:
    """Machines of one kind; 1 GB is 10^9 bytes, and None is an amount that nobody knows."""

    cpus: float
    gpus: float = 0
    memory_gb: float | None = None
    gpu_memory_gb: float | None = None
    """Of one GPU."""
    count: int = 1
    accelerator: str | None = None
    """The kind of its GPUs, in Ray's words."""

    def places(self, resources: ResourcesSpec) -> int:
        """How many workers have room on one such node at the same time."""
        gpus, memory_gb = resources.gpus_per_worker, resources.memory_gb_per_worker
        if resources.accelerator not in (None, self.accelerator):
            return 0
        places = _times(self.cpus, resources.cpus_per_worker)
        if gpus:  # a part of a GPU is a part of one GPU
            places = min(places, _times(self.gpus, gpus) if gpus >= 1 else int(self.gpus) * _times(1, gpus))
        room = self.memory_of_one(resources)
        if memory_gb is not None and room is not None:
            shared = self.memory_gb is not None and not gpus
            places = min(places, _times(room, memory_gb) if shared else places * (memory_gb <= room))
        return places

    def memory_of_one(self, resources: ResourcesSpec) -> float | None:
        """The GB that one worker can have at most: its share of a GPU, or all of the node's where it has none."""
        if not resources.gpus_per_worker:
            return self.memory_gb
        return None if self.gpu_memory_gb is None else self.gpu_memory_gb * min(1, resources.gpus_per_worker)

    def __str__(self) -> str:
        return _bundle(self.cpus, self.gpus, self.memory_gb, self.gpu_memory_gb, self.accelerator)


Capacity = Mapping[str, float] | Iterable[Node]
"""A cluster's nodes, or totals as Ray counts them, which are taken for one node's."""


def nodes_of(ray_nodes: Iterable[Mapping[str, Any]]) -> tuple[Node, ...]:
    """The living nodes of a cluster from what ``ray.nodes()`` says of them; a GPU's memory is not among it."""
    living = [_of_totals(node["Resources"]) for node in ray_nodes if node["Alive"]]
    return tuple(replace(node, count=count) for node, count in Counter(living).items())


def nodes_in(capacity: Capacity) -> tuple[Node, ...]:
    return (_of_totals(capacity),) if isinstance(capacity, Mapping) else tuple(capacity)


def declared(cluster: Iterable[NodeSpec]) -> tuple[Node, ...]:
    """The nodes that a study file says there may be."""
    return tuple(
        Node(node.cpus, node.gpus, node.memory_gb, node.gpu_memory_gb, node.count, node.accelerator) for node in cluster
    )


def bundle(resources: ResourcesSpec) -> dict[str, float]:
    """What Ray is asked for one worker; the memory too where it is the node's, so that Ray keeps count of it."""
    asked: dict[str, float] = {"CPU": resources.cpus_per_worker}
    if resources.gpus_per_worker:
        asked["GPU"] = resources.gpus_per_worker
    elif resources.memory_gb_per_worker is not None:
        asked["memory"] = int(resources.memory_gb_per_worker * 1e9)
    if resources.accelerator:
        asked[_KIND + resources.accelerator] = 0.001  # Ray's own way of asking for a kind: a node has 1 of it
    return asked


def worker_places(resources: ResourcesSpec, capacity: Capacity) -> int:
    """How many workers have room at once; Infeasible, naming what is missing, where no node has room for one."""
    gpus, nodes = resources.gpus_per_worker, nodes_in(capacity)
    if gpus > 1 and gpus != int(gpus):
        raise Infeasible(f"a worker cannot have {gpus:g} GPUs: above 1 they are whole; change `gpus_per_worker`")
    if resources.most_workers > 1 and 0 < gpus < 1:
        raise Infeasible(
            f"{resources.most_workers} workers with {gpus:g} of a GPU each could meet on one GPU, which NCCL "
            "refuses (one rank a GPU); set `gpus_per_worker` to 1, or `workers` to 1"
        )
    places = sum(node.count * node.places(resources) for node in nodes)
    if not places:
        raise Infeasible(
            f"a worker needs {asked(resources)}, but {_largest(resources, nodes)}; lower `resources` in the study "
            "file, or start larger nodes"
        )
    return places


def concurrent_trials(resources: ResourcesSpec, capacity: Capacity) -> int:
    """How many trials have room at once; Infeasible, naming what is missing, where not one has.

    Every worker's bundle lies on one node; a trial's bundles may lie on several.
    """
    places = worker_places(resources, capacity)
    fewest = resources.fewest_workers
    if places < fewest:
        raise Infeasible(
            f"a trial of {fewest} workers needs {fewest} times {asked(resources)} at once, but there is room for "
            f"{places}; lower `resources` in the study file, or start more nodes"
        )
    return max(1, places // resources.most_workers)


def finalist_workers(resources: ResourcesSpec, capacity: Capacity, global_batch: int, most: int | None = None) -> int:
    """The most workers, ``most`` at the utmost, that there is room for and that share the winner's global batch evenly.

    Each keeps at least ``FEWEST_GENES_PER_WORKER`` genes a step, for BatchNorm, and a GPU of its own, for NCCL.
    """
    gpus = max(1, resources.gpus_per_worker) if resources.gpus_per_worker else 0
    alone = resources.model_copy(update={"gpus_per_worker": gpus})
    fit = sum(node.count * node.places(alone) for node in nodes_in(capacity))
    fit = min(fit, global_batch // FEWEST_GENES_PER_WORKER, most or fit)
    return next(workers for workers in range(max(fit, 1), 0, -1) if global_batch % workers == 0)


def check_deadlock(resources: ResourcesSpec, capacity: Capacity, most_finalist_workers: int) -> tuple[bool, str]:
    """Can everything that must be up at once be up at once, and what was looked at.

    What waits for its workers holds no resource that they need: the driver, Ray Train's controller and its placement
    group's cleaner ask for 0 CPU, a nested trial's own process for a thousandth of the head's mark (`CONTROLLER`), and
    a trial that trains in the process that Tune gives it waits for none. A trial's or finalist's bundles are one
    placement group, given whole or not at all; all bundles are alike, so none takes a place in which only another
    would have fitted.
    """
    try:
        places, trials = worker_places(resources, capacity), concurrent_trials(resources, capacity)
    except Infeasible:
        return False, "nothing can start, see the problems"
    workers = min(places, trials * resources.most_workers)
    safe = workers <= places and most_finalist_workers <= places
    return safe, (
        f"{places} bundles of {asked(resources)} have room, counted node by node; at most {workers} are asked for at "
        f"once by trials, and {most_finalist_workers} by a finalist, which is alone; what waits for workers (driver, "
        "Train controller) holds no CPU"
    )


def asked(resources: ResourcesSpec) -> str:
    """One worker's bundle in words, such as ``{CPU: 4, GPU: 2}``."""
    memory_gb, gpus = resources.memory_gb_per_worker, resources.gpus_per_worker
    per_gpu = memory_gb if gpus else None
    return _bundle(resources.cpus_per_worker, gpus, None if gpus else memory_gb, per_gpu, resources.accelerator)


def _largest(resources: ResourcesSpec, nodes: tuple[Node, ...]) -> str:
    """The node that comes nearest to holding one worker, in words."""
    if not nodes:
        return "there is no node"
    memory_gb = resources.memory_gb_per_worker or 0

    def has(node: Node) -> tuple[float, ...]:
        room = node.memory_of_one(resources)
        shares = [
            1.0 if resources.accelerator in (None, node.accelerator) else 0.0,
            min(1, node.gpus / resources.gpus_per_worker) if resources.gpus_per_worker else 1,
            min(1, node.cpus / resources.cpus_per_worker),
            1 if room is None or not memory_gb else min(1, room / memory_gb),
        ]
        return min(shares), sum(shares), node.gpus, node.cpus, room or 0

    return f"the largest node has {max(nodes, key=has)}"


def _of_totals(totals: Mapping[str, float]) -> Node:
    memory = totals.get("memory")
    kinds = [name.removeprefix(_KIND) for name in totals if name.startswith(_KIND)]
    kind = kinds[0] if kinds and totals.get("GPU") else None  # a driver may name a kind whose GPUs Ray was told to omit
    return Node(totals.get("CPU", 0), totals.get("GPU", 0), None if memory is None else memory / 1e9, accelerator=kind)


def _times(room: float, size: float) -> int:
    """How often ``size`` goes into ``room``, of which neither is exact in binary."""
    return int(room / size + _ROUNDING)


def _bundle(
    cpus: float, gpus: float, memory_gb: float | None, gpu_memory_gb: float | None, accelerator: str | None
) -> str:
    parts = [f"CPU: {cpus:g}"]
    parts += [f"GPU: {gpus:g}{f' of kind {accelerator}' if accelerator else ''}"] if gpus else []
    parts += [f"memory: {_whole(memory_gb)} GB"] if memory_gb is not None else []
    parts += [f"GPU memory: {_whole(gpu_memory_gb)} GB"] if gpu_memory_gb is not None else []
    return "{" + ", ".join(parts) + "}"


def _whole(gigabytes: float) -> str:
    return f"{gigabytes:.0f}" if gigabytes >= 100 else f"{gigabytes:.3g}"
