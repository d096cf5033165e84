from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raystudy.errors import SpecError
from raystudy.study.reading import load_spec, parse_spec
from tests.study.conftest import STUDY, changed, refusal

SHIPPED = Path(__file__).parents[2] / "search_spaces"


def test_a_minimal_study_gets_the_defaults_of_every_section() -> None:
    spec = parse_spec({"name": "a", "data": {"source": "yeast"}, "arms": [{"name": "x"}], "budget": STUDY["budget"]})

    assert (spec.target, spec.split.by, spec.sampler, spec.pruner) == ("protein", "block", "tpe", "successive_halving")
    assert spec.data.window_bp == (7000, 3500)
    assert (spec.model.latent_dim, spec.model.num_latents, spec.model.queries_dim) == (128, 128, 128)
    assert [(one.metric, one.direction) for one in spec.objectives] == [("valid_r2", "maximize")]
    assert (spec.prune_on, spec.protocol, spec.constraints, spec.cluster) == ("valid_r2", "sealed", (), None)
    assert (spec.replicates.folds, spec.replicates.seeds, spec.warm_start, spec.tracking.storage) == (1, 1, None, None)
    limits = spec.budget.model_dump(exclude={"trials", "minutes"})
    assert set(limits.values()) == {None}


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_study_file_is_valid(path: Path) -> None:
    assert load_spec(path).name


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("modle", "model"),
        ("data.window", "window_bp"),
        ("split.vaild", "valid"),
        ("baselines.2.model", "models"),
        ("model.latent_dims", "latent_dim"),
        ("training.epoch", "epochs"),
        ("resources.worker", "workers"),
        ("budget.minute", "minutes"),
        ("budget.parameter", "parameters"),
        ("budget.cots", "cost"),
        ("prices.cpu_hours", "cpu_hour"),
        ("replicates.seed", "seeds"),
        ("warm_start.trial", "trials"),
        ("tracking.storge", "storage"),
        ("search.dropout.wen", "when"),
        ("search.dropout.point", "points"),
        ("tracking.url", "uri"),
        ("search.latent_dim.hihg", "high"),
        ("search.encoder.choice", "choices"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(key: str, nearest: str) -> None:
    message = refusal(changed(key, 1))

    assert f"unknown key `{key}`" in message
    assert f"did you mean `{nearest}`?" in message


def test_an_objective_goes_the_way_that_is_better_unless_that_is_said() -> None:
    metrics = ["valid_r2", "epoch_seconds", "parameters"]
    spec = parse_spec(changed("objectives", [{"metric": metric} for metric in metrics]))

    assert [one.metric for one in spec.objectives] == metrics
    assert [one.direction for one in spec.objectives] == ["maximize", "minimize", "minimize"]


def test_an_unknown_key_of_a_machine_of_the_cluster_is_named_with_the_nearest_known_one() -> None:
    message = refusal({**STUDY, "cluster": [{"cpus": 4, "gpu": 1}]})

    assert "unknown key `cluster.0.gpu`, did you mean `gpus`?" in message


def test_an_unknown_key_of_an_objective_is_named_with_the_nearest_known_one() -> None:
    message = refusal({**STUDY, "objectives": [{"metrc": "valid_r2"}]})

    assert "unknown key `objectives.0.metrc`, did you mean `metric`?" in message


@pytest.mark.parametrize(
    "study",
    [
        changed("search.latnt_dim", {"kind": "pow2", "low": 8, "high": 16}),
        {**STUDY, "arms": [{"name": "a", "latnt_dim": 8}]},
    ],
    ids=["search", "arms"],
)
def test_an_unknown_parameter_is_named_with_the_nearest_known_one(study: dict[str, Any]) -> None:
    assert "unknown parameter `latnt_dim`, did you mean `latent_dim`?" in refusal(study)


def test_a_key_like_no_other_is_answered_with_all_that_are_known() -> None:
    message = refusal(changed("budget.zzz", 1))

    known = "cost, minutes, no_improvement, parameters, trial_minutes, trials, valid_r2"
    assert f"unknown key `budget.zzz`; known are {known}" in message


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("budget.trials", -3, ["`budget.trials`", "greater than or equal to 1", "-3"]),
        ("budget.minutes", -1.5, ["`budget.minutes`", "greater than 0", "-1.5"]),
        ("budget.minutes", float("inf"), ["`budget.minutes`", "finite"]),
        ("budget.parameters", 0, ["`budget.parameters`", "greater than or equal to 1", "0"]),
        ("budget.parameters", 1.5, ["`budget.parameters`", "integer", "1.5"]),
        ("training.weight_decay", float("inf"), ["`training.weight_decay`", "finite"]),
        ("training.epochs", 0, ["`training.epochs`", "greater than or equal to 1", "0"]),
        ("split.by", "chromosom", ["`split.by`", "'chromosome'", "'chromosom'"]),
        ("split.test", 0.95, ["`split`", "`valid + test < 1` must hold", "1.05"]),
        ("model.latent_dim", 20, ["`model`", "multiple of its 8 attention heads", "20"]),
        ("model.encoder", "dense", ["`model.encoder`", "'onehot', 'embedding' or 'kmer'", "'dense'"]),
        ("data.window_bp", [-5, 300], ["`data`", "`window_bp`", "none negative", "[-5, 300]"]),
        ("search.latent_dim.low", 64, ["`search.latent_dim`", "`low <= high` must hold", "low=64, high=32"]),
        ("search.latent_dim.high", 48, ["`search.latent_dim.high`", "power of two", "48"]),
        ("search.latent_dim.kind", "pow3", ["`search.latent_dim`", "'pow2'", "'pow3'"]),
        ("search.dropout.high", 1.5, ["`search.dropout`", "less than 1", "1.5"]),
        ("search.learning_rate.low", 0, ["`search.learning_rate.low`", "greater than 0", "0"]),
        ("search.encoder.choices", ["onehot", "dens"], ["`search.encoder`", "'onehot', 'embedding' or 'kmer'"]),
        ("budget.cost", 0, ["`budget.cost`", "greater than 0"]),
        ("budget.cost", 5, ["`budget.cost` needs `prices`"]),
        ("budget.valid_r2", 1.5, ["`budget.valid_r2`", "less than or equal to 1", "1.5"]),
        ("budget.no_improvement", 0, ["`budget.no_improvement`", "greater than or equal to 1"]),
        ("budget.trial_minutes", 0, ["`budget.trial_minutes`", "greater than 0"]),
        ("prices.gpu_hour", -1, ["`prices.gpu_hour`", "greater than or equal to 0", "-1"]),
        ("replicates.folds", 0, ["`replicates.folds`", "greater than or equal to 1"]),
        ("replicates.seeds", 0, ["`replicates.seeds`", "greater than or equal to 1"]),
        ("protocol", "open", ["`protocol`", "'sealed' or 'reference'", "'open'"]),
        ("sampler", "cmaes", ["`sampler`", "'nsga2'", "'cmaes'"]),
        ("pruner", "asha", ["`pruner`", "'hyperband'", "'asha'"]),
        ("sampler", "grid", ["`sampler: grid` needs `points`", "learning_rate", "dropout"]),
        ("search.dropout.points", 1, ["`search.dropout.points`", "greater than or equal to 2"]),
        ("objectives", [], ["`objectives`", "at least 1 item"]),
        ("objectives", [{"metric": "loss"}], ["`objectives.0.metric`", "'epoch_seconds'", "'loss'"]),
        ("objectives", [{"direction": "minimize"}], ["`valid_r2` is to maximize", "'minimize'"]),
        ("objectives", [{"metric": "parameters"}], ["`valid_r2` the first", "['parameters']"]),
        ("objectives", [{"metric": "valid_r2"}] * 2, ["different metrics", "['valid_r2', 'valid_r2']"]),
        ("prune_on", "epoch_seconds", ["`prune_on` is one of the objectives ['valid_r2']", "'epoch_seconds'"]),
        ("warm_start", {"study": "tiny"}, ["`warm_start.study` is this study itself"]),
        ("warm_start", {"study": "earlier", "trials": 0}, ["`warm_start.trials`", "greater than or equal to 1"]),
        ("cluster", [], ["`cluster`", "at least 1 item"]),
        ("cluster", [{"gpus": 8}], ["`cluster.0.cpus`", "Field required"]),
        ("finalists", 0, ["`finalists`", "greater than or equal to 1", "0"]),
        ("name", "../up", ["`name` becomes a folder", "'../up'"]),
        ("name", "x" * 65, ["`name` becomes a folder", "at most 64"]),
        ("name", "", ["`name` becomes a folder", "''"]),
        ("target", "metabolite", ["`target`", "'protein', 'mrna' or 'mrna_half_life'", "'metabolite'"]),
        ("target", ["mrna", "metabolite"], ["`target", "'protein', 'mrna' or 'mrna_half_life'", "'metabolite'"]),
        ("target", ["mrna", "mrna"], ["`target` is one level or several different ones", "['mrna', 'mrna']"]),
        ("target", [], ["`target` is one level or several different ones", "[]"]),
        ("model.preset", "table2", ["`model`", "`preset` is one of", "table1", "'table2'"]),
        ("model.preset", ["table1"], ["`model`", "preset", "table1"]),
        ("baselines.0", "forest", ["`baselines.0`", "'ridge' or 'gbm'", "'forest'"]),
        ("baselines.0", {"models": ["gbm"]}, ["`baselines.0.features`", "required"]),
        ("baselines.2.models", ["forest"], ["`baselines.2.models.0`", "'ridge' or 'gbm'", "'forest'"]),
        ("baselines.2.models", [], ["`baselines.2.models`", "at least 1 item"]),
        ("baselines.2.name", "a/b", ["each baseline needs a `name` of its own that can name a file", "ridge-a/b"]),
        ("baselines.0", {"features": "there/esm.csv"}, ["each baseline needs a `name` of its own", "gbm-esm"]),
        ("arms.0.window_bp", [300, 100, 5], ["`arms.0.window_bp`", "at most 2 items"]),
        ("arms.0.printed", {"r2": [1]}, ["`arms.0.printed.r2`"]),
        (
            "search.position_rows",
            {"kind": "float", "low": 6000, "high": 7000},
            ["`search.position_rows`", "whole number"],
        ),
    ],
)
def test_a_value_outside_its_rule_is_refused_with_key_value_and_rule(key: str, value: Any, words: list[str]) -> None:
    message = refusal(changed(key, value))

    for word in words:
        assert word in message


