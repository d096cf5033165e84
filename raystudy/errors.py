"""What can go wrong, as few kinds as a caller needs to tell apart.

A message says what was wrong, the value received, the rule, and what to do next.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why an attempt at a trial ended without its result, in the words of its record."""

    NAN = "nan"
    """The loss or a prediction stopped being finite."""
    OUT_OF_MEMORY = "out of memory"
    CRASH = "crash"
    """The training raised an error."""
    TIMEOUT = "timeout"
    """It took longer than `budget.trial_minutes`."""
    PREEMPTED = "preempted"
    """Its machine was taken away."""
    WORKER_LOST = "worker lost"
    """Its process died, nobody knows why."""
    DRIVER_LOST = "driver lost"
    """The driver died without a word and left it running."""
    INTERRUPTED = "interrupted"
    """Ctrl-C."""
    BUDGET = "budget"
    """Nothing is left of the study's time, or money."""
    TARGET = "target reached"
    """Another trial was good enough for `budget.valid_r2`."""


class RaystudyError(Exception):
    """Base of every error that raystudy raises on purpose; the command line prints it without a traceback."""

    exit_code = 1


class SpecError(RaystudyError):
    """The study file is wrong: an unknown key, an impossible range, a value outside its rule."""

    exit_code = 2


class DataError(RaystudyError):
    """The data is missing, altered, or does not hold what the study asks of it."""

    exit_code = 2


class SplitLeakage(DataError):
    """The parts of a split are not independent of each other."""


class Infeasible(RaystudyError):
    """The study, or one configuration of it, can never run on the resources there are."""

    exit_code = 2


class TrialFailed(RaystudyError):
    """A trial ended without a usable value, for the reason that its record keeps."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[TrialFailed], tuple[Reason, str]]:
        return TrialFailed, (self.reason, self.detail)  # it travels between processes, where one argument is not enough


class StudyFailed(RaystudyError):
    """No trial, or no finalist, reached a value."""
