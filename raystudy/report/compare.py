"""Who is better: finalists and baselines, chosen on validation, compared on the genes that were sealed."""

from __future__ import annotations

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


def finalists(record: StudyRecord) -> list[Finalist]:
    """The study's finalists, in the order of their trials."""
    by_trial: dict[str, list[TrialRecord]] = {}
    for replicate in record.finalists:
        by_trial.setdefault(replicate.id.rpartition("-r")[0], []).append(replicate)
    return [Finalist(trial, replicates, record.test_scores) for trial, replicates in by_trial.items()]


def best_finalist(record: StudyRecord) -> Finalist | None:
    """The finalist with the best validation R2 of its own; the test genes have no say in it."""
    measured = [one for one in finalists(record) if one.valid_r2 is not None]
    return max(measured, key=lambda one: one.valid_r2 or 0.0, default=None)


def best_baseline(record: StudyRecord) -> JsonObject | None:
    """The baseline with the best validation R2."""
    measured = [line for line in record.baselines if line["valid_r2"] is not None]
    return max(measured, key=lambda line: line["valid_r2"], default=None)


def predictions(record: StudyRecord, identity: str, part: str) -> dict[str, tuple[float, float]] | None:
    """(predicted, measured) by gene of one part of the split; None unless they were written and measured."""
    path = predictions_path(record.folder, identity)
    if not path.exists():
        return None
    columns = pq.read_table(path).to_pydict()
    rows = zip(columns["gene_id"], columns["part"], columns["predicted"], columns["measured"], strict=True)
    pairs = {gene: (predicted, measured) for gene, where, predicted, measured in rows if where == part}
    return pairs if pairs and all(measured is not None for _, measured in pairs.values()) else None


def r2_difference(
    ours: dict[str, tuple[float, float]], theirs: dict[str, tuple[float, float]], resamples: int = 2000
) -> tuple[float, float]:
    """95 % interval of R2(ours) - R2(theirs) over the choice of genes, by the paired bootstrap.

    Genes of one family or neighbourhood are not independent, so the true interval is somewhat wider.
    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (percentile interval).
    """
    genes = sorted(ours.keys() & theirs.keys())
    measured = np.array([ours[gene][1] for gene in genes])
    num_genes = len(genes)
    evenly = np.full(num_genes, 1 / num_genes)
    counts = np.random.default_rng(0).multinomial(num_genes, evenly, size=resamples)

    def squared_error(pairs: dict[str, tuple[float, float]]) -> NDArray[np.float64]:
        predicted = np.array([pairs[gene][0] for gene in genes])
        return counts @ (predicted - measured) ** 2

    centred = measured - measured.mean()
    total = counts @ centred**2 - (counts @ centred) ** 2 / num_genes
    varied = total > 0  # a resample of a few genes may hold one of them only
    difference = (squared_error(theirs) - squared_error(ours))[varied] / total[varied]
    if not varied.any():
        return -math.inf, math.inf
    low, high = np.quantile(difference, [0.025, 0.975])
    return float(low), float(high)


def verdict(record: StudyRecord) -> str:
    """What the study says, in a few plain sentences, whichever side it favours and however far it got."""
    finalist, baseline = best_finalist(record), best_baseline(record)
    if finalist is None or finalist.best_replicate is None:
        return _unfinished(record)
    ours_test = finalist.test("test_r2")
    ours = f"The best Perceiver, {finalist.trial}, reaches a validation R2 of {finalist.valid_r2:.3f}"
    if ours_test is None:
        sealed = " The test genes are still sealed."
        return f"{ours}." + ("" if baseline is None else " " + _on_validation(finalist, baseline)) + sealed
    num_genes = record.test_scores[finalist.best_replicate.id].get("num_genes")
    ours += f" and a test R2 of {ours_test:.3f}" + (f" on {num_genes:,} sealed genes." if num_genes else ".")
    theirs_test = None if baseline is None else record.test_scores.get(baseline["name"], {}).get("test_r2")
    if baseline is None or theirs_test is None:
        return f"{ours} There is no baseline to hold it against."
    theirs = f"The best baseline, {baseline['name']}, reaches {baseline['valid_r2']:.3f} and {theirs_test:.3f}."
    difference = _difference(record, finalist.best_replicate, baseline["name"], ours_test - theirs_test)
    return f"{ours} {theirs} {difference}"


def _difference(record: StudyRecord, replicate: TrialRecord, baseline: str, difference: float) -> str:
    winner = "the Perceiver" if difference > 0 else f"the baseline {baseline}"
    favours = f"On the test genes the difference of {abs(difference):.3f} favours {winner}"
    ours, theirs = (predictions(record, one, "test") for one in (replicate.id, baseline))
    if ours is None or theirs is None or not ours.keys() & theirs.keys():
        return f"{favours}; how sure that is cannot be said without both predictions."
    low, high = r2_difference(ours, theirs)
    interval = f"95 % interval of Perceiver minus baseline over the choice of genes: {low:+.3f} to {high:+.3f}"
    if low <= 0 <= high:
        return f"{favours}, but other test genes could have turned it round ({interval})."
    return f"{favours}, and other test genes would hardly have changed that ({interval})."


def _on_validation(finalist: Finalist, baseline: JsonObject) -> str:
    winner = "Perceiver" if (finalist.valid_r2 or 0.0) > baseline["valid_r2"] else f"baseline {baseline['name']}"
    theirs = f"The best baseline, {baseline['name']}, reaches {baseline['valid_r2']:.3f}"
    return f"{theirs}: so far the {winner} leads."


def _unfinished(record: StudyRecord) -> str:
    finite = [trial for trial in record.trials if trial.valid_r2 is not None]
    if not finite:
        return f"Nothing can be said yet: none of {len(record.trials)} trials has a validation R2."
    best = max(finite, key=lambda trial: trial.valid_r2 or 0.0)
    return (
        f"Not decided yet: the best of {len(record.trials)} trials so far is {best.id} with a validation R2 "
        f"of {best.valid_r2:.3f}; no finalist is done and the test genes are sealed."
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