@pytest.mark.parametrize("data", [{}, {"source": "yeast", "path": "there"}])
def test_data_is_a_source_or_a_path_and_not_both(data: dict[str, Any]) -> None:
    message = refusal({**STUDY, "data": data})

    assert "`data`: give either `source` or `path`, not both and not neither" in message


def test_a_study_may_limit_the_parameters_of_a_trial_and_need_not() -> None:
    assert parse_spec(STUDY).budget.parameters is None
    assert parse_spec(changed("budget.parameters", 250_000)).budget.parameters == 250_000


@pytest.mark.parametrize("key", ["seed_from", "warm_start"])
def test_a_grid_takes_no_points_from_elsewhere(key: str) -> None:
    width = {"kind": "pow2", "low": 8, "high": 32}
    if key == "seed_from":
        study = {**STUDY, "search": {"latent_dim": {**width, "seed_from": "intrinsic_dimension"}}}
    else:
        study = {**STUDY, "search": {"latent_dim": width}, "warm_start": {"study": "earlier"}}

    assert "`sampler: grid` tries every value anyway" in refusal({**study, "sampler": "grid"})


def test_a_missing_section_is_named() -> None:
    assert "`budget`: Field required" in refusal({key: STUDY[key] for key in STUDY if key != "budget"})


def test_a_study_must_try_something() -> None:
    assert "give `search`, `arms` or both" in refusal(
        {key: STUDY[key] for key in STUDY if key not in ("search", "arms")}
    )


