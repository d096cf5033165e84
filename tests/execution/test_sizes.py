"""The best finalist trained again on parts of the training genes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raystudy.tracking.records import StudyRecord


@pytest.mark.slow
@pytest.mark.ray
def test_the_best_finalist_is_trained_again_on_nested_parts_and_the_test_stays_sealed(
    ray: Any,
    data_folder: Path,
    tiny_study: Callable[..., dict[str, Any]],
    run: Callable[[dict[str, Any]], StudyRecord],
    studies: Path,
) -> None:
    arms = [{"name": "only", "latent_dim": 8}]
    record = run(tiny_study("sizes", data_folder, search={}, arms=arms, training_sizes=[0.5, 0.25]))

    networks = {line["name"]: line for line in record.every("training_size") if line["kind"] == "network"}
    assert networks.keys() == {"t0000-s25", "t0000-s50"}
    folders = {share: record.folder / "sizes" / f"t0000-s{share}" for share in (25, 50)}
    quarter, half = (json.loads((folders[share] / "split.json").read_text())["genes"] for share in (25, 50))
    whole = json.loads((record.folder / "split.json").read_text())["genes"]
    assert set(quarter["train"]) < set(half["train"]) < set(whole["train"])
    assert quarter["valid"] == whole["valid"]
    assert {line["epochs"] for line in networks.values()} == {3}
    assert (folders[25] / "best.safetensors").exists()
    assert record.test_scores.keys() == {"t0000-r0", "ridge", "gbm"}, "parts are not scored on the test genes"
    times = {line["event"]: line["time"] for line in record.events}
    assert times["training_size"] < times["test_opened"]
