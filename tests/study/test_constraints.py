"""Rules between values: what is one, by how much it is broken, and that reading one runs nothing."""

from __future__ import annotations

import builtins
import math
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from raystudy.study.constraints import SMALLEST_VIOLATION, Constraint, keys_of, violation
from tests.study.conftest import changed, refusal

CONSTRAINT: TypeAdapter[str] = TypeAdapter(Constraint)
VALUES = {"latent_dim": 16, "num_latents": 4, "depth": 2, "dropout": 0.5, "encoder": "onehot", "amp": True}


@pytest.mark.parametrize(
    ("constraint", "excess"),
    [
        ("latent_dim <= 16", 0),
        ("latent_dim <= 10", 6),
        ("latent_dim <= 20", -4),
        ("latent_dim >= 20", 4),
        ("latent_dim >= 10", -6),
        ("latent_dim < 20", -4),
        ("latent_dim > 10", -6),
        ("num_latents * latent_dim <= 60", 4),
        ("num_latents * latent_dim <= 8192", 64 - 8192),
        ("latent_dim <= 2 * depth + num_latents", 8),
        ("latent_dim / num_latents <= depth", 2),
        ("(latent_dim - num_latents) * depth <= 20", 4),
        ("10 <= latent_dim", -6),
        ("dropout <= 0.25", 0.25),
        ("  depth <= 2  ", 0),
    ],
)
def test_a_rule_is_broken_by_how_much_one_side_is_too_large(constraint: str, excess: float) -> None:
    assert CONSTRAINT.validate_python(constraint) == constraint
    assert violation(constraint, VALUES) == pytest.approx(excess)


@pytest.mark.parametrize("constraint", ["latent_dim < 16", "latent_dim > 16"])
def test_a_strict_rule_is_broken_where_both_sides_are_equal_and_by_more_than_nothing(constraint: str) -> None:
    assert violation(constraint, VALUES) == SMALLEST_VIOLATION > 0


@pytest.mark.parametrize("comparison", ["<=", "<", ">=", ">"])
def test_above_0_means_broken_and_nothing_else_does(comparison: str) -> None:
    for latent_dim in (15, 16, 17):
        kept = {"<=": latent_dim <= 16, "<": latent_dim < 16, ">=": latent_dim >= 16, ">": latent_dim > 16}[comparison]
        assert (violation(f"latent_dim {comparison} 16", {"latent_dim": latent_dim}) <= 0) is kept


def test_the_keys_of_a_rule_are_those_that_it_names() -> None:
    assert keys_of("num_latents * latent_dim <= 8 * depth") == {"num_latents", "latent_dim", "depth"}


HOSTILE = [
    "__import__('os')",
    "__import__('os').system('true') <= depth",
    "depth <= __import__('os').getpid()",
    "depth.__class__.__mro__ <= 3",
    "(lambda: depth)() <= 3",
    "[depth for depth in (1, 2)] <= 3",
    "depth[0] <= 3",
    "depth ** depth <= 3",
    "9 ** 9 ** 9 ** 9 <= depth",
    "depth << 30 <= 3",
    "depth % 2 <= 0",
    "depth // 2 <= 3",
    "-depth <= 3",
    "not depth <= 3",
    "depth <= 3 and depth >= 1",
    "1 <= depth <= 3",
    "depth == 3",
    "depth != 3",
    "depth in (1, 2)",
    "depth is 3",
    "(depth := 3) <= 4",
    "depth if depth else 3 <= 4",
    "f'{depth}' <= 3",
    "depth <= 'three'",
    "depth <= b'3'",
    "depth <= True",
    "depth <= None",
    "depth <= 3j",
    "depth <= ...",
    "await depth <= 3",
    "print(depth) <= 3",
    "depth; depth <= 3",
    "import os",
    "depth <=",
    "depth",
    "1 <= 2",
    "",
    "\x00",
    "(" * 500 + "depth" + ")" * 500 + " <= 3",
    "depth <= " + "9" * 5000,
]


@pytest.mark.parametrize("constraint", HOSTILE, ids=lambda text: repr(text)[:40])
def test_whatever_else_stands_there_is_refused_and_not_run(constraint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise AssertionError("it was run")

    monkeypatch.setattr(builtins, "eval", run)
    monkeypatch.setattr(builtins, "exec", run)
    with pytest.raises(ValidationError, match=r"give one comparison|not a number|cannot be read"):
        CONSTRAINT.validate_python(constraint)


@pytest.mark.parametrize("num_sums", [100, 3000, 100_000])
def test_a_rule_of_any_length_is_read_and_judged_or_refused(num_sums: int) -> None:
    constraint = "depth" + " + 1" * num_sums + " <= 3"
    try:
        CONSTRAINT.validate_python(constraint)
    except ValidationError:
        return
    assert violation(constraint, VALUES) == 2 + num_sums - 3


@pytest.mark.parametrize("huge", ["1e999", "9" * 400, "1e308 * 10"])
def test_a_number_too_large_for_any_value_breaks_nothing_down(huge: str) -> None:
    constraint = f"depth <= {huge}"
    try:
        CONSTRAINT.validate_python(constraint)
    except ValidationError:
        return
    assert not math.isnan(violation(constraint, VALUES))
    assert violation(constraint, VALUES) <= 0


@pytest.mark.parametrize(
    ("constraint", "told"),
    [
        ("width <= 3", "needs a number for `width`, but got None"),
        ("encoder <= 3", "needs a number for `encoder`, but got 'onehot'"),
        ("amp <= 3", "needs a number for `amp`, but got True"),
        ("3 / (depth - 2) <= 1", "divides by 0"),
    ],
)
def test_a_rule_without_an_answer_says_why(constraint: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        violation(constraint, VALUES)


def test_a_study_file_names_the_unknown_key_of_a_rule_with_the_nearest() -> None:
    told = refusal(changed("constraints", ["latnt_dim <= 16"]))

    assert "`constraints`: unknown key `latnt_dim` in 'latnt_dim <= 16', did you mean `latent_dim`?" in told


def test_a_study_file_says_what_a_rule_may_be() -> None:
    told = refusal(changed("constraints", ["__import__('os')"]))

    assert "`constraints.0`: \"__import__('os')\" is not one comparison; give one comparison (<=, <, >=, >)" in told


@pytest.mark.parametrize("constraint", ["encoder <= 3", "window_bp <= 3"])
def test_a_study_file_with_a_rule_about_what_is_no_number_is_refused(constraint: str) -> None:
    assert "needs a number" in refusal(changed("constraints", [constraint]))


def test_rules_without_a_search_are_refused() -> None:
    study = changed("constraints", ["latent_dim <= 16"])

    assert "`constraints` are for searched values, but there is no `search`" in refusal({**study, "search": {}})
