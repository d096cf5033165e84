"""Finalists and baselines compared on the same folds and seeds: by how much, how surely, and what would go unseen."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import stdtrit

from raystudy.report.compare import Finalist, best_finalist, finalists, study_file
from raystudy.tracking.records import JsonObject, StudyRecord

ERROR_RATE, POWER = 0.05, 0.8
MEASURES = {"valid_r2": "validation R2", "test_r2": "test R2"}

Unit = tuple[int, int]
"""Fold and seed that something was trained on, both from 0."""
Measured = dict[Unit, float]


@dataclass(frozen=True)
class Sample:
    """Independent measurements of one quantity: a mean for each fold or, where there is one fold, one for each seed.

    Folds share most of their training genes, so their means vary less than those of fresh genes would. The variance
    of their mean is therefore taken as (1/n + n_valid/n_train) times the sample variance instead of 1/n times, with
    n_valid/n_train = 1/(k - 1) of k folds. Source: Nadeau and Bengio 2003, Inference for the generalization error,
    Machine Learning 52, section 3 (corrected resampled t-test). For a test R2 the same correction is used, although
    every fold has the same test genes: there it covers the choice of training genes, not that of test genes.
    """

    values: list[float]
    num_folds: int

    @classmethod
    def of(cls, measured: Measured, num_folds: int) -> Sample:
        """Of values by fold and seed; the seeds of a fold count as one where there are several folds."""
        if num_folds == 1:
            return cls(list(measured.values()), 1)
        by_fold: dict[int, list[float]] = {}
        for (fold, _), value in measured.items():
            by_fold.setdefault(fold, []).append(value)
        return cls([fmean(values) for values in by_fold.values()], num_folds)

    @property
    def units(self) -> str:
        return "seeds" if self.num_folds == 1 else "folds"

    @property
    def mean(self) -> float | None:
        return fmean(self.values) if self.values else None

    @property
    def standard_error(self) -> float | None:
        """Of the mean; None for fewer than two values."""
        if len(self.values) < 2:
            return None
        shared = 0.0 if self.num_folds == 1 else 1 / (self.num_folds - 1)
        return stdev(self.values) * math.sqrt(1 / len(self.values) + shared)

    @property
    def half_width(self) -> float | None:
        """Of the 95 % t interval around the mean."""
        error = self.standard_error
        return None if error is None else self._quantile(1 - ERROR_RATE / 2) * error

    @property
    def interval(self) -> tuple[float, float] | None:
        if self.mean is None or self.half_width is None:
            return None
        return self.mean - self.half_width, self.mean + self.half_width

    @property
    def detectable(self) -> float | None:
        """The smallest true mean that such a sample tells from 0 in 80 % of cases, at 5 %, two-sided.

        (t(0.975) + t(0.8)) standard errors, which takes the spread for known: with 3 units the power at that mean is
        77 % rather than 80, with 2 it is 73 %.
        """
        error = self.standard_error
        return None if error is None else (self._quantile(1 - ERROR_RATE / 2) + self._quantile(POWER)) * error

    def _quantile(self, probability: float) -> float:
        return float(stdtrit(len(self.values) - 1, probability))


@dataclass(frozen=True)
class Comparison:
    """Finalist ``a`` against ``b``, another finalist or a baseline, where both were measured."""

    a: str
    b: str
    metric: str
    sample: Sample
    """Of a minus b."""
    means: tuple[float, float] | None
    """Of a and of b over the same units."""
    left_out: int
    """Replicates without a partner to hold them against: one of the two failed, or is not done."""

    @property
    def measure(self) -> str:
        return MEASURES[self.metric]

    @property
    def verdict(self) -> str:
        """In a sentence, what it says about the two."""
        what, sample = f"{self.a} and {self.b}", self.sample
        if sample.mean is None:
            return f"{what} were never measured on the same fold and seed."
        difference = f"{sample.mean:+.3f} in {self.measure}"
        count = len(sample.values)
        if sample.interval is None or sample.detectable is None:
            one = sample.units.removesuffix("s")
            return f"{what} differ by {difference} on {count} {one}, which says nothing of chance: no interval."
        low, high = sample.interval
        shown = f"{difference}, 95 % interval {low:+.3f} to {high:+.3f} over {count} {self.covers}"
        if low > 0 or high < 0:
            better, worse = (self.a, self.b) if low > 0 else (self.b, self.a)
            return f"{better} is better than {worse} ({shown})."
        unseen = f"a true difference would have to be about {sample.detectable:.3f} to be seen 4 times in 5"
        return f"{what} cannot be told apart ({shown}); {unseen}."

    @property
    def covers(self) -> str:
        """The units, with what their interval does not cover."""
        if self.sample.units == "seeds":
            return "seeds, which covers the chance of training only and not the choice of genes"
        return "folds" if self.metric == "valid_r2" else "folds with the same test genes"

    def summary(self) -> JsonObject:
        """As the report's JSON has it."""
        return {
            "a": self.a,
            "b": self.b,
            "metric": self.metric,
            "difference": self.sample.mean,
            "interval": self.sample.interval,
            "units": self.sample.units,
            "num_units": len(self.sample.values),
            "left_out": self.left_out,
            "detectable": self.sample.detectable,
            "verdict": self.verdict,
        }


