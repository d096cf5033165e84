"""Predict genes with a trained model: the model by what a user calls it, genes as they come, levels into a file."""

from __future__ import annotations

import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet as pq

import raystudy
from raystudy.data.sequences import Sequences, lacking_error
from raystudy.errors import DataError, SpecError
from raystudy.materials import studies_folder
from raystudy.report.compare import best_finalist
from raystudy.tracking.records import Records
from raystudy.training import checkpoint
from raystudy.training.exported import is_export
from raystudy.training.trained import Precision, Predictor, lacking

if TYPE_CHECKING:
    import pandas as pd

FORMATS = (".tsv", ".csv", ".parquet")
REGISTRY = "models:/"
Source = Callable[[], Iterator[Sequences]]
"""Begins anew with every call: genes are read once to be checked, and once to be predicted."""


def find_model(called: str) -> Path:
    """Where a model is that a user calls by a path, a study's name (its best finalist), or a registry's URI.

    Raises DataError, with what there is, where nothing is called so.
    """
    if called.startswith(REGISTRY):
        from raystudy.tracking.registry import download

        return download(called, studies_folder())
    path = Path(called)
    if path.is_file() or (path / checkpoint.BEST).is_file() or is_export(path):
        return path
    study = path if (path / "study.jsonl").is_file() else studies_folder() / called
    if not (study / "study.jsonl").is_file():
        known = sorted(one.parent.name for one in studies_folder().glob("*/study.jsonl"))
        raise DataError(
            f"there is no model {called!r}: it is neither a checkpoint, nor the folder of a trial, of a finalist or of "
            f"an export, nor a study in {studies_folder()} (there is {', '.join(known) or 'none yet'}). Give one of "
            f"these, or {REGISTRY}NAME@ALIAS"
        )
    records = Records(study)
    finalist = best_finalist(records.read())
    if finalist is None or finalist.best_replicate is None:
        raise DataError(
            f"the study {called} has no finished finalist yet. Let `raystudy tune` finish it, or give the folder of "
            f"one of its trials: {study}/trials/t0000, say"
        )
    return records.trial_folder(finalist.best_replicate.id)


def load_model(called: str, device: str = "cpu") -> Predictor:
    """The model that `find_model` finds."""
    return raystudy.load(find_model(called), device)


def check(model: Predictor, source: Source, skip_missing: bool) -> tuple[int, int]:
    """How many genes there are to predict, and how many are left out for what they lack.

    All genes are read, so that what is wrong with one is said before any is predicted. Raises DataError where genes
    lack what the model reads, unless they are to be skipped, or where none is left.
    """
    num_genes = num_kept = 0
    counts, first, origin = Counter[str](), dict[str, str](), ""
    for chunk in source():
        missing = lacking(model, chunk)
        for name, lacks in missing.items():
            rows = np.flatnonzero(lacks)
            if len(rows):
                counts[name] += len(rows)
                first.setdefault(name, str(chunk.gene_ids[rows[0]]))
        whole = _whole(chunk, missing)
        if "dna" in model.inputs:
            whole.windows(model.model.window_bp)
        num_genes += chunk.num_genes
        num_kept += whole.num_genes
        origin = chunk.origin
    if counts and not (skip_missing and num_kept):
        [(most, num_lacking)] = counts.most_common(1)
        raise lacking_error(origin, most, first[most], num_lacking, num_genes)
    return num_kept, num_genes - num_kept


def write_levels(
    model: Predictor,
    source: Source,
    out: Path | None,
    batch_size: int | None = None,
    precision: Precision | None = None,
) -> None:
    """Predict the genes that have all that the model reads, as they come, into a file or as TSV to stdout.

    The file appears whole or not at all. It has a column ``gene_id`` and one for each target, in the labels' units.
    """
    whole = (_whole(chunk, lacking(model, chunk)) for chunk in source())
    levels = model.predict_chunks((one for one in whole if one.num_genes), batch_size=batch_size, precision=precision)
    if out is None:
        _write_text(levels, sys.stdout, "\t")
        return
    with _replacing(out) as partial:
        if out.suffix == ".parquet":
            _write_parquet(levels, partial)
        else:
            with partial.open("w", encoding="utf-8", newline="") as file:
                _write_text(levels, file, "," if out.suffix == ".csv" else "\t")


def check_out(out: Path | None) -> None:
    """SpecError where predictions cannot be written so."""
    if out is not None and out.suffix not in FORMATS:
        raise SpecError(f"predictions are written as {', '.join(FORMATS)}, but --out is {str(out)!r}; rename it")


def _whole(chunk: Sequences, missing: dict[str, NDArray[np.bool_]]) -> Sequences:
    """The genes that lack nothing of what is read."""
    lacks = np.logical_or.reduce(list(missing.values()))
    return chunk.take(np.flatnonzero(~lacks)) if lacks.any() else chunk


def _write_text(levels: Iterator[pd.DataFrame], file: IO[str], delimiter: str) -> None:
    for number, frame in enumerate(levels):
        frame.to_csv(file, sep=delimiter, header=number == 0, lineterminator="\n")


def _write_parquet(levels: Iterator[pd.DataFrame], path: Path) -> None:
    tables = (pa.Table.from_pandas(frame.reset_index(), preserve_index=False) for frame in levels)
    first = next(tables)
    with pq.ParquetWriter(path, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table)


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A path to write to, which becomes ``out`` in the end, and is gone where writing fails."""
    partial = out.with_name(f".{out.name}-{uuid.uuid4().hex}")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
