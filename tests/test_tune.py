"""What a study checks before it starts anything, and what a mistake leaves behind. Ray is not needed for that."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from rich.console import Console

from raystudy import tune
from raystudy.data.genes import Genes, write_genes
from raystudy.data.sources import synthetic
from raystudy.dimension import consensus
from raystudy.dimension.seeding import dimension_of
from raystudy.errors import DataError, SpecError, TrialFailed
from raystudy.plan import make_plan, this_machine
from raystudy.progress import Progress
from raystudy.study.spec import parse_spec

Begin = Callable[..., Any]


@pytest.fixture
def begin(tmp_path: Path, synthetic_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Does what a study does before its first event; ``changes`` replace keys of its file."""
    folder = tmp_path / "studies" / "checked"
    folder.mkdir(parents=True)
    monkeypatch.setenv("RAYSTUDY_HOME", str(folder.parent))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tune, "MlflowMirror", lambda uri, records: None)

    def begin_with(data: Path = synthetic_dir, **changes: Any) -> Any:
        document = {
            "name": "checked",
            "data": {"path": str(data), "window_bp": [300, 150], "max_protein": 200},
            "split": {"by": "random", "valid": 0.2, "test": 0.2},
            "arms": [{"name": "only"}],
            "budget": {"trials": 1, "minutes": 1},
            **changes,
        }
        return tune._Study(parse_spec(document), folder, Progress(Console(stderr=True)), None)

    return begin_with


def table(path: Path, gene_ids: list[str], values: list[str]) -> str:
    path.write_text(
        "\n".join(["gene_id,x", *(f"{gene},{value}" for gene, value in zip(gene_ids, values, strict=True))])
    )
    return str(path)


