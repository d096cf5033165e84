"""What more training genes are worth: the baselines on parts of them; the network's part needs a Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from raystudy.data.sources import prepare
from raystudy.errors import DataError
from raystudy.materials import Materials
from raystudy.progress import Progress
from raystudy.sizes import train_on_parts
from raystudy.study.reading import parse_spec
from raystudy.tracking.records import Records


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare("synthetic", tmp_path_factory.mktemp("data") / "s", num_genes=400, num_chromosomes=8).folder


def document(data: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "sizes",
        "data": {"path": str(data), "window_bp": [300, 200], "max_protein": 100},
        "model": {"num_latents": 8, "queries_dim": 16},
        "arms": [{"name": "only", "latent_dim": 8}],
        "training": {"epochs": 2, "batch_size": 32},
        "training_sizes": [0.5, 0.25],
        "budget": {"trials": 1, "minutes": 5},
        **changes,
    }


def test_baselines_are_fitted_again_on_nested_parts_once(data: Path, tmp_path: Path) -> None:
    records = Records(tmp_path / "sizes")
    records.folder.mkdir()
    study = Materials.open(parse_spec(document(data)), records, None)
    progress = Progress(Console(quiet=True))
    train_on_parts(study, {"CPU": 1.0}, progress)
    train_on_parts(study, {"CPU": 1.0}, progress)

    found = {line["name"]: line for line in records.read().every("training_size")}
    assert len(records.read().every("training_size")) == 4, "none of them twice"
    assert found.keys() == {"ridge-s50", "gbm-s50", "ridge-s25", "gbm-s25"}
    num_train = len(study.split.train)
    assert (found["gbm-s25"]["num_train"], found["gbm-s50"]["num_train"]) == (
        round(num_train / 4),
        round(num_train / 2),
    )
    assert found["ridge-s25"]["fraction"] == 0.25
    assert all(np.isfinite(line["valid_r2"]) for line in found.values())
    assert len({line["valid_r2"] for line in found.values()}) == 4


def test_a_part_with_too_few_labels_is_refused_before_anything_is_trained(data: Path, tmp_path: Path) -> None:
    records = Records(tmp_path / "sizes")
    with pytest.raises(DataError, match=r"`training_sizes` 0\.01: only \d training genes have a protein level"):
        Materials.open(parse_spec(document(data, training_sizes=[0.5, 0.01])), records, None)
    assert not records.folder.exists()
