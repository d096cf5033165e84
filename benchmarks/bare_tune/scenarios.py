"""What is played, what is asked afterwards, and the true answers."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.bare_tune.judging import Answers
from benchmarks.bare_tune.script import BROKEN, SECOND, Run, curve
from benchmarks.bare_tune.traces import (
    AGAIN,
    AS_FAILURE,
    CALLED_FAILED,
    CRASHES,
    DISTINCT,
    ERROR,
    FEASIBLE,
    FINISHED,
    FRONT,
    FULL_AS,
    IN_RESULTS,
    LOSS_SAID,
    OPEN,
    RESULTS_SAY,
    RUNGS,
    SEEDS,
    STATE,
    STOPPED_AS,
    STORAGE_SAYS,
    STORED,
    TOOK_WORKER,
    TWICE,
    UNKNOWN,
    UNLEARNED,
    VALUE,
    Traces,
    duplicates,
    front,
    how_it_ended,
    infeasible,
    seeded_again,
    sessions,
    stopping,
    worker_killed,
)

BUDGET_SECONDS = 20
SEEDED = ({"x": 0.7}, {"x": 0.75})


@dataclass(frozen=True)
class Scenario:
    """Sessions of a driver one after the other, what is asked of them, and the true answers.

    ``truth`` is that of the diary where it counts; what should follow from it (a crash is not tried again, the limit
    of trials counts feasible ones, ...) is what raystudy sets out to do (docs/engine-comparison.md).
    """

    title: str
    truth: Answers
    ask: Callable[[Traces], Answers]
    sessions: tuple[Run, ...]


def failed(finished: int = 3) -> Answers:
    """What is true of a trial that failed while ``finished`` others went through."""
    ended = {STATE: "FAIL", VALUE: None, OPEN: 0, FINISHED: finished}
    return ended | {STORAGE_SAYS: True, CALLED_FAILED: True, RESULTS_SAY: True}


_COMPLETE = {STATE: "COMPLETE", VALUE: curve(BROKEN, 4), OPEN: 0}
_STOPPED = {STOPPED_AS: ["PRUNED"], FULL_AS: ["COMPLETE"], OPEN: 0}
_HELD = {TOOK_WORKER: 0, AS_FAILURE: 0, UNLEARNED: 0, FEASIBLE: 12}
_RESUMED = {ERROR: None, STORED: 8, OPEN: 0, IN_RESULTS: 8, UNKNOWN: 0, AGAIN: 0, RUNGS: 0, SEEDS: 2}
_EARLY = Run(num_trials=8, epochs=8, early_stopping=True, points=())
_KILLED = replace(_EARLY, points=SEEDED, end_driver=(12, signal.SIGKILL))
_AGAIN = replace(_KILLED, end_driver=None, seed=1)
_SEEDED = Run(num_trials=3, points=SEEDED)
_PAIR = ({"x": BROKEN}, {"x": SECOND})
SCENARIOS = {
    "completed": Scenario("completed", _COMPLETE | {FINISHED: 3}, how_it_ended, (Run(),)),
    "overfitted": Scenario(
        "completed; the best epoch, not the last, is wanted",
        _COMPLETE | {VALUE: curve(BROKEN, 3), FINISHED: 3},
        how_it_ended,
        (Run(ending="overfitted"),),
    ),
    "pruned": Scenario("stopped early by the scheduler", _STOPPED, stopping, (_EARLY,)),
    "nan": Scenario("NaN objective", failed(), partial(how_it_ended, reason="nan"), (Run(ending="nan"),)),
    "crash": Scenario("exception in the code", failed(), partial(how_it_ended, reason="crash"), (Run(ending="crash"),)),
    "out_of_memory": Scenario(
        "out of memory", failed(), partial(how_it_ended, reason="out of memory"), (Run(ending="out of memory"),)
    ),
    "preempted": Scenario(
        "worker killed, retries allowed",
        _COMPLETE | {FINISHED: 2, AGAIN: 0, CRASHES: 1, LOSS_SAID: True},
        worker_killed,
        (Run(ending="killed", max_failures=2, points=_PAIR),),
    ),
    "timeout": Scenario(
        "two trials hang",
        failed(finished=2),
        partial(how_it_ended, reason="timeout"),
        (Run(ending="timeout", points=_PAIR, seconds=BUDGET_SECONDS),),
    ),
    "duplicates": Scenario(
        "4 configurations, 12 trials",
        {DISTINCT: 4, TWICE: 0, OPEN: 0},
        duplicates,
        (Run(space="categories", num_trials=12, points=()),),
    ),
    "infeasible": Scenario(
        "over a limit of size, refused by an exception",
        _HELD,
        infeasible,
        (Run(space="width", num_trials=12, points=()),),
    ),
    "infeasible_constraint": Scenario(
        "over a limit of size, with a `constraints_func`",
        _HELD,
        infeasible,
        (Run(space="width", num_trials=12, points=(), constrained=True),),
    ),
    "driver_killed": Scenario(
        "driver killed, then `Tuner.restore`", _RESUMED, sessions, (_KILLED, replace(_AGAIN, restore=True))
    ),
    "driver_killed_again": Scenario("driver killed, then the same command", _RESUMED, sessions, (_KILLED, _AGAIN)),
    "interrupted": Scenario(
        "Ctrl-C, then `Tuner.restore`",
        _RESUMED,
        sessions,
        (replace(_KILLED, end_driver=(12, signal.SIGINT)), replace(_AGAIN, restore=True)),
    ),
    "seeded_again": Scenario(
        "3 trials, then 3 more in the same storage",
        {STORED: 6, OPEN: 0, SEEDS: 2, AGAIN: 0},
        seeded_again,
        (_SEEDED, replace(_SEEDED, total=6, name="more", seed=1)),
    ),
    "several_objectives": Scenario(
        "two objectives, early stopping on one", _STOPPED | {FRONT: 0}, front, (replace(_EARLY, several=True),)
    ),
}