def test_a_start_that_failed_leaves_neither_the_name_claimed_nor_a_split_to_go_by(begin: Begin, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.csv"):
        begin(baselines=[{"features": str(tmp_path / "missing.csv")}])

    study = begin(split={"by": "random", "valid": 0.3, "test": 0.3})
    assert len(study.split.valid) > 0.25 * study.genes.num_genes

    again = begin(split={"by": "random", "valid": 0.3, "test": 0.3})
    assert again.split.valid.tolist() == study.split.valid.tolist()
    with pytest.raises(SpecError, match=r"`split\.valid` was 0\.3 and is 0\.2"):
        begin()


def test_a_table_that_says_nothing_of_the_training_genes_is_refused_at_the_start(
    begin: Begin, tmp_path: Path, synthetic_dir: Path
) -> None:
    genes = Genes.open(synthetic_dir).gene_ids.tolist()
    empty = table(tmp_path / "empty.csv", genes, [""] * len(genes))

    with pytest.raises(DataError, match=r"empty\.csv has no value for any of the \d+ training genes"):
        begin(baselines=[{"features": empty}])


def test_a_level_that_hardly_any_gene_of_a_part_has_is_refused_at_the_start(begin: Begin, tmp_path: Path) -> None:
    made = synthetic.build(seed=0, num_genes=120, num_chromosomes=4)
    few = made.targets["mrna"].values.copy()
    few[7:] = np.nan
    targets = {**made.targets, "mrna": replace(made.targets["mrna"], values=few)}
    folder = write_genes(replace(made, targets=targets), tmp_path / "few")

    with pytest.raises(DataError, match=r"genes have a mrna level.*leave mrna out"):
        begin(data=folder, target=["mrna", "protein"])


SEEDED = {
    "search": {"latent_dim": {"kind": "pow2", "low": 8, "high": 64, "seed_from": "intrinsic_dimension"}},
    "model": {"num_latents": 4, "queries_dim": 8},
    "arms": [],
}
DNA_IN_THE_PERCEIVER = {**SEEDED, "model": {**SEEDED["model"], "perceiver_input": "dna", "pool_size": 6}}
PROTEINS = {**SEEDED, "model": {"family": "protein", "num_latents": 4, "queries_dim": 8, "pool_size": 6}}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the intrinsic dimension was asked of, by keyword; estimated for the chosen representation alone, quickly."""
    monkeypatch.setattr(consensus, "FAST", ("TwoNN", "MLE", "lPCA"))
    asked: list[dict[str, Any]] = []

    def spy(*arguments: Any, **named: Any) -> Any:
        asked.append(inspect.signature(dimension_of).bind(*arguments, **named).arguments)
        return dimension_of(*arguments, **named, others=())

    monkeypatch.setattr(tune, "dimension_of", spy)
    return asked


def seeded(study: Any) -> dict[str, Any]:
    study._seed_search_points()
    event = study.records.read().last("dimension")
    assert event is not None
    return event


def test_the_dimension_is_measured_on_the_training_genes_alone(begin: Begin, measured: list[dict[str, Any]]) -> None:
    study = begin(**SEEDED)
    event = seeded(study)
    (asked,) = measured
    assert sorted(asked["rows"]) == sorted(study.split.train)
    assert event["num_points"] + event["num_duplicates"] == len(study.split.train) < study.genes.num_genes
    assert (event["representation"], event["input"], event["window_bp"]) == ("composition", "protein", [300, 150])
    assert {
        "estimates",
        "spread",
        "consensus",
        "mean",
        "interval",
        "refused",
        "seconds",
        "points",
        "curve",
    } <= event.keys()


@pytest.mark.parametrize(
    ("changes", "representation", "input"),
    [
        (SEEDED, "composition", "protein"),
        (DNA_IN_THE_PERCEIVER, "kmer3", "dna"),
        (PROTEINS, "composition", "protein"),
    ],
)
def test_what_is_measured_is_what_the_latent_array_reads(
    changes: dict[str, Any], representation: str, input: str, begin: Begin, measured: list[dict[str, Any]]
) -> None:
    event = seeded(begin(**changes))
    assert (event["representation"], event["input"]) == (representation, input)
    provenance = event["seeded"]["provenance"]
    assert (provenance["representation"], provenance["input"]) == (representation, input)
    assert provenance["estimates"] == event["estimates"]
    assert 16 in event["seeded"]["widths"]


def test_the_dimension_is_measured_once(begin: Begin, measured: list[dict[str, Any]]) -> None:
    study = begin(**SEEDED)
    first = seeded(study)
    assert seeded(study) == first
    assert len(measured) == 1


def test_without_a_width_seeded_from_it_the_dimension_is_not_measured(
    begin: Begin, measured: list[dict[str, Any]]
) -> None:
    study = begin(search={"latent_dim": {"kind": "pow2", "low": 8, "high": 64}}, model=SEEDED["model"])
    study._seed_search_points()
    assert measured == []
    assert study.records.read().last("dimension") is None


def test_a_width_that_is_too_large_for_the_budget_is_not_seeded(begin: Begin, measured: list[dict[str, Any]]) -> None:
    small = {**SEEDED, "search": {"latent_dim": {**SEEDED["search"]["latent_dim"], "low": 8}}}
    limit = make_plan(parse_spec({**study_document(), **small}), this_machine())["search"]["parameters"]["min"]
    event = seeded(begin(**small, budget={"trials": 1, "minutes": 1, "parameters": limit}))
    assert event["seeded"]["widths"] == [8]
    assert event["seeded"]["clamped"] is True
    assert "every configuration keeps up to a width of 8" in event["seeded"]["provenance"]["note"]


def study_document() -> dict[str, Any]:
    data = {"source": "synthetic", "window_bp": [300, 150], "max_protein": 200}
    return {"name": "checked", "data": data, "budget": {"trials": 1, "minutes": 1}}


def test_optuna_keeps_the_dimension_and_tries_its_widths_first(
    begin: Begin, measured: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raystudy.execution.tuner.search", lambda *_: None)
    study = begin(**SEEDED)
    event = seeded(study)
    monkeypatch.setattr(study, "mirror", SimpleNamespace(sync_trial=lambda _: None))
    for _ in range(2):
        with pytest.raises(TrialFailed):  # nothing was trained
            study._search({"CPU": 2.0, "GPU": 0.0})

    kept = optuna.load_study(study_name="checked", storage=f"sqlite:///{study.records.folder / 'optuna.db'}")
    note = kept.user_attrs["intrinsic_dimension"]
    assert note == {**event["seeded"]["provenance"], "widths": event["seeded"]["widths"]}
    queued = [trial.system_attrs["fixed_params"] for trial in kept.get_trials()]
    assert [2 ** next(iter(params.values())) for params in queued] == event["seeded"]["widths"], "each once, in order"
    assert {trial.user_attrs["origin"] for trial in kept.get_trials()} == {"seeded"}
    assert all(trial.user_attrs["provenance"] == event["seeded"]["provenance"] for trial in kept.get_trials())
