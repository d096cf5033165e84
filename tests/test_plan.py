from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raystudy.data.genes import Genes
from raystudy.execution.capacity import declared
from raystudy.models.build import count_parameters
from raystudy.plan import list_presets, make_plan, this_machine
from raystudy.study.model import PRESETS, ModelSpec
from raystudy.study.reading import load_spec, parse_spec
from raystudy.study.smoke import smoke
from tests.models.cases import PRESET_PARAMETERS
from tests.plans import STUDY, TWO_CORES, count, plan

SEARCH_SPACES = sorted((Path(__file__).parents[1] / "search_spaces").glob("*.yaml"))


def test_a_plan_has_the_keys_of_the_contract_and_is_strict_json() -> None:
    found = plan()

    assert {"name", "trials", "arms", "search", "resources", "feasible", "problems"} <= found.keys()
    assert {"cluster", "limits", "deadlock", "warnings"} <= found.keys()
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
    assert make_plan(spec, declared(spec.cluster) if spec.cluster else TWO_CORES)["feasible"]
    assert make_plan(small, TWO_CORES)["feasible"]
    assert (small.data.source, small.budget.trials, small.training.epochs) == ("synthetic", 2, 2)
    assert small.search.keys() <= spec.search.keys()
    assert [arm.name for arm in small.arms] == [arm.name for arm in spec.arms]
    for before, arm in zip(spec.arms, small.arms, strict=True):
        (was, _), (model, training) = spec.configure(before.overrides), small.configure(arm.overrides)
        assert (model.family, model.encoder, model.tokens) == (was.family, was.encoder, was.tokens)
        assert (sum(model.window_bp), model.max_protein, training.epochs) == (600, 300, 2)


@pytest.mark.parametrize(
    ("target", "small"),
    [
        ("mrna", ("mrna",)),
        (["mrna", "protein"], ("mrna", "protein")),
        ("mrna_half_life", ("protein",)),
        (["mrna", "mrna_half_life"], ("protein", "mrna")),
    ],
)
def test_a_shrunk_study_asks_for_what_synthetic_genes_have(target: Any, small: tuple[str, ...]) -> None:
    document = {"name": "mine", "data": {"source": "ecoli"}, "target": target, "split": {"by": "published"}}
    arms = [{"name": "a"}]
    spec = smoke(parse_spec({**document, "arms": arms, "budget": {"trials": 1, "minutes": 1}}))

    assert (spec.targets, spec.split.by) == (small, "block")


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


def warnings(capacity: dict[str, float] = TWO_CORES, **changes: Any) -> str:
    return " ".join(plan(capacity, **changes)["warnings"])


def test_what_is_probably_not_meant_is_warned_of() -> None:
    with_gpu, gpu = {"CPU": 4.0, "GPU": 1.0}, {"resources": {"gpus_per_worker": 1}}
    fast = {"arms": [{"name": "fast", "attention": "xformers"}, {"name": "plain"}]}
    assert warnings() == ""
    assert "refused will be arm 'fast'" in warnings(**fast)
    assert "refused" not in warnings(with_gpu, **fast, **gpu)
    assert "there are GPUs" in warnings(with_gpu)
    assert "`attention: xformers` of the search" in warnings(training={"attention": "xformers"}, arms=[])
    many = {"trials": 501, "minutes": 3}
    assert "`sampler: gp` takes longer" in warnings(sampler="gp", budget=many, arms=[])
    assert "gp" not in warnings(sampler="gp", arms=[], pruner="none")
    assert "`sampler: gp` learns from complete trials only" in warnings(sampler="gp", arms=[])
    assert "2 arms, but `budget.trials` is 1" in warnings(budget={"trials": 1, "minutes": 3})


