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
    shared = _shared(ours, theirs)
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


def _shared(ours: Pairs, theirs: Pairs) -> dict[str, list[str]]:
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


def verdict(record: StudyRecord) -> str:
    """What the study says, in a few plain sentences, whichever side it favours and however far it got."""
    finalist, baseline = best_finalist(record), best_baseline(record)
    if finalist is None or finalist.best_replicate is None:
        return _unfinished(record)
    ours_test = finalist.test("test_r2")
    ours = f"The best network, {finalist.trial}, reaches a validation R2 of {finalist.valid_r2:.3f}"
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
    return f"{ours} {theirs} {difference}{_averaged(record.test_scores[finalist.best_replicate.id])}"


def _averaged(scores: JsonObject) -> str:
    targets = sorted(key.removeprefix("test_r2_") for key in scores if key.startswith("test_r2_"))
    return f" Every R2 here is the mean over {' and '.join(targets)}." if targets else ""


def _difference(record: StudyRecord, replicate: TrialRecord, baseline: str, difference: float) -> str:
    winner = "the network" if difference > 0 else f"the baseline {baseline}"
    favours = f"On the test genes the difference of {abs(difference):.3f} favours {winner}"
    ours, theirs = (predictions(record, one, "test") for one in (replicate.id, baseline))
    if ours is None or theirs is None or not _shared(ours, theirs):
        return f"{favours}; how sure that is cannot be said without both predictions."
    low, high = r2_difference(ours, theirs)
    interval = f"95 % interval of network minus baseline over the choice of genes: {low:+.3f} to {high:+.3f}"
    if low <= 0 <= high:
        return f"{favours}, but other test genes could have turned it round ({interval})."
    return f"{favours}, and other test genes would hardly have changed that ({interval})."


def _on_validation(finalist: Finalist, baseline: JsonObject) -> str:
    winner = "network" if (finalist.valid_r2 or 0.0) > baseline["valid_r2"] else f"baseline {baseline['name']}"
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
