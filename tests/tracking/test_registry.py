"""The winner goes into the registry as code and files, and comes out of it the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import raystudy
from raystudy.data.encode import FEATURES
from raystudy.data.genes import Genes
from raystudy.errors import DataError
from raystudy.tracking.mlflow import MlflowMirror
from raystudy.tracking.records import Records
from raystudy.tracking.registry import CONFIG, columns, download
from tests.tracking.genes_frame import genes_frame
from tests.tracking.store import client, everything

NUMBERS = {"valid_r2": 0.45, "test_r2": 0.41, "nothing": None}
PREDICT = """
import sys
import mlflow.pyfunc
import pandas as pd
model = mlflow.pyfunc.load_model("models:/fake@best")
model.predict(pd.read_parquet(sys.argv[1])).to_parquet(sys.argv[2])
"""


@pytest.fixture
def study(fake_study, studies: Path) -> Records:
    return fake_study(num_trials=2)


@pytest.fixture
def registered(study: Records, exports) -> Path:
    """The export of a winner that is registered as models:/fake@best."""
    mirror = MlflowMirror(None, study)
    mirror.sync(study.read())
    mirror.register(exports.best, "t0001-r0", NUMBERS)
    return exports.best


def versions(studies: Path) -> dict[str, dict[str, str]]:
    """Tags by version."""
    found = client(studies).search_model_versions("name = 'fake'")
    return {str(one.version): one.tags for one in found}


def stored(studies: Path) -> Path:
    """Where the first version's files are."""
    return Path(client(studies).get_model_version_download_uri("fake", "1").removeprefix("file://"))


def test_the_same_export_registered_again_makes_no_second_version(registered, study, studies):
    MlflowMirror(None, study).register(registered, "t0001-r0", NUMBERS)

    [(version, tags)] = versions(studies).items()
    assert {key: tags[key] for key in NUMBERS if key in tags} == {"valid_r2": "0.45", "test_r2": "0.41"}
    best = client(studies).get_model_version_by_alias("fake", "best")
    assert (str(best.version), best.run_id) == (version, everything(studies)["t0001-r0"]["id"])


def test_a_number_that_is_no_more_is_no_tag_any_more(registered, study, studies):
    mirror = MlflowMirror(None, study)
    mirror.register(registered, "t0001-r0", {"test_r2": 0.41, "baseline": {"valid_r2": 0.4, "name": "ridge"}})
    client(studies).set_model_version_tag("fake", "1", "mine", "stays")
    mirror.register(registered, "t0001-r0", {"test_r2": None, "baseline": {"valid_r2": 0.4, "name": None}})

    [tags] = versions(studies).values()
    assert tags.keys() == {"raystudy.export", "valid_r2", "baseline.valid_r2", "mine"}


def test_another_winner_is_another_version_and_the_best_from_then_on(registered, study, studies, exports):
    before = everything(studies)
    MlflowMirror(None, study).register(exports.ensemble, "t0001-r0", {"test_r2": 0.5})

    assert {version: tags["test_r2"] for version, tags in versions(studies).items()} == {"1": "0.41", "2": "0.5"}
    assert str(client(studies).get_model_version_by_alias("fake", "best").version) == "2"
    assert len(json.loads((download("models:/fake@best", studies) / CONFIG).read_text())["members"]) == 2
    assert len(json.loads((download("models:/fake/1", studies) / CONFIG).read_text())["members"]) == 1
    assert everything(studies) == before, "the runs stay as they were"


def test_a_winner_can_be_registered_by_who_has_not_copied_its_runs(study, studies, exports):
    MlflowMirror(None, study).register(exports.best, "t0001-r0", NUMBERS)

    assert set(everything(studies)) == {"study", "t0001", "t0001-r0"}
    assert set(versions(studies)) == {"1"}


def test_nothing_of_the_model_is_pickled_and_its_requirements_are_said(registered, studies):
    folder = stored(studies)
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert not {name for name in names if name.endswith((".pkl", ".pickle", ".joblib", ".pt", ".bin"))}
    assert {"pyfunc_model.py", CONFIG, "member-0.safetensors"} <= names
    required = (folder / "requirements.txt").read_text().split()
    assert required[0] == f"raystudy=={raystudy.__version__}"
    assert {line.partition("==")[0] for line in required} == {"raystudy", "mlflow", "numpy", "pandas", "torch"}


def test_the_signature_names_every_column_and_the_description_what_it_holds(registered, studies):
    from mlflow.models import Model

    model = Model.load(stored(studies))
    read = {column["name"]: (column["type"], column["required"]) for column in model.signature.inputs.to_dict()}
    texts, numbers = ("gene_id", "window", "protein"), FEATURES
    assert read == dict.fromkeys(texts, ("string", True)) | dict.fromkeys(numbers, ("double", True))
    assert [column["name"] for column in model.signature.outputs.to_dict()] == ["gene_id", "protein"]
    description = client(studies).get_model_version("fake", "1").description
    assert "exactly 150 bases" in description
    assert "index 100" in description
    assert all(f"`{name}`" in description for name in read)


@pytest.mark.parametrize(
    ("model", "read"),
    [
        ({"family": "dna", "half_life": "none"}, ["gene_id", "window"]),
        ({"family": "protein"}, ["gene_id", "protein"]),
        ({"family": "protein", "tokens": "codon"}, ["gene_id", "cds"]),
        ({"family": "xpresso"}, ["gene_id", "window", *FEATURES]),
    ],
)
def test_only_what_the_networks_read_is_asked_for(model: dict[str, Any], read: list[str]):
    config = {"members": [{"config": model, "targets": ["protein"], "feature_scale": {"factor": [0.0, 1.0]}}]}
    assert [column.name for column in columns(config)] == read


