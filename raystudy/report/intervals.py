"""How far the R2 of a finalist or a baseline could have gone with other genes than those that happened to be there."""

from __future__ import annotations

from raystudy.report.compare import finalists, predictions, r2_interval
from raystudy.tracking.records import StudyRecord

METRICS = {"valid_r2": "valid", "test_r2": "test"}

Intervals = dict[str, dict[str, tuple[float, float] | None]]
"""Finalist's trial or baseline's name -> ``valid_r2`` or ``test_r2`` -> 95 % interval."""


def gene_intervals(record: StudyRecord) -> Intervals:
    """The interval over genes of each R2 in the result table; None without predictions or while the genes are sealed.

    The trained networks are taken as they are: what another seed would have made of them is not in it.
    """
    identities = {one.trial: [replicate.id for replicate in one.completed] for one in finalists(record)}
    identities |= {line["name"]: [line["name"]] for line in record.baselines}
    return {
        name: {metric: _interval(record, members, part) for metric, part in METRICS.items()}
        for name, members in identities.items()
    }


def _interval(record: StudyRecord, identities: list[str], part: str) -> tuple[float, float] | None:
    """Of the mean R2 of those that predicted; a mean over some replicates only would be that of another number."""
    if part == "test" and not all(identity in record.test_scores for identity in identities):
        return None
    scored = [pairs for identity in identities if (pairs := predictions(record, identity, part)) is not None]
    return r2_interval(scored) if scored and len(scored) == len(identities) else None
