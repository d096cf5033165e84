"""What a study did not get a value from, and why: failures, lost attempts, infeasible proposals, repetitions."""

from __future__ import annotations

from collections import Counter

from raystudy.report.compare import study_file
from raystudy.tracking.records import JsonObject, StudyRecord, TrialState

LOST = {
    "preempted": "to preemption",
    "worker lost": "with a worker",
    "out of memory": "for want of memory",
    "interrupted": "to Ctrl-C",
    "driver lost": "with the driver",
}
"""How an attempt is lost for each reason, in the words of a sentence."""
STOPPED = {
    "trials": "all its trials were started",
    "minutes": "its time was used up",
    "cost": "its money was used up",
    "target": "the R2 it was after was reached",
    "no improvement": "too many trials brought nothing better",
    "exhausted": "there was nothing new to try",
}
"""Why a search ended for each reason, in words."""


def losses(record: StudyRecord) -> JsonObject:
    """``failed`` attempts (trial, attempt, reason, detail), ``infeasible`` reasons (reason, count, example), sentences.

    An attempt that was lost says nothing about its trial, which goes on, so these are only counted, in ``notes``.
    """
    everything = [*record.trials, *record.finalists]
    refused = [trial for trial in record.trials if trial.state is TrialState.INFEASIBLE]
    counts = Counter(trial.reason or "not recorded" for trial in refused)
    first = {trial.reason or "not recorded": trial for trial in reversed(refused)}
    return {
        "failed": [
            (trial.id, attempt.number, attempt.reason or "not recorded", attempt.detail or "")
            for trial in everything
            for attempt in trial.attempts
            if attempt.state is TrialState.FAILED
        ]
        + [
            (line["name"], 1, "on fewer training genes", line.get("detail") or "not recorded")
            for line in record.every("training_size")
            if line["valid_r2"] is None
        ],
        "infeasible": [
            (reason, count, f"{first[reason].id}: {first[reason].detail or reason}")
            for reason, count in counts.most_common()
        ],
        "notes": [*_lost(record), *_repeated(record)],
    }


def cost(record: StudyRecord) -> dict[str, str]:
    """What the study took: driver sessions, time, how long resources were held, and money where prices are given."""
    done = record.last("search_finished") or {}
    prices = study_file(record).get("prices", {})
    reason = done.get("reason")
    money = "no prices in the study file"
    if prices.get("cpu_hour") or prices.get("gpu_hour"):
        money = "not known yet" if done.get("cost") is None else f"{done['cost']:.2f} {done['currency']}"
    return {
        "sessions": str(len(record.every("session_started"))),
        "time at work, waiting included": f"{record.seconds / 60:.1f} min",
        "machines held by trials": f"{sum(one.seconds for one in record.trials) / 60:.1f} min",
        "machines held by finalists": f"{sum(one.seconds for one in record.finalists) / 60:.1f} min",
        "cost of the search": money,
        "search stopped because": STOPPED.get(reason, str(reason)) if reason else "it has not yet",
    }


def _lost(record: StudyRecord) -> list[str]:
    """A sentence for each way in which attempts were lost, the most frequent first."""
    again: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    for trial in [*record.trials, *record.finalists]:
        for attempt in trial.attempts:
            followed = attempt is not trial.attempts[-1]
            left_open = attempt.state is TrialState.RUNNING and followed  # by a driver that died
            if attempt.state is TrialState.INTERRUPTED or left_open:
                (again if followed else waiting)[attempt.reason or "driver lost"] += 1
    went_on = [f"{_attempts(count, reason)} and taken up again." for reason, count in again.most_common()]
    return went_on + [f"{_attempts(count, reason)}, to be taken up again." for reason, count in waiting.most_common()]


def _attempts(count: int, reason: str) -> str:
    return f"{count} {'attempt was' if count == 1 else 'attempts were'} lost {LOST.get(reason, f'({reason})')}"


def _repeated(record: StudyRecord) -> list[str]:
    count = len({line["number"] for line in record.every("duplicate")})
    if not count:
        return []
    what = "1 proposal was a configuration" if count == 1 else f"{count} proposals were configurations"
    return [f"{what} tried before and told to the sampler without training."]
