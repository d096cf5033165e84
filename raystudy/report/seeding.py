"""Whether beginning a search at the intrinsic dimension helped: in this study, and in the benchmark beside it."""

from __future__ import annotations

import json

from raystudy.tracking.records import StudyRecord, TrialRecord


def seeding_outcome(record: StudyRecord) -> str | None:
    """Where the seeded trials stood among all trials with a validation R2; None where no trial was seeded."""
    if not any(trial.origin == "seeded" for trial in record.trials):
        return None
    ranked = sorted(
        (trial for trial in record.trials if trial.valid_r2 is not None),
        key=lambda trial: trial.valid_r2 or 0.0,
        reverse=True,
    )
    seeded = [trial for trial in ranked if trial.origin == "seeded"]
    if not seeded:
        return "No seeded trial reached a validation R2, so nothing can be said about whether seeding helped."
    best = seeded[0]
    rank = 1 + sum((trial.valid_r2 or 0.0) > (best.valid_r2 or 0.0) for trial in ranked)
    counts = f"{len(seeded)} of the {len(ranked)} trials with a validation R2 {_were(len(seeded))} seeded"
    if rank == 1:
        first = f"the best of them, {_described(best)}, is the best of all"
    else:
        first = f"the best of them, {_described(best)}, ranks {rank} of {len(ranked)}"
        first += f"; the best of all is {_described(ranked[0])}, {_source(ranked[0])}"
    return f"{counts}: {first}. This says where seeding stood in this one study, not whether seeding helps."


def benchmark_verdict(record: StudyRecord) -> dict[str, str] | None:
    """Verdict, command, machine and date that ``python -m benchmarks.seeding`` left beside the studies, or None."""
    path = record.folder.parent / "benchmarks" / "seeding.json"
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        found = {key: written[key] for key in ("verdict", "command", "machine", "date")}
    except (OSError, ValueError, KeyError, TypeError):
        return None  # never run, or damaged: a report must not fail over it
    return found if all(isinstance(text, str) for text in found.values()) else None


def _described(trial: TrialRecord) -> str:
    width = trial.config.get("latent_dim")
    return f"{trial.id} ({'' if width is None else f'latent width {width}, '}R2 {trial.valid_r2:.3f})"


def _source(trial: TrialRecord) -> str:
    if trial.origin == "warm":
        return "which came from an earlier study"
    return f"which was {trial.origin}" if trial.arm is None else f"the arm {trial.arm}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
