from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raystudy.data.genes import Genes
from raystudy.models.build import count_parameters
from raystudy.plan import list_presets, make_plan, this_machine, widest_affordable
from raystudy.study.model import PRESETS, ModelSpec
from raystudy.study.smoke import smoke
from raystudy.study.spec import load_spec, parse_spec
from tests.models.cases import PRESET_PARAMETERS

SEARCH_SPACES = sorted((Path(__file__).parents[1] / "search_spaces").glob("*.yaml"))
TWO_CORES = {"CPU": 2.0, "GPU": 0.0}
STUDY: dict[str, Any] = {
    "name": "tiny",
    "data": {"source": "synthetic", "window_bp": [200, 100], "max_protein": 50},
    "model": {"num_latents": 4, "queries_dim": 8},
    "search": {
        "latent_dim": {"kind": "pow2", "low": 8, "high": 64},
        "encoder": {"kind": "categorical", "choices": ["onehot", "embedding"]},
        "embedding_dim": {"kind": "pow2", "low": 4, "high": 32},
        "learning_rate": {"kind": "log", "low": 1e-4, "high": 1e-3},
    },
    "arms": [{"name": "wide", "latent_dim": 64, "batch_size": 8}, {"name": "plain"}],
    "training": {"epochs": 5},
    "budget": {"trials": 12, "minutes": 3},
}


def plan(capacity: dict[str, float] = TWO_CORES, **changes: Any) -> dict[str, Any]:
    return make_plan(parse_spec({**STUDY, **changes}), capacity)


def count(**settings: Any) -> int:
    given = {"num_latents": 4, "queries_dim": 8, "window_bp": (200, 100), "max_protein": 50, **settings}
    return count_parameters(ModelSpec(**given))


def test_a_plan_has_the_keys_of_the_contract_and_is_strict_json() -> None:
    found = plan()

    assert {"name", "trials", "arms", "search", "resources", "feasible", "problems"} <= found.keys()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["name"], found["trials"], found["feasible"], found["problems"]) == ("tiny", 12, True, [])
    assert found["search"]["space"].keys() == STUDY["search"].keys()
    assert found["resources"]["workers"] == 1
    assert found["resources"]["concurrent_trials"] == 2


def test_every_arm_is_listed_with_its_parameters() -> None:
    wide, plain = plan()["arms"]

    assert (wide["name"], wide["parameters"]) == ("wide", count(latent_dim=64))
    assert (plain["name"], plain["parameters"]) == ("plain", count())
    assert wide["parameters"] != plain["parameters"]


def test_an_arm_says_what_it_reads_how_it_differs_and_what_was_printed_of_it() -> None:
    arm = {"name": "small", "latent_dim": 16, "half_life": "none", "printed": {"parameters": "0.72M"}, "note": "ours"}
    (found,) = plan(arms=[arm])["arms"]

    assert found["config"] == {"latent_dim": 16, "half_life": "none"}
    assert (found["printed"], found["note"]) == ({"parameters": "0.72M"}, "ours")
    assert found["reads"] == ["dna", "protein"]


def test_arms_of_other_families_and_targets_are_counted_as_they_are() -> None:
    data = {"source": "synthetic", "window_bp": [200, 100], "max_protein": 300}
    arms = [
        {"name": "dna", "family": "dna"},
        {"name": "protein", "family": "protein"},
        {"name": "x", "preset": "table1", "window_bp": [200, 100], "max_protein": 300},
    ]
    found = plan(arms=arms, data=data, target=["mrna", "protein"])["arms"]

    read = {"num_latents": 4, "queries_dim": 8, "window_bp": (200, 100), "max_protein": 300}
    arms_own = {"window_bp": (200, 100), "max_protein": 300}  # a preset beats the model section
    models = [
        ModelSpec(family="dna", **read),
        ModelSpec(family="protein", **read),
        ModelSpec(preset="table1", **arms_own),
    ]
    assert [arm["parameters"] for arm in found] == [count_parameters(model, 2) for model in models]
    assert [arm["reads"] for arm in found] == [["dna", "half_life"], ["protein"], ["dna", "half_life", "protein"]]


