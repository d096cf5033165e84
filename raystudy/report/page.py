"""Self-contained pages that say what a study or a look at the dimension found: no request leaves them, they print.

The page of a study is written as HTML with figures, and as Markdown, with tables instead of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from raystudy.report import figures
from raystudy.report.compare import best_finalist, given_study_file
from raystudy.report.dimension import dimension_view
from raystudy.report.fronts import hypervolume_figure, pareto_figure
from raystudy.report.intervals import METRICS, Intervals
from raystudy.report.losses import cost, losses
from raystudy.report.markdown import markdown_cell
from raystudy.report.pareto import pareto
from raystudy.report.published import published_markdown
from raystudy.report.replicates import comparisons, detectable, num_folds
from raystudy.report.reproduce import commands, session_lines
from raystudy.report.residuals import largest_residuals, predicted_measured
from raystudy.report.rows import result_columns, result_rows
from raystudy.report.seeding import benchmark_verdict, seeding_outcome
from raystudy.report.sizes import size_figure
from raystudy.report.table import markdown_table, report_json, status_json
from raystudy.tracking.records import JsonObject, StudyRecord, TrialRecord

WORDS = {
    "num genes": "genes",
    "unknown: bases n": "bases that are not known (N)",
    "unknown: windows with n": "DNA windows with such bases",
    "unknown: residues x": "amino acids that are not known (X)",
    "unknown: residues read as x": "amino acids read as X",
    "unknown: cds of another length": "coding sequences that do not fit their protein",
    "by": "genes held out by",
    "train": "training genes",
    "valid": "validation genes",
    "test": "test genes",
    "dropped: no label": "dropped: without a label",
    "dropped: window overlap": "dropped: window overlaps a held-out one",
    "dropped: family": "dropped: relative of a held-out gene",
}
"""How the page calls what the records say of data and split."""


def write_page(record: StudyRecord) -> Path:
    """Write ``report.html`` and ``report.md`` into the study's folder, however far it got; the path of the first."""
    path = record.folder / "report.html"
    found = _context(record, path)
    write_template("page.md.j2", found, path.with_suffix(".md"))
    return write_template("page.html.j2", found | {"figures": _figures(record, found["intervals"])}, path)


def write_dimension_page(found: JsonObject, path: Path) -> Path:
    """Write what `raystudy dimension` found, in its JSON, as a page of its own, and return its path."""
    return write_template("dimension.html.j2", {"dimension": dimension_view(found)}, path)


def write_template(template: str, context: JsonObject, path: Path) -> Path:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=".html." in template,  # noqa: S701  (Markdown is text)
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = markdown_cell
    text = environment.get_template(template).render(context)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
    return path


def _figures(record: StudyRecord, intervals: Intervals) -> dict[str, Markup | None]:
    """SVG by the name that the page knows it by; None where the study has nothing to draw."""
    front = pareto(record)
    drawn = {
        "comparison": figures.comparison(record, intervals),
        "search_history": figures.search_history(record),
        "learning_curves": figures.learning_curves(record),
        "epoch_seconds": pareto_figure(front, "epoch_seconds") if front else None,
        "parameters": pareto_figure(front, "parameters") if front else None,
        "hypervolume": hypervolume_figure(front) if front else None,
        "predicted_measured": predicted_measured(record),
        "training_sizes": size_figure(record),
    }
    return {name: Markup(svg) if svg else None for name, svg in drawn.items()}  # noqa: S704  (made by matplotlib)


def _context(record: StudyRecord, path: Path) -> JsonObject:
    session = record.last("session_started") or {}
    split = dict(session.get("split") or {})
    found = record.last("dimension")
    best = best_finalist(record)
    report = report_json(record, path)
    intervals, residuals = _intervals(report), largest_residuals(record)
    return {
        "name": record.name,
        "verdict": report["verdict"],
        "report": report,
        "status": status_json(record),
        "columns": result_columns(record),
        "rows": result_rows(record, intervals),
        "table": markdown_table(record, intervals),
        "published_markdown": published_markdown(report["published"]) if report["published"] else "",
        "intervals": intervals,
        "has_intervals": any(interval for one in intervals.values() for interval in one.values()),
        "units": "folds" if num_folds(record) > 1 else "seeds",
        "origins": {trial.origin for trial in record.trials},
        "baselines": record.baselines,
        "test_scores": record.test_scores,
        "dimension": dimension_view(found) if found else None,
        "seeded": (found or {}).get("seeded"),
        "seeding_outcome": seeding_outcome(record),
        "benchmark": benchmark_verdict(record),
        "audit": split.pop("audit", None),
        "split": _plain(_flat(split)),
        "data": _plain(_flat(session.get("data"))),
        "best_config": _configuration(best.best_replicate) if best and best.best_replicate else {},
        "residuals": residuals,
        "residual_targets": len({one.target for one in residuals}),
        "losses": losses(record),
        "comparisons": comparisons(record),
        "detectable": detectable(record),
        "biased": [seed for one in report["finalists"] for seed in one["seeds"] if seed["reference"]],
        "importances": _importances(record),
        "provenance": _flat(session.get("provenance")),
        "sessions": session_lines(record),
        "resources": cost(record),
        "commands": commands(record),
        "spec": _spec_text(record),
    }


def _intervals(report: JsonObject) -> Intervals:
    """The intervals over genes back out of the report's JSON: they take too long to be worked out twice."""
    named = {one["trial"]: one for one in report["finalists"]} | {one["name"]: one for one in report["baselines"]}
    return {name: {metric: one[f"{metric}_interval"] for metric in METRICS} for name, one in named.items()}


def _configuration(trial: TrialRecord) -> dict[str, str]:
    """What was set, and what ran where that left a choice: the precision, and each layer's attention."""
    ran = trial.epochs[-1] if trial.epochs else {}
    layers: dict[str, list[str]] = {}
    for layer, backend in (ran.get("attention") or {}).items():
        layers.setdefault(backend, []).append(layer)
    attention = [f"{backend} in {', '.join(names)}" for backend, names in layers.items()]
    if len(layers) == 1:
        attention = [f"{backend} in every layer" for backend in layers]
    lines = {**trial.config, "precision that ran": ran.get("precision"), "attention that ran": "; ".join(attention)}
    return _flat({key: value for key, value in lines.items() if value not in (None, "")})


def _importances(record: StudyRecord) -> list[tuple[str, float | None, float | None]]:
    """(parameter, its importance by fANOVA, by PED-ANOVA), the most important first."""
    found = record.last("importances") or {}
    fanova, ped_anova = (found.get(name) or {} for name in ("fanova", "ped_anova"))
    rows = [(name, fanova.get(name), ped_anova.get(name)) for name in {**fanova, **ped_anova}]
    return sorted(rows, key=lambda row: (-(row[1] or 0.0), -(row[2] or 0.0), row[0]))


def _flat(nested: JsonObject | None, prefix: str = "") -> dict[str, str]:
    """Nested JSON as lines of a two-column list."""
    lines: dict[str, str] = {}
    for key, value in (nested or {}).items():
        label = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, dict):
            lines |= _flat(value, f"{label}: ")
        elif isinstance(value, list):
            lines[label] = ", ".join(map(str, value)) or "none"
        else:
            lines[label] = f"{value:.4g}" if isinstance(value, float) else str(value)
    return lines


def _plain(lines: dict[str, str]) -> dict[str, str]:
    """With the words of a reader instead of the code's."""
    return {WORDS.get(label, label): value for label, value in lines.items()}


def _spec_text(record: StudyRecord) -> str | None:
    written = given_study_file(record)
    return yaml.safe_dump(written, sort_keys=False) if written else None
