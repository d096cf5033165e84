"""A real MLflow server of a study's store: its runs, its models, and the page on which runs are compared."""

from __future__ import annotations

import html
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from raystudy.tracking.mlflow import MlflowMirror
from raystudy.tracking.registry import download
from tests.report.browser import CHROMIUM, QUIET
from tests.tracking.store import answer, everything, mlflow_server

TRIALS = ("t0000", "t0001", "t0003")
REPLICATE_FILES = {"best.safetensors", "t0001-r0.parquet"}


@pytest.fixture
def server(studies: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with mlflow_server(studies) as address:
        yield address


@pytest.mark.slow
def test_a_server_shows_the_runs_and_files_of_its_store_and_takes_new_ones(
    fake_study, studies, server, exports, caplog, capfd, monkeypatch
):
    records = fake_study()
    MlflowMirror(None, records).sync(records.read())
    assert _files(server, everything(studies)["t0001-r0"]["id"]) == REPLICATE_FILES
    sent = fake_study(name="sent")
    mirror = MlflowMirror(server, sent)
    mirror.sync(sent.read())
    mirror.sync(sent.read())
    runs = everything(studies, "sent", server)
    assert len(runs) == 7
    assert _files(server, runs["t0001-r0"]["id"]) == REPLICATE_FILES

    for _ in range(2):
        mirror.register(exports.best, "t0001-r0", {"test_r2": 0.4})

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    folder = download("models:/sent@best", studies)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in exports.best.iterdir()
    }
    found = json.loads(answer(f"{server}/api/2.0/mlflow/model-versions/search", seconds=10))["model_versions"]
    assert [(one["name"], one["version"]) for one in found] == [("sent", "1")]
    assert (caplog.text, *capfd.readouterr()) == ("", "", "")


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_the_page_that_compares_runs_shows_trials_with_parameters_epoch_times_and_r2(
    fake_study, studies, server, tmp_path
):
    records = fake_study()
    MlflowMirror(None, records).sync(records.read())
    texts = _texts(_rendered(_compare_address(server, studies), tmp_path))

    assert "Comparing 3 Runs from 1 Experiment" in texts
    _, names = _row(texts, "Run Name:")
    assert names == list(TRIALS)
    assert _row(texts, "latent_dim", after="Show diff only")[1] == ["8", "16", "64"]
    keys, values = _metrics(texts)
    shown = dict(zip(keys, values, strict=True))
    assert shown["parameters"] == ["100000", "101000", "103000"]
    assert shown["epoch_seconds"] == ["5", "5", "5"]
    assert shown["valid_r2"] == ["0.3", "0.31", "0.33"]
    assert keys.index("valid_r2") < 6, "what is compared stands where nobody has to scroll"
    assert (tmp_path / "compare.png").stat().st_size > 50_000


def _compare_address(server: str, studies: Path) -> str:
    runs = everything(studies)
    asked = f"{server}/api/2.0/mlflow/experiments/get-by-name?experiment_name=fake"
    experiment = json.loads(answer(asked, seconds=10))["experiment"]["experiment_id"]
    chosen = [runs[trial]["id"] for trial in TRIALS]
    return f"{server}/#/compare-runs?runs={quote(json.dumps(chosen))}&experiments={quote(json.dumps([experiment]))}"


def _rendered(address: str, folder: Path) -> str:
    """The page's elements when it has nothing more to wait for; a picture of it is in ``compare.png``."""
    options = ["--no-proxy-server", f"--user-data-dir={folder / 'profile'}", "--window-size=1400,2400"]
    wanted = [f"--screenshot={folder / 'compare.png'}", "--virtual-time-budget=20000", "--dump-dom"]
    command = [str(CHROMIUM), *QUIET, *options, *wanted, address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def _texts(page: str) -> list[str]:
    """What is to be read, element by element."""
    shown = re.sub(r"<(style|script)\b.*?</\1>", "", page, flags=re.DOTALL)
    return [html.unescape(text).strip() for text in re.split(r"<[^>]+>", shown) if text.strip()]


def _row(texts: list[str], name: str, after: str = "Run details") -> tuple[str, list[str]]:
    """A row of a table with a column a trial."""
    place = texts.index(name, texts.index(after))
    return name, texts[place + 1 : place + 1 + len(TRIALS)]


def _metrics(texts: list[str]) -> tuple[list[str], list[list[str]]]:
    """All names, then all rows of values."""
    start = texts.index("Metrics", texts.index("Run details")) + 2
    table = texts[start : texts.index("Artifacts", start)]
    num_keys = len(table) // (1 + len(TRIALS))
    values = table[num_keys:]
    return table[:num_keys], [values[at : at + len(TRIALS)] for at in range(0, len(values), len(TRIALS))]


def _files(server: str, run_id: str) -> set[str]:
    asked = f"{server}/api/2.0/mlflow/artifacts/list?run_id={run_id}"
    return {file["path"] for file in json.loads(answer(asked, seconds=10))["files"]}
