"""One study whose arms read different things of a gene, for two levels at once, on a real Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import raystudy
from raystudy.data.genes import Genes
from raystudy.report.table import report_json
from raystudy.tracking.predictions import read_predictions
from raystudy.tracking.records import StudyRecord, TrialState

TARGETS = ("mrna", "protein")
ARMS: list[dict[str, Any]] = [
    {"name": "both"},
    {"name": "xformers", "attention": "xformers"},
    {"name": "dna", "family": "dna", "encoder": "kmer"},
    {"name": "xpresso", "family": "xpresso"},
]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(
    find_spec("xformers") is not None and torch.cuda.is_available(), reason="xformers may work on this machine"
)
def test_arms_of_every_kind_run_in_one_study_and_one_that_cannot_work_here_ends_infeasible_with_its_reason(
    ray: dict[str, float],
    data_folder: Path,
    tiny_study: Callable[..., dict[str, Any]],
    run: Callable[[dict[str, Any]], StudyRecord],
    studies: Path,
) -> None:
    training = {"epochs": 2, "batch_size": 32, "precision": "fp32"}
    document = tiny_study("families", data_folder, search={}, arms=ARMS, target=list(TARGETS), training=training)
    record = run({**document, "baselines": ["ridge"]})

    by_arm = {trial.arm: trial for trial in record.trials}
    assert {arm: trial.state for arm, trial in by_arm.items()} == {
        "both": TrialState.COMPLETE,
        "xformers": TrialState.INFEASIBLE,
        "dna": TrialState.COMPLETE,
        "xpresso": TrialState.COMPLETE,
    }
    refused = by_arm["xformers"]
    assert refused.reason == "attention backend"
    assert "attention `xformers` cannot be used" in str(refused.detail)
    assert "`training.attention`" in str(refused.detail)
    assert refused.epochs == []

    perceiver_layers = {"perceiver.cross", "perceiver.blocks.0.attention", "head"}
    for arm, layers in (("both", perceiver_layers), ("dna", perceiver_layers), ("xpresso", set())):
        for epoch in by_arm[arm].epochs:
            assert set(epoch["attention"]) == layers, "as it was chosen, layer by layer"
            assert set(epoch["attention"].values()) <= {"sdpa", "math"}
            assert epoch["valid_r2"] == pytest.approx(np.mean([epoch[f"valid_r2_{target}"] for target in TARGETS]))

    finalist = record.finalists[0]
    assert finalist.state is TrialState.COMPLETE
    assert finalist.id.removesuffix("-r0") in {by_arm[arm].id for arm in ("both", "dna", "xpresso")}
    assert set(record.test_scores) == {finalist.id, "ridge"}
    for score in record.test_scores.values():
        each = [score[f"test_r2_{target}"] for target in TARGETS]
        assert np.isfinite(each).all()
        assert score["test_r2"] == pytest.approx(np.mean(each))
        for name in ("pearson_r2", "spearman"):
            assert {f"test_{name}", *(f"test_{name}_{target}" for target in TARGETS)} <= score.keys()

    genes, folder = Genes.open(data_folder), studies / "families"
    kept = read_predictions(folder, finalist.id, genes.gene_ids, TARGETS)
    known = np.isfinite(kept).all(axis=1)
    predicted = raystudy.load(folder / "finalists" / finalist.id).predict(genes).to_numpy()
    assert known.any()
    np.testing.assert_allclose(predicted[known], kept[known], atol=1e-4 * kept[known].std(), rtol=0)
    report = json.loads(json.dumps(report_json(record, folder / "report.html"), allow_nan=False, default=str))
    states = {trial["id"]: (trial["state"], trial["reason"]) for trial in report["trials"]}
    assert states[refused.id] == ("infeasible", refused.reason)
