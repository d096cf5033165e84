from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from raystudy.errors import SpecError
from raystudy.tracking.mlflow import MlflowMirror, flat, ui_command
from raystudy.tracking.records import Records, TrialRecord, TrialState

MAKE_STORE = """
from pathlib import Path
from raystudy.tracking.mlflow import MlflowMirror
from raystudy.tracking.records import Records
records = Records(Path("studies/empty"))
records.append("session_started")
MlflowMirror(None, records).sync(records.read())
"""


@pytest.fixture(scope="session")
def first_use(tmp_path_factory):
    """A store as the first sync makes it, in a process of its own: (its file, what was printed)."""
    folder = tmp_path_factory.mktemp("store")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    done = subprocess.run(
        [sys.executable, "-c", MAKE_STORE], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return folder / "studies" / "mlflow.db", done.stdout + done.stderr


@pytest.fixture
def studies(tmp_path, first_use, monkeypatch):
    """A folder of studies with a store in it already: making its tables takes seconds."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "studies"
    folder.mkdir()
    shutil.copy(first_use[0], folder / "mlflow.db")
    return folder


def client(studies: Path, uri: str | None = None):
    import mlflow

    return mlflow.MlflowClient(uri or f"sqlite:///{studies / 'mlflow.db'}")


def everything(studies: Path, name: str = "fake", uri: str | None = None) -> dict:
    """All that the store holds about the study: parameters, tags, status and each metric's history, by run."""
    store = client(studies, uri)
    experiment = store.get_experiment_by_name(name).experiment_id
    return {
        run.data.tags["raystudy.trial_id"]: {
            "id": run.info.run_id,
            "status": run.info.status,
            "params": run.data.params,
            "tags": run.data.tags,
            "artifacts": sorted(one.path for one in store.list_artifacts(run.info.run_id)),
            "metrics": {
                key: [(one.step, one.timestamp, one.value) for one in store.get_metric_history(run.info.run_id, key)]
                for key in run.data.metrics
            },
        }
        for run in store.search_runs([experiment])
    }


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
    assert [(step, round(value, 6)) for step, _, value in run["metrics"]["valid_r2"]] == [
        (1, 0.13),
        (2, 0.23),
        (3, 0.33),
    ]
    last = {key: history[-1][2] for key, history in run["metrics"].items()}
    assert (last["parameters"], last["best_epoch"], last["median_epoch_seconds"]) == (103_000, 3, 5.0)
    assert last["best_valid_r2"] == pytest.approx(0.33)


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


def test_no_run_has_more_than_fifteen_scalar_keys(fake_study, studies):
    records = fake_study()
    records.append("baseline", name="gbm", valid_r2=0.4, valid_pearson_r2=0.4, seconds=1.0)
    MlflowMirror(None, records).sync(records.read())
    assert max(len(run["metrics"]) for run in everything(studies).values()) <= 15


def test_syncing_again_even_from_a_fresh_process_changes_nothing(fake_study, studies):
    records = fake_study()
    mirror = MlflowMirror(None, records)
    mirror.sync(records.read())
    once = everything(studies)
    mirror.sync(records.read())
    MlflowMirror(None, records).sync(records.read())
    assert everything(studies) == once


def test_following_a_study_gives_what_exporting_it_at_the_end_gives(fake_study, studies):
    records = fake_study(num_trials=1, opened=False)
    mirror = MlflowMirror(None, records)
    mirror.sync(records.read())
    records.trial_started(TrialRecord("t0001", {"latent_dim": 8}, "h", 10, 1, "sampled"))
    for epoch in (1, 2):
        records.trial_epoch("t0001", {"epoch": epoch, "valid_r2": epoch / 10, "epoch_seconds": 1.0})
        mirror.sync_trial(records.read().trials[1])
        assert len(everything(studies)["t0001"]["metrics"]["valid_r2"]) == epoch
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
    assert len(repaired["t0000"]["metrics"]["valid_r2"]) == 3


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


@pytest.fixture
def server(studies, monkeypatch):
    """The address of a real server of the store, as `raystudy ui` starts it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ui_command(studies, port)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        _answer(f"http://127.0.0.1:{port}/health", seconds=120)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


@pytest.mark.slow
def test_a_server_shows_the_runs_and_files_of_its_store_and_takes_new_ones(fake_study, studies, server, caplog, capfd):
    records = fake_study()
    MlflowMirror(None, records).sync(records.read())
    assert _files(server, everything(studies)["t0001-r0"]["id"]) == {"best.safetensors", "t0001-r0.parquet"}
    sent = fake_study(name="sent")
    mirror = MlflowMirror(server, sent)
    mirror.sync(sent.read())
    mirror.sync(sent.read())
    runs = everything(studies, "sent", server)
    assert len(runs) == 7
    assert _files(server, runs["t0001-r0"]["id"]) == {"best.safetensors", "t0001-r0.parquet"}
    assert (caplog.text, capfd.readouterr().out) == ("", "")


def _files(server: str, run_id: str) -> set[str]:
    asked = f"{server}/api/2.0/mlflow/artifacts/list?run_id={run_id}"
    return {file["path"] for file in json.loads(_answer(asked, seconds=10))["files"]}


def _answer(url: str, seconds: float) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + seconds
    while True:
        try:
            with opener.open(url, timeout=5) as answer:
                return answer.read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
