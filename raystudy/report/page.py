"""Self-contained pages that say what a study or a look at the dimension found: no request leaves them, they print."""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from raystudy.report import figures
from raystudy.report.compare import best_finalist, study_file
from raystudy.report.dimension import dimension_view
from raystudy.report.losses import cost, losses
from raystudy.report.replicates import comparisons, detectable
from raystudy.report.rows import result_columns, result_rows
from raystudy.report.seeding import benchmark_verdict, seeding_outcome
from raystudy.report.table import report_json, status_json
from raystudy.tracking.records import JsonObject, StudyRecord, TrialRecord

CAPTIONS = (
    (figures.comparison, "Finalists and baselines on the same genes."),
    (figures.predicted_measured, "Predicted against measured level, best finalist."),
    (figures.search_history, "Search history. Dashed: baselines. Values under -0.2 are drawn at -0.2."),
    (figures.learning_curves, "Learning curves of the search and the finalists."),
    (
        figures.pareto_front,
        "Complete trials; a larger circle has more parameters. None beats one of the front.",
    ),
    (figures.hypervolume_over_time, "Hypervolume: what the trials ended so far cover of the objectives' space."),
)


def write_page(record: StudyRecord) -> Path:
    """Write ``report.html`` into the study's folder, however far the study got, and return its path."""
    path = record.folder / "report.html"
    return _write("page.html.j2", _context(record, path), path)


def write_dimension_page(found: JsonObject, path: Path) -> Path:
    """Write what `raystudy dimension` found, in its JSON, as a page of its own, and return its path."""
    return _write("dimension.html.j2", {"dimension": dimension_view(found)}, path)


def _write(template: str, context: JsonObject, path: Path) -> Path:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template(template).render(context)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(html, encoding="utf-8")
    unfinished.replace(path)
    return path


def _context(record: StudyRecord, path: Path) -> JsonObject:
    session = record.last("session_started") or {}
    git = (session.get("provenance") or {}).get("git") or {}
    drawn = [(draw(record), caption) for draw, caption in CAPTIONS]
    found = record.last("dimension")
    best = best_finalist(record)
    report = report_json(record, path)
    return {
        "name": record.name,
        "verdict": report["verdict"],
        "report": report,
        "status": status_json(record),
        "columns": result_columns(record),
        "rows": result_rows(record),
        "figures": [(Markup(svg), caption) for svg, caption in drawn if svg],  # noqa: S704  (made by matplotlib)
        "baselines": record.baselines,
        "test_scores": record.test_scores,
        "dimension": dimension_view(found) if found else None,
        "seeded": (found or {}).get("seeded"),
        "seeding_outcome": seeding_outcome(record),
        "benchmark": benchmark_verdict(record),
        "split": _flat(session.get("split")),
        "data": _flat(session.get("data")),
        "best_config": _configuration(best.best_replicate) if best and best.best_replicate else {},
        "losses": losses(record),
        "comparisons": comparisons(record),
        "detectable": detectable(record),
        "biased": [seed for one in report["finalists"] for seed in one["seeds"] if seed["reference"]],
        "importances": _importances(record),
        "provenance": _flat(session.get("provenance")),
        "resources": cost(record),
        "commit": git.get("commit"),
        "dirty": git.get("dirty"),
        "spec": _spec_text(record),
    }


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


def _spec_text(record: StudyRecord) -> str | None:
    written = study_file(record)
    return yaml.safe_dump(written, sort_keys=False) if written else None
