"""The command line as a user meets it: answers on stdout, mistakes as one paragraph on stderr with exit code 2."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from raystudy import cli
from raystudy.data import genes, sources
from raystudy.data.batches import StudyData
from raystudy.data.splits import make_split
from raystudy.dimension import consensus, estimators
from raystudy.study.model import ModelSpec, TrainingSpec
from raystudy.study.sections import SplitSpec
from raystudy.training import checkpoint, loop
from raystudy.training.session import LocalSession

STUDY: dict[str, Any] = {
    "name": "mistaken",
    "data": {"source": "synthetic", "window_bp": [300, 150], "max_protein": 200},
    "search": {"latent_dim": {"kind": "pow2", "low": 8, "high": 32}},
    "budget": {"trials": 2, "minutes": 1},
}


@pytest.fixture(autouse=True)
def _studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSTUDY_HOME", str(tmp_path / "studies"))


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["raystudy", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


def study_file(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}))
    return str(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trails": 3}, "unknown key `trails`"),
        ({"model": {"latentdim": 16}}, "did you mean `latent_dim`?"),
        ({"search": {"latent_dim": {"kind": "pow2", "low": 64, "high": 8}}}, "`low <= high` must hold"),
        ({"budget": {"trials": -1, "minutes": 1}}, "budget.trials"),
        ({"budget": {"trials": 1, "minutes": -5}}, "budget.minutes"),
        ({"model": {"preset": "tabel1"}}, "`preset` is one of dnaperceiver"),
        ({"model": {"family": "dna", "tokens": "codon"}}, "`tokens: codon` needs a protein"),
        ({"arms": [{"name": "a", "family": "dna", "perceiver_input": "dna"}]}, "`perceiver_input` would do nothing"),
        ({"arms": [{"name": "a"}, {"name": "a"}]}, "needs a `name` of its own"),
        ({"search": {"family": {"kind": "categorical", "choices": ["dna", "rna"]}}}, "search.family"),
        ({"baselines": [{"features": "/nowhere/table.csv"}]}, "/nowhere/table.csv"),
        ({"data": {"path": "/nowhere/at/all"}}, "/nowhere/at/all"),
        ({"data": {"source": "yeats"}}, "yeast"),
        ({"data": {"source": "synthetic", "window_bp": [9000, 9000]}}, "9000"),
        ({"resources": {"gpus_per_worker": 512}}, "GPU: 512"),
    ],
)
def test_a_mistake_in_the_study_is_one_paragraph_before_the_first_trial(
    changes: dict[str, Any],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, "tune", study_file(tmp_path, **changes)) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert len(shown.err.strip().splitlines()) == 1
    assert not list((tmp_path / "studies").glob("*/trials"))


def test_a_study_that_is_not_there_is_said_with_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "studies/other").mkdir(parents=True)
    (tmp_path / "studies/other/study.jsonl").write_text("")
    assert call(monkeypatch, "status", "yaest") == 2
    assert "there is other" in capsys.readouterr().err


def test_each_verb_that_answers_gives_exactly_one_strict_json_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(*arguments: str) -> Any:
        assert call(monkeypatch, *arguments, "--json") == 0
        return json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))

    out = tmp_path / "genes"
    prepared = answer("prepare", "synthetic", "--out", str(out))
    assert (prepared["num_genes"], prepared["folder"]) == (400, str(out))
    found = answer("dimension", str(out))
    assert found["representation"] == "kmer3"
    assert set(found["others"]) == {"kmer4", "onehot", "composition of protein"}
    planned = answer("plan", study_file(tmp_path))
    assert planned["feasible"] is True
    assert planned["search"]["parameters"]["min"] < planned["search"]["parameters"]["max"]


@pytest.fixture
def dimension(
    synthetic_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """The JSON of `raystudy dimension` on 120 synthetic genes, by estimators that take no time."""
    monkeypatch.setattr(consensus, "FAST", ("correlation_integral", "TwoNN", "MLE", "lPCA"))

    def answer(*options: str) -> Any:
        assert call(monkeypatch, "dimension", str(synthetic_dir), *options, "--json") == 0
        return json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))

    return answer


def test_the_dimension_of_window_and_protein_together(dimension: Callable[..., Any], tmp_path: Path) -> None:
    found = dimension("--input", "both", "--window-bp", "200", "100")
    assert (found["representation"], found["input"], found["window_bp"]) == ("kmer3", "both", [200, 100])
    assert {name: other["input"] for name, other in found["others"].items()} == {
        "onehot": "both",
        "composition": "both",
    }
    for one in (found, *found["others"].values()):
        assert one["num_points"] + one["num_duplicates"] == 120
        assert one["estimates"].keys() | one["refused"].keys() == {"correlation_integral", "TwoNN", "MLE", "lPCA"}
    page = Path(found["page"])
    assert page.parent == tmp_path / "studies/dimension"
    assert page.name.startswith("synthetic-kmer3-both-")
    text = page.read_text()
    assert text.lower().startswith("<!doctype html>")
    assert "kmer3" in text
    assert "TwoNN" in text


def test_the_dimension_of_one_hot_windows(dimension: Callable[..., Any]) -> None:
    found = dimension("--representation", "onehot")
    assert (found["representation"], found["input"], found["window_bp"]) == ("onehot", "dna", [600, 300])
    assert set(found["others"]) == {"kmer3", "kmer4", "composition of protein"}
    assert found["curve"]["radius"][-1] <= (2 * 900) ** 0.5, "root of twice the mismatches"


def test_a_reader_sees_every_estimate_refusal_and_representation(
    dimension: Callable[..., Any],
    synthetic_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = dimension()
    monkeypatch.setenv("COLUMNS", "120")
    assert call(monkeypatch, "dimension", str(synthetic_dir)) == 0
    shown = capsys.readouterr().out
    for name, value in found["estimates"].items():
        assert re.search(rf"{name} +│ +{value:.1f} ", shown)
    everything = {"kmer3": found, **found["others"]}
    for name, one in everything.items():
        assert name in shown
        for estimator, reason in one["refused"].items():
            assert f"{name}, {estimator} refused: {reason}" in shown
        for flag in one["flags"]:
            assert f"{name}: {flag}" in shown
    assert found["page"] in shown


def embedding_table(path: Path, data: Path) -> str:
    values = np.random.default_rng(0).normal(size=(120, 3)).astype(str)
    rows = [",".join([gene, *row]) for gene, row in zip(genes.Genes.open(data).gene_ids, values, strict=True)]
    path.write_text("\n".join(["gene_id,a,b,c", *rows[:110], "another,1,2,3"]))
    return str(path)


def test_the_dimension_of_an_embedding_from_a_table(
    dimension: Callable[..., Any], synthetic_dir: Path, tmp_path: Path
) -> None:
    found = dimension(
        "--representation", "embedding", "--embeddings", embedding_table(tmp_path / "e.csv", synthetic_dir)
    )
    assert found["representation"] == "embedding"
    assert found["num_points"] == 110, "those of the data that the table knows"
    assert found["consensus"] == pytest.approx(3, rel=0.3)
    assert {name.split()[0] for name in found["others"]} == {"kmer3", "kmer4", "onehot", "composition"}


def test_the_dimension_of_what_a_trained_network_made_of_the_genes(
    dimension: Callable[..., Any], synthetic_dir: Path, tmp_path: Path
) -> None:
    model = ModelSpec(window_bp=(100, 50), max_protein=60, num_latents=4, latent_dim=8, queries_dim=8, pool_size=6)
    data = genes.Genes.open(synthetic_dir)
    split = make_split(data, SplitSpec(by="random"), (100, 50), np.ones(data.num_genes, bool))
    training = TrainingSpec(epochs=1, batch_size=32, precision="fp32")
    loop.train(loop.Job(model, training, seed=0), StudyData.of(data, split, model, ["protein"]), LocalSession(tmp_path))

    folder, file = (
        dimension("--representation", "embedding", "--embeddings", str(path))
        for path in (tmp_path, tmp_path / checkpoint.BEST)
    )
    assert folder["representation"] == "embedding"
    assert folder["num_points"] == 120
    assert folder["estimates"].keys() | folder["refused"].keys() == {"correlation_integral", "TwoNN", "MLE", "lPCA"}
    assert file == folder


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--representation", "embedding"], "--embeddings"),
        (["--representation", "kmr3"], "Did you mean 'kmer3'"),
        (["--input", "rna"], "`input` is 'rna'"),
        (["--representation", "kmer4", "--input", "protein"], "`kmer4` of proteins"),
        (["--also", "Danco"], "slow estimators (ESS, DANCo, PH), but got Danco"),
        (["--also", "PH", "--also", "TwoNN"], "but got TwoNN"),
        (["--embeddings", "/nowhere/at/all.csv"], "/nowhere/at/all.csv"),
        (["--embeddings", "/nowhere/best.safetensors"], "/nowhere/best.safetensors"),
        (["--window-bp", "9000", "9000"], "9000"),
    ],
)
def test_a_mistake_in_what_to_measure_is_one_paragraph(
    options: list[str],
    said: str,
    synthetic_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, "dimension", str(synthetic_dir), *options) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    message = [line for line in shown.err.splitlines() if ": slow, each may take" not in line]
    assert len(message) == 1
    assert said in message[0]
    assert "Traceback" not in shown.err
    assert not (tmp_path / "studies/dimension").exists()


def test_slow_estimators_are_asked_for_by_name(dimension: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(estimators.ESTIMATORS, "PH", estimators.Estimator(lambda _: 4.5, "fewer"))
    monkeypatch.setattr(estimators, "MAX_SLOW_POINTS", 60)
    assert "PH" not in dimension()["points"]
    found = dimension("--also", "PH")
    assert (found["estimates"]["PH"], found["points"]["PH"]) == (4.5, 60)
    assert all("PH" not in other["points"] for other in found["others"].values()), "only the chosen one is asked"


SEARCH_SPACES = Path(__file__).parents[1] / "search_spaces"
TABLE_1 = {
    "baseline": 1_042_821,
    "bf16": 1_042_821,
    "batch-128": 1_042_821,
    "xformers": 1_042_821,
    "multinode": 1_042_821,
    "latent-16": 724_741,
    "latent-64": 811_909,
    "latent-512": 5_180_805,
    "half-life-projection": 1_042_965,
    "dense-input": 1_281_541,
}


@pytest.fixture
def untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder to work in and an empty RAYSTUDY_HOME in it; no gene table, no training, nothing written."""
    for module, name in ((sources, "prepare"), (loop, "train"), (genes.Genes, "open")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("a plan needs no data and no training"))
    home = tmp_path / "work" / "home"
    home.mkdir(parents=True)
    monkeypatch.setenv("RAYSTUDY_HOME", str(home))
    monkeypatch.chdir(home.parent)
    yield
    assert list(home.parent.rglob("*")) == [home]