def num_folds(record: StudyRecord) -> int:
    """On how many folds each finalist is trained."""
    return int(study_file(record).get("replicates", {}).get("folds", 1))


def measured(finalist: Finalist, metric: str) -> Measured:
    """``valid_r2`` or a measure of the test genes, of the completed replicates by fold and seed."""
    values = {
        (one.fold, one.replicate): one.valid_r2 if metric == "valid_r2" else finalist.scores.get(one.id, {}).get(metric)
        for one in finalist.completed
    }
    return {unit: value for unit, value in values.items() if value is not None}


def comparisons(record: StudyRecord) -> list[Comparison]:
    """The best finalist against each other one and each baseline: on validation, and on the test once it is open.

    The best was chosen by the validation values that it is compared on, so there it does too well; not on the test.
    """
    best = best_finalist(record)
    if best is None:
        return []
    others = [one for one in finalists(record) if one.trial != best.trial]
    metrics = ["valid_r2", "test_r2"] if record.test_scores else ["valid_r2"]
    names = [line["name"] for line in record.baselines]
    return [
        *(_against_finalist(record, best, other, metric) for other in others for metric in metrics),
        *(against_baseline(record, best, name, metric) for name in names for metric in metrics),
    ]


def detectable(record: StudyRecord) -> list[str]:
    """A sentence for each measure: the smallest difference that the comparisons could have shown."""
    sentences = []
    for metric, measure in MEASURES.items():
        compared = [one.sample for one in comparisons(record) if one.metric == metric]
        found = sorted(sample.detectable for sample in compared if sample.detectable is not None)
        if found:
            low, high = f"{found[0]:.3f}", f"{found[-1]:.3f}"
            span = f"about {low}" if low == high else f"about {low} to {high}, depending on the two compared,"
            count = max(len(sample.values) for sample in compared)
            where = f"{count} {compared[0].units}"
            sentences.append(f"With {where}, a true difference of {span} in {measure} is seen 4 times in 5.")
    return sentences


def against_baseline(record: StudyRecord, finalist: Finalist, name: str, metric: str) -> Comparison:
    """A finalist against a baseline, which has one value a fold: it holds for every seed there."""
    theirs = {
        (one.fold, one.replicate): value
        for one in finalist.replicates
        if (value := _baseline_value(record, name, one.fold, metric)) is not None
    }
    return _compare(record, (finalist.trial, name), metric, measured(finalist, metric), theirs, _planned(finalist))


def baseline_identity(record: StudyRecord, name: str, fold: int) -> str:
    """What a baseline is called in the test scores and among the predictions."""
    return name if num_folds(record) == 1 else f"{name}-fold{fold}"


def _baseline_value(record: StudyRecord, name: str, fold: int, metric: str) -> float | None:
    if metric != "valid_r2":
        value = record.test_scores.get(baseline_identity(record, name, fold), {}).get(metric)
    elif num_folds(record) == 1:
        value = next((line["valid_r2"] for line in record.baselines if line["name"] == name), None)
    else:
        fitted = [line for line in record.every("fold_baseline") if (line["name"], line["fold"]) == (name, fold)]
        value = fitted[-1]["valid_r2"] if fitted else None
    return None if value is None else float(value)


def _against_finalist(record: StudyRecord, best: Finalist, other: Finalist, metric: str) -> Comparison:
    planned = {*_planned(best), *_planned(other)}
    both = (best.trial, other.trial)
    return _compare(record, both, metric, measured(best, metric), measured(other, metric), planned)


def _compare(
    record: StudyRecord, names: tuple[str, str], metric: str, ours: Measured, theirs: Measured, planned: Iterable[Unit]
) -> Comparison:
    shared = sorted(ours.keys() & theirs.keys())
    sample, first, second = (
        Sample.of({unit: value(unit) for unit in shared}, num_folds(record))
        for value in (lambda unit: ours[unit] - theirs[unit], ours.__getitem__, theirs.__getitem__)
    )
    means = None if first.mean is None or second.mean is None else (first.mean, second.mean)
    return Comparison(*names, metric, sample, means, len(set(planned)) - len(shared))


def _planned(finalist: Finalist) -> list[Unit]:
    """Its folds and seeds, however they ended."""
    return [(one.fold, one.replicate) for one in finalist.replicates]
