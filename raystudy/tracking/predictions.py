"""Predictions of every gene by finalist or baseline: ``predictions/NAME.parquet`` in a study's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    targets: Sequence[str],
    predicted: Floats,
    measured: Floats,
) -> None:
    """One row a gene of the split and target, from [n, K] in the labels' own units.

    A label that is NaN (sealed, or never measured) is written as null.
    """
    rows = np.concatenate(list(parts.values()))
    where = [part for part, members in parts.items() for _ in members]
    table = pa.table(
        {
            "gene_id": gene_ids[rows].tolist() * len(targets),
            "part": where * len(targets),
            "target": np.repeat(targets, len(rows)).tolist(),
            "predicted": pa.array(predicted[rows].T.ravel(), pa.float64()),
            "measured": pa.array(measured[rows].T.ravel(), pa.float64(), from_pandas=True),
        }
    )
    path = predictions_path(folder, name)
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial)
    partial.replace(path)


def read_predictions(folder: Path, name: str, gene_ids: npt.NDArray[np.str_], targets: Sequence[str]) -> Floats:
    """Predictions [n, K] in the order of ``gene_ids`` and ``targets``, float64; NaN for a gene that has none."""
    columns = pq.read_table(predictions_path(folder, name), columns=["gene_id", "target", "predicted"]).to_pydict()
    keys = zip(columns["gene_id"], columns["target"], strict=True)
    predicted = dict(zip(keys, columns["predicted"], strict=True))
    return np.array([[predicted.get((gene, target), np.nan) for target in targets] for gene in gene_ids.tolist()])
