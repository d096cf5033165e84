"""What a plan allows: feasibility, memory, budgets, limits on parameters."""

from __future__ import annotations

from typing import Any

import pytest

from raystudy.execution.capacity import declared
from raystudy.models.memory import training_bytes
from raystudy.plan import DECLARED, make_plan, widest_affordable
from raystudy.study.reading import parse_spec
from tests.plans import STUDY, count, plan


def test_a_study_that_can_never_run_says_what_is_missing() -> None:
    found = plan(resources={"cpus_per_worker": 1, "gpus_per_worker": 2})

    assert found["feasible"] is False
    assert found["resources"]["concurrent_trials"] == 0
    (problem,) = found["problems"]
    assert "needs {CPU: 1, GPU: 2}, but the largest node has {CPU: 2}" in problem
    assert found["deadlock"] == {"safe": False, "why": "nothing can start, see the problems"}
    assert found["limits"]["cpu_hours"] == 0
    assert plan({"CPU": 1.0, "GPU": 2.0}, resources={"gpus_per_worker": 2})["feasible"] is True


def test_a_declared_cluster_is_planned_for_node_by_node() -> None:
    cluster = [{"count": 4, "cpus": 96, "gpus": 8, "gpu_memory_gb": 80}, {"cpus": 4}]
    spec = parse_spec({**STUDY, "cluster": cluster, "resources": {"gpus_per_worker": 1, "cpus_per_worker": 16}})
    found = make_plan(spec, declared(spec.cluster or ()), DECLARED)

    assert found["cluster"] == "declared"
    assert found["feasible"]
    assert found["resources"]["concurrent_trials"] == 4 * 6
    assert found["resources"]["capacity"] == {"CPU": 388, "GPU": 32}
    assert [node["count"] for node in found["resources"]["nodes"]] == [4, 1]
    assert found["resources"]["finalist_workers"] == 4, "of a batch of 64, at least 16 genes each"
    assert found["deadlock"]["safe"]
    assert "24 bundles of {CPU: 16, GPU: 1} have room" in found["deadlock"]["why"]


def test_memory_is_told_for_each_arm_and_for_the_largest_corner_of_the_search() -> None:
    spec = parse_spec(STUDY)
    search = {**STUDY["search"], "batch_size": {"kind": "pow2", "low": 8, "high": 256}}
    found = plan(search=search)

    for given, arm in zip(spec.arms, found["arms"], strict=True):
        assert arm["memory_gb"] == pytest.approx(training_bytes(*spec.configure(given.overrides)) / 1e9, rel=0.01)
        assert arm["fits"] is None, "nobody said how much memory there is"
    largest = max(
        training_bytes(*spec.configure({"latent_dim": 64, "encoder": encoder, "embedding_dim": 32, "batch_size": 256}))
        for encoder in ("onehot", "embedding")
    )
    assert found["search"]["memory_gb"]["max"] == pytest.approx(largest / 1e9, rel=0.01)
    assert found["search"]["memory_gb"]["max"] > 2 * plan()["search"]["memory_gb"]["max"]


def test_an_arm_beyond_the_allowed_memory_is_a_problem_and_a_large_corner_of_the_search_a_warning() -> None:
    sizes = {arm["name"]: arm["memory_gb"] for arm in plan()["arms"]}
    between = (sizes["wide"] + sizes["plain"]) / 2
    found = plan(resources={"memory_gb_per_worker": between})

    assert sizes["wide"] < sizes["plain"], "its batch is smaller"
    assert {arm["name"]: arm["fits"] for arm in found["arms"]} == {"wide": True, "plain": False}
    (problem,) = found["problems"]
    assert problem.startswith(f"arm 'plain' needs about {sizes['plain']:.3g} GB to train, but `resources.memory_gb_")
    assert any("the largest network of the search space needs about" in warning for warning in found["warnings"])


