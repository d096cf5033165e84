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
from raystudy.errors import DataError, Reason, SpecError, StudyFailed
from raystudy.plan import make_plan, this_machine
from raystudy.progress import Progress
from raystudy.study.reading import parse_spec
from raystudy.tracking.records import Records, TrialRecord, TrialState

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
    assert len(study.study.split.valid) > 0.25 * study.study.genes.num_genes

    again = begin(split={"by": "random", "valid": 0.3, "test": 0.3})
    assert again.study.split.valid.tolist() == study.study.split.valid.tolist()
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
    assert sorted(asked["rows"]) == sorted(study.study.split.train)
    assert event["num_points"] + event["num_duplicates"] == len(study.study.split.train) < study.study.genes.num_genes
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
        with pytest.raises(StudyFailed, match="ended before the search had"):
            study._search({"CPU": 2.0, "GPU": 0.0})

    kept = optuna.load_study(study_name="checked", storage=f"sqlite:///{study.records.folder / 'optuna.db'}")
    note = kept.user_attrs["intrinsic_dimension"]
    assert note == {**event["seeded"]["provenance"], "widths": event["seeded"]["widths"]}
    queued = [trial.system_attrs["fixed_params"] for trial in kept.get_trials()]
    assert [2 ** next(iter(params.values())) for params in queued] == event["seeded"]["widths"], "each once, in order"
    assert {trial.user_attrs["origin"] for trial in kept.get_trials()} == {"seeded"}
    assert all(trial.user_attrs["provenance"] == event["seeded"]["provenance"] for trial in kept.get_trials())


WIDTHS = {"latent_dim": {"kind": "pow2", "low": 8, "high": 64}}
RATES = {"learning_rate": {"kind": "log", "low": 1e-4, "high": 1e-2}}
WARM = {"search": {**WIDTHS, **RATES}, "model": SEEDED["model"], "arms": [], "warm_start": {"study": "earlier"}}


@pytest.fixture
def earlier(tmp_path: Path) -> Callable[..., Records]:
    """Writes a study that has been run, a trial for each of these configurations, the first the best."""

    def write(*configs: dict[str, Any], name: str = "earlier") -> Records:
        records = Records(tmp_path / "studies" / name)
        for number, config in enumerate(configs):
            trial_id = f"t{number:04d}"
            records.trial_started(TrialRecord(trial_id, config, f"h{number}", 10, 1, "sampled"))
            if config.get("fails"):
                records.trial_ended(trial_id, TrialState.FAILED, Reason.NAN)
                continue
            values = {"epoch": 1, "valid_r2": 0.5 - 0.01 * number, "epoch_seconds": 1.0, "eval_seconds": 0.0}
            records.trial_epoch(trial_id, values)
            records.trial_ended(trial_id, TrialState.COMPLETE)
        return records

    return write


def config(width: int, rate: float = 1e-3) -> dict[str, Any]:
    return {"latent_dim": width, "learning_rate": rate, "dropout": 0.2}


def queued(study: Any) -> list[dict[str, Any]]:
    stored = optuna.load_study(study_name="checked", storage=f"sqlite:///{study.records.folder / 'optuna.db'}")
    return [trial.system_attrs["fixed_params"] for trial in stored.get_trials()]


def search_without_training(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raystudy.execution.tuner.search", lambda *_: None)
    monkeypatch.setattr(study, "mirror", SimpleNamespace(sync_trial=lambda _: None))
    with pytest.raises(StudyFailed, match="ended before the search had"):
        study._search({"CPU": 2.0, "GPU": 0.0})


def test_the_best_trials_of_an_earlier_study_are_tried_first(
    begin: Begin, earlier: Callable[..., Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier(config(16), config(32, 2e-3), config(64), {"fails": True, **config(8)})
    study = begin(**{**WARM, "warm_start": {"study": "earlier", "trials": 2}})
    search_without_training(study, monkeypatch)

    assert queued(study) == [
        {"log2_latent_dim": 4, "learning_rate": 1e-3},
        {"log2_latent_dim": 5, "learning_rate": 2e-3},
    ]
    event = study.records.read().last("warm_start")
    assert (event["study"], event["skipped"]) == ("earlier", [])
    assert event["points"] == [
        {"trial": "t0000", "values": {"latent_dim": 16, "learning_rate": 1e-3}},
        {"trial": "t0001", "values": {"latent_dim": 32, "learning_rate": 2e-3}},
    ]


def test_a_study_goes_on_from_the_points_with_which_it_began(
    begin: Begin, earlier: Callable[..., Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier(config(16))
    search_without_training(begin(**WARM), monkeypatch)
    earlier(config(32), config(64), name="earlier")  # it has gone on meanwhile, and the best is another
    study = begin(**WARM)
    search_without_training(study, monkeypatch)

    assert [point["log2_latent_dim"] for point in queued(study)] == [4]
    assert len(study.records.read().every("warm_start")) == 1


def test_a_configuration_outside_the_space_is_skipped_with_its_reason(
    begin: Begin, earlier: Callable[..., Records]
) -> None:
    earlier(config(128), config(16, 0.5), {"dropout": 0.1}, config(32))
    study = begin(**WARM)

    assert [point["trial"] for point in study.warm["points"]] == ["t0003"]
    assert study.warm["skipped"] == [
        {"trial": "t0000", "reason": "not in the space: latent_dim 128"},
        {"trial": "t0001", "reason": "not in the space: learning_rate 0.5"},
        {"trial": "t0002", "reason": "none of the searched keys"},
    ]


def test_a_point_lacks_what_the_earlier_study_did_not_have(begin: Begin, earlier: Callable[..., Records]) -> None:
    earlier({"latent_dim": 16})

    assert begin(**WARM).warm["points"] == [{"trial": "t0000", "values": {"latent_dim": 16}}]


def test_a_point_has_no_value_for_a_key_whose_condition_it_breaks(
    begin: Begin, earlier: Callable[..., Records]
) -> None:
    width = {"kind": "pow2", "low": 8, "high": 16, "when": {"encoder": "embedding"}}
    encoder = {"kind": "categorical", "choices": ["onehot", "embedding"]}
    earlier({"encoder": "onehot", "embedding_dim": 8}, {"encoder": "embedding", "embedding_dim": 16}, name="encoders")
    search = {"encoder": encoder, "embedding_dim": width}
    study = begin(**{**WARM, "search": search, "warm_start": {"study": "encoders"}})

    assert [point["values"] for point in study.warm["points"]] == [
        {"encoder": "onehot"},
        {"encoder": "embedding", "embedding_dim": 16},
    ]


def test_a_study_to_start_from_that_is_not_there_is_refused_and_claims_nothing(begin: Begin, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no trial of a study 'earlier' with a validation R2 is in .*correct the name"):
        begin(**WARM)

    assert not (tmp_path / "studies" / "checked" / "spec.json").exists()
    assert not (tmp_path / "studies" / "earlier").exists()


def test_a_study_of_which_nothing_can_be_tried_is_refused_with_every_reason(
    begin: Begin, earlier: Callable[..., Records]
) -> None:
    earlier(config(128), {"dropout": 0.1})

    with pytest.raises(DataError, match=r"t0000 \(not in the space: latent_dim 128\); t0001 \(none of the searched"):
        begin(**WARM)
