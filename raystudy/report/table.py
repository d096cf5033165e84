"""A study's numbers: the contract's JSON, a table for the terminal, and the same table in Markdown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.table import Table
from rich.text import Text

from raystudy.report.compare import Finalist, best_finalist, finalists, verdict
from raystudy.tracking.records import JsonObject, StudyRecord, TrialRecord, TrialState, jsonable

CONFIG_COLUMNS = {
    "latent_dim": "latent dim",
    "encoder": "encoder",
    "half_life": "half life",
    "batch_size": "batch",
    "learning_rate": "lr",
}
COLUMNS = [
    "id",
    "valid R2",
    "test R2",
    "origin",
    "state",
    *CONFIG_COLUMNS.values(),
    "parameters",
    "epochs",
    "epoch s",
]
WORDS = {"id", "origin", "state", "encoder", "half life"}
WIDE_ONLY = {"origin", "epochs", "epoch s"}
WIDE = 104
"""Characters that every column together takes; a narrower terminal is spared those in WIDE_ONLY."""


@dataclass(frozen=True)
class Row:
    """One line of the result table; ``kind`` is finalist, trial or baseline, ``cells`` stand under COLUMNS."""

    kind: str
    cells: tuple[str, ...]


def report_json(record: StudyRecord, page: Path | None) -> JsonObject:
    """The contract's ``report`` document; a part that does not exist yet is null or empty."""
    session = record.last("session_started") or {}
    done = record.last("search_finished") or {}
    document = {
        "name": record.name,
        "verdict": verdict(record),
        "data": session.get("data") or {"hash": None, "num_genes": None},
        "split": session.get("split") or {"hash": None, "train": None, "valid": None, "test": None, "dropped": None},
        "trials": [_trial_json(trial) for trial in record.trials],
        "finalists": [_finalist_json(finalist) for finalist in finalists(record)],
        "best": _best_json(record),
        "baselines": [
            {
                "name": line["name"],
                "valid_r2": line["valid_r2"],
                "test_r2": record.test_scores.get(line["name"], {}).get("test_r2"),
            }
            for line in record.baselines
        ],
        "search": {"finished": bool(done), "reason": done.get("reason")},
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
            "trials": {state.value: states[state] for state in TrialState},
            "best_valid_r2": max(values, default=None),
            "seconds": record.seconds,
            "finished": record.last("study_finished") is not None,
        }
    )
    return strict


def result_rows(record: StudyRecord) -> list[Row]:
    """Finalists, then trials with the best validation R2 first, then baselines."""
    best_first = sorted(record.trials, key=_rank)
    trials = [Row("trial", _trial_cells(trial, trial.arm or trial.origin, test_r2="")) for trial in best_first]
    replicates = [
        Row(
            "finalist",
            _trial_cells(one, "finalist", _number(record.test_scores.get(one.id, {}).get("test_r2"))),
        )
        for one in sorted(record.finalists, key=_rank)
    ]
    return [*replicates, *trials, *(_baseline_row(record, line) for line in record.baselines)]


def result_table(record: StudyRecord, width: int = WIDE) -> Table:
    """The result table for a terminal of that many characters; columns that no row fills are left out."""
    rows = result_rows(record)
    if not rows:
        return Table(title=f"Study {record.name}: nothing has been trained yet")
    table = Table(title=f"Study {record.name}", box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    shown = [column for column in filled_columns(rows) if width >= WIDE or COLUMNS[column] not in WIDE_ONLY]
    for column in shown:
        justify: Literal["left", "right"] = "left" if COLUMNS[column] in WORDS else "right"
        heading = COLUMNS[column].replace(" ", "\n").replace("parameters", "para-\nmeters")
        table.add_column(heading, justify=justify, no_wrap=True)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        cells = [Text(row.cells[column]) for column in shown]
        last_of_kind = following is not None and following.kind != row.kind
        table.add_row(*cells, style="bold" if row.kind == "finalist" else None, end_section=last_of_kind)
    return table


def markdown_table(record: StudyRecord) -> str:
    """The same table in Markdown."""
    rows = result_rows(record)
    shown = filled_columns(rows)
    rule = ["---" if COLUMNS[column] in WORDS else "--:" for column in shown]
    cells = [[row.cells[column].replace("|", r"\|") for column in shown] for row in rows]
    lines = [[COLUMNS[column] for column in shown], rule, *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def filled_columns(rows: list[Row]) -> list[int]:
    """The columns in which some row says something; the R2 columns always stand."""
    return [
        index for index, column in enumerate(COLUMNS) if column.endswith("R2") or any(row.cells[index] for row in rows)
    ]


def _trial_json(trial: TrialRecord) -> JsonObject:
    return {
        "id": trial.id,
        "state": trial.state.value,
        "reason": trial.reason,
        "origin": trial.origin,
        "arm": trial.arm,
        "config": trial.config,
        "parameters": trial.parameters,
        "seed": trial.seed,
        "valid_r2": trial.valid_r2,
        "best_epoch": trial.best_epoch,
        "epoch_seconds": trial.epoch_seconds,
        "attempts": [attempt.summary() for attempt in trial.attempts],
    }


def _finalist_json(finalist: Finalist) -> JsonObject:
    seeds = [
        _trial_json(one)
        | {metric: value for metric, value in finalist.scores.get(one.id, {}).items() if metric != "num_genes"}
        for one in finalist.replicates
    ]
    return {
        "trial": finalist.trial,
        "valid_r2": finalist.valid_r2,
        "test_r2": finalist.test("test_r2"),
        "test_pearson_r2": finalist.test("test_pearson_r2"),
        "test_spearman": finalist.test("test_spearman"),
        "seeds": seeds,
    }


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


def _rank(trial: TrialRecord) -> tuple[float, str]:
    return (float("inf") if trial.valid_r2 is None else -trial.valid_r2, trial.id)


def _trial_cells(trial: TrialRecord, origin: str, test_r2: str) -> tuple[str, ...]:
    config = (_value(trial.config.get(key)) for key in CONFIG_COLUMNS)
    epochs = str(len(trial.epochs))
    seconds = _number(trial.epoch_seconds, digits=1)
    identity = (trial.id, _number(trial.valid_r2), test_r2, origin, trial.state.value)
    return (*identity, *config, f"{trial.parameters:,}", epochs, seconds)


def _baseline_row(record: StudyRecord, line: JsonObject) -> Row:
    cells = dict.fromkeys(COLUMNS, "") | {
        "id": line["name"],
        "origin": "baseline",
        "valid R2": _number(line["valid_r2"]),
        "test R2": _number(record.test_scores.get(line["name"], {}).get("test_r2")),
    }
    return Row("baseline", tuple(cells.values()))


def _value(value: Any) -> str:
    return "" if value is None else f"{value:.2g}" if isinstance(value, float) else str(value)


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"