def test_corners_that_break_a_rule_together_are_passed_over_in_the_extremes() -> None:
    data = {"source": "synthetic", "window_bp": [200, 100], "max_protein": 300}
    search = {
        "family": {"kind": "categorical", "choices": ["dna_protein", "protein"]},
        "half_life": {"kind": "categorical", "choices": ["concat", "none"]},
    }
    found = plan(search=search, arms=[], data=data)["search"]["parameters"]

    settings = {"max_protein": 300}
    counts = [
        count(**settings, family="dna_protein", half_life="concat"),
        count(**settings, family="dna_protein", half_life="none"),
        count(**settings, family="protein"),
    ]
    assert found == {"min": min(counts), "max": max(counts)}


@pytest.mark.parametrize("path", SEARCH_SPACES, ids=lambda path: path.stem)
def test_every_study_that_comes_with_raystudy_can_be_planned_and_shrunk(path: Path) -> None:
    spec = load_spec(path)
    small = smoke(spec)

    assert spec.name == path.stem
    assert make_plan(spec, TWO_CORES)["feasible"]
    assert make_plan(small, TWO_CORES)["feasible"]
    assert (small.data.source, small.budget.trials, small.training.epochs) == ("synthetic", 2, 2)
    assert small.search.keys() <= spec.search.keys()
    assert [arm.name for arm in small.arms] == [arm.name for arm in spec.arms]
    for before, arm in zip(spec.arms, small.arms, strict=True):
        (was, _), (model, training) = spec.configure(before.overrides), small.configure(arm.overrides)
        assert (model.family, model.encoder, model.tokens) == (was.family, was.encoder, was.tokens)
        assert (sum(model.window_bp), model.max_protein, training.epochs) == (600, 300, 2)


def test_the_presets_have_the_published_numbers_of_parameters() -> None:
    found = {one["preset"]: one for one in list_presets()}

    assert {name: one["parameters"] for name, one in found.items()} == PRESET_PARAMETERS
    published = {name: one["parameters_as_published"] for name, one in found.items()}
    assert {name: number for name, number in published.items() if number} == {
        "dnaperceiver": 1_089_453,
        "dnaperceiver_dual": 1_126_382,
    }
    assert found["dnaperceiver_dual"]["targets"] == ["mrna", "protein"]
    assert all(one["source"] for one in found.values())


def test_what_a_preset_differs_in_gives_the_preset_back() -> None:
    for one in list_presets():
        number = count_parameters(ModelSpec(**one["differs"]), len(one["targets"]))
        assert number == one["parameters"]
        assert one["settings"].items() >= one["differs"].items()
        assert one["settings"] == dict(PRESETS[one["preset"]].settings)


def test_the_smallest_and_the_largest_network_of_the_space_are_counted() -> None:
    counts = [
        count(latent_dim=latent_dim, encoder=encoder, embedding_dim=embedding_dim)
        for latent_dim in (8, 16, 32, 64)
        for encoder in ("onehot", "embedding")
        for embedding_dim in (4, 8, 16, 32)
    ]

    assert plan()["search"]["parameters"] == {"min": min(counts), "max": max(counts)}


def test_a_study_of_arms_alone_runs_its_arms() -> None:
    found = plan(search={})

    assert found["trials"] == 2
    assert found["search"] == {}
    assert plan(search={}, budget={"trials": 1, "minutes": 3})["trials"] == 1


def test_a_study_that_can_never_run_says_what_is_missing() -> None:
    found = plan(resources={"cpus_per_worker": 1, "gpus_per_worker": 2})

    assert found["feasible"] is False
    assert found["resources"]["concurrent_trials"] == 0
    assert any("needs 2 GPU" in problem and "there are 0" in problem for problem in found["problems"])
    assert plan({"CPU": 1.0, "GPU": 2.0}, resources={"gpus_per_worker": 2})["feasible"] is True


def test_a_limit_on_parameters_stands_in_the_plan() -> None:
    assert plan()["resources"]["most_parameters"] is None
    found = plan(budget={**STUDY["budget"], "parameters": 10**9})
    assert found["resources"]["most_parameters"] == 10**9
    assert found["problems"] == []


