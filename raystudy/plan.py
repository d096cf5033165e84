"""What a study would run, known before anything runs: arms, trials, sizes, limits, and whether it fits."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from itertools import product
from typing import Any

import torch
from pydantic import ValidationError

from raystudy.data.sources import check_options
from raystudy.errors import Infeasible, SpecError
from raystudy.execution import remote_address
from raystudy.execution.capacity import (
    Capacity,
    Node,
    asked,
    check_deadlock,
    concurrent_trials,
    finalist_workers,
    nodes_in,
)
from raystudy.models.build import count_parameters
from raystudy.models.memory import training_bytes
from raystudy.plan_warnings import warnings
from raystudy.search.stopping import FINALIST_START_SECONDS
from raystudy.study.constraints import keys_of, violation
from raystudy.study.model import PRESETS, ModelSpec, TrainingSpec
from raystudy.study.reduced import reduced
from raystudy.study.sections import ArmSpec
from raystudy.study.space import Value, conditions_first
from raystudy.study.spec import StudySpec

THIS_MACHINE, DECLARED = "this machine", "declared"
FEW_COMBINATIONS = 64
"""As many configurations are looked at one by one where constraints tie values together."""
MANY_COMBINATIONS = 10_000
Configuration = tuple[ModelSpec, TrainingSpec]


def this_machine() -> tuple[Node, ...]:
    """The one node that a local Ray would offer."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    devices = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    gpu_memory_gb = min((device.total_memory / 1e9 for device in devices), default=None)
    return (Node(os.cpu_count() or 1, len(devices), memory_gb, gpu_memory_gb),)


def as_it_runs_here(spec: StudySpec) -> StudySpec:
    """The study with its `reduced` section in place of what needs a GPU, on a machine that has none."""
    has_gpus = any(node.gpus for node in this_machine())
    return spec if has_gpus or remote_address() is not None else reduced(spec)


def widest_affordable(spec: StudySpec) -> int | None:
    """The widest seeded latent width whose every configuration keeps to `budget.parameters`; 0 where none does.

    None without a seeded width or a limit.
    """
    width, most = spec.seeded_width, spec.budget.parameters
    if width is None or most is None:
        return None
    low, high = width.exponents
    largest = {2**exponent: _extreme(spec, max, latent_dim=2**exponent) for exponent in range(low, high + 1)}
    return max((width for width, count in largest.items() if count is not None and count <= most), default=0)


