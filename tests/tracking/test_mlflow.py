from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from raystudy.errors import SpecError
from raystudy.tracking.mlflow import MlflowMirror, ui_command
from raystudy.tracking.records import Records, TrialRecord, TrialState
from raystudy.tracking.runs import MOST_KEYS, flat
from tests.tracking.store import client, everything


def test_the_first_use_of_the_store_prints_nothing(first_use):
    assert first_use[0].exists()
    assert first_use[1] == ""


def test_mlflow_is_not_imported_before_it_is_used():
    check = "import sys, raystudy.tracking.mlflow; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_a_study_has_a_parent_a_child_for_each_trial_and_a_grandchild_for_each_replicate(fake_study, studies):
    records = fake_study()
    MlflowMirror(None, records).sync(records.read())
    runs = everything(studies)
    assert set(runs) == {"study", "t0000", "t0001", "t0002", "t0003", "t0004", "t0001-r0"}
    assert runs["t0000"]["tags"]["mlflow.parentRunId"] == runs["study"]["id"]
    assert runs["t0001-r0"]["tags"]["mlflow.parentRunId"] == runs["t0001"]["id"]
    states = {name: (run["status"], run["tags"].get("raystudy.state")) for name, run in runs.items()}
    assert states["t0000"] == ("FINISHED", "complete")
    assert states["t0002"] == ("FINISHED", "pruned")
    assert states["t0004"] == ("FAILED", "failed")
    assert states["study"] == ("FINISHED", None)


def test_a_trial_shows_its_parameters_its_epochs_and_its_best_value(fake_study, studies):
    records = fake_study()
    MlflowMirror(None, records).sync(records.read())
    run = everything(studies)["t0003"]
    assert run["params"]["latent_dim"] == "64"
    assert run["params"]["seed"] == "10"
    assert [(step, round(value, 6)) for step, _, value in run["metrics"]["vs_epoch/valid_r2"]] == [
        (1, 0.13),
        (2, 0.23),
        (3, 0.33),
    ]
    assert {key: round(history[-1][2], 3) for key, history in run["metrics"].items()} == {
        "parameters": 103_000,
        "valid_r2": 0.33,
        "best_epoch": 3,
        "epoch_seconds": 5.0,
        "samples_per_second": 900,
        "vs_epoch/train_loss": 0.333,
        "vs_epoch/valid_r2": 0.33,
        "vs_epoch/valid_pearson_r2": 0.34,
        "vs_epoch/epoch_seconds": 5.0,
    }
    assert (run["tags"]["raystudy.attention"], run["tags"]["raystudy.precision"]) == ("sdpa", "fp32")


def test_the_value_to_compare_is_that_of_the_best_epoch_and_not_of_the_last(studies):
    records = Records(studies / "fake")
    records.append("session_started")
    records.trial_started(TrialRecord("t0000", {"latent_dim": 8}, "h", 10, 1, "sampled"))
    for epoch, (r2, seconds) in enumerate([(0.1, 9.0), (0.5, 2.0), (0.3, 4.0), (0.2, 3.0)], 1):
        memory = 1.5 if epoch == 3 else 1.2
        measured = {
            "samples_per_second": 60 / seconds,
            "peak_memory_gb": memory,
            "attention": {"head": "sdpa", "latents": "math"},
        }
        records.trial_epoch("t0000", {"epoch": epoch, "valid_r2": r2, "epoch_seconds": seconds} | measured)
    records.trial_ended("t0000", TrialState.PRUNED, "median")
    MlflowMirror(None, records).sync(records.read())
    run = everything(studies)["t0000"]
    last = {key: history[-1][2] for key, history in run["metrics"].items()}
    assert (last["valid_r2"], last["best_epoch"], last["vs_epoch/valid_r2"]) == (0.5, 2, 0.2)
    assert (last["epoch_seconds"], last["samples_per_second"], last["vs_epoch/epoch_seconds"]) == (3.0, 20.0, 3.0)
    assert last["peak_memory_gb"] == 1.5
    assert run["tags"]["raystudy.attention"] == "head=sdpa, latents=math"


