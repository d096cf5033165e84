from __future__ import annotations

from typing import Any

import pytest

from raystudy.models.memory import training_bytes
from raystudy.search.proposals import check
from raystudy.study.reading import parse_spec
from raystudy.study.spec import StudySpec


def make_spec(**resources: Any) -> StudySpec:
    return parse_spec(
        {
            "name": "fake",
            "data": {"source": "synthetic", "window_bp": [300, 150], "max_protein": 300},
            "model": {"num_latents": 4, "queries_dim": 8},
            "arms": [{"name": "plain"}],
            "budget": {"trials": 12, "minutes": 10},
            "resources": resources,
        }
    )


def test_a_network_that_needs_more_memory_than_a_worker_may_have_is_refused_by_how_much() -> None:
    flat = make_spec().merge({"batch_size": 256})
    needed_gb = training_bytes(*make_spec().configure({"batch_size": 256})) / 1e9

    _, _, refusal = check(make_spec(memory_gb_per_worker=needed_gb / 1.5), flat)
    assert refusal is not None
    assert refusal.reason == "memory"
    assert refusal.violation == pytest.approx(0.5)
    allowed = f"`resources.memory_gb_per_worker` allows {needed_gb / 1.5:g}"
    assert refusal.detail == f"about {needed_gb:.3g} GB are needed and {allowed}"
    assert check(make_spec(memory_gb_per_worker=1.01 * needed_gb), flat)[2] is None
    assert check(make_spec(), flat)[2] is None
