"""What a study would run, known before anything runs: arms, trials, parameter counts, and whether it fits."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from pydantic import ValidationError

from raystudy.errors import Infeasible
from raystudy.execution.capacity import concurrent_trials
from raystudy.models.build import count_parameters
from raystudy.study.model import PRESETS, ModelSpec
from raystudy.study.space import Value
from raystudy.study.spec import ArmSpec, StudySpec


def this_machine() -> dict[str, float]:
    """The resources that a local Ray would offer."""
    return {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}


def widest_affordable(spec: StudySpec) -> int | None:
    """The widest seeded latent width whose every configuration keeps to `budget.parameters`; 0 where none does.

    None without a seeded width or a limit.
    """
    width, most = spec.seeded_width, spec.budget.parameters
    if width is None or most is None:
        return None
    low, high = width.exponents
    widths = [2**exponent for exponent in range(low, high + 1)]
    return max((one for one in widths if _extreme(spec, max, latent_dim=one) <= most), default=0)


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
    arms = [_arm(spec, arm) for arm in spec.arms]
    fewest = _extreme(spec, min) if spec.search else None
    problems += _too_large(spec, arms, fewest)
    return {
        "name": spec.name,
        "trials": spec.budget.trials if spec.search else min(spec.budget.trials, len(spec.arms)),
        "arms": arms,
        "search": {
            "space": {name: parameter.model_dump(mode="json") for name, parameter in spec.search.items()},
            "parameters": {"min": fewest, "max": _extreme(spec, max)},
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
            "most_parameters": spec.budget.parameters,
        },
        "feasible": not problems,
        "problems": problems,
    }


def list_presets() -> list[dict[str, Any]]:
    """The published networks: settings, targets, and parameters, also with the position table that was published."""
    found, default = [], ModelSpec()
    for name, preset in PRESETS.items():
        rows = preset.published_position_rows
        num_targets = len(preset.targets)
        found.append(
            {
                "preset": name,
                "parameters": count_parameters(ModelSpec(preset=name), num_targets),
                "parameters_as_published": rows
                and count_parameters(ModelSpec(preset=name, position_rows=rows), num_targets),
                "targets": list(preset.targets),
                "settings": dict(preset.settings),
                "differs": {key: value for key, value in preset.settings.items() if value != getattr(default, key)},
                "source": preset.source,
            }
        )
    return found


def _arm(spec: StudySpec, arm: ArmSpec) -> dict[str, Any]:
    model, _ = spec.configure(arm.overrides)
    return {
        "name": arm.name,
        "parameters": count_parameters(model, len(spec.targets)),
        "reads": sorted(model.inputs),
        "config": arm.overrides,
        "printed": arm.printed,
        "note": arm.note,
    }


def _too_large(spec: StudySpec, arms: list[dict[str, Any]], fewest: int | None) -> list[str]:
    """What can never be trained within `budget.parameters`."""
    most = spec.budget.parameters
    if most is None:
        return []
    found = [f"arm {arm['name']!r} has {arm['parameters']:,} parameters" for arm in arms if arm["parameters"] > most]
    if fewest is not None and fewest > most:
        found.append(f"the smallest network of the search space has {fewest:,} parameters")
    return [f"{one}, but `budget.parameters` allows {most:,}; raise it, or choose smaller sizes" for one in found]


def _extreme(spec: StudySpec, pick: Callable[..., Value], **fixed: Value) -> int:
    """Smallest or largest parameter count in the space, some keys ``fixed``: each key in turn at its best corner.

    Twice, because one key (the embedding's width) can matter only at another's value (the encoder's).
    """
    chosen: dict[str, Value] = dict(fixed)
    for name in 2 * sorted((spec.search.keys() & ModelSpec.model_fields.keys()) - fixed.keys()):
        counts: dict[Value, int] = {}
        for value in spec.search[name].corners():
            with suppress(ValidationError):  # together with what was chosen before it breaks a rule
                model, _ = spec.configure({**chosen, name: value})
                counts[value] = count_parameters(model, len(spec.targets))
        if counts:
            chosen[name] = pick(counts, key=lambda value: counts[value])
    return count_parameters(spec.configure(chosen)[0], len(spec.targets))
