"""A published table beside the study that repeats it: row by row, claim by claim, and what cannot be compared.

A value printed for other genes and other machines says little beside ours; what a row changes against the row that it
is compared with says more. Intervals of such changes are t intervals over seeds, with one variance for all rows (the
pooled variance of one-way analysis of variance; Snedecor and Cochran 1989, Statistical Methods, chapter 12), for two or
three seeds of one row say nothing about its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, variance
from typing import Any

from scipy.special import stdtrit

from raystudy.report.changes import (
    FAILED,
    NOT,
    NOT_RUN,
    NOT_YET,
    RELATIVE,
    REPRODUCED,
    UNDECIDED,
    WORDS,
    Change,
    change_said,
)
from raystudy.report.compare import Finalist, finalists, study_file
from raystudy.report.markdown import markdown_cell, markdown_rows
from raystudy.report.replicates import ERROR_RATE
from raystudy.tracking.records import JsonObject, StudyRecord, TrialRecord, TrialState


@dataclass(frozen=True)
class Arm:
    """One row: what was printed of it, and what became of it here."""

    name: str
    printed: JsonObject
    against: str | None
    """Here; on a machine that cannot run the published comparator it may be another row."""
    printed_against: str | None
    note: str | None
    trial: TrialRecord | None
    finalist: Finalist | None
    parameters: int | None
    """Of the whole arm, also where a reduced one was trained."""

    @property
    def missing(self) -> tuple[str, str] | None:
        """Why there is nothing to compare, as a verdict and in words; None where there is."""
        if self.finalist is not None and self.finalist.completed:
            return None
        if self.trial is None:
            return NOT_YET, "it has not been trained"
        if self.trial.state is TrialState.INFEASIBLE:
            return NOT_RUN, self.trial.explanation or self.trial.state.value
        tried = [self.trial, *(self.finalist.replicates if self.finalist else [])]
        if tried[-1].state is TrialState.FAILED:
            return FAILED, f"{tried[-1].id}: {tried[-1].explanation}"
        return NOT_YET, "it has not been trained again"

    @property
    def workers(self) -> int | None:
        """On how many it was trained."""
        known = self.finalist.completed if self.finalist else []
        return int(known[-1].epochs[-1].get("workers", 1)) if known else None

    def values(self, measure: str, epoch: int | None = None) -> list[float]:
        """One for each completed replicate, of the last epoch unless said; R2 is the published kind's."""
        if self.finalist is None:
            return []
        if measure == "parameters":
            return [] if self.parameters is None else [float(self.parameters)]
        return [value for one in self.finalist.completed if (value := self._value(one, measure, epoch)) is not None]

    def _value(self, replicate: TrialRecord, measure: str, epoch: int | None) -> float | None:
        if measure == "epoch_seconds":
            return replicate.epoch_seconds
        if measure == "train_loss":
            return float(replicate.epochs[-1 if epoch is None else epoch - 1]["train_loss"])
        found = self.finalist.scores.get(replicate.id, {}) if self.finalist else {}
        value = found.get("test_pearson_r2_best_epoch")
        return None if value is None else float(value)

    def mean(self, measure: str) -> float | None:
        values = self.values(measure)
        return fmean(values) if values else None


