"""A small study, and how to spoil it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from raystudy.errors import SpecError
from raystudy.study.reading import parse_spec

STUDY: dict[str, Any] = {
    "name": "tiny",
    "data": {"source": "synthetic", "window_bp": [300, 200]},
    "search": {
        "latent_dim": {"kind": "pow2", "low": 8, "high": 32, "seed_from": "intrinsic_dimension"},
        "encoder": {"kind": "categorical", "choices": ["onehot", "embedding"]},
        "learning_rate": {"kind": "log", "low": 1e-4, "high": 1e-3},
        "dropout": {"kind": "float", "low": 0.1, "high": 0.4},
    },
    "baselines": ["ridge", "gbm", {"features": "esm.parquet"}],
    "arms": [{"name": "baseline", "latent_dim": 16, "printed": {"r2": 0.13}, "note": "as published"}],
    "budget": {"trials": 4, "minutes": 2},
}


def changed(key: str, value: Any) -> dict[str, Any]:
    """STUDY with one dotted key replaced or added."""
    study = copy.deepcopy(STUDY)
    *sections, last = key.split(".")
    place: Any = study
    for section in sections:
        place = place[int(section)] if isinstance(place, list) else place.setdefault(section, {})
    place[int(last) if isinstance(place, list) else last] = value
    return study


def refusal(study: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as caught:
        parse_spec(study, where="tiny.yaml")
    message = str(caught.value)
    assert message.startswith("tiny.yaml: ")
    assert "\n" not in message
    return message