def test_a_window_shorter_than_pooling_is_refused_wherever_the_pool_size_comes_from() -> None:
    short = changed("data.window_bp", [100, 100])
    assert "`model`: a window of 200 bp is shorter than the 250 that pooling by 10 and 5 and 5 needs" in refusal(short)

    assert parse_spec({**short, "model": {"pool_size": 8}}).model.smallest_length == 8 * 4 * 4

    searched = {**STUDY, "search": {"pool_size": {"kind": "int", "low": 8, "high": 20}}}
    assert "`search.pool_size`: a window of 500 bp is shorter than the 2000" in refusal(searched)


def test_only_the_latent_width_can_be_seeded() -> None:
    message = refusal(changed("search.batch_size", {**STUDY["search"]["latent_dim"]}))

    assert "`search.batch_size.seed_from`: only `latent_dim` can be seeded" in message


def test_whole_numbers_between_two_good_ends_must_be_good_too() -> None:
    message = refusal({**STUDY, "search": {"latent_dim": {"kind": "int", "low": 8, "high": 16}}})

    assert "`search.latent_dim`" in message
    assert "multiple of its 8 attention heads, but got 9" in message


@pytest.mark.parametrize("kind", ["float", "log"])
def test_a_whole_number_cannot_be_searched_as_a_real_one(kind: str) -> None:
    message = refusal({**STUDY, "search": {"batch_size": {"kind": kind, "low": 16, "high": 64}}})

    assert "`search.batch_size`" in message
    assert "whole number" in message
    assert kind in message


