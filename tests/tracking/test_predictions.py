from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from raystudy.tracking.predictions import predictions_path, read_predictions, write_predictions

GENES = np.array(["a", "b", "c", "d", "e"])
PARTS = {"train": np.array([3, 0]), "valid": np.array([1]), "test": np.array([4])}
TARGETS = ("mrna", "protein")
PREDICTED = np.array([[0.1, 10.0], [0.2, 20.0], [0.3, 30.0], [0.4, 40.0], [0.5, 50.0]])
MEASURED = np.array([[1.0, 11.0], [2.0, np.nan], [3.0, 13.0], [4.0, 14.0], [np.nan, np.nan]])


def test_each_gene_of_the_split_has_one_row_for_each_target_with_its_part(tmp_path: Path) -> None:
    write_predictions(tmp_path, "t0003-r0", GENES, PARTS, TARGETS, PREDICTED, MEASURED)

    rows = pq.read_table(tmp_path / "predictions" / "t0003-r0.parquet").to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("d", "train", "mrna", 0.4, 4.0),
        ("a", "train", "mrna", 0.1, 1.0),
        ("b", "valid", "mrna", 0.2, 2.0),
        ("e", "test", "mrna", 0.5, None),
        ("d", "train", "protein", 40.0, 14.0),
        ("a", "train", "protein", 10.0, 11.0),
        ("b", "valid", "protein", 20.0, None),
        ("e", "test", "protein", 50.0, None),
    ]
    assert list(rows[0]) == ["gene_id", "part", "target", "predicted", "measured"]


def test_predictions_read_back_in_the_order_of_the_genes_and_targets_asked_for(tmp_path: Path) -> None:
    write_predictions(tmp_path, "ridge", GENES, PARTS, TARGETS, PREDICTED.astype(np.float32), MEASURED)

    back = read_predictions(tmp_path, "ridge", GENES[::-1], TARGETS[::-1])

    assert back.dtype == np.float64
    outside = np.array([[1], [1], [np.nan], [1], [1]])  # gene c is in no part
    np.testing.assert_allclose(back, PREDICTED[::-1, ::-1].astype(np.float32) * outside, rtol=1e-7)


def test_a_study_of_one_target_keeps_its_column(tmp_path: Path) -> None:
    write_predictions(tmp_path, "ridge", GENES, PARTS, ["protein"], PREDICTED[:, 1:], MEASURED[:, 1:])

    assert read_predictions(tmp_path, "ridge", GENES, ["protein"]).shape == (5, 1)


def test_writing_again_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_predictions(tmp_path, "ridge", GENES, PARTS, TARGETS, PREDICTED, MEASURED)
    write_predictions(tmp_path, "ridge", GENES, PARTS, TARGETS, 10 * PREDICTED, MEASURED)

    assert read_predictions(tmp_path, "ridge", GENES, TARGETS)[0].tolist() == [1.0, 100.0]
    assert list((tmp_path / "predictions").iterdir()) == [predictions_path(tmp_path, "ridge")]
