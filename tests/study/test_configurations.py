"""What a study's arms and search come to: configurations, what they read, and the study's identity."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from raystudy.study.model import ModelSpec
from raystudy.study.reading import parse_spec
from raystudy.study.sections import FeatureTable
from raystudy.study.spec import StudySpec
from tests.study.conftest import STUDY, changed, refusal


@pytest.mark.parametrize(
    ("arms", "told"),
    [
        ([{"name": "a"}, {"name": "a", "latent_dim": 8}], "each arm needs a `name` of its own"),
        ([{"latent_dim": 8}], "`arms.0.name`: Field required"),
        ([{"name": 3}], "`arms.0.name`: Input should be a valid string (got 3)"),
    ],
)
def test_arms_have_names_of_their_own(arms: list[dict[str, Any]], told: str) -> None:
    assert told in refusal({**STUDY, "arms": arms})


def test_an_arm_keeps_its_settings_apart_from_what_is_told_of_it() -> None:
    arm = parse_spec(changed("arms.0.window_bp", [300, 100])).arms[0]

    assert arm.overrides == {"latent_dim": 16, "window_bp": (300, 100)}
    assert (arm.name, arm.printed, arm.note) == ("baseline", {"r2": 0.13}, "as published")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"latent_dim": 100}, ["multiple of its 8 attention heads", "100"]),
        ({"family": "rna"}, ["family", "'dna', 'protein', 'dna_protein' or 'xpresso'", "'rna'"]),
        ({"preset": "table2"}, ["`preset` is one of", "'table2'"]),
        ({"family": "dna", "max_protein": 100}, ["`max_protein` would do nothing", "`dna`"]),
    ],
)
def test_an_arm_outside_the_rules_is_named(setting: dict[str, Any], words: list[str]) -> None:
    message = refusal({**STUDY, "arms": [{"name": "wide", **setting}]})

    assert "`arms.wide" in message
    assert [word for word in words if word not in message] == []


def test_the_network_reads_what_the_data_section_names_unless_it_says_less() -> None:
    data = {"source": "synthetic", "window_bp": [300, 200], "max_protein": 400}

    assert parse_spec({**STUDY, "data": data}).model == ModelSpec(window_bp=(300, 200), max_protein=400)
    less = parse_spec({**STUDY, "data": data, "model": {"window_bp": [300, 100]}}).model
    assert (less.window_bp, less.max_protein) == ((300, 100), 400)


def test_a_preset_reads_what_was_published_or_what_the_model_section_says_and_never_less_in_silence() -> None:
    large = {"source": "synthetic", "window_bp": [7000, 3500], "max_protein": 6000}
    published = parse_spec({**STUDY, "data": large, "model": {"preset": "protein_dna"}, "search": {}})
    assert published.configure({})[0] == ModelSpec(preset="protein_dna")
    arm = published.configure({"preset": "protein_dna"})[0]
    assert arm.window_bp == (5000, 3000)

    small = {"source": "synthetic", "window_bp": [300, 200], "max_protein": 400}
    told = refusal({**STUDY, "data": small, "model": {"preset": "table1"}})
    assert "`model`: the network would read [7000, 3500] bp and 6000 residues, which is more" in told
    own = {"preset": "table1", "window_bp": [300, 200], "max_protein": 400}
    assert parse_spec({**STUDY, "data": small, "model": own}).model.window_bp == (300, 200)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("model.window_bp", [301, 200], "`model`: the network would read [301, 200] bp"),
        ("model.window_bp", [0, 500], "`model`: the network would read [0, 500] bp"),
        ("arms.0.window_bp", [300, 201], "`arms.baseline`: the network would read [300, 201] bp"),
        ("arms.0.max_protein", 6001, "`arms.baseline`: the network would read [300, 200] bp and 6001 residues"),
        ("search.max_protein", {"kind": "int", "low": 300, "high": 7000}, "`search.max_protein`: the network would"),
    ],
)
def test_a_network_that_reads_beyond_the_data_section_is_refused(key: str, value: Any, told: str) -> None:
    message = refusal(changed(key, value))

    assert told in message
    assert "more than the study's data section offers ([300, 200] bp, 6000)" in message


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("dna", "max_protein", 100),
        ("dna", "perceiver_input", "dna"),
        ("protein", "encoder", "onehot"),
        ("xpresso", "num_latents", 8),
        ("xpresso", "pool_size", 8),
    ],
)
def test_a_key_that_the_family_does_not_read_is_refused_wherever_it_stands(family: str, key: str, value: Any) -> None:
    told = f"`{key}` would do nothing, family `{family}` does not read it; remove it"
    plain = {name: STUDY[name] for name in ("name", "data", "budget")}
    search = {key: {"kind": "categorical", "choices": [value]}}

    assert f"`model`: {told}" in refusal({**plain, "arms": [{"name": "a"}], "model": {"family": family, key: value}})
    assert f"`arms.a`: {told}" in refusal({**plain, "arms": [{"name": "a", "family": family, key: value}]})
    assert f"`search`: {told}" in refusal({**plain, "search": search, "model": {"family": family}})


@pytest.mark.parametrize(
    ("own", "arm"),
    [
        ({}, {"family": "protein"}),
        ({"preset": "table1"}, {"family": "protein"}),
        ({"half_life": "mlp"}, {"family": "protein", "half_life": "none"}),
        ({"preset": "protein_dna"}, {"preset": "xpresso"}),
    ],
)
def test_an_arm_can_change_to_a_family_that_reads_less(own: dict[str, Any], arm: dict[str, Any]) -> None:
    data = {"source": "synthetic"}
    spec = parse_spec({**STUDY, "data": data, "search": {}, "model": own, "arms": [{"name": "other", **arm}]})

    model, _ = spec.configure(spec.arms[0].overrides)

    assert model.inputs < parse_spec({**STUDY, "data": data, "search": {}, "model": own}).inputs


def test_the_inputs_are_those_that_any_arm_or_corner_of_the_search_reads() -> None:
    def inputs(**keys: Any) -> set[str]:
        return set(parse_spec({**STUDY, "search": {}, "arms": [], **keys}).inputs)

    def choices(**keys: list[str]) -> dict[str, Any]:
        return {key: {"kind": "categorical", "choices": values} for key, values in keys.items()}

    protein, dna = {"name": "p", "family": "protein"}, {"name": "d", "family": "dna", "half_life": "none"}
    assert inputs(arms=[protein]) == {"protein"}
    assert inputs(arms=[protein, dna]) == {"protein", "dna"}
    assert inputs(arms=[protein], search=choices(half_life=["none"])) == {"protein", "dna"}
    assert inputs(search=choices(depth=[1])) == {"protein", "dna", "half_life"}
    assert inputs(search=choices(tokens=["residue", "codon"])) == {"protein", "codon", "dna", "half_life"}
    assert inputs(search=choices(preset=["proteinperceiver"])) == {"protein"}
    # A corner that cannot be trained (a protein with half-life features) counts nothing
    both = choices(family=["protein", "dna"], half_life=["none", "mlp"])
    assert inputs(search=both, model={"family": "dna"}) == {"protein", "dna", "half_life"}


def test_several_targets_are_kept_in_their_order() -> None:
    assert parse_spec(changed("target", ["mrna", "protein"])).targets == ("mrna", "protein")
    assert parse_spec(changed("target", "mrna")).targets == ("mrna",)


def test_a_table_of_features_names_its_baselines() -> None:
    given = [{"features": "data/esm2.parquet"}, {"features": "esm2.csv", "models": ["gbm"], "name": "mine"}]
    first, second = parse_spec(changed("baselines", given)).baselines

    assert isinstance(first, FeatureTable)
    assert isinstance(second, FeatureTable)
    assert (first.features, first.models, first.arm("ridge")) == (
        Path("data/esm2.parquet"),
        ("ridge", "gbm"),
        "ridge-esm2",
    )
    assert (second.models, second.arm("gbm")) == (("gbm",), "gbm-mine")


OTHERS: dict[str, Any] = {
    "name": "other",
    "data.window_bp": [300, 201],
    "data.max_protein": 100,
    "target": "mrna",
    "split.seed": 1,
    "model.num_latents": 4,
    "search.dropout.high": 0.5,
    "arms": [],
    "sampler": "random",
    "pruner": "none",
    "training.epochs": 9,
    "finalists": 2,
    "baselines": ["ridge"],
    "baselines.2.features": "other.parquet",
    "arms.0.latent_dim": 8,
    "arms.0.name": "other",
    "arms.0.window_bp": [300, 100],
    "constraints": ["latent_dim <= 16"],
    "objectives": [{"metric": "valid_r2"}, {"metric": "epoch_seconds"}],
    "warm_start": {"study": "earlier"},
    "replicates.folds": 5,
    "replicates.seeds": 3,
    "protocol": "reference",
    "training_sizes": [0.5],
    "search.dropout.when": {"encoder": "onehot"},
}


@pytest.mark.parametrize("key", OTHERS)
def test_the_hash_changes_with_every_other_key(key: str) -> None:
    assert parse_spec(changed(key, OTHERS[key])).hash != parse_spec(STUDY).hash


def test_what_trials_are_pruned_on_belongs_to_the_identity_too() -> None:
    two = changed("objectives", [{"metric": "valid_r2"}, {"metric": "epoch_seconds"}])

    assert parse_spec({**two, "prune_on": "epoch_seconds"}).hash != parse_spec(two).hash


def test_the_keys_whose_change_is_tested_are_all_there_are() -> None:
    free = {"budget", "resources", "cluster", "prices", "tracking", "published", "reduced"}
    needs_another = {"prune_on"}

    assert {key.split(".")[0] for key in OTHERS} | free | needs_another == set(StudySpec.model_fields)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("budget", {"trials": 40, "minutes": 200, "no_improvement": 9, "valid_r2": 0.4, "trial_minutes": 3}),
        ("cluster", [{"count": 4, "cpus": 16, "gpus": 8}]),
        ("prices", {"currency": "EUR", "gpu_hour": 2.5}),
        ("tracking.storage", "postgresql://there/optuna"),
        ("resources", {"cpus_per_worker": 4, "gpus_per_worker": 1, "accelerator": "A100"}),
        ("tracking", {"uri": "http://localhost"}),
    ],
)
def test_the_hash_stays_when_a_study_gets_more_time_or_machines(key: str, value: Any) -> None:
    assert parse_spec(changed(key, value)).hash == parse_spec(STUDY).hash


def test_the_hash_changes_with_the_number_of_workers_that_share_a_batch() -> None:
    two = parse_spec(changed("resources", {"workers": 2}))

    assert two.hash != parse_spec(STUDY).hash
    assert two.hash == parse_spec(changed("resources", {"workers": [1, 2]})).hash, "elastic workers keep the batch"


@pytest.mark.parametrize(("key", "value"), [("printed", {"r2": 0.14, "parameters": "1.04M"}), ("note", "corrected")])
def test_the_hash_stays_when_more_is_told_of_an_arm(key: str, value: Any) -> None:
    assert parse_spec(changed(f"arms.0.{key}", value)).hash == parse_spec(STUDY).hash


def test_a_preset_that_an_arm_names_beats_the_model_section_and_yields_to_the_arm() -> None:
    study = {**STUDY, "data": {"source": "synthetic"}, "search": {}, "model": {"pool_size": 10, "queries_dim": 32}}
    spec = parse_spec({**study, "arms": [{"name": "other", "preset": "dnaperceiver", "queries_dim": 16}]})

    assert spec.configure(spec.arms[0].overrides)[0] == ModelSpec(preset="dnaperceiver", queries_dim=16)


def test_a_key_that_no_arm_and_no_searched_value_reads_is_refused() -> None:
    plain = {name: STUDY[name] for name in ("name", "data", "budget")}
    encoders = {"encoder": {"kind": "categorical", "choices": ["onehot", "embedding"]}}
    widths = {"embedding_dim": {"kind": "pow2", "low": 8, "high": 16}}

    assert parse_spec({**plain, "search": {**encoders, **widths}}).search.keys() == {"encoder", "embedding_dim"}
    told = "`embedding_dim` would do nothing, `encoder: onehot` does not read it"
    assert f"`search`: {told}" in refusal({**plain, "search": widths})
    assert f"`model`: {told}" in refusal({**plain, "arms": [{"name": "a"}], "model": {"embedding_dim": 8}})
    dense = {"name": "dense", "encoder": "embedding"}
    assert parse_spec({**plain, "arms": [{"name": "a"}, dense], "model": {"embedding_dim": 8}}).model.embedding_dim == 8


def test_a_search_whose_values_never_keep_the_rules_together_is_refused() -> None:
    search = {
        "family": {"kind": "categorical", "choices": ["protein"]},
        "half_life": {"kind": "categorical", "choices": ["concat"]},
    }

    assert "no combination of the searched values keeps the rules" in refusal({**STUDY, "arms": [], "search": search})


def test_the_hash_does_not_depend_on_the_order_of_keys_or_on_defaults_written_out() -> None:
    backwards = dict(reversed(STUDY.items()))
    written_out = changed("model.num_latents", 128)

    assert parse_spec(backwards).hash == parse_spec(written_out).hash == parse_spec(STUDY).hash


def test_the_hash_of_a_file_is_the_same_in_every_process(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    code = (
        "import sys, pathlib; from raystudy.study.reading import load_spec; "
        "print(load_spec(pathlib.Path(sys.argv[1])).hash)"
    )

    for hash_seed in ("0", "7"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        run = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, env=environment, check=True
        )
        assert run.stdout.strip() == parse_spec(STUDY).hash


def test_a_configuration_replaces_the_studys_own_keys_in_the_right_half() -> None:
    spec = parse_spec(changed("training.epochs", 3))

    model, training = spec.configure({"latent_dim": 8, "batch_size": 16})

    assert (model.latent_dim, training.batch_size, training.epochs) == (8, 16, 3)
    assert (spec.model.latent_dim, spec.training.batch_size) == (128, 64)


def test_the_seeded_width_is_found_only_where_it_is_asked_for() -> None:
    assert parse_spec(STUDY).seeded_width is not None
    assert parse_spec(changed("search.latent_dim.seed_from", None)).seeded_width is None
    assert parse_spec({**STUDY, "search": {}}).seeded_width is None
