"""What MLflow holds of a study, a trial or a replicate: the records as metrics, parameters and tags. Pure functions.

A page that compares runs shows the last value of each metric, in the order of their names, and the first few before
one scrolls. So a result has a key of its own, written once when the trial has ended (``valid_r2`` is that of the best
epoch, ``epoch_seconds`` the median), and what changes from epoch to epoch stands after all of these, as ``vs_epoch/``.
No run has more than `MOST_KEYS` keys: pages become slow with more.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from raystudy.tracking.records import JsonObject, StudyRecord, TrialRecord, TrialState

MOST_KEYS = 15
CURVES = ("train_loss", "valid_r2", "valid_pearson_r2", "epoch_seconds")
TEST_METRICS = ("test_r2", "test_pearson_r2", "test_spearman", "selection_bias_pearson_r2")
STATUS = {
    TrialState.RUNNING: "RUNNING",
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "FINISHED",
    TrialState.FAILED: "FAILED",
    TrialState.INFEASIBLE: "FAILED",
}


class Metric(NamedTuple):
    """One value to log; ``time`` in seconds since the epoch of the clock, as in the records."""

    key: str
    value: float | None
    time: float
    step: int = 0


def study_metrics(record: StudyRecord) -> list[Metric]:
    """Of the parent run. Baselines as many as there is room for, in the study file's order; the report has all."""
    metrics = [Metric("num_trials", len(record.trials), trial.attempts[0].started) for trial in record.trials[-1:]]
    best = max(
        (trial for trial in record.trials if trial.best),
        key=lambda trial: trial.valid_r2 or 0.0,
        default=None,
    )
    if best is not None and best.best is not None:
        metrics.append(Metric("best_valid_r2", best.valid_r2, best.best["time"]))
    finished = record.last("study_finished")
    if finished is not None:
        metrics.append(Metric("study_seconds", record.seconds, finished["time"]))
    opened = next(iter(record.every("test_opened")), None)
    for line in record.baselines[: (MOST_KEYS - 3) // 2]:
        metrics.append(Metric(f"{line['name']}_valid_r2", line["valid_r2"], line["time"]))
        if opened is not None:
            score = opened["scores"].get(line["name"], {}).get("test_r2")
            metrics.append(Metric(f"{line['name']}_test_r2", score, opened["time"]))
    return metrics


def study_params(session: JsonObject) -> dict[str, str]:
    """What was studied: the hashes of the study file, the data and the split, and what is counted of them."""
    return flat({key: session.get(key) for key in ("spec_hash", "data", "split")})


def study_tags(name: str, session: JsonObject) -> dict[str, str]:
    """Where it came from; MLflow shows a run's source by tags of its own."""
    provenance = session.get("provenance") or {}
    commit = (provenance.get("git") or {}).get("commit")
    source = {"mlflow.source.name": f"raystudy tune {name}", "mlflow.source.git.commit": commit}
    return flat(source | {"provenance": provenance})


def dimension_tags(found: JsonObject) -> dict[str, str]:
    """What the search was seeded from; lists and estimates as JSON, so that a script can read them back."""
    seeded = found.get("seeded") or {}
    known = {key: found.get(key) for key in ("representation", "input", "consensus", "interval", "estimates")}
    known |= {"seeded_widths": seeded.get("widths"), "note": seeded.get("provenance", {}).get("note")}
    return {
        f"raystudy.dimension.{key}": value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        for key, value in known.items()
        if value is not None
    }


def epoch_metrics(epoch: JsonObject) -> list[Metric]:
    """One point of each curve."""
    return [Metric(f"vs_epoch/{key}", epoch.get(key), epoch["time"], epoch["epoch"]) for key in CURVES]


def start_metrics(trial: TrialRecord) -> list[Metric]:
    """What is known of a trial or replicate before its first epoch."""
    return [Metric("parameters", trial.parameters, trial.attempts[0].started)]


def end_metrics(trial: TrialRecord) -> list[Metric]:
    """What it came to; nothing while it runs."""
    ended = trial.attempts[-1].ended
    if ended is None or trial.state is TrialState.RUNNING:
        return []
    seconds = trial.epoch_seconds
    # Of the epoch that the median is: every epoch goes through the same genes.
    speed = next((one.get("samples_per_second") for one in trial.epochs if one["epoch_seconds"] == seconds), None)
    memory = [one["peak_memory_gb"] for one in trial.epochs if one.get("peak_memory_gb") is not None]
    values = {
        "valid_r2": trial.valid_r2,
        "best_epoch": trial.best_epoch,
        "epoch_seconds": seconds,
        "samples_per_second": speed,
        "peak_memory_gb": max(memory, default=None),
    }
    return [Metric(key, value, ended) for key, value in values.items()]


def opened_metrics(record: StudyRecord, replicate_id: str) -> list[Metric]:
    """Of a replicate, once the test genes are opened; the first opening counts."""
    opened = next(iter(record.every("test_opened")), None)
    if opened is None:
        return []
    scores = opened["scores"].get(replicate_id, {})
    return [Metric(key, scores.get(key), opened["time"]) for key in TEST_METRICS]


def trial_params(trial: TrialRecord) -> dict[str, str]:
    """Its configuration, flat, and its seed."""
    return flat(trial.config) | {"seed": str(trial.seed)}


def trial_tags(trial: TrialRecord) -> dict[str, str]:
    """How it stands and where it came from, and what it really ran with: `auto` says nothing to who compares."""
    known = {
        "state": trial.state.value,
        "reason": trial.reason or "none",
        "origin": trial.origin,
        "arm": trial.arm,
        "config_hash": trial.config_hash,
        "global_batch": trial.global_batch,
        "attempts": len(trial.attempts),
        "detail": trial.detail or "none",
        "micro_batches": trial.micro_batches,
    }
    if trial.epochs:
        last = trial.epochs[-1]
        known |= {"precision": last.get("precision"), "workers": last.get("workers", 1)}
        known |= {"attention": _backends(last.get("attention") or {})}
    if trial.origin == "finalist":
        known |= {"fold": trial.fold, "replicate": trial.replicate}
    return flat({"raystudy": known})


def _backends(by_layer: dict[str, str]) -> str | None:
    """One word where all layers computed attention alike, else layer by layer; None where there is none."""
    if len(set(by_layer.values())) == 1:
        return next(iter(by_layer.values()))
    return ", ".join(f"{layer}={backend}" for layer, backend in sorted(by_layer.items())) or None


def flat(nested: JsonObject, prefix: str = "") -> dict[str, str]:
    """Nested JSON as MLflow's flat text: ``{"a": {"b": 1}}`` -> ``{"a.b": "1"}``; nulls are left out."""
    texts: dict[str, str] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            texts |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            texts[f"{prefix}{key}"] = str(value)
    return texts
