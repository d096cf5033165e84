"""What a study would run, known before anything runs: arms, trials, parameter counts, and whether it fits."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from raystudy.errors import Infeasible
from raystudy.execution.capacity import concurrent_trials
from raystudy.models.build import count_parameters
from raystudy.study.space import Value
from raystudy.study.spec import ModelSpec, StudySpec


def this_machine() -> dict[str, float]:
    """The resources that a local Ray would offer."""
    return {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}


def make_plan(spec: StudySpec, capacity: dict[str, float]) -> dict[str, Any]:
    """The contract's ``plan`` document; needs no data."""
    problems = []
    concurrent = 0
    try:
        concurrent = concurrent_trials(spec.resources, capacity)
    except Infeasible as problem:
        problems.append(str(problem))
    if spec.resources.workers > 1:
        problems.append(
            f"`resources.workers` is {spec.resources.workers}, but this version searches with trials of one worker; "
            "set it to 1 (finalists take every worker that fits)"
        )
    return {
        "name": spec.name,
        "trials": spec.budget.trials if spec.search else min(spec.budget.trials, len(spec.arms)),
        "arms": [_arm(spec, arm) for arm in spec.arms],
        "search": {
            "space": {name: parameter.model_dump(mode="json") for name, parameter in spec.search.items()},
            "parameters": {"min": _extreme(spec, min), "max": _extreme(spec, max)},
            "sampler": spec.sampler,
            "pruner": spec.pruner,
        }
        if spec.search
        else {},
        "resources": {
            **spec.resources.model_dump(),
            "capacity": capacity,
            "concurrent_trials": concurrent,
            "epochs": spec.training.epochs,
            "minutes": spec.budget.minutes,
        },
        "feasible": not problems,
        "problems": problems,
    }


def _arm(spec: StudySpec, arm: dict[str, Value]) -> dict[str, Any]:
    overrides = {name: value for name, value in arm.items() if name != "name"}
    model, _ = spec.configure(overrides)
    return {"name": arm["name"], "parameters": _count(spec, model), "config": overrides}


def _count(spec: StudySpec, model: ModelSpec) -> int:
    return count_parameters(model, sum(spec.data.window_bp), spec.data.max_protein)


def _extreme(spec: StudySpec, pick: Callable[..., int]) -> int:
    """Smallest or largest parameter count in the space: each key in turn at its best corner.

    Twice, because one key (the embedding's width) can matter only at another's value (the encoder's).
    """
    chosen: dict[str, Value] = {}
    for name in 2 * sorted(spec.search.keys() & ModelSpec.model_fields.keys()):
        counts = {
            value: _count(spec, spec.configure({**chosen, name: value})[0]) for value in spec.search[name].corners()
        }
        best = pick(counts.values())
        chosen[name] = next(value for value, count in counts.items() if count == best)
    return _count(spec, spec.configure(chosen)[0])
