"""The result table before it is shown: its rows, and the columns that tell a study's trials apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raystudy.report.compare import Finalist, finalists
from raystudy.report.intervals import Intervals
from raystudy.report.replicates import Sample, measured, num_folds
from raystudy.tracking.records import JsonObject, StudyRecord, TrialRecord, TrialState

CONFIG_HEADINGS = {
    "family": "family",
    "perceiver_input": "Perceiver reads",
    "tokens": "tokens",
    "latent_dim": "latent dim",
    "encoder": "encoder",
    "half_life": "half life",
    "half_life_missing": "missing features",
    "batch_size": "batch",
    "learning_rate": "lr",
    "dropout": "dropout",
    "num_latents": "latents",
    "depth": "depth",
    "attention": "attention",
    "precision": "precision",
    "sync_batchnorm": "synced norm",
    "deterministic": "deterministic",
    "window_bp": "window bp",
    "max_protein": "max protein",
    "queries_dim": "query dim",
    "pool_size": "pool size",
    "latent_summary": "latent summary",
    "embedding_dim": "embedding dim",
    "token_dim": "token dim",
    "weight_decay": "weight decay",
    "warmup": "warmup",
    "optimizer": "optimizer",
    "schedule": "schedule",
    "patience": "patience",
    "position_rows": "position rows",
    "preset": "preset",
}
"""Keys of a configuration that get a column where trials differ in them; a narrow terminal is spared the last first."""
WORDS = {"id", "origin", "state", "family", "perceiver_input", "tokens", "encoder", "half_life", "half_life_missing"}
WORDS |= {"attention", "precision", "latent_summary", "preset", "optimizer", "schedule"}


@dataclass(frozen=True)
class Column:
    """A column of the result table; ``key`` is where its cells stand in a `Row`."""

    key: str
    heading: str

    @property
    def is_word(self) -> bool:
        return self.key in WORDS


@dataclass(frozen=True)
class Row:
    """One line of the result table; ``kind`` is finalist, trial or baseline."""

    kind: str
    cells: JsonObject
    """Text by the key of the column; what is missing is an empty cell."""

    def cell(self, column: Column) -> str:
        return str(self.cells.get(column.key, ""))

    def lines(self, column: Column) -> tuple[str, str]:
        """The cell, and the interval over genes that a page has room for beneath it."""
        return self.cell(column), str(self.cells.get(f"{column.key}_interval", ""))


def result_rows(record: StudyRecord, intervals: Intervals | None = None) -> list[Row]:
    """Finalists, then trials with the best validation R2 first, then baselines; with intervals, those over genes."""
    known = intervals or {}
    return [
        *(
            _over_genes(_finalist_row(record, one), known.get(one.trial))
            for one in sorted(finalists(record), key=_rank)
        ),
        *(_trial_row(record, "trial", one) for one in sorted(record.trials, key=_rank)),
        *(_over_genes(_baseline_row(record, line), known.get(line["name"])) for line in record.baselines),
    ]


def _over_genes(row: Row, intervals: dict[str, tuple[float, float] | None] | None) -> Row:
    found = {
        f"{metric}_interval": "[{:.3f}, {:.3f}]".format(*interval)
        for metric, interval in (intervals or {}).items()
        if interval is not None
    }
    return Row(row.kind, row.cells | found)


def result_columns(record: StudyRecord) -> list[Column]:
    """What a trial is called and has reached, the keys that tell trials apart, what a trial costs.

    Columns that no row fills are left out, but for those of R2.
    """
    rows = result_rows(record)
    only_arms = bool(record.trials) and all(trial.arm for trial in record.trials)
    columns = [
        Column("id", "id"),
        Column("valid_r2", "valid R2"),
        Column("test_r2", "test R2"),
        Column("selection_bias", "selection bias"),
        Column("origin", "arm" if only_arms else "origin"),
        Column("state", "state"),
        *(Column(key, CONFIG_HEADINGS[key]) for key in _telling_keys(record.trials)),
        Column("parameters", "parameters"),
        Column("epochs", "epochs"),
        Column("epoch_seconds", "epoch s"),
    ]
    return [column for column in columns if column.key.endswith("_r2") or any(row.cell(column) for row in rows)]


def _telling_keys(trials: list[TrialRecord]) -> list[str]:
    """The keys in which trials that have them differ; where they differ in none, the latent width."""
    values = {key: {str(trial.config[key]) for trial in trials if key in trial.config} for key in CONFIG_HEADINGS}
    return [key for key, different in values.items() if len(different) > 1] or ["latent_dim"]


def _rank(one: TrialRecord | Finalist) -> tuple[float, str]:
    known = one.id if isinstance(one, TrialRecord) else one.trial
    return (float("inf") if one.valid_r2 is None else -one.valid_r2, known)


def _finalist_row(record: StudyRecord, finalist: Finalist) -> Row:
    """One line however many replicates there are: means, with the half-width of their 95 % interval."""
    first, last = finalist.replicates[0], finalist.replicates[-1]
    row = _trial_row(record, "finalist", first)
    row.cells["selection_bias"] = _selection_bias(finalist)
    if first is last:
        return row
    done = sum(one.state is TrialState.COMPLETE for one in finalist.replicates)
    epochs = sorted({len(one.epochs) for one in finalist.replicates})
    means = {"valid_r2": finalist.valid_r2, "test_r2": finalist.test("test_r2")}
    return Row(
        "finalist",
        row.cells
        | {
            "id": f"{first.id}..{last.id.rpartition('-')[2]}",
            **{
                key: _number(mean) + _plus_minus(Sample.of(measured(finalist, key), num_folds(record)))
                for key, mean in means.items()
            },
            "state": "complete" if done == len(finalist.replicates) else f"{done} of {len(finalist.replicates)}",
            "epochs": "-".join(map(str, epochs if len(epochs) == 1 else (epochs[0], epochs[-1]))),
            "epoch_seconds": _number(finalist.epoch_seconds, digits=1),
        },
    )


def _plus_minus(sample: Sample) -> str:
    return "" if sample.half_width is None else f" ±{sample.half_width:.3f}"


def _selection_bias(finalist: Finalist) -> str:
    """The published Pearson r2, of the epoch best on the test genes, and its excess over that of the epoch chosen."""
    published, excess = (
        finalist.test(metric) for metric in ("test_pearson_r2_best_epoch", "selection_bias_pearson_r2")
    )
    return "" if published is None or excess is None else f"{published:.3f} ({excess:+.3f})"


def _trial_row(record: StudyRecord, kind: str, trial: TrialRecord) -> Row:
    cells = {key: _value(trial.config.get(key)) for key in CONFIG_HEADINGS} | {
        "id": trial.id,
        "valid_r2": _number(trial.valid_r2),
        "test_r2": _number(record.test_scores.get(trial.id, {}).get("test_r2")),
        "origin": trial.arm or trial.origin,
        "state": trial.state.value,
        "parameters": f"{trial.parameters:,}" if trial.parameters else "",
        "epochs": str(len(trial.epochs)),
        "epoch_seconds": _number(trial.epoch_seconds, digits=1),
    }
    return Row(kind, cells)


def _baseline_row(record: StudyRecord, line: JsonObject) -> Row:
    cells = {
        "id": line["name"],
        "origin": "baseline",
        "valid_r2": _number(line["valid_r2"]),
        "test_r2": _number(record.test_scores.get(line["name"], {}).get("test_r2")),
    }
    return Row("baseline", cells)


def _value(value: Any) -> str:
    """A setting as a cell: few digits, a window as ``1000+500``."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"