def test_a_node_too_small_is_a_problem_only_where_half_of_a_batch_is_too_large_as_well() -> None:
    arms = [{"name": "plain", "batch_size": 256}]
    needs = plan(search={}, arms=arms)["arms"][0]["memory_gb"]

    def found(memory_gb: float) -> dict[str, Any]:
        return plan({"CPU": 2.0, "memory": memory_gb * 1e9}, search={}, arms=arms)

    assert (found(2.1 * needs)["problems"], found(2.1 * needs)["warnings"]) == ([], [])
    assert found(1.5 * needs)["problems"] == []
    assert "2 trials at once on a node of" in found(1.5 * needs)["warnings"][0]
    assert found(0.8 * needs)["feasible"]
    assert found(0.8 * needs)["arms"][0]["fits"] is False
    assert "and a worker can have" in found(0.8 * needs)["warnings"][0]
    assert "in two halves" in found(0.4 * needs)["problems"][0]


def test_limits_are_what_can_be_held_for_as_long_as_the_budget_allows() -> None:
    prices = {"currency": "EUR", "cpu_hour": 0.1, "gpu_hour": 2}
    eight = {"CPU": 64.0, "GPU": 8.0}
    asked = {"resources": {"cpus_per_worker": 4, "gpus_per_worker": 1}, "prices": prices}
    whole = plan(eight, **asked, budget={"trials": 12, "minutes": 60, "cost": 9})["limits"]

    assert (whole["cpu_hours"], whole["gpu_hours"]) == (32, 8)
    assert whole["money"] == {"amount": 19.2, "currency": "EUR", "search": 9}
    assert whole["finalists"] == {"configurations": 1, "folds": 1, "seeds": 1, "runs": 1}
    timed = plan(
        eight,
        **asked,
        budget={"trials": 12, "minutes": 6000, "trial_minutes": 5},
        finalists=2,
        replicates={"folds": 3, "seeds": 2},
    )
    assert timed["limits"]["finalists"]["runs"] == 12
    retrained_on = timed["resources"]["finalist_workers"]
    assert timed["limits"]["gpu_hours"] == pytest.approx((12 + 12 * retrained_on) * 5 / 60, rel=0.01)
    assert plan(eight)["limits"]["money"] is None
    assert plan(eight)["limits"]["gpu_hours"] == 0


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


def test_several_trials_that_fit_on_one_gpu_are_told_of_and_counted() -> None:
    node = {"cpus": 16, "gpus": 2, "gpu_memory_gb": 80}

    def found(**resources: Any) -> dict[str, Any]:
        spec = parse_spec({**STUDY, "cluster": [node], "resources": resources})
        return make_plan(spec, declared(spec.cluster or ()), DECLARED)

    alone, shared = found(gpus_per_worker=1), found(gpus_per_worker=0.25)
    largest = max(alone["search"]["memory_gb"]["max"], *(arm["memory_gb"] for arm in alone["arms"]))
    several = min(int(80 / largest), 100)
    (hint,) = (one for one in alone["warnings"] if "share one" in one)
    assert hint.startswith(f"{several} trials of the largest size fit together on a GPU of 80 GB")
    assert (alone["resources"]["concurrent_trials"], alone["resources"]["trials_per_gpu"]) == (2, None)
    assert (shared["resources"]["concurrent_trials"], shared["resources"]["trials_per_gpu"]) == (8, 4)
    assert not any("share one" in one for one in shared["warnings"])
    (problem,) = found(workers=2, gpus_per_worker=0.5)["problems"]
    assert "NCCL refuses" in problem


def test_a_trial_of_several_workers_is_counted_with_all_of_them() -> None:
    four = plan({"CPU": 9.0}, resources={"workers": 4})

    assert four["feasible"]
    assert (four["resources"]["executor"], four["resources"]["concurrent_trials"]) == ("torch_trainer", 2)
    assert plan()["resources"]["executor"] == "inprocess"
    assert four["limits"]["cpu_hours"] == pytest.approx(8 * STUDY["budget"]["minutes"] / 60, rel=0.01)
    (problem,) = plan({"CPU": 3.0}, resources={"workers": 4})["problems"]
    assert "a trial of 4 workers needs 4 times {CPU: 1} at once, but there is room for 3" in problem
    elastic = plan({"CPU": 3.0}, resources={"workers": [2, 4]})
    assert (elastic["feasible"], elastic["resources"]["concurrent_trials"]) == (True, 1)
