"""What a plan allows and its author probably did not mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from raystudy.execution.capacity import Node
from raystudy.study.spec import StudySpec

MANY_FOR_GP = 500


def warnings(
    spec: StudySpec,
    nodes: tuple[Node, ...],
    arms: list[dict[str, Any]],
    search: Mapping[str, Any],
    concurrent: int,
    room: float | None,
) -> list[str]:
    """One sentence each; ``arms`` and ``search`` as in the plan, ``room`` is the most GB that a worker can have."""
    sizes = {f"arm {arm['name']!r}": arm["memory_gb"] for arm in arms}
    if search:
        sizes["the largest network of the search space"] = search["memory_gb"]["max"]
    found = _of_engine(spec, nodes, search) + _of_memory(spec, nodes, sizes, concurrent, room)
    if spec.reduced:
        found.append("without a GPU its `reduced` section applies, which `raystudy plan --here` plans there")
    return found


def _of_engine(spec: StudySpec, nodes: tuple[Node, ...], search: Mapping[str, Any]) -> list[str]:
    budget, num_arms, found = spec.budget, len(spec.arms), []
    asks = {name for name, training in _asked_attention(spec).items() if training == "xformers"}
    if asks and not (spec.resources.gpus_per_worker and any(node.gpus for node in nodes)):
        found.append(f"xformers computes on GPUs only and workers get none; refused will be {', '.join(sorted(asks))}")
    if not spec.resources.gpus_per_worker and any(node.gpus for node in nodes):
        found.append("there are GPUs, but `resources.gpus_per_worker` is 0: none is used")
    if spec.sampler == "gp" and budget.trials > MANY_FOR_GP:
        found.append(f"`sampler: gp` takes longer with every trial; {budget.trials} are many for it, tpe is quicker")
    if spec.sampler in ("gp", "nsga2") and (spec.constraints or spec.pruner != "none"):
        found.append(f"`sampler: {spec.sampler}` learns from complete trials only: nothing from pruned or refused ones")
    if spec.sampler == "grid" and search["grid_size"] != budget.trials - num_arms:
        found.append(
            f"the grid has {search['grid_size']:,} points, and `budget.trials` of {budget.trials} leaves "
            f"{max(budget.trials - num_arms, 0)} for them beside {num_arms} arms"
        )
    if num_arms > budget.trials:
        found.append(f"{num_arms} arms, but `budget.trials` is {budget.trials}: the last ones are not tried")
    return found


def _of_memory(
    spec: StudySpec, nodes: tuple[Node, ...], sizes: Mapping[str, float], concurrent: int, room: float | None
) -> list[str]:
    """``sizes``: what each network needs to be trained, in GB."""
    found = [
        f"{who} needs about {size:.3g} GB to train, and a worker can have {room:.3g}"
        for who, size in sizes.items()
        if room is not None and size > room
    ]
    if found:
        return found
    if spec.resources.gpus_per_worker == 1 and spec.largest_resources.most_workers == 1:
        return _room_for_several(nodes, max(sizes.values()))
    if spec.resources.memory_gb_per_worker is not None or spec.resources.gpus_per_worker:
        return found
    for node in nodes:  # where nothing says how much memory a trial may have, Ray counts CPUs alone
        together = min(concurrent, node.places(spec.resources))
        if node.memory_gb is not None and together * max(sizes.values()) > node.memory_gb:
            found.append(
                f"{together} trials at once on a node of {node.memory_gb:.3g} GB can need about "
                f"{together * max(sizes.values()):.3g}; set `resources.memory_gb_per_worker` or more `cpus_per_worker`"
            )
    return found


def _room_for_several(nodes: tuple[Node, ...], largest: float) -> list[str]:
    """Do several one-worker trials fit on the smallest GPU at the same time?"""
    known = [node.gpu_memory_gb for node in nodes if node.gpus and node.gpu_memory_gb is not None]
    together = min(int(min(known) / largest), 100) if known else 0
    if together < 2:
        return []
    return [
        f"{together} trials of the largest size fit together on a GPU of {min(known):.3g} GB; with `gpus_per_worker: "
        f"{math.floor(100 / together) / 100:g}` they share one, which keeps it busier"
    ]


def _asked_attention(spec: StudySpec) -> dict[str, str]:
    """By arm, and for the search by its values, how attention is to be computed."""
    found = {f"arm {arm.name!r}": spec.configure(arm.overrides)[1].attention for arm in spec.arms}
    searched = spec.search["attention"].corners() if "attention" in spec.search else [spec.training.attention]
    return found | ({f"`attention: {value}` of the search": str(value) for value in searched} if spec.search else {})