def test_a_grid_s_size_stands_beside_the_trials() -> None:
    assert plan()["search"]["grid_size"] is None, "a real number has no grid unless somebody says how many points"
    search = {**STUDY["search"], "learning_rate": {"kind": "log", "low": 1e-4, "high": 1e-3, "points": 3}}
    found = plan(search=search, sampler="grid")

    assert found["search"]["grid_size"] == 4 * 2 * 4 * 3
    assert "the grid has 96 points, and `budget.trials` of 12 leaves 10" in " ".join(found["warnings"])
    assert "grid" not in warnings(search=search, sampler="grid", budget={"trials": 98, "minutes": 3})


def test_values_are_counted_only_where_their_condition_holds() -> None:
    width = {"kind": "pow2", "low": 4, "high": 32}
    search = {"encoder": STUDY["search"]["encoder"], "embedding_dim": {**width, "when": {"encoder": "embedding"}}}
    found = plan(search=search, arms=[])["search"]["parameters"]
    counts = [count(), *(count(encoder="embedding", embedding_dim=width) for width in (4, 8, 16, 32))]
    assert found == {"min": min(counts), "max": max(counts)}

    searched = {"depth": {"kind": "int", "low": 1, "high": 3, "when": {"latent_dim": 16}}}
    latents = {"kind": "categorical", "choices": [8, 16, 64]}
    found = plan(search={"latent_dim": latents, **searched}, arms=[])["search"]["parameters"]
    counts = [count(latent_dim=8), count(latent_dim=64), *(count(latent_dim=16, depth=depth) for depth in (1, 2, 3))]
    assert found == {"min": min(counts), "max": max(counts)}


def test_few_combinations_are_counted_under_their_constraints_and_many_are_bounded_without_them() -> None:
    search = {
        "latent_dim": {"kind": "pow2", "low": 8, "high": 64},
        "num_latents": {"kind": "pow2", "low": 4, "high": 32},
    }
    constraints = ["latent_dim * num_latents <= 256", "latent_dim >= 16"]
    counts = {(D, N): count(latent_dim=D, num_latents=N) for D in (8, 16, 32, 64) for N in (4, 8, 16, 32)}
    kept = [number for (D, N), number in counts.items() if D >= 16 and D * N <= 256]

    found = plan(search=search, arms=[], constraints=constraints)["search"]["parameters"]
    assert found == {"min": min(kept), "max": max(kept)}
    many = {
        **search,
        "queries_dim": {"kind": "int", "low": 8, "high": 8},
        "batch_size": {"kind": "int", "low": 2, "high": 99},
    }
    bound = plan(search=many, arms=[], constraints=[*constraints, "batch_size <= 64"])["search"]["parameters"]
    assert bound == {"min": min(counts.values()), "max": max(counts.values())}


def test_constraints_that_nothing_keeps_are_a_problem() -> None:
    search = {"latent_dim": {"kind": "pow2", "low": 8, "high": 64}}
    found = plan(search=search, constraints=["latent_dim <= 4"])

    assert found["search"]["parameters"] == {"min": None, "max": None}
    assert "no combination of the searched values keeps the constraints latent_dim <= 4" in found["problems"][0]


def test_a_plan_needs_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise AssertionError("data was opened")

    monkeypatch.setattr(Genes, "open", absent)

    assert plan(data={"path": "nowhere", "window_bp": [200, 100]})["feasible"]


def test_this_machine_has_a_processor() -> None:
    (machine,) = this_machine()

    assert machine.cpus >= 1
    assert machine.gpus >= 0
    assert 0.1 < (machine.memory_gb or 0) < 1e5


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


@pytest.mark.parametrize(("source", "said"), [("genome", "'expression', 'target'"), ("yeats", "Did you mean 'yeast'?")])
def test_a_source_that_cannot_be_prepared_by_itself_is_a_problem(source: str, said: str) -> None:
    found = plan(data={"source": source})

    assert not found["feasible"]
    assert [one for one in found["problems"] if said in one]
    assert plan(data={"source": "ecoli"})["feasible"]
