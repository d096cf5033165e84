from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from raystudy.study.space import Integer, Parameter, PowerOfTwo, canonical_hash, derive_seed

PARAMETER: TypeAdapter[Parameter] = TypeAdapter(Parameter)


def test_a_power_of_two_range_knows_its_exponents_and_ends() -> None:
    width = PARAMETER.validate_python({"kind": "pow2", "low": 8, "high": 128})

    assert isinstance(width, PowerOfTwo)
    assert width.exponents == (3, 7)
    assert width.corners() == (8, 128)


@pytest.mark.parametrize(("low", "high"), [(12, 128), (8, 100), (0, 8), (-8, 8)])
def test_a_power_of_two_range_refuses_ends_that_are_none(low: int, high: int) -> None:
    with pytest.raises(ValidationError, match=r"power of two|greater than 0"):
        PARAMETER.validate_python({"kind": "pow2", "low": low, "high": high})


@pytest.mark.parametrize("kind", ["int", "float", "log", "pow2"])
def test_a_range_upside_down_is_refused_with_both_ends(kind: str) -> None:
    with pytest.raises(ValidationError, match=r"low=4, high=2"):
        PARAMETER.validate_python({"kind": kind, "low": 4, "high": 2})


@pytest.mark.parametrize("kind", ["float", "log"])
@pytest.mark.parametrize("end", [float("inf"), float("nan")])
def test_a_range_without_a_finite_end_is_refused(kind: str, end: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        PARAMETER.validate_python({"kind": kind, "low": 1, "high": end})


def test_a_logarithmic_range_cannot_begin_at_zero() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        PARAMETER.validate_python({"kind": "log", "low": 0, "high": 1})


@pytest.mark.parametrize("choices", [[], ["onehot", "onehot"]])
def test_choices_are_some_and_distinct(choices: list[str]) -> None:
    with pytest.raises(ValidationError):
        PARAMETER.validate_python({"kind": "categorical", "choices": choices})


def test_the_corners_of_whole_numbers_hold_an_odd_and_an_even_one() -> None:
    assert Integer(kind="int", low=8, high=16).corners() == (8, 9, 16)
    assert Integer(kind="int", low=8, high=8).corners() == (8,)


@pytest.mark.parametrize(
    ("kind", "grid"),
    [
        ({"kind": "categorical", "choices": ["a", "b"]}, ("a", "b")),
        ({"kind": "int", "low": 3, "high": 5}, (3, 4, 5)),
        ({"kind": "pow2", "low": 8, "high": 32}, (8, 16, 32)),
        ({"kind": "float", "low": 0, "high": 1, "points": 3}, (0, 0.5, 1)),
        ({"kind": "float", "low": 0.1, "high": 0.4, "points": 2}, (0.1, 0.4)),
        ({"kind": "log", "low": 1e-4, "high": 1e-2, "points": 3}, (1e-4, 1e-3, 1e-2)),
        ({"kind": "float", "low": 0, "high": 1}, ()),
    ],
)
def test_a_grid_has_both_ends_and_is_even_on_the_scale_of_its_kind(kind: dict[str, Any], grid: tuple[Any, ...]) -> None:
    parameter = PARAMETER.validate_python(kind)

    assert parameter.grid() == pytest.approx(grid) if kind["kind"] == "log" else parameter.grid() == grid
    assert all(parameter.allows(value) for value in parameter.grid()), "and stays within the range"


@pytest.mark.parametrize(
    ("kind", "allowed", "not_allowed"),
    [
        ({"kind": "categorical", "choices": ["a", "b"]}, ["a"], ["c", 1, None]),
        ({"kind": "int", "low": 3, "high": 5}, [3, 5], [2, 6, 3.5, "3"]),
        ({"kind": "pow2", "low": 8, "high": 32}, [8, 32], [4, 12, 64, "8"]),
        ({"kind": "float", "low": 0.1, "high": 0.4}, [0.1, 0.25, 0.4], [0.0, 0.5, "0.2", None]),
        ({"kind": "log", "low": 1e-4, "high": 1e-2}, [1e-4, 1e-2], [0, 1]),
    ],
)
def test_a_kind_knows_which_values_it_can_have(
    kind: dict[str, Any], allowed: list[Any], not_allowed: list[Any]
) -> None:
    parameter = PARAMETER.validate_python(kind)

    assert [value for value in allowed if not parameter.allows(value)] == []
    assert [value for value in not_allowed if parameter.allows(value)] == []


def test_the_canonical_hash_depends_on_the_value_and_not_on_its_spelling() -> None:
    assert canonical_hash({"a": 1, "b": [1, 2]}) == canonical_hash({"b": (1, 2), "a": 1})
    assert canonical_hash({"a": 1}) != canonical_hash({"a": 2})
    assert canonical_hash({"a": 1}) != canonical_hash({"b": 1})
    assert canonical_hash([1, 2]) != canonical_hash([2, 1])
    assert canonical_hash([1, 23]) != canonical_hash([12, 3])


def test_the_canonical_hash_refuses_what_is_not_a_number() -> None:
    with pytest.raises(ValueError):
        canonical_hash({"a": float("nan")})


def test_a_seed_fits_torch_and_differs_by_each_of_its_parts() -> None:
    seeds = {derive_seed("study", "config", replicate) for replicate in range(100)}

    assert len(seeds) == 100
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derive_seed("study", "config", 0) != derive_seed("config", "study", 0)


def test_hashes_and_seeds_are_the_same_in_every_process() -> None:
    code = (
        "from raystudy.study.space import canonical_hash, derive_seed;"
        "print(canonical_hash({'x': 1, 'y': {'b': 2, 'a': 1}}), derive_seed('study', 'config', 3))"
    )
    answers = set()
    for hash_seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        answers.add(run.stdout.strip())

    here = f"{canonical_hash({'y': {'a': 1, 'b': 2}, 'x': 1})} {derive_seed('study', 'config', 3)}"
    assert answers == {here}


def test_the_canonical_hash_never_changes_between_versions() -> None:
    # Written out once: studies on disk are found again by these.
    assert canonical_hash({"latent_dim": 16}) == "a53d1d6fbe03"
    assert derive_seed("study", 1) == 396291933