def test_every_problem_of_a_study_file_is_told_at_once() -> None:
    study = changed("budget.trials", -1)
    study["modle"] = {}

    message = refusal(study)

    assert "`budget.trials`" in message
    assert "`modle`" in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.yaml: the study file cannot be read \(No such file"):
        load_spec(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["name: [1, 2\nbudget: }", "a: b: c", "\x00"])
def test_a_file_that_is_not_yaml_is_named_in_one_paragraph(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)

    with pytest.raises(SpecError, match=r"broken\.yaml: not YAML") as caught:
        load_spec(path)

    assert "\n" not in str(caught.value)


def test_a_binary_file_is_not_yaml(tmp_path: Path) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\xfa\x00")

    with pytest.raises(SpecError, match="not YAML"):
        load_spec(path)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.yaml"
    path.write_text(text)

    with pytest.raises(SpecError, match="a study file is a mapping of keys"):
        load_spec(path)


def test_yaml_that_builds_python_objects_is_refused_and_not_run(tmp_path: Path) -> None:
    path, proof = tmp_path / "evil.yaml", tmp_path / "proof"
    path.write_text(f"name: !!python/object/apply:pathlib.Path.touch [{proof}]")

    with pytest.raises(SpecError, match="not YAML"):
        load_spec(path)

    assert not proof.exists()


def test_a_validated_study_cannot_be_altered() -> None:
    spec = parse_spec(STUDY)

    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"  # type: ignore[misc]


def test_a_key_given_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: a\nbudget: {trials: 1, minutes: 1}\nbudget: {trials: 9, minutes: 9}\n")
    with pytest.raises(SpecError, match=r"`budget` is given twice.*line 3"):
        load_spec(path)


def test_a_key_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("1: a\nname: b\nbudget: {trials: 1, minutes: 1}\ndata: {source: yeast}\n")
    with pytest.raises(SpecError, match="1"):
        load_spec(path)


def test_a_study_cannot_take_the_name_of_a_folder_beside_it() -> None:
    with pytest.raises(SpecError, match=r"`name` 'data' is a folder of raystudy's own"):
        parse_spec(STUDY | {"name": "data"})