def make_plan(spec: StudySpec, capacity: Capacity, cluster: str = THIS_MACHINE) -> dict[str, Any]:
    """The contract's ``plan`` document for a cluster with this capacity, called ``cluster``; needs no data.

    Sizes are counted, memory is estimated (`training_bytes`), hours and money are upper bounds and no forecast.
    """
    nodes, problems, concurrent, largest = nodes_in(capacity), [], 0, spec.largest_resources
    try:
        concurrent = concurrent_trials(largest, nodes)
    except Infeasible as problem:
        problems.append(str(problem))
    if spec.data.source is not None:
        try:
            check_options(spec.data.source)
        except SpecError as problem:
            problems.append(str(problem))
    room = _room(spec, nodes)
    arms = [_arm(spec, arm, room) for arm in spec.arms]
    search = _search(spec)
    trials = spec.budget.trials if spec.search else min(spec.budget.trials, len(spec.arms))
    retrained_on = max(
        finalist_workers(spec.resources, nodes, batch, spec.most_finalist_workers(arm)) for arm, batch in _batches(spec)
    )
    safe, why = check_deadlock(largest, nodes, retrained_on)
    problems += _too_large(spec, arms, search) + _too_much_memory(spec, arms, room)
    limits = _limits(spec, trials, concurrent, retrained_on)
    runs = limits["finalists"]["runs"] + len(spec.training_sizes)
    retraining = runs * FINALIST_START_SECONDS / 60
    if retraining >= spec.budget.minutes:
        problems.append(
            f"{runs} retrainings of finalists take {retraining:.0f} minutes to start alone, and `budget.minutes` is "
            f"{spec.budget.minutes:g}; raise it, or ask for fewer `finalists`, `replicates` or `training_sizes`"
        )
    return {
        "name": spec.name,
        "cluster": cluster,
        "trials": trials,
        "arms": arms,
        "search": search,
        "resources": {
            **largest.model_dump(),
            "bundle": asked(spec.resources),
            "nodes": [asdict(node) for node in nodes],
            "capacity": {
                "CPU": sum(node.count * node.cpus for node in nodes),
                "GPU": sum(node.count * node.gpus for node in nodes),
            },
            "executor": "torch_trainer" if largest.nested else "inprocess",
            "concurrent_trials": concurrent,
            "trials_per_gpu": int(1 / spec.resources.gpus_per_worker)
            if 0 < spec.resources.gpus_per_worker < 1
            else None,
            "finalist_workers": retrained_on,
            "epochs": spec.training.epochs,
            "minutes": spec.budget.minutes,
            "most_parameters": spec.budget.parameters,
        },
        "limits": limits,
        "deadlock": {"safe": safe, "why": why},
        "feasible": not problems,
        "problems": problems,
        "warnings": warnings(spec, nodes, arms, search, concurrent, room),
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


def _arm(spec: StudySpec, arm: ArmSpec, room: float | None) -> dict[str, Any]:
    model, training = spec.configure(arm.overrides)
    memory_gb = _memory_gb(spec, (model, training))
    return {
        "name": arm.name,
        "parameters": count_parameters(model, len(spec.targets)),
        "memory_gb": memory_gb,
        "fits": None if room is None else memory_gb <= room,
        "reads": sorted(model.inputs),
        "config": arm.overrides,
        "workers": spec.resources_of(arm.name).workers,
        "printed": arm.printed,
        "note": arm.note,
    }


def _search(spec: StudySpec) -> dict[str, Any]:
    if not spec.search:
        return {}
    return {
        "space": {name: parameter.model_dump(mode="json") for name, parameter in spec.search.items()},
        "parameters": {"min": _extreme(spec, min), "max": _extreme(spec, max)},
        "memory_gb": {"max": _most_memory_gb(spec)},
        "constraints": list(spec.constraints),
        "grid_size": _grid_size(spec),
        "sampler": spec.sampler,
        "pruner": spec.pruner,
    }


def _grid_size(spec: StudySpec) -> int | None:
    """Configurations that `sampler: grid` tries: without the values of keys whose `when` does not hold."""
    grids = {name: parameter.grid() for name, parameter in spec.search.items()}
    size = math.prod(map(len, grids.values()))
    conditional = any(parameter.when for parameter in spec.search.values())
    if conditional and size <= MANY_COMBINATIONS:
        points = (spec.applying(dict(zip(grids, values, strict=True))) for values in product(*grids.values()))
        return len({tuple(sorted(point.items())) for point in points})
    return size or None


def _limits(spec: StudySpec, trials: int, concurrent: int, retrained_on: int) -> dict[str, Any]:
    """The most that the study can use: what it can hold at once, for as long as its budget lets it."""
    resources, prices, budget = spec.largest_resources, spec.prices, spec.budget
    finalists = min(spec.finalists, trials)
    runs = finalists * spec.replicates.folds * spec.replicates.seeds
    held = max(concurrent * resources.most_workers, retrained_on) if concurrent else 0
    worker_hours = held * budget.minutes / 60
    basis = f"{held} workers for the {budget.minutes:g} minutes of the whole study"
    if concurrent and budget.trial_minutes is not None:
        again = runs + len(spec.training_sizes)
        by_trial = (trials * resources.most_workers + again * retrained_on) * budget.trial_minutes / 60
        if by_trial < worker_hours:
            worker_hours = by_trial
            basis = f"{trials} trials and {again} retrainings of {budget.trial_minutes:g} minutes, none tried again"
    cpu_hours, gpu_hours = worker_hours * resources.cpus_per_worker, worker_hours * resources.gpus_per_worker
    amount = cpu_hours * prices.cpu_hour + gpu_hours * prices.gpu_hour
    priced = prices.cpu_hour > 0 or prices.gpu_hour > 0
    return {
        "cpu_hours": _rounded(cpu_hours),
        "gpu_hours": _rounded(gpu_hours),
        "money": {"amount": _rounded(amount), "currency": prices.currency, "search": budget.cost} if priced else None,
        "basis": basis,
        "finalists": {
            "configurations": finalists,
            "folds": spec.replicates.folds,
            "seeds": spec.replicates.seeds,
            "runs": runs,
        },
    }


def _too_large(spec: StudySpec, arms: list[dict[str, Any]], search: Mapping[str, Any]) -> list[str]:
    """What can never be trained within `budget.parameters`, or within the constraints."""
    most, fewest = spec.budget.parameters, search["parameters"]["min"] if search else None
    unkept = [f"no combination of the searched values keeps the constraints {', '.join(spec.constraints)}; loosen one"]
    problems = unkept if search and fewest is None else []
    if most is None:
        return problems
    found = [f"arm {arm['name']!r} has {arm['parameters']:,} parameters" for arm in arms if arm["parameters"] > most]
    if fewest is not None and fewest > most:
        found.append(f"the smallest network of the search space has {fewest:,} parameters")
    advice = f"but `budget.parameters` allows {most:,}; raise it, or choose smaller sizes"
    return problems + [f"{one}, {advice}" for one in found]


def _too_much_memory(spec: StudySpec, arms: list[dict[str, Any]], room: float | None) -> list[str]:
    """Arms that `resources` rule out, and those that even half of a batch at a time leaves too large for a worker."""
    allowed, problems = spec.resources.memory_gb_per_worker, []
    for given, arm in zip(spec.arms, arms, strict=True):
        needs = f"arm {arm['name']!r} needs about {arm['memory_gb']:.3g} GB to train"
        if allowed is not None and arm["memory_gb"] > allowed:
            problems.append(
                f"{needs}, but `resources.memory_gb_per_worker` allows {allowed:g}; raise it, or choose a smaller "
                "`batch_size` or smaller sizes"
            )
        elif room is not None and _memory_gb(spec, spec.configure(given.overrides), micro_batches=2) > room:
            problems.append(
                f"{needs}, and more than half of that in two halves, but a worker can have {room:.3g} at most; choose "
                "a smaller `batch_size` or smaller sizes, or larger nodes"
            )
    return problems


def _room(spec: StudySpec, nodes: tuple[Node, ...]) -> float | None:
    """The most GB that a worker can have: what `resources` allow it, and what the largest node or GPU has."""
    rooms = [node.memory_of_one(spec.resources) for node in nodes if node.places(spec.resources)]
    known = [room for room in rooms if room is not None]
    allowed = spec.resources.memory_gb_per_worker
    here = max(known) if known and len(known) == len(rooms) else None
    return min((room for room in (here, allowed) if room is not None), default=None)


def _batches(spec: StudySpec) -> set[tuple[str | None, int]]:
    """The global batches that a finalist could have, with the arm that it was."""
    sizes: set[tuple[str | None, int]] = {(arm.name, spec.configure(arm.overrides)[1].batch_size) for arm in spec.arms}
    if spec.search:
        searched = spec.search.get("batch_size")
        values = [spec.training.batch_size] if searched is None else map(int, searched.grid())
        sizes |= {(None, value) for value in values}
    return {(arm, size * spec.resources_of(arm).most_workers) for arm, size in sizes}


def _extreme(spec: StudySpec, pick: Callable[..., Any], **fixed: Value) -> int | None:
    """Smallest or largest parameter count in the space, some keys ``fixed``; None where no network keeps the rules.

    Where there are many combinations the constraints are not looked at, so it is a bound on that count.
    """

    def count(configuration: Configuration) -> int:
        return count_parameters(configuration[0], len(spec.targets))

    names = spec.search.keys() & ModelSpec.model_fields.keys()
    if spec.constraints:
        tied = names | (set().union(*map(keys_of, spec.constraints)) & spec.search.keys())
        grids = {name: (fixed[name],) if name in fixed else spec.search[name].grid() for name in sorted(tied)}
        if 0 < math.prod(map(len, grids.values())) <= FEW_COMBINATIONS:
            return pick((count(one) for one in _kept(spec, grids, count)), default=None)
    return count(_corner(spec, pick, names, count, **fixed))


def _most_memory_gb(spec: StudySpec) -> float:
    """What the configuration that needs most memory needs; constraints are not looked at."""
    names = spec.search.keys() & {*ModelSpec.model_fields, "batch_size", "precision"}
    return _memory_gb(spec, _corner(spec, max, names, lambda one: training_bytes(*one, len(spec.targets))))


def _kept(
    spec: StudySpec, grids: Mapping[str, tuple[Value, ...]], count: Callable[[Configuration], int]
) -> Iterator[Configuration]:
    """Each combination of these values that keeps the rules and the constraints."""
    for values in product(*grids.values()):
        with suppress(ValidationError):
            model, training = spec.configure(spec.applying(dict(zip(grids, values, strict=True))))
            flat = {**model.model_dump(), **training.model_dump(), "parameters": count((model, training))}
            of_this = [constraint for constraint in spec.constraints if not keys_of(constraint) & model.unread]
            if all(violation(constraint, flat) <= 0 for constraint in of_this):
                yield model, training


def _corner(
    spec: StudySpec,
    pick: Callable[..., Value],
    names: set[str],
    measure: Callable[[Configuration], int],
    **fixed: Value,
) -> Configuration:
    """The configuration with the smallest or largest measure: each key in turn at its best corner.

    Twice, because one key (the embedding's width) can matter only at another's value (the encoder's).
    """
    chosen: dict[str, Value] = dict(fixed)
    for name in 2 * [name for name in conditions_first(spec.search) if name in names - fixed.keys()]:
        sizes: dict[Value, int] = {}
        for value in spec.search[name].corners():
            with suppress(ValidationError):  # together with what was chosen before it breaks a rule
                sizes[value] = measure(spec.configure(spec.applying({**chosen, name: value})))
        if sizes:
            chosen[name] = pick(sizes, key=lambda value: sizes[value])
    return spec.configure(spec.applying(chosen))


def _memory_gb(spec: StudySpec, configuration: Configuration, micro_batches: int = 1) -> float:
    return _rounded(training_bytes(*configuration, len(spec.targets), micro_batches) / 1e9)


def _rounded(number: float) -> float:
    return float(f"{number:.3g}")