class PublishedTable:
    """The table of a study that has a `published` section."""

    def __init__(self, record: StudyRecord) -> None:
        self._file = study_file(record)
        self._record = record
        section: JsonObject = self._file["published"]
        self.title: str = section["title"]
        self.measured: str = section["measured"]
        self.similar: float = section["similar"]
        self.similar_share: float = section["similar_share"]
        self._claims: list[JsonObject] = section["claims"]

    @cached_property
    def arms(self) -> dict[str, Arm]:
        reduced = self._record.last("reduced") or {}
        whole, against = (reduced.get(key, {}) for key in ("whole_parameters", "whole_against"))
        of_arm = {trial.arm: trial for trial in self._record.trials if trial.arm is not None}
        again = {one.trial: one for one in finalists(self._record)}
        found = {}
        for given in self._file["arms"]:
            name, trial = given["name"], of_arm.get(given["name"])
            found[name] = Arm(
                name,
                given["printed"],
                given["against"],
                against.get(name, given["against"]),
                given["note"],
                trial,
                again.get(trial.id) if trial else None,
                whole.get(name, trial.parameters if trial else None),
            )
        return found

    @property
    def first_line(self) -> str:
        """What a reader must know before any number: how far this is from the published study."""
        changes = (self._record.last("reduced") or {}).get("changes")
        parameters = "parameters are those of the whole arms"
        ours = f"Ours is a reduced study ({'; '.join(changes)}); {parameters}. " if changes else ""
        return f"{ours}{self.title} was measured {self.measured}."

    @property
    def how_judged(self) -> str:
        return (
            "Pearson r2 is that of the epoch which is best on the test genes, as was published; the test R2 beside it "
            "is of the epoch that validation chose. A row is judged by what it changes against the row that it is "
            "compared with: reproduced where the printed change lies in our 95 % interval and this is no wider than "
            f"{2 * self.similar:g} ({2 * self.similar_share:.0%} of a time), not reproduced where it lies more than "
            "half of that outside of it, else undecided. A claim is reproduced, or not, where the whole interval says "
            "so. The intervals are over seeds with one variance for all rows: they cover the chance of training and "
            "not the choice of genes, and none is widened for the number of comparisons. Times are compared between "
            "rows with as many workers only, or with as many as printed."
        )

    @cached_property
    def _common_epoch(self) -> int | None:
        """The last that every replicate went through: losses are compared after as many."""
        replicates = [one for arm in self.arms.values() if arm.finalist for one in arm.finalist.completed]
        return min((len(one.epochs) for one in replicates), default=None)

    def change(self, measure: str, arm: Arm, other: Arm) -> Change | None:
        """None where one of the two has no value."""
        last = self._common_epoch
        ours, theirs = arm.values(measure, last), other.values(measure, last)
        if not ours or not theirs:
            return None
        scale = math.log if measure in RELATIVE else float
        back: Callable[[float], float] = math.expm1 if measure in RELATIVE else float
        difference = fmean(map(scale, ours)) - fmean(map(scale, theirs))
        if measure == "parameters":
            return Change(back(difference), (back(difference), back(difference)))
        groups = [[scale(value) for value in one.values(measure, last)] for one in self.arms.values()]
        groups = [group for group in groups if len(group) > 1]
        if len(ours) < 2 or len(theirs) < 2:
            return Change(back(difference), None)
        freedom = sum(len(group) - 1 for group in groups)
        pooled = sum(variance(group) * (len(group) - 1) for group in groups) / freedom
        reach = float(stdtrit(freedom, 1 - ERROR_RATE / 2)) * math.sqrt(pooled * (1 / len(ours) + 1 / len(theirs)))
        return Change(back(difference), (back(difference - reach), back(difference + reach)))

    def printed_change(self, measure: str, arm: Arm) -> float | None:
        """What the publication prints of this row against the row that it is compared with there."""
        other = self.arms.get(arm.printed_against or "")
        if other is None or measure not in arm.printed or measure not in other.printed:
            return None
        ours, theirs = float(arm.printed[measure]), float(other.printed[measure])
        return ours / theirs - 1 if measure in RELATIVE else ours - theirs

    def row(self, arm: Arm) -> JsonObject:
        """A row's values beside the printed ones, its changes, and a verdict for each of them."""
        other = self.arms.get(arm.against or "")
        changes: JsonObject = {}
        for measure in ("pearson_r2", "epoch_seconds"):
            ours = None if other is None else self.change(measure, arm, other)
            printed = self.printed_change(measure, arm)
            if other is not None and ours is not None and printed is not None:
                alike = measure != "epoch_seconds" or self._as_many_workers(arm, other)
                changes[measure] = {
                    "printed": printed,
                    "ours": ours.value,
                    "interval": ours.interval,
                    "verdict": ours.holds(printed, self._margin(measure)) if alike else f"{NOT_RUN} (other workers)",
                }
        return {
            "arm": arm.name,
            "printed": arm.printed,
            "parameters": arm.parameters,
            **{measure: arm.mean(measure) for measure in ("epoch_seconds", "pearson_r2")},
            "test_r2": arm.finalist.test("test_r2") if arm.finalist else None,
            "workers": arm.workers,
            "num_replicates": len(arm.finalist.completed) if arm.finalist else 0,
            "against": arm.against,
            "printed_against": arm.printed_against,
            "changes": changes,
            "verdict": self._row_verdict(arm, other, changes),
            "said": _row_said(arm, changes),
            "note": arm.note,
        }

    def _as_many_workers(self, arm: Arm, other: Arm) -> bool:
        """Do the two differ in their number of workers as the printed rows do, so that their times can be compared?"""
        printed_other = self.arms.get(arm.printed_against or "", other)
        printed = [one.printed.get("gpus") for one in (arm, printed_other)]
        return printed == [arm.workers, other.workers] or (printed[0] == printed[1] and arm.workers == other.workers)

    def _row_verdict(self, arm: Arm, other: Arm | None, changes: JsonObject) -> str:
        if arm.missing is not None:
            return arm.missing[0]
        if other is None:
            return "what others are compared with"
        if other.missing is not None:
            return f"{other.name} is {other.missing[0]}"
        if not changes:
            return NOT_YET if arm.mean("pearson_r2") is None else "nothing printed to compare"
        short = {"pearson_r2": "Pearson r2", "epoch_seconds": "time"}
        return ", ".join(f"{short[measure]} {one['verdict']}" for measure, one in changes.items())

    def claim(self, given: JsonObject) -> JsonObject:
        """A claim with what was measured of it, and its verdict: the worst of its measures'."""
        arm = self.arms[given["arm"]]
        found: list[JsonObject] = []
        missing: list[Arm] = [arm] if arm.missing is not None else []
        for measure, expected in given["expect"].items():
            for other in self.arms.values():
                if other is arm or (expected != "highest" and other.name != arm.against):
                    continue
                change = self.change(measure, arm, other)
                if change is None:
                    missing += [other] if other.missing is not None else []
                    continue
                alike = measure != "epoch_seconds" or self._as_many_workers(arm, other)
                verdict = change.verdict(expected, self._margin(measure)) if alike else NOT_RUN
                found.append(
                    {"measure": measure, "against": other.name, "expected": expected, "change": change.value}
                    | {"interval": change.interval, "verdict": verdict}
                )
        return {
            "says": given["says"],
            "arm": arm.name,
            "verdict": self._claim_verdict(given, [one["verdict"] for one in found], missing),
            "measured": found,
            "said": "; ".join(filter(None, [_claim_said(found), *_missing_said(missing)])),
        }

    def _claim_verdict(self, given: JsonObject, verdicts: list[str], missing: list[Arm]) -> str:
        if given["whole"] and self._record.last("reduced"):
            return "not judged: it takes a whole training"
        if missing and (not verdicts or "highest" not in given["expect"].values()):
            return next(one.missing[0] for one in missing if one.missing is not None)
        if not verdicts:
            return NOT_YET
        worst = [verdict for verdict in (NOT, NOT_RUN, UNDECIDED) if verdict in verdicts]
        return worst[0] if worst else UNDECIDED if missing else REPRODUCED

    def _margin(self, measure: str) -> float:
        return self.similar_share if measure in RELATIVE else self.similar

    def summary(self) -> JsonObject:
        """The report's ``published``."""
        return {
            "title": self.title,
            "first_line": self.first_line,
            "how_judged": self.how_judged,
            "rows": [self.row(arm) for arm in self.arms.values()],
            "claims": [self.claim(one) for one in self._claims],
        }


