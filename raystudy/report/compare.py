"""Finalists and baselines, the best of each by validation, and two models' predictions of the same genes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raystudy.tracking.predictions import predictions_path
from raystudy.tracking.records import JsonObject, StudyRecord, TrialRecord, TrialState


@dataclass(frozen=True)
class Finalist:
    """A trial trained again, once for each seed; its numbers are means over the completed replicates."""

    trial: str
    replicates: list[TrialRecord]
    scores: dict[str, JsonObject]
    """Test numbers by replicate; empty while the test genes are sealed."""

    @property
    def completed(self) -> list[TrialRecord]:
        return [one for one in self.replicates if one.state is TrialState.COMPLETE and one.best is not None]

    @property
    def best_replicate(self) -> TrialRecord | None:
        """The completed replicate with the best validation R2 of its own."""
        return max(self.completed, key=lambda one: one.valid_r2 or 0.0, default=None)

    @property
    def valid_r2(self) -> float | None:
        return _mean([one.valid_r2 for one in self.completed])

    @property
    def epoch_seconds(self) -> float | None:
        return _mean([one.epoch_seconds for one in self.completed])

    def test(self, metric: str) -> float | None:
        return _mean([self.scores.get(one.id, {}).get(metric) for one in self.completed])


def study_file(record: StudyRecord) -> JsonObject:
    """The study file as it was when the study began, with every key; empty where there is none."""
    path = record.folder / "spec.json"
    if not path.exists():
        return {}
    written: JsonObject = json.loads(path.read_text(encoding="utf-8"))
    return written.get("spec", written)


def finalists(record: StudyRecord) -> list[Finalist]:
    """The study's finalists, in the order of their trials."""
    by_trial: dict[str, list[TrialRecord]] = {}
    for replicate in record.finalists:
        by_trial.setdefault(replicate.id.rpartition("-r")[0], []).append(replicate)
    return [
        Finalist(trial, sorted(replicates, key=lambda one: (one.fold, one.replicate)), record.test_scores)
        for trial, replicates in by_trial.items()
    ]


def best_finalist(record: StudyRecord) -> Finalist | None:
    """The finalist with the best validation R2 of its own; the test genes have no say in it."""
    measured = [one for one in finalists(record) if one.valid_r2 is not None]
    return max(measured, key=lambda one: one.valid_r2 or 0.0, default=None)


def best_baseline(record: StudyRecord) -> JsonObject | None:
    """The baseline with the best validation R2."""
    measured = [line for line in record.baselines if line["valid_r2"] is not None]
    return max(measured, key=lambda line: line["valid_r2"], default=None)


Pairs = dict[str, dict[str, tuple[float, float]]]
"""Target -> gene -> (predicted, measured)."""


def predictions(record: StudyRecord, identity: str, part: str) -> Pairs | None:
    """What was predicted and measured in one part of the split; None unless it was written and is open."""
    path = predictions_path(record.folder, identity)
    if not path.exists():
        return None
    pairs: Pairs = {}
    for row in pq.read_table(path).to_pylist():
        if row["part"] == part and row["measured"] is not None:
            pairs.setdefault(row["target"], {})[row["gene_id"]] = (row["predicted"], row["measured"])
    return pairs or None


def r2_difference(ours: Pairs, theirs: Pairs, resamples: int = 2000) -> tuple[float, float]:
    """95 % interval of R2(ours) - R2(theirs), means over the targets, over the choice of genes: paired bootstrap.

    Genes of one family or neighbourhood are not independent, so the true interval is somewhat wider.
    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (percentile interval).
    """
    shared = shared_genes(ours, theirs)
    genes = sorted(set().union(*shared.values()))
    evenly = np.full(len(genes), 1 / len(genes))
    counts = np.random.default_rng(0).multinomial(len(genes), evenly, size=resamples)
    place = {gene: index for index, gene in enumerate(genes)}
    differences = []
    for target, members in shared.items():
        drawn = counts[:, [place[gene] for gene in members]]
        one, other = ([pairs[target][gene] for gene in members] for pairs in (ours, theirs))
        differences.append(_r2_differences(drawn, one, other))
    difference = np.mean(differences, axis=0)
    known = difference[np.isfinite(difference)]  # a resample of a few genes may hold one of them only
    if not len(known):
        return -math.inf, math.inf
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def shared_genes(ours: Pairs, theirs: Pairs) -> dict[str, list[str]]:
    """The genes that both predicted, by target."""
    both = {target: sorted(ours[target].keys() & theirs[target].keys()) for target in ours.keys() & theirs.keys()}
    return {target: genes for target, genes in both.items() if genes}


def _r2_differences(
    drawn: NDArray[np.int64], ours: list[tuple[float, float]], theirs: list[tuple[float, float]]
) -> NDArray[np.float64]:
    """R2(ours) - R2(theirs) in each resample, whose rows say how often each gene was drawn; NaN without variance."""
    measured = np.array([truth for _, truth in ours])
    centred = measured - measured.mean()
    total = drawn @ centred**2 - (drawn @ centred) ** 2 / np.maximum(drawn.sum(axis=1), 1)
    errors = [drawn @ (np.array([guess for guess, _ in pairs]) - measured) ** 2 for pairs in (ours, theirs)]
    return np.divide(errors[1] - errors[0], total, out=np.full(len(total), np.nan), where=total > 0)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
