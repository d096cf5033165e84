"""Finalists and baselines, the best of each by validation, and two models' predictions of the same genes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
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


def given_study_file(record: StudyRecord) -> JsonObject:
    """The keys that the study file gave, which make a study file again; empty where there is none."""
    if whole := (record.last("reduced") or {}).get("study_file"):
        return dict(whole)
    path = record.folder / "spec.json"
    written: JsonObject = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return written.get("given", study_file(record))


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
    columns = pq.read_table(path, filters=[("part", "=", part)]).to_pydict()
    pairs: Pairs = {}
    rows = zip(*(columns[key] for key in ("target", "gene_id", "predicted", "measured")), strict=True)
    for target, gene, predicted, measured in rows:
        if measured is not None:
            pairs.setdefault(target, {})[gene] = (predicted, measured)
    return pairs or None


def r2_difference(ours: Pairs, theirs: Pairs, resamples: int = 2000) -> tuple[float, float]:
    """95 % interval of R2(ours) - R2(theirs), means over the targets, over the choice of genes: paired bootstrap.

    Genes of one family or neighbourhood are not independent, so the true interval is somewhat wider.
    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (percentile interval).
    """
    shared = shared_genes(ours, theirs)
    kept = [
        {gene: pairs[target][gene] for gene in genes} for pairs in (ours, theirs) for target, genes in shared.items()
    ]
    one, other = np.split(_resampled_r2(kept, resamples), 2, axis=1)
    return _percentiles((one - other).mean(axis=1)) or (-math.inf, math.inf)


def r2_interval(scored: Sequence[Pairs], resamples: int = 2000) -> tuple[float, float] | None:
    """95 % interval of a model's R2 over the choice of genes, by the percentile bootstrap of `r2_difference`.

    ``scored`` are the predictions of its replicates: their R2, and those of their targets, are averaged in each
    resample of the genes. None where no resample has an R2.
    """
    return _percentiles(
        _resampled_r2([levels for pairs in scored for levels in pairs.values()], resamples).mean(axis=1)
    )


def shared_genes(ours: Pairs, theirs: Pairs) -> dict[str, list[str]]:
    """The genes that both predicted, by target."""
    both = {target: sorted(ours[target].keys() & theirs[target].keys()) for target in ours.keys() & theirs.keys()}
    return {target: genes for target, genes in both.items() if genes}


def _resampled_r2(scored: list[dict[str, tuple[float, float]]], resamples: int) -> NDArray[np.float64]:
    """[resamples, len(scored)]: R2 of each on the same resamples of all their genes; NaN without variance."""
    genes = sorted(set().union(*scored))
    place = {gene: row for row, gene in enumerate(genes)}
    sums = np.zeros((len(genes), 4, len(scored)))  # a gene that one of them lacks adds nothing to it
    for number, levels in enumerate(scored):
        predicted, measured = np.array(list(levels.values())).T
        centred = measured - measured.mean()
        each = np.stack([(predicted - measured) ** 2, centred**2, centred, np.ones_like(centred)], axis=1)
        sums[[place[gene] for gene in levels], :, number] = each
    parts = np.array_split(_draws(len(genes), resamples), 10)  # as floats, all at once would take gigabytes
    drawn = np.concatenate([part.astype(np.float64) @ sums.reshape(len(genes), -1) for part in parts])
    error, square, total, count = np.moveaxis(drawn.reshape(resamples, 4, len(scored)), 1, 0)
    spread = square - total**2 / np.maximum(count, 1)
    return 1 - np.divide(error, spread, out=np.full_like(error, np.nan), where=spread > 1e-12 * square)


@lru_cache(maxsize=2)  # everything that is scored on the test genes is scored on the same resamples
def _draws(num_genes: int, resamples: int) -> NDArray[np.int16]:
    """[resamples, num_genes]: how often each gene is drawn."""
    counts = np.random.default_rng(0).multinomial(num_genes, np.full(num_genes, 1 / num_genes), size=resamples)
    return counts.astype(np.int16)


def _percentiles(values: NDArray[np.float64]) -> tuple[float, float] | None:
    known = values[np.isfinite(values)]  # a resample of a few genes may hold one of them only
    if not len(known):
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