@pytest.mark.usefixtures("untouched")
def test_the_arms_of_table_1_are_listed_with_their_parameters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "plan", str(SEARCH_SPACES / "table1.yaml"), "--json") == 0
    found = json.loads(capsys.readouterr().out)

    assert {arm["name"]: arm["parameters"] for arm in found["arms"]} == TABLE_1
    assert [arm["name"] for arm in found["arms"]] == list(TABLE_1)
    assert found["trials"] == 10
    for arm in found["arms"]:
        assert {"parameters", "epoch_seconds", "pearson_r2", "gpus"} == arm["printed"].keys()
        printed, ours = arm["printed"]["parameters"], f"{arm['parameters'] / 1e6:.2f}M"
        assert (printed == ours) is (arm["name"] != "dense-input")
    dense = found["arms"][-1]
    assert dense["printed"]["parameters"] == "3.47M"
    assert "3.47M" in dense["note"]
    assert "reparameterisation" in dense["note"]
    assert [arm["note"] for arm in found["arms"][:-1]] == [None] * 9


@pytest.mark.parametrize("width", ["80", "120"])
@pytest.mark.usefixtures("untouched")
def test_a_reader_sees_the_arms_of_table_1_beside_what_was_printed(
    width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    assert call(monkeypatch, "plan", str(SEARCH_SPACES / "table1.yaml")) == 0
    shown = capsys.readouterr().out

    rows = {
        cells[1]: cells[2:4] for line in shown.splitlines() if len(cells := line.replace("│", " | ").split(" | ")) > 4
    }
    rows = {name.strip(): [cell.strip() for cell in cells] for name, cells in rows.items() if name.strip()}
    assert rows.keys() == TABLE_1.keys()
    assert {name: cells[0] for name, cells in rows.items()} == {name: f"{n:,}" for name, n in TABLE_1.items()}
    assert (rows["baseline"][1], rows["dense-input"][1]) == ("1.04M", "3.47M")
    assert "…" not in shown
    note = shown[shown.index("dense-input: ") :]
    assert "3.47M cannot be derived" in note
    assert "reparameterisation" in note


@pytest.mark.usefixtures("untouched")
def test_the_arms_of_every_family_are_planned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "plan", str(SEARCH_SPACES / "families.yaml"), "--json") == 0
    arms = {arm["name"]: arm for arm in json.loads(capsys.readouterr().out)["arms"]}

    assert len(arms) == 8
    assert len({arm["parameters"] for arm in arms.values()}) == 8
    assert arms["dna-only"]["reads"] == ["dna", "half_life"]
    assert arms["codons-only"]["reads"] == ["codon"]
    assert arms["protein-and-dna-codons"]["reads"] == ["codon", "dna", "half_life"]
    assert call(monkeypatch, "plan", str(SEARCH_SPACES / "families.yaml")) == 0
    shown = capsys.readouterr().out
    for name, arm in arms.items():
        assert re.search(rf"{name} +│ +{arm['parameters']:,} ", shown)