def test_features_that_have_no_say_are_not_asked_for():
    config = {"members": [{"config": {"family": "xpresso"}, "feature_scale": {"factor": [0.0] * 8}}]}
    assert [column.name for column in columns(config)] == ["gene_id", "window"]


@pytest.mark.slow  # an ensemble is loaded by MLflow in every run, below
def test_the_winner_predicts_the_same_in_a_fresh_process(registered, studies, synthetic_dir, tmp_path):
    genes_frame(synthetic_dir, (100, 50)).to_parquet(tmp_path / "genes.parquet")
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{studies / 'mlflow.db'}",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PYTHONPATH": str(Path(raystudy.__file__).parents[1]),
    }
    files = [str(tmp_path / "genes.parquet"), str(tmp_path / "levels.parquet")]
    subprocess.run([sys.executable, "-c", PREDICT, *files], cwd=tmp_path, env=environment, check=True)

    levels = pd.read_parquet(tmp_path / "levels.parquet")
    expected = raystudy.load(registered).predict(Genes.open(synthetic_dir))
    assert expected["protein"].std() > 1e-3
    pd.testing.assert_frame_equal(levels.set_index("gene_id"), expected, check_index_type=False, rtol=0, atol=1e-6)


def test_an_ensemble_gives_its_interval_and_says_what_is_missing(study, studies, exports, synthetic_dir):
    import mlflow.pyfunc

    MlflowMirror(None, study).register(exports.ensemble, "t0001-r0", NUMBERS)
    model = mlflow.pyfunc.load_model(str(stored(studies)))
    frame = genes_frame(synthetic_dir, (100, 50))
    frame.loc[2, "utr5_gc"] = None
    levels = model.predict(frame)

    assert list(levels.columns) == ["gene_id", "protein", "protein_low", "protein_high"]
    assert list(levels.columns) == [column.name for column in model.metadata.signature.outputs.inputs]
    assert levels["gene_id"].tolist() == frame["gene_id"].tolist()
    assert ((levels["protein_low"] < levels["protein"]) & (levels["protein"] < levels["protein_high"])).all()
    with pytest.raises(Exception, match="protein"):
        model.predict(frame.drop(columns="protein"))
    frame.loc[3, "protein"] = ""
    with pytest.raises(DataError, match=frame.loc[3, "gene_id"]):
        model.predict(frame)


def test_what_is_downloaded_is_the_export_and_is_fetched_once(registered, studies, monkeypatch):
    folder = download("models:/fake@best", studies)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in registered.iterdir()
    }
    monkeypatch.setattr("mlflow.artifacts.download_artifacts", lambda *_, **__: pytest.fail("fetched again"))
    assert download("models:/fake/1", studies) == folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("uri", ["models:/fake", "models:/fake/latest", "models:/../x@best", "models:/a:b/1"])
def test_what_is_no_models_address_is_refused(tmp_path: Path, uri: str):
    with pytest.raises(DataError, match="models:/yeast@best"):
        download(uri, tmp_path)


def test_a_model_that_is_not_there_is_said_in_words(registered, studies):
    for uri in ("models:/other@best", "models:/fake@worst", "models:/fake/7"):
        with pytest.raises(DataError, match=f"does not give {uri} .*registered under its name"):
            download(uri, studies)


def test_a_folder_without_a_store_gets_none_from_asking(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(DataError, match="nothing has been registered"):
        download("models:/fake@best", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_does_not_answer_is_named_without_its_password(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9") as error:
        download("models:/fake@best", tmp_path)
    assert "secret" not in str(error.value)


def test_a_model_of_somebody_else_is_not_loaded(studies, tmp_path):
    store = client(studies)
    store.create_registered_model("theirs")
    store.create_model_version("theirs", tmp_path.as_uri())
    with pytest.raises(DataError, match="was not registered by raystudy"):
        download("models:/theirs/1", studies)


@pytest.mark.parametrize("harm", ["altered", "gone"])
def test_files_that_were_harmed_in_the_store_are_refused(registered, studies, harm: str):
    folder = stored(studies)
    if harm == "altered":
        [config] = folder.rglob(CONFIG)
        config.write_text(config.read_text().replace("0.", "1."))
    else:
        shutil.rmtree(folder)
    with pytest.raises(DataError, match=r"models:/fake@best.*[Rr]egister|could not be fetched"):
        download("models:/fake@best", studies)
    assert list((studies / "cache" / "models").iterdir()) == []


def test_a_registry_that_fails_is_told_once_and_never_raised(study, studies, exports, monkeypatch, caplog):
    mirror = MlflowMirror("http://127.0.0.1:9", study)
    for _ in range(2):
        mirror.register(exports.best, "t0001-r0", NUMBERS)
    assert [line.levelname for line in caplog.records if line.name.startswith("raystudy")] == ["WARNING"]
    mirror = MlflowMirror(None, study)
    with monkeypatch.context() as patched:
        patched.setattr("raystudy.tracking.registry._save", lambda *_: 1 / 0)
        mirror.register(exports.best, "t0001-r0", NUMBERS)
    assert "ZeroDivisionError" in caplog.text
    mirror.register(exports.best, "t0001-r0", NUMBERS)
    assert set(versions(studies)) == {"1"}


def test_registering_prints_nothing(study, studies, exports, caplog, capfd):
    MlflowMirror(None, study).register(exports.best, "t0001-r0", NUMBERS)
    download("models:/fake@best", studies)
    assert (caplog.text, *capfd.readouterr()) == ("", "", "")
