"""A study's numbers: the contract's JSON, a table for the terminal, and the same table in Markdown."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

from rich import box
from rich.table import Table
from rich.text import Text

from raystudy.report.compare import Finalist, best_finalist, finalists
from raystudy.report.intervals import Intervals, gene_intervals
from raystudy.report.markdown import markdown_rows
from raystudy.report.pareto import pareto_json
from raystudy.report.published import published_table
from raystudy.report.replicates import comparisons
from raystudy.report.rows import CONFIG_HEADINGS, Column, Row, result_columns, result_rows
from raystudy.report.sizes import training_sizes
from raystudy.report.verdict import verdict
from raystudy.tracking.records import JsonObject, StudyRecord, TrialRecord, TrialState, jsonable

REFERENCE = {
    "test_r2_best_epoch": "test_r2_best_epoch",
    "test_pearson_r2_best_epoch": "test_pearson_r2_best_epoch",
    "epoch": "epoch_by_test_pearson_r2",
    "epoch_by_r2": "epoch_by_test_r2",
    "selection_bias_r2": "selection_bias_r2",
    "selection_bias_pearson_r2": "selection_bias_pearson_r2",
}
"""Keys of a replicate's numbers under the reference protocol, in the JSON and among its test scores."""


def report_json(record: StudyRecord, page: Path | None) -> JsonObject:
    """The contract's ``report`` document; a part that does not exist yet is null or empty."""
    session = record.last("session_started") or {}
    intervals = gene_intervals(record)
    document = {
        "name": record.name,
        "verdict": verdict(record),
        "data": session.get("data") or {"hash": None, "num_genes": None},
        "split": session.get("split") or {"hash": None, "train": None, "valid": None, "test": None, "dropped": None},
        "trials": [_trial_json(trial) for trial in record.trials],
        "finalists": [_finalist_json(finalist, intervals) for finalist in finalists(record)],
        "best": _best_json(record),
        "baselines": [
            {
                "name": line["name"],
                "valid_r2": line["valid_r2"],
                "test_r2": record.test_scores.get(line["name"], {}).get("test_r2"),
                **_named_intervals(intervals[line["name"]]),
            }
            for line in record.baselines
        ],
        "comparisons": [one.summary() for one in comparisons(record)],
        "pareto": pareto_json(record),
        "training_sizes": training_sizes(record),
        "published": published_table(record),
        "importances": _content(record.last("importances")),
        "duplicates": list({line["number"]: _content(line) for line in record.every("duplicate")}.values()),
        "search": _search_json(record),
        "test_openings": len(record.every("test_opened")),
        "seconds": record.seconds,
        "page": page,
    }
    strict: JsonObject = jsonable(document)
    return strict


def status_json(record: StudyRecord) -> JsonObject:
    """The contract's ``status`` document: how many trials stand how, the best validation R2, the time at work."""
    states = Counter(trial.state for trial in record.trials)
    values = [trial.valid_r2 for trial in record.trials if trial.valid_r2 is not None]
    strict: JsonObject = jsonable(
        {
            "name": record.name,
            "trials": {state.value: states[state] for state in TrialState if state is not TrialState.INTERRUPTED},
            "best_valid_r2": max(values, default=None),
            "seconds": record.seconds,
            "finished": record.last("study_finished") is not None,
        }
    )
    return strict


