"""Several objectives at once: which trials no other beats in all of them, and how much they cover as time goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from raystudy.report.compare import study_file
from raystudy.tracking.records import JsonObject, StudyRecord, TrialRecord, TrialState

Floats = npt.NDArray[np.float64]

DEFAULT = [
    {"metric": "valid_r2", "direction": "maximize"},
    {"metric": "epoch_seconds", "direction": "minimize"},
    {"metric": "parameters", "direction": "minimize"},
]
"""What a study is looked at by that declares fewer than two objectives."""


@dataclass(frozen=True)
class Front:
    """What several objectives make of a study's trials, in the order in which these ended."""

    objectives: list[dict[str, str]]
    """``metric`` and ``direction`` (maximize or minimize) of each."""
    declared: bool
    """The search was after these objectives; else they are `DEFAULT`, which the search did not look at."""
    trials: list[TrialRecord]
    """The complete ones; for objectives not declared also those that were pruned, with what they had reached."""
    values: Floats
    """[num_trials, num_objectives]"""
    members: list[int]
    """Rows of the trials that no other beats, the best in the first objective first; equals are all on the front."""
    reference: Floats
    """The worst value of each objective among all complete trials: hypervolumes are measured from there.

    So a trial that is the worst in one objective covers nothing, and volumes of two studies, or of one study before
    and after more trials ended, are no numbers to compare.
    """
    hypervolume: list[float]
    """What the trials ended so far cover, after each of them: a product of the objectives' units.

    Empty where the objectives are not the search's own: it says how a search went on, and there is none to judge.
    """

    @property
    def ended(self) -> list[float]:
        """When each trial ended, in seconds since the epoch."""
        return [cast(float, trial.attempts[-1].ended) for trial in self.trials]


def pareto(record: StudyRecord) -> Front | None:
    """The front of a study's trials, by its own objectives or else by `DEFAULT`; None without a trial that has them.

    A search after R2 alone may prune all but a few of its trials, and these would say little.
    """
    objectives = study_file(record).get("objectives", [])
    declared = len(objectives) > 1
    objectives = objectives if declared else DEFAULT
    metrics = [objective["metric"] for objective in objectives]
    counted = {TrialState.COMPLETE} if declared else {TrialState.COMPLETE, TrialState.PRUNED}
    ended = [
        trial
        for trial in record.trials
        if trial.state in counted and None not in (getattr(trial, metric) for metric in metrics)
    ]
    if not ended:
        return None
    ended.sort(key=lambda trial: (trial.attempts[-1].ended, trial.id))
    values = np.array([[getattr(trial, metric) for metric in metrics] for trial in ended], dtype=np.float64)
    signs = np.array([-1.0 if objective["direction"] == "maximize" else 1.0 for objective in objectives])
    costs = values * signs
    worst = costs.max(axis=0)
    members = sorted(np.flatnonzero(undominated(costs)).tolist(), key=lambda row: (*costs[row], row))
    volumes = volume_over_time(costs, worst) if declared else []
    return Front(objectives, declared, ended, values, members, worst * signs, volumes)


def pareto_json(record: StudyRecord) -> JsonObject | None:
    """The report's ``pareto``; None where there is no front."""
    front = pareto(record)
    if front is None:
        return None
    metrics = [objective["metric"] for objective in front.objectives]

    def named(values: Floats) -> dict[str, float]:
        return dict(zip(metrics, values.tolist(), strict=True))

    over_time = zip(front.trials, front.ended, front.hypervolume, strict=False)  # none where none was declared
    return {
        "objectives": front.objectives,
        "declared": front.declared,
        "front": [{"trial": front.trials[row].id, "values": named(front.values[row])} for row in front.members],
        "reference": named(front.reference),
        "hypervolume": [{"trial": trial.id, "time": time, "value": value} for trial, time, value in over_time],
    }


def undominated(costs: Floats) -> npt.NDArray[np.bool_]:
    """Which rows of [n, d] costs (smaller is better) no other row beats: as good in all columns and better in one."""
    as_good = (costs[:, None] <= costs[None]).all(axis=2)
    better = (costs[:, None] < costs[None]).any(axis=2)
    return np.logical_not((as_good & better).any(axis=0))


def hypervolume(costs: Floats, reference: Sequence[float] | Floats) -> float:
    """The volume that [n, d] costs cover towards a reference [d], d at least 2; what is not under it covers nothing.

    Exact, by slicing along the last objective. Source: While, Hingston, Barone and Huband 2006, A faster algorithm for
    calculating hypervolume, IEEE Transactions on Evolutionary Computation 10(1), section III.
    """
    limit = np.asarray(reference, dtype=np.float64)
    under = costs[(costs < limit).all(axis=1)]
    if not len(under):
        return 0.0
    if len(limit) == 2:
        ordered = under[np.argsort(under[:, 0])]
        widths = np.diff(ordered[:, 0], append=limit[0])
        return float(widths @ (limit[1] - np.minimum.accumulate(ordered[:, 1])))
    ordered = under[np.argsort(under[:, -1])]
    depths = np.diff(ordered[:, -1], append=limit[-1])
    slices = ((depth, ordered[: number + 1, :-1]) for number, depth in enumerate(depths) if depth > 0)
    return float(sum(depth * hypervolume(covered, limit[:-1]) for depth, covered in slices))


def volume_over_time(costs: Floats, reference: Floats) -> list[float]:
    """The hypervolume of the first row, the first two, and so on; only a row that reaches further is worked out."""
    front, volumes, volume = costs[:0], list[float](), 0.0
    for cost in costs:
        if not (front <= cost).all(axis=1).any():
            front = np.vstack([front[~(cost <= front).all(axis=1)], cost])
            volume = max(volume, hypervolume(front, reference))  # rounding must not let it shrink
        volumes.append(volume)
    return volumes