def test_one_batch_is_sent_for_an_epoch(fake_study, studies, monkeypatch):
    records = fake_study(num_trials=1, opened=False)
    mirror = MlflowMirror(None, records)
    mirror.sync(records.read())
    records.trial_started(TrialRecord("t0001", {"latent_dim": 8}, "h", 10, 1, "sampled"))
    mirror.sync_trial(records.read_trial("t0001"))
    sent = []
    store = type(mirror._client)
    monkeypatch.setattr(store, "log_batch", lambda self, run, metrics, params, tags: sent.append(metrics))
    for other in ("log_metric", "log_param", "set_tag", "create_run", "get_metric_history", "search_runs"):
        monkeypatch.setattr(store, other, lambda *_, **__: pytest.fail("more than a batch"))
    for epoch in (1, 2):
        known = {"epoch": epoch, "train_loss": 1.0, "valid_r2": 0.1, "valid_pearson_r2": 0.2, "epoch_seconds": 1.0}
        records.trial_epoch("t0001", known)
        mirror.sync_trial(records.read_trial("t0001"))
    keys = ["vs_epoch/train_loss", "vs_epoch/valid_r2", "vs_epoch/valid_pearson_r2", "vs_epoch/epoch_seconds"]
    assert [[(one.key, one.step) for one in metrics] for metrics in sent] == [
        [(key, epoch) for key in keys] for epoch in (1, 2)
    ]


def test_the_parent_run_says_which_data_split_and_study_file(fake_study, studies):
    records = fake_study(num_trials=1, opened=False)
    MlflowMirror(None, records).sync(records.read())
    run = everything(studies)["study"]
    known = ("spec_hash", "data.hash", "split.hash", "split.by")
    assert [run["params"][key] for key in known] == ["h1", "d1", "s1", "block"]
    assert run["tags"]["provenance.git.commit"] == "abc"
    assert "spec.json" in run["artifacts"]


def test_a_replicate_says_its_fold_and_seed(fake_study, studies):
    records = fake_study(num_trials=2, folds=2, seeds=2)
    MlflowMirror(None, records).sync(records.read())
    runs = everything(studies)
    replicates = {name: run["tags"] for name, run in runs.items() if "-r" in name}
    assert {(tags["raystudy.fold"], tags["raystudy.replicate"]) for tags in replicates.values()} == {
        ("0", "0"),
        ("0", "1"),
        ("1", "0"),
        ("1", "1"),
    }
    assert {tags["mlflow.parentRunId"] for tags in replicates.values()} == {runs["t0001"]["id"]}


def test_test_numbers_and_files_stand_on_the_finalist_only(fake_study, studies):
    records = fake_study()
    MlflowMirror(None, records).sync(records.read())
    runs = everything(studies)
    with_test = {name for name, run in runs.items() if "test_r2" in run["metrics"]}
    assert with_test == {"t0001-r0"}
    assert runs["t0001-r0"]["artifacts"] == ["best.safetensors", "t0001-r0.parquet"]
    assert runs["study"]["metrics"]["ridge_test_r2"]
    assert (studies / "mlartifacts" / "fake").is_dir()


def dimension_tags(run: dict) -> dict[str, str]:
    start = "raystudy.dimension."
    return {key.removeprefix(start): value for key, value in run["tags"].items() if key.startswith(start)}


def test_the_parent_run_says_what_the_search_was_seeded_from(fake_study, studies):
    records = fake_study(num_trials=1, opened=False)
    MlflowMirror(None, records).sync(records.read())
    runs = everything(studies)
    assert dimension_tags(runs["study"]) == {
        "representation": "kmer3",
        "input": "dna",
        "consensus": "13.0",
        "interval": "[11.0,17.0]",
        "estimates": '{"TwoNN":12.0,"MLE":14.0,"correlation_integral":13.0}',
        "seeded_widths": "[16,8]",
        "note": "powers of two around the consensus 13.0",
    }
    assert dimension_tags(runs["t0000"]) == {}