@pytest.mark.parametrize("shown", ["--json", None])
def test_a_plan_is_made_for_the_declared_cluster_or_for_here_and_exits_with_2_where_it_can_never_run(
    shown: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = "cluster: [{count: 4, cpus: 96, gpus: 8, memory_gb: 1000, gpu_memory_gb: 80}]\n"
    text = Path(study_file(tmp_path)).read_text() + cluster
    study = tmp_path / "large.yaml"
    study.write_text(text + "resources: {cpus_per_worker: 90, gpus_per_worker: 8}\n")
    options = [shown] if shown else []

    assert call(monkeypatch, "plan", str(study), *options) == 0
    said = capsys.readouterr().out
    assert ('"cluster": "declared"' if shown else "on the declared cluster it fits") in said
    assert call(monkeypatch, "plan", str(study), "--here", *options) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert ('"cluster": "this machine"' if shown else "on this machine it can never run") in said
    assert "a worker needs {CPU: 90, GPU: 8}, but the largest node has" in said


@pytest.mark.usefixtures("untouched")
def test_the_presets_are_listed_with_the_published_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = {
        "dnaperceiver": (785_453, 1_089_453),
        "dnaperceiver_dual": (822_382, 1_126_382),
        "proteinperceiver": (628_093, None),
        "protein_dna": (723_181, None),
        "table1": (1_042_821, None),
        "xpresso": (112_485, None),
    }
    assert call(monkeypatch, "presets", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["preset"]: (one["parameters"], one["parameters_as_published"]) for one in found} == published

    monkeypatch.setenv("COLUMNS", "80")
    assert call(monkeypatch, "presets") == 0
    shown = capsys.readouterr().out
    for name, (parameters, allocated) in published.items():
        assert re.search(rf"{name} +│ +{parameters:,} +│ +{allocated or parameters:,} ", shown)
    assert "20,000 positions" in shown


def test_the_shipped_study_is_valid_and_its_module_says_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = Path(__file__).parents[1] / "search_spaces/yeast.yaml"
    assert call(monkeypatch, "plan", str(shipped)) == 0
    monkeypatch.setattr(sys, "argv", ["raystudy.tune", "--help"])
    with pytest.raises(SystemExit):
        cli.tune_module()
    assert "--smoke" in capsys.readouterr().out
