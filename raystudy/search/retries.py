"""Which attempts are worth another one: those that were lost for a reason that says little about the configuration."""

from __future__ import annotations

from raystudy.errors import Reason
from raystudy.tracking.records import TrialRecord

RETRIES = {Reason.PREEMPTED: 20, Reason.WORKER_LOST: 2, Reason.OUT_OF_MEMORY: 1}
"""How often a trial is tried again after an attempt was lost for that reason; never for another reason."""


def may_go_on(trial: TrialRecord, reason: Reason) -> bool:
    """May a trial, whose open attempt was lost for ``reason``, have another attempt?"""
    return sum(attempt.reason == reason for attempt in trial.attempts) < RETRIES.get(reason, 0)


def parts_of_batch(trial: TrialRecord) -> int:
    """In how many parts its next attempt takes each batch: twice as many after each out-of-memory."""
    return 2 ** sum(attempt.reason == Reason.OUT_OF_MEMORY for attempt in trial.attempts)