def test_a_study_that_was_not_seeded_has_no_tags_of_a_dimension(studies):
    records = Records(studies / "fake")
    records.append("session_started")
    MlflowMirror(None, records).sync(records.read())
    assert dimension_tags(everything(studies)["study"]) == {}


def test_a_dimension_that_everything_refused_is_tagged_without_a_value(studies):
    records = Records(studies / "fake")
    records.append("session_started")
    seeded = {"widths": [16], "clamped": True, "provenance": {"note": "every estimator refused"}}
    found = {"representation": "kmer3", "input": "dna", "estimates": {}, "consensus": None, "interval": None}
    records.append("dimension", **found, seeded=seeded)
    MlflowMirror(None, records).sync(records.read())
    assert dimension_tags(everything(studies)["study"]) == {
        "representation": "kmer3",
        "input": "dna",
        "estimates": "{}",
        "seeded_widths": "[16]",
        "note": "every estimator refused",
    }


@pytest.mark.parametrize(
    "options",
    [{}, {"targets": ("mrna", "protein")}, {"reference": True, "folds": 2}, {"opened": False}],
    ids=["a study", "two targets", "the reference protocol on folds", "sealed"],
)
def test_no_run_has_more_than_fifteen_scalar_keys(fake_study, studies, options):
    records = fake_study(**options)
    for number in range(12):
        records.append("baseline", name=f"table{number}", valid_r2=0.4, valid_pearson_r2=0.4, seconds=1.0)
    MlflowMirror(None, records).sync(records.read())
    runs = everything(studies)
    assert MOST_KEYS == 15
    assert max(len(run["metrics"]) for run in runs.values()) <= 15
    assert "ridge_valid_r2" in runs["study"]["metrics"]
    if options.get("reference"):
        assert "selection_bias_pearson_r2" in runs["t0001-r0"]["metrics"]


def test_syncing_again_even_from_a_fresh_process_changes_nothing(fake_study, studies):
    records = fake_study()
    mirror = MlflowMirror(None, records)
    mirror.sync(records.read())
    once = everything(studies)
    mirror.sync(records.read())
    MlflowMirror(None, records).sync(records.read())
    assert everything(studies) == once


def test_a_report_written_again_goes_to_the_studys_run_alone(fake_study, studies, monkeypatch):
    records = fake_study()
    report = [records.folder / name for name in ("report.html", "report.md")]
    for path in report:
        path.write_text("first")
    mirror = MlflowMirror(None, records)
    mirror.sync(records.read())
    runs = everything(studies)
    assert {"report.html", "report.md"} <= set(runs["study"]["artifacts"])
    assert runs["t0001-r0"]["artifacts"] == ["best.safetensors", "t0001-r0.parquet"]

    sent = []
    monkeypatch.setattr("mlflow.MlflowClient.log_artifact", lambda _, run_id, path: sent.append(run_id))
    report[0].write_text("written again")
    mirror.sync(records.read())
    assert set(sent) == {runs["study"]["id"]}, "no checkpoint is sent again"


def test_following_a_study_gives_what_exporting_it_at_the_end_gives(fake_study, studies):
    records = fake_study(num_trials=1, opened=False)
    mirror = MlflowMirror(None, records)
    mirror.sync(records.read())
    records.trial_started(TrialRecord("t0001", {"latent_dim": 8}, "h", 10, 1, "sampled"))
    for epoch in (1, 2):
        records.trial_epoch("t0001", {"epoch": epoch, "valid_r2": epoch / 10, "epoch_seconds": 1.0})
        mirror.sync_trial(records.read().trials[1])
        assert len(everything(studies)["t0001"]["metrics"]["vs_epoch/valid_r2"]) == epoch
    assert everything(studies)["t0001"]["status"] == "RUNNING"
    records.trial_ended("t0001", TrialState.COMPLETE)
    mirror.sync_trial(records.read().trials[1])
    followed = everything(studies)["t0001"]
    MlflowMirror(None, records).sync(records.read())
    assert everything(studies)["t0001"] == followed
    assert followed["status"] == "FINISHED"


