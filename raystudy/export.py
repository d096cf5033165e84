"""Giving a trained model away: weights, what they are for, and what was measured, in one folder."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import raystudy
from raystudy.data.encode import FEATURES
from raystudy.errors import DataError
from raystudy.export_numbers import measured_numbers
from raystudy.materials import studies_folder
from raystudy.report.compare import best_finalist, given_study_file, study_file
from raystudy.report.conformal import half_widths, mean_predictions, measured_coverage
from raystudy.report.reproduce import commands
from raystudy.tracking.records import JsonObject, Records, StudyRecord, TrialRecord, jsonable
from raystudy.training import checkpoint
from raystudy.training.exported import CONFIG, FORMAT, VERSION, describe, digest, is_export, read_config
from raystudy.training.program import NoProgram, describe_arguments, write_program
from raystudy.training.trained import TrainedModel

CARD, PROGRAM = "README.md", "program.pt2"
METHOD = (
    "mean over the members, plus and minus the {coverage:g} quantile (rank ceil((n + 1) {coverage:g})) of the absolute "
    "residuals of n validation genes, each predicted by the models that did not train on it"
)


def study_called(called: str) -> StudyRecord:
    """The study that a user calls by its name or its folder. Raises DataError where there is none."""
    folder = Path(called) if (Path(called) / "study.jsonl").is_file() else studies_folder() / called
    if not (folder / "study.jsonl").is_file():
        raise DataError(
            f"there is no study {called!r} in {studies_folder()}, and an ensemble is made of all replicates of a "
            "study's best finalist; give a study's name or folder"
        )
    return Records(folder).read()


def export_model(path: Path, out: Path) -> JsonObject:
    """Export one model: a checkpoint, or the folder of a trial or finalist. Returns ``config.json``.

    Raises DataError where there is no such checkpoint, or ``out`` holds something else.
    """
    file = path / checkpoint.BEST if path.is_dir() else path
    folder = file.resolve().parent
    study = folder.parent.parent
    record = Records(study).read() if (study / "study.jsonl").exists() else None
    known = [] if record is None else [*record.finalists, *record.trials]
    replicate = next((one for one in known if one.id == folder.name and file.name == checkpoint.BEST), None)
    return _write([file], record if replicate else None, [replicate] if replicate else [], None, out)


def export_ensemble(record: StudyRecord, out: Path, coverage: float = 0.9) -> JsonObject:
    """Export all completed replicates of a study's best finalist together, with an interval. Returns ``config.json``.

    The interval is made from the validation genes, and its coverage measured on the test genes where these are open.
    Raises DataError where nothing of the study is complete, or its predictions are not in its folder.
    """
    best = best_finalist(record)
    if best is None:
        raise DataError(
            f"no finalist of study {record.name!r} is complete, so there is nothing to export; go on with the study "
            "(`raystudy tune`), or export one of its trials by its folder"
        )
    if not 0 < coverage < 1:
        raise DataError(f"`--coverage` is a share of genes, between 0 and 1, but got {coverage:g}; 0.9 is usual")
    interval = _interval(record, best.completed, coverage)
    files = [record.folder / "finalists" / one.id / checkpoint.BEST for one in best.completed]
    return _write(files, record, best.completed, interval, out)


def export_best(record: StudyRecord) -> Path | None:
    """Export what the study's name stands for, the best replicate of its best finalist, into ``export`` of its folder.

    One model even where there are several replicates: it is what ``raystudy predict NAME`` and the registry's ``best``
    are, so that all three say the same. One that says the same already and is whole stays; anything else there, which
    is raystudy's own place, is replaced. None where no finalist is complete.
    """
    best = best_finalist(record)
    if best is None or best.best_replicate is None:
        return None
    out, folder = record.folder / "export", record.folder / "finalists" / best.best_replicate.id
    if _stands(out, measured_numbers(record, [best.best_replicate]), digest(folder / checkpoint.BEST)):
        return out  # written again it would be another file: a program's bytes are never the same
    fresh = out.with_name(f".{out.name}-{uuid.uuid4().hex}")
    try:
        export_model(folder, fresh)
        _move(fresh, out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return out


def _stands(out: Path, numbers: JsonObject, weights: str) -> bool:
    """Is this a whole export of one network with these weights and numbers, and nothing else?"""
    try:
        before = read_config(out)
        files = {path.name: digest(path) for path in out.iterdir() if path.name != CONFIG}
    except DataError:
        return False
    same = (before.numbers, [member.sha256 for member in before.members]) == (jsonable(numbers), [weights])
    return same and files == before.files


def _interval(record: StudyRecord, replicates: Sequence[TrialRecord], coverage: float) -> JsonObject:
    names = [one.id for one in replicates]
    out_of_fold = mean_predictions(record, names, "valid")
    if out_of_fold is None:
        raise DataError(
            f"not all of {', '.join(names)} have their predictions in {record.folder / 'predictions'}, and the "
            "interval is made from those; put them back, or export one replicate by its folder, without an interval"
        )
    half_width = half_widths(out_of_fold, coverage)
    opened = None
    if all(name in record.test_scores for name in names):
        opened = mean_predictions(record, names, "test")
    return {
        "coverage": coverage,
        "half_width": half_width,
        "num_residuals": {target: len(levels) for target, levels in out_of_fold.items()},
        "method": METHOD.format(coverage=coverage),
        "measured": None if opened is None else measured_coverage(opened, half_width),
    }


def _write(
    files: Sequence[Path],
    record: StudyRecord | None,
    replicates: Sequence[TrialRecord],
    interval: JsonObject | None,
    out: Path,
) -> JsonObject:
    """The whole folder, or nothing of it: it is written beside ``out`` and renamed."""
    home = out.resolve()
    _check_place(home)
    staging = home.parent / f".{home.name}-{uuid.uuid4().hex}"
    staging.mkdir(parents=True)
    try:
        models = [_take(file, staging / f"member-{number}.safetensors") for number, file in enumerate(files)]
        config = {
            "format": FORMAT,
            "version": VERSION,
            "raystudy": raystudy.__version__,
            "members": _members(models, replicates),
            "units": _data(record).get("units"),
            "interval": interval,
            "numbers": measured_numbers(record, replicates) if record else _bare_numbers(models[0]),
            "study": None if record is None else _study(record, replicates),
            "program": _program(models, staging / PROGRAM),
        }
        if record is not None:
            text = yaml.safe_dump(_without_folders(given_study_file(record)), sort_keys=False)
            (staging / f"{record.name}.yaml").write_text(text, encoding="utf-8")
        (staging / CARD).write_text(_card(config, models, record), encoding="utf-8")
        config["files"] = {path.name: digest(path) for path in sorted(staging.iterdir())}
        config = jsonable(config)
        (staging / CONFIG).write_text(json.dumps(config, indent=1, allow_nan=False), encoding="utf-8")
        _move(staging, home)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return config


def _check_place(home: Path) -> None:
    """DataError where the folder holds anything that an export would not replace."""
    if not home.exists():
        return
    names = {path.name for path in home.iterdir()} if home.is_dir() else {home.name}
    if not names:
        return
    known = {CONFIG, *read_config(home).files} if home.is_dir() and is_export(home) else set[str]()
    if others := sorted(names - known):
        raise DataError(
            f"{home} exists and holds {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}, which is of no "
            "export; choose another --out, or move that away"
        )


def _take(file: Path, copy: Path) -> TrainedModel:
    """Copy a checkpoint into the export, and load that copy."""
    if is_export(file.parent):
        raise DataError(f"{file.parent} is an export already; copy it, or export the model that it was made from")
    if not file.is_file():
        raise DataError(
            f"there is no checkpoint {file}; export a trial or finalist that has finished an epoch, or the file itself"
        )
    shutil.copyfile(file, copy)
    return TrainedModel.load(copy)


def _move(staging: Path, home: Path) -> None:
    """In two renames where there is something already, which comes back where the second one fails."""
    older = staging.with_name(f"{staging.name}-older")
    try:
        if home.exists():
            home.replace(older)
        staging.replace(home)
    except BaseException:
        if older.exists() and not home.exists():
            older.replace(home)
        raise
    shutil.rmtree(older, ignore_errors=True)


def _members(models: Sequence[TrainedModel], replicates: Sequence[TrialRecord]) -> list[JsonObject]:
    told = [{"replicate": one.id, "fold": one.fold, "seed": one.seed} for one in replicates]
    told = told or [{"replicate": None, "fold": None, "seed": None} for _ in models]
    return [
        {"file": f"member-{number}.safetensors", "sha256": model.sha256, **one, **describe(model)}
        for number, (model, one) in enumerate(zip(models, told, strict=True))
    ]


def _data(record: StudyRecord | None) -> JsonObject:
    session = (record.last("session_started") if record else None) or {}
    return session.get("data") or {}


def _study(record: StudyRecord, replicates: Sequence[TrialRecord]) -> JsonObject:
    """Where the model is from."""
    session = record.last("session_started") or {}
    made = session.get("provenance") or {}
    return {
        "name": record.name,
        "file": f"{record.name}.yaml",
        "spec_hash": session.get("spec_hash"),
        "trial": replicates[0].id.rpartition("-r")[0] or replicates[0].id,
        "data": _data(record),
        "split": session.get("split"),
        "folds": session.get("folds"),
        "git": made.get("git"),
        "packages": made.get("packages"),
    }


def _bare_numbers(model: TrainedModel) -> JsonObject:
    """Of a checkpoint whose study is not there."""
    return {"valid_r2": model.metrics.get("valid_r2"), "test_r2": None, "baseline": None, "conclusion": None}


def _program(models: Sequence[TrainedModel], path: Path) -> JsonObject:
    try:
        difference = write_program(models, path)
    except NoProgram as refusal:
        return {"file": None, "reason": str(refusal)}
    return {"file": path.name, "arguments": describe_arguments(models[0]), "largest_difference_std": difference}


def _without_folders(value: Any) -> Any:
    """A study file without the folders of the machine that it ran on."""
    if isinstance(value, dict):
        return {key: _without_folders(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _card(config: JsonObject, models: Sequence[TrainedModel], record: StudyRecord | None) -> str:
    # Markdown, read by people: nothing to escape but what would break a line or a table.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["line"] = lambda value: " ".join(str(value).split()).replace("|", r"\|")
    environment.filters["number"] = lambda value: "not measured" if value is None else f"{value:.3f}"
    environment.filters["span"] = lambda pair: "" if pair is None else f"{pair[0]:.3f} to {pair[1]:.3f}"
    inputs = frozenset[str]().union(*(model.inputs for model in models))
    how_again = None
    if record is not None:
        how_again = commands(record, _without_folders((study_file(record).get("data") or {}).get("path")))
    return environment.get_template("model_card.md.j2").render(
        config=config,
        network=models[0].model,
        training=models[0].training,
        inputs=inputs,
        features=FEATURES,
        targets=models[0].targets,
        parameters=sum(tensor.numel() for tensor in models[0].network.parameters()),
        how_again=how_again,
    )