def result_table(record: StudyRecord, width: int) -> Table:
    """The result table for a terminal of that many characters, without the columns that it has no room for."""
    rows = result_rows(record)
    if not rows:
        return Table(title=f"Study {record.name}: nothing has been trained yet")
    table = Table(title=f"Study {record.name}", box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    columns = _that_fit(result_columns(record), rows, width, any(trial.arm for trial in record.trials))
    for column in columns:
        justify: Literal["left", "right"] = "left" if column.is_word else "right"
        cut = column.key in ("id", "origin")  # a name may be longer than any terminal is wide
        table.add_column("\n".join(_heading(column)), justify=justify, no_wrap=not cut, overflow="ellipsis")
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        cells = [Text(row.cell(column)) for column in columns]
        last_of_kind = following is not None and following.kind != row.kind
        table.add_row(*cells, style="bold" if row.kind == "finalist" else None, end_section=last_of_kind)
    return table


def markdown_table(record: StudyRecord, intervals: Intervals | None = None) -> str:
    """The same table in Markdown; with the intervals over genes, these behind each R2."""
    columns = result_columns(record)
    rule = ["---" if column.is_word else "--:" for column in columns]
    rows = [[" ".join(filter(None, row.lines(column))) for column in columns] for row in result_rows(record, intervals)]
    return markdown_rows([column.heading for column in columns], rule, rows)


def _that_fit(columns: list[Column], rows: list[Row], width: int, has_arms: bool) -> list[Column]:
    """The columns without those that are dispensable and have no room, the most dispensable first."""
    config = [column.key for column in columns if column.key in CONFIG_HEADINGS]
    dispensable = ["epoch_seconds", "epochs", *([] if has_arms else ["origin"]), *reversed(config), "selection_bias"]
    widths = {column.key: max(map(len, [*_heading(column), *(row.cell(column) for row in rows)])) for column in columns}
    shown = list(columns)
    for key in dispensable:
        if 1 + sum(widths[column.key] + 1 for column in shown) <= width:
            break
        shown = [column for column in shown if column.key != key]
    return shown


def _heading(column: Column) -> list[str]:
    """Its lines; numbers of parameters are narrower than the word."""
    return ["para-", "meters"] if column.key == "parameters" else column.heading.split()


def _content(line: JsonObject | None) -> JsonObject | None:
    """An event without what every event has."""
    return None if line is None else {key: value for key, value in line.items() if key not in ("event", "time")}


def _search_json(record: StudyRecord) -> JsonObject:
    done = _content(record.last("search_finished"))
    unknown = dict.fromkeys(("reason", "trials", "cost", "currency"))
    warm_start = _content(record.last("warm_start"))
    return {"finished": done is not None, **unknown, **(done or {}), "warm_start": warm_start}


def _trial_json(trial: TrialRecord) -> JsonObject:
    ran = trial.epochs[-1] if trial.epochs else {}
    return {
        "id": trial.id,
        "state": trial.state.value,
        "reason": trial.reason,
        "detail": trial.detail,
        "origin": trial.origin,
        "arm": trial.arm,
        "config": trial.config,
        "parameters": trial.parameters or None,  # nothing was built where the values break a rule
        "seed": trial.seed,
        "valid_r2": trial.valid_r2,
        "best_epoch": trial.best_epoch,
        "epoch_seconds": trial.epoch_seconds,
        "micro_batches": trial.micro_batches,
        "precision": ran.get("precision"),
        "attention": ran.get("attention"),
        "attempts": [attempt.summary() for attempt in trial.attempts],
    }


def _named_intervals(intervals: dict[str, tuple[float, float] | None]) -> JsonObject:
    """95 % intervals over the choice of genes."""
    return {f"{metric}_interval": interval for metric, interval in intervals.items()}


def _finalist_json(finalist: Finalist, intervals: Intervals) -> JsonObject:
    excess = {measure: finalist.test(f"selection_bias_{measure}") for measure in ("r2", "pearson_r2")}
    return {
        "trial": finalist.trial,
        "valid_r2": finalist.valid_r2,
        "test_r2": finalist.test("test_r2"),
        "test_pearson_r2": finalist.test("test_pearson_r2"),
        "test_spearman": finalist.test("test_spearman"),
        **_named_intervals(intervals[finalist.trial]),
        "selection_bias": None if None in excess.values() else excess,
        "seeds": [_replicate_json(one, finalist.scores.get(one.id, {})) for one in finalist.replicates],
    }


def _replicate_json(replicate: TrialRecord, scores: JsonObject) -> JsonObject:
    """A replicate with its test numbers; those of the reference protocol stand apart, for nobody to mistake them."""
    honest = {metric: value for metric, value in scores.items() if metric not in ("num_genes", *REFERENCE.values())}
    reference = {key: scores[name] for key, name in REFERENCE.items() if name in scores}
    where = {"fold": replicate.fold, "replicate": replicate.replicate}
    return _trial_json(replicate) | where | honest | {"reference": reference or None}


def _best_json(record: StudyRecord) -> JsonObject | None:
    finalist = best_finalist(record)
    if finalist is None or finalist.best_replicate is None:
        return None
    searched = next((trial for trial in record.trials if trial.id == finalist.trial), None)
    return {
        "trial": finalist.trial,
        "replicate": finalist.best_replicate.id,
        "config": finalist.best_replicate.config,
        "parameters": finalist.best_replicate.parameters,
        "valid_r2": finalist.valid_r2,
        "search_valid_r2": None if searched is None else searched.valid_r2,
        "test_r2": finalist.test("test_r2"),
        "epoch_seconds": finalist.epoch_seconds,
    }
