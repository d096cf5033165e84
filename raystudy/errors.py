"""What can go wrong, as few kinds as a caller needs to tell apart.

A message says what was wrong, the value received, the rule, and what to do next.
"""

from __future__ import annotations


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
    """One trial ended without a usable value; ``reason`` is the word its record keeps."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
