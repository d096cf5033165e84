"""Whole studies on a real Ray, real Optuna storage and a real MLflow store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from raystudy.data.genes import Genes
from raystudy.errors import DataError, Infeasible, SpecError
from raystudy.report.table import report_json
from raystudy.tracking.records import StudyRecord, TrialState

Study = dict[str, Any]
MakeStudy = Callable[..., Study]
Run = Callable[[Study], StudyRecord]

ARMS = [{"name": "narrow", "latent_dim": 8}, {"name": "wide", "latent_dim": 32, "encoder": "embedding"}]
DIVERGING = {"name": "diverging", "learning_rate": 0.99, "weight_decay": 1e30, "warmup": 0.0}


def strict(document: Any) -> Any:
    """The document as a reader of strict JSON gets it."""
    return json.loads(json.dumps(document, allow_nan=False, default=str))


@pytest.mark.ray
def test_a_study_runs_from_its_file_to_its_report_and_again_does_nothing_more(
    ray: dict[str, float], data_folder: Path, tiny_study: MakeStudy, run: Run, studies: Path
) -> None:
    document = tiny_study("whole", data_folder)
    record = run(document)

    report = strict(report_json(record, studies / "whole/report.html"))
    assert len(report["trials"]) == 4
    assert {trial["state"] for trial in report["trials"]} <= {"complete", "pruned"}
    assert len({json.dumps(trial["config"], sort_keys=True) for trial in report["trials"]}) == 4
    assert (report["data"]["hash"], report["data"]["num_genes"]) == (Genes.open(data_folder).hash, 500)
    best = report["best"]
    assert best["trial"] == max(report["trials"], key=lambda trial: trial["valid_r2"])["id"]
    assert best["test_r2"] == report["finalists"][0]["test_r2"]
    assert -1 < best["test_r2"] < 1
    assert {baseline["name"] for baseline in report["baselines"]} == {"ridge", "gbm"}
    assert all(baseline["test_r2"] is not None for baseline in report["baselines"])
    assert (studies / "whole/report.html").read_text().lower().startswith("<!doctype html>")

    dimension = record.last("dimension")
    assert dimension is not None
    widths = dimension["seeded"]["widths"]
    assert [trial.config["latent_dim"] for trial in record.trials if trial.origin == "seeded"] == widths
    assert [trial.origin for trial in record.trials][: len(widths)] == ["seeded"] * len(widths)
    stored = optuna.load_study(study_name="whole", storage=f"sqlite:///{studies}/whole/optuna.db").trials
    assert [trial.state.name.lower() for trial in stored] == [trial.state.value for trial in record.trials]
    client = MlflowClient(f"sqlite:///{studies}/mlflow.db")
    experiment = client.get_experiment_by_name("whole")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 1 + 4 + 1  # the study, its trials, the finalist

    again = run(document)
    assert [trial.id for trial in again.trials] == [trial.id for trial in record.trials]
    assert [len(trial.attempts) for trial in [*again.trials, *again.finalists]] == [1] * 5
    assert again.test_scores == record.test_scores
    assert len(again.every("test_opened")) == 1


@pytest.mark.slow
@pytest.mark.ray
def test_nothing_that_is_chosen_depends_on_a_test_label_and_a_failing_trial_ends_no_study(
    ray: dict[str, float], relabelled: Callable[..., Path], tiny_study: MakeStudy, run: Run, studies: Path
) -> None:
    def poison(labels: Any, split: Any) -> Any:
        labels[split.test] = 1e6 * np.arange(len(split.test))
        return labels

    def run_with(change: Callable[[Any, Any], Any]) -> StudyRecord:
        record = run(tiny_study("sealed", relabelled(change), search={}, arms=[*ARMS, DIVERGING]))
        (studies / "sealed").rename(studies / f"kept-{change.__name__}")
        return record

    def keep(labels: Any, split: Any) -> Any:
        return labels

    clean, poisoned = run_with(keep), run_with(poison)
    assert [trial.state for trial in clean.trials] == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAILED]
    assert clean.trials[2].reason == "nan"
    assert str(clean.trials[2].detail).startswith("epoch 1")

    def chosen(record: StudyRecord) -> dict[str, Any]:
        trained = {one.id: (one.seed, one.best_epoch, one.valid_r2) for one in [*record.trials, *record.finalists]}
        return trained | {line["name"]: line["valid_r2"] for line in record.baselines}

    assert chosen(clean) == chosen(poisoned)
    for name in clean.test_scores:
        paths = [studies / f"kept-{kind}" / "predictions" / f"{name}.parquet" for kind in ("keep", "poison")]
        before, after = (pq.read_table(path).column("predicted").to_pylist() for path in paths)
        assert before == after
        assert clean.test_scores[name]["test_r2"] != poisoned.test_scores[name]["test_r2"]


@pytest.mark.slow
@pytest.mark.ray
def test_shuffled_labels_give_a_test_r2_of_about_0(
    ray: dict[str, float], relabelled: Callable[..., Path], tiny_study: MakeStudy, run: Run
) -> None:
    def shuffle(labels: Any, _split: Any) -> Any:
        return np.random.default_rng(0).permutation(labels)

    record = run(tiny_study("shuffled", relabelled(shuffle), search={}, arms=ARMS))
    assert set(record.test_scores) == {"ridge", "gbm", record.finalists[0].id}
    for score in record.test_scores.values():
        assert -0.4 < score["test_r2"] < 0.1


def test_a_changed_study_file_under_the_same_name_is_refused_with_what_changed(
    data_folder: Path, tiny_study: MakeStudy, run: Run, studies: Path
) -> None:
    document = tiny_study("changed", data_folder, resources={"gpus_per_worker": 64})
    with pytest.raises(Infeasible, match="GPU: 64"):
        run(document)
    changes = {"resources": {}, "target": "nothing"}
    with pytest.raises(SpecError, match="target"):
        run({**document, **changes})


def test_data_mistakes_surface_before_anything_is_trained(
    data_folder: Path, tiny_study: MakeStudy, run: Run, studies: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="nowhere"):
        run(tiny_study("missing", tmp_path / "nowhere"))
    outside = tiny_study("outside", data_folder)
    outside["data"]["window_bp"] = [5000, 5000]
    with pytest.raises(DataError, match="5000"):
        run(outside)
    assert not list(studies.glob("*/trials"))