def test_a_resumed_trial_goes_on_in_its_own_run(fake_study, studies):
    records = fake_study(opened=False)
    MlflowMirror(None, records).sync(records.read())
    before = everything(studies)
    records.append("session_started", spec_hash="h1")
    records.trial_started(records.read().trials[4])
    records.trial_epoch("t0004", {"epoch": 4, "valid_r2": 0.5, "epoch_seconds": 1.0})
    mirror = MlflowMirror(None, records)
    mirror.sync_trial(records.read().trials[4])
    assert everything(studies)["t0004"]["status"] == "RUNNING"
    records.trial_ended("t0004", TrialState.COMPLETE)
    mirror.sync_trial(records.read().trials[4])
    after = everything(studies)
    assert after.keys() == before.keys()
    assert after["t0004"]["id"] == before["t0004"]["id"]
    assert (after["t0004"]["status"], after["t0004"]["tags"]["raystudy.attempts"]) == ("FINISHED", "2")


def test_a_study_begun_anew_under_the_same_name_gets_runs_of_its_own(fake_study, studies):
    records = fake_study(opened=False)
    MlflowMirror(None, records).sync(records.read())
    shutil.rmtree(records.folder)
    again = fake_study(opened=False)
    MlflowMirror(None, again).sync(again.read())
    store = client(studies)
    experiment = store.get_experiment_by_name("fake").experiment_id
    assert len(store.search_runs([experiment])) == 2 * 6


def test_a_server_that_does_not_answer_is_told_once_and_never_raised(fake_study, caplog):
    records = fake_study()
    mirror = MlflowMirror("http://user:secret@127.0.0.1:9", records)
    mirror.sync(records.read())
    mirror.sync_trial(records.read().trials[0])
    mirror.sync(records.read())
    (warning,) = [line for line in caplog.records if line.name == "raystudy.tracking.mlflow"]
    assert "MLFLOW_TRACKING_URI" in warning.getMessage()
    assert "secret" not in warning.getMessage()


def test_after_a_failure_the_next_sync_makes_the_copy_whole(fake_study, studies, monkeypatch, caplog):
    records = fake_study()
    mirror = MlflowMirror(None, records)
    with monkeypatch.context() as patched:
        patched.setattr(MlflowMirror, "_log", lambda *_, **__: 1 / 0)
        mirror.sync(records.read())
    assert "ZeroDivisionError" in caplog.text
    mirror.sync(records.read())
    repaired = everything(studies)
    assert len(repaired) == 7
    assert len(repaired["t0000"]["metrics"]["vs_epoch/valid_r2"]) == 3


def test_a_study_that_has_not_begun_leaves_no_run(studies, caplog):
    records = Records(studies / "later")
    MlflowMirror(None, records).sync(records.read())
    assert client(studies).get_experiment_by_name("later") is None
    assert caplog.text == ""


def test_the_environment_names_the_store_unless_the_study_does(fake_study, monkeypatch):
    records = fake_study()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert MlflowMirror(None, records).uri == "http://127.0.0.1:5000"
    assert MlflowMirror("sqlite:////tmp/a.db", records).uri == "sqlite:////tmp/a.db"


def test_nested_settings_become_flat_text():
    assert flat({"a": {"b": 1, "c": None}, "d": [1, 2]}) == {"a.b": "1", "d": "[1, 2]"}


def test_the_pages_of_a_server_are_not_served_again(tmp_path):
    with pytest.raises(SpecError, match="open that address"):
        ui_command(tmp_path, 5000, "http://user:secret@example.org:5000")
