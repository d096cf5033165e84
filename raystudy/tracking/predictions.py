"""Predictions of every gene by finalist or baseline: ``predictions/NAME.parquet`` in a study's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

Floats = npt.NDArray[np.floating]


def predictions_path(folder: Path, name: str) -> Path:
    """Where the predictions of a finalist replicate (``t0003-r0``) or a baseline (``ridge``) stand."""
    return folder / "predictions" / f"{name}.parquet"


def write_predictions(
    folder: Path,
    name: str,
    gene_ids: npt.NDArray[np.str_],
    parts: Mapping[str, npt.NDArray[np.int64]],
    predicted: Floats,
    measured: Floats,
) -> None:
    """One row a gene of the split, in the label's own unit; a label that is NaN (sealed) is written as null."""
    rows = np.concatenate(list(parts.values()))
    table = pa.table(
        {
            "gene_id": gene_ids[rows].tolist(),
            "part": [part for part, members in parts.items() for _ in members],
            "predicted": pa.array(predicted[rows], pa.float64()),
            "measured": pa.array(measured[rows], pa.float64(), from_pandas=True),
        }
    )
    path = predictions_path(folder, name)
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial)
    partial.replace(path)


def read_predictions(folder: Path, name: str, gene_ids: npt.NDArray[np.str_]) -> Floats:
    """Predictions in the order of ``gene_ids``, float64; NaN for a gene that was not predicted."""
    columns = pq.read_table(predictions_path(folder, name), columns=["gene_id", "predicted"]).to_pydict()
    predicted = dict(zip(columns["gene_id"], columns["predicted"], strict=True))
    return np.array([predicted.get(gene, np.nan) for gene in gene_ids.tolist()])
