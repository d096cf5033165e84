"""A small study that is planned, and what is counted of it."""

from __future__ import annotations

from typing import Any

from raystudy.models.build import count_parameters
from raystudy.plan import make_plan
from raystudy.study.model import ModelSpec
from raystudy.study.reading import parse_spec

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
