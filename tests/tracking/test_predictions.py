from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from raystudy.tracking.predictions import predictions_path, read_predictions, write_predictions

GENES = np.array(["a", "b", "c", "d", "e"])
PARTS = {"train": np.array([3, 0]), "valid": np.array([1]), "test": np.array([4])}
PREDICTED = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
MEASURED = np.array([1.0, 2.0, 3.0, 4.0, np.nan])


def test_each_gene_of_the_split_has_one_row_with_its_part(tmp_path: Path) -> None:
    write_predictions(tmp_path, "t0003-r0", GENES, PARTS, PREDICTED, MEASURED)

    rows = pq.read_table(tmp_path / "predictions" / "t0003-r0.parquet").to_pylist()
    assert rows == [
        {"gene_id": "d", "part": "train", "predicted": 0.4, "measured": 4.0},
        {"gene_id": "a", "part": "train", "predicted": 0.1, "measured": 1.0},
        {"gene_id": "b", "part": "valid", "predicted": 0.2, "measured": 2.0},
        {"gene_id": "e", "part": "test", "predicted": 0.5, "measured": None},
    ]


def test_predictions_read_back_in_the_order_of_the_genes_asked_for(tmp_path: Path) -> None:
    write_predictions(tmp_path, "ridge", GENES, PARTS, PREDICTED.astype(np.float32), MEASURED)

    back = read_predictions(tmp_path, "ridge", GENES[::-1])

    assert back.dtype == np.float64
    np.testing.assert_allclose(back, PREDICTED[::-1].astype(np.float32) * np.array([1, 1, np.nan, 1, 1]), rtol=1e-7)


def test_writing_again_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_predictions(tmp_path, "ridge", GENES, PARTS, PREDICTED, MEASURED)
    write_predictions(tmp_path, "ridge", GENES, PARTS, 10 * PREDICTED, np.arange(5.0))

    assert read_predictions(tmp_path, "ridge", GENES)[0] == 1.0
    assert list((tmp_path / "predictions").iterdir()) == [predictions_path(tmp_path, "ridge")]
