from __future__ import annotations

import json
from typing import Any

import pytest

from raystudy.data.genes import Genes
from raystudy.models.build import count_parameters
from raystudy.plan import make_plan, this_machine
from raystudy.study.spec import ModelSpec, parse_spec

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
    return count_parameters(ModelSpec(num_latents=4, queries_dim=8, **settings), 300, 50)


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


def test_a_plan_needs_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise AssertionError("data was opened")

    monkeypatch.setattr(Genes, "open", absent)

    assert plan(data={"path": "nowhere", "window_bp": [200, 100]})["feasible"]


def test_this_machine_has_a_processor() -> None:
    machine = this_machine()

    assert machine["CPU"] >= 1
    assert machine["GPU"] >= 0