def published_table(record: StudyRecord) -> JsonObject | None:
    """The published table with ours beside it, as JSON; None for a study that repeats none."""
    if not study_file(record).get("published"):
        return None
    return PublishedTable(record).summary()


def published_markdown(found: JsonObject) -> str:
    """The same in Markdown, with a heading of its own."""
    measures = {"parameters": "{:,}", "epoch_seconds": "{:.2f}", "pearson_r2": "{:.4f}"}
    rows = [
        [
            row["arm"],
            *(_number(row["printed"].get(key), "{}" if key == "parameters" else measures[key]) for key in measures),
            _number(row["printed"].get("gpus"), "{}"),
            *(_number(row[key], shape) for key, shape in measures.items()),
            _number(row["workers"], "{}"),
            _number(row["test_r2"], "{:.4f}"),
            row["verdict"],
        ]
        for row in found["rows"]
    ]
    words = ["parameters", "seconds an epoch", "Pearson r2"]
    headings = ["row", *(f"{what}, printed" for what in [*words, "GPUs"])]
    headings += [*(f"{what}, ours" for what in [*words, "workers"]), "test R2, ours", "verdict"]
    claims = [[claim["says"], claim["verdict"], claim["said"] or "-"] for claim in found["claims"]]
    table = markdown_rows(headings, ["---", *["--:"] * (len(headings) - 2), "---"], rows)
    said = [f"* {markdown_cell(row['arm'])}: {markdown_cell(row['said'])}" for row in found["rows"] if row["said"]]
    parts = [f"## {markdown_cell(found['title'])}, printed and ours", markdown_cell(found["first_line"]), table]
    parts += ["\n".join(said), found["how_judged"]]
    if claims:
        parts += ["### Its claims", markdown_rows(["claim", "verdict", "measured here"], ["---"] * 3, claims)]
    parts += [f"{markdown_cell(row['arm'])}: {markdown_cell(row['note'])}" for row in found["rows"] if row["note"]]
    return "\n\n".join(part for part in parts if part)


def _number(value: Any, shape: str) -> str:
    return "-" if value is None else shape.format(value)


def _row_said(arm: Arm, changes: JsonObject) -> str:
    """Why a row has no values, or what it changes against the row that it is compared with."""
    if arm.missing is not None:
        return arm.missing[1]
    parts = []
    for measure, one in changes.items():
        ours, printed = change_said(measure, one["ours"], one["interval"]), change_said(measure, one["printed"])
        parts.append(f"{WORDS[measure]} {ours}, printed {printed}")
    where = "" if arm.against == arm.printed_against else f" (printed: against {arm.printed_against})"
    return f"against {arm.against}{where} {'; '.join(parts)}" if parts else ""


def _missing_said(missing: list[Arm]) -> list[str]:
    names = list(dict.fromkeys(one.name for one in missing))
    return [f"without {', '.join(names)}"] if names else []


def _claim_said(found: list[JsonObject]) -> str:
    parts = []
    for one in found:
        change = change_said(one["measure"], one["change"], one["interval"])
        parts.append(f"{WORDS[one['measure']]} {change} against {one['against']}")
    return "; ".join(parts)