def test_an_arm_that_is_too_large_and_a_space_in_which_all_are_is_said_before_anything_starts() -> None:
    smallest = plan()["search"]["parameters"]["min"]
    wide, plain = count(latent_dim=64), count()

    def problems(parameters: int, **changes: Any) -> list[str]:
        found = plan(budget={**STUDY["budget"], "parameters": parameters}, **changes)
        assert found["feasible"] is (not found["problems"])
        return found["problems"]

    assert wide < plain
    assert problems(plain) == []
    (one,) = problems(plain - 1)
    assert one.startswith(f"arm 'plain' has {plain:,} parameters, but `budget.parameters` allows {plain - 1:,}; ")
    assert problems(smallest, arms=[]) == []
    (none,) = problems(smallest - 1, arms=[])
    assert f"the smallest network of the search space has {smallest:,} parameters" in none
    assert len(problems(smallest - 1)) == 3
    (one,) = problems(plain - 1, search={}, arms=[{"name": "plain"}])
    assert one.startswith("arm 'plain' has")


SEEDED = {**STUDY["search"], "latent_dim": {**STUDY["search"]["latent_dim"], "seed_from": "intrinsic_dimension"}}


def affordable(parameters: int | None, **changes: Any) -> int | None:
    limit = {} if parameters is None else {"parameters": parameters}
    return widest_affordable(parse_spec({**STUDY, "search": SEEDED, "budget": {**STUDY["budget"], **limit}, **changes}))


def test_the_widest_affordable_width_is_one_whose_every_configuration_is() -> None:
    largest = {
        width: max(
            count(latent_dim=width, encoder=encoder, embedding_dim=embedding_dim)
            for encoder in ("onehot", "embedding")
            for embedding_dim in (4, 8, 16, 32)
        )
        for width in (8, 16, 32, 64)
    }
    assert sorted(largest.values()) == list(largest.values())
    for width, parameters in largest.items():
        assert affordable(parameters) == width
        assert affordable(parameters - 1) == (width // 2 if width > 8 else 0)
    assert affordable(10**9) == 64
    assert affordable(1) == 0, "none is affordable"


def test_the_widest_affordable_width_is_looked_for_within_the_space() -> None:
    search = {**SEEDED, "latent_dim": {**SEEDED["latent_dim"], "low": 16, "high": 32}}
    assert affordable(10**9, search=search) == 32
    assert affordable(1, search=search) == 0


def test_without_a_limit_or_without_a_seeded_width_nothing_is_too_wide() -> None:
    assert affordable(None) is None
    assert affordable(10**6, search=STUDY["search"]) is None
    assert affordable(10**9, search={}) is None


def test_a_plan_needs_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise AssertionError("data was opened")

    monkeypatch.setattr(Genes, "open", absent)

    assert plan(data={"path": "nowhere", "window_bp": [200, 100]})["feasible"]


def test_this_machine_has_a_processor() -> None:
    machine = this_machine()

    assert machine["CPU"] >= 1
    assert machine["GPU"] >= 0


def test_the_rows_of_table_1_differ_in_what_the_report_says_they_differ_in() -> None:
    spec = load_spec(Path(__file__).parents[1] / "search_spaces" / "table1.yaml")
    rows = {arm.name: spec.configure(arm.overrides) for arm in spec.arms}

    fast = {"xformers", "multinode", "latent-64", "latent-512", "dense-input"}
    assert {name: training.attention for name, (_, training) in rows.items()} == {
        name: "xformers" if name in fast else "math" for name in rows
    }
    assert {name for name, (_, training) in rows.items() if training.precision == "fp32"} == {"baseline"}
    assert {name for name, (_, training) in rows.items() if training.batch_size == 96} == {"baseline", "bf16"}
    plain = ModelSpec(preset="table1")
    assert {name for name, (model, _) in rows.items() if model != plain} == {
        "latent-16", "latent-64", "latent-512", "half-life-projection", "dense-input",
    }  # fmt: skip
