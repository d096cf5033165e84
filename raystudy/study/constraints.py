"""Rules between searched values, such as ``num_latents * latent_dim <= 8192``, read without running anything."""

from __future__ import annotations

import ast
import operator
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

_COMPARISONS: dict[type[ast.cmpop], Callable[[float, float], tuple[float, bool]]] = {
    ast.LtE: lambda left, right: (left - right, left <= right),
    ast.Lt: lambda left, right: (left - right, left < right),
    ast.GtE: lambda left, right: (right - left, left >= right),
    ast.Gt: lambda left, right: (right - left, left > right),
}
_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
SMALLEST_VIOLATION = 1e-9
HOW = "give one comparison (<=, <, >=, >) of sums and products of numbers and keys, such as `latent_dim <= 2 * depth`"


def violation(constraint: str, values: Mapping[str, Any]) -> float:
    """By how much ``values`` break the rule: above 0 where they do, else at most 0, as Optuna counts it.

    Raises ValueError where a key has no value, or none that is a number.
    """
    comparison = _parse(constraint)
    left, right = (_number(side, values, constraint) for side in (comparison.left, comparison.comparators[0]))
    excess, kept = _COMPARISONS[type(comparison.ops[0])](left, right)
    return min(excess, 0.0) if kept else max(excess, SMALLEST_VIOLATION)


def keys_of(constraint: str) -> set[str]:
    """The keys that a rule is about."""
    return {node.id for node in ast.walk(_parse(constraint)) if isinstance(node, ast.Name)}


def _checked(constraint: str) -> str:
    for node in ast.walk(comparison := _parse(constraint)):
        known = isinstance(node, ast.Compare | ast.BinOp | ast.Name | ast.Constant | ast.expr_context)
        if not known and type(node) not in {*_OPERATIONS, *_COMPARISONS}:
            raise ValueError(f"`{ast.unparse(node)}` in {constraint!r} is not understood; {HOW}")
        if isinstance(node, ast.Constant) and not is_number(node.value):
            raise ValueError(f"{node.value!r} in {constraint!r} is not a number; {HOW}")
    if not any(isinstance(node, ast.Name) for node in ast.walk(comparison)):
        raise ValueError(f"{constraint!r} names no key; {HOW}")
    return constraint


Constraint = Annotated[str, AfterValidator(_checked)]
"""One comparison between keys and numbers, checked when the study file is read."""


def _parse(constraint: str) -> ast.Compare:
    try:
        tree = ast.parse(constraint.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{constraint!r} cannot be read; {HOW}") from None
    if not isinstance(tree, ast.Compare) or len(tree.ops) != 1 or type(tree.ops[0]) not in _COMPARISONS:
        raise ValueError(f"{constraint!r} is not one comparison; {HOW}")
    return tree


def _number(node: ast.expr, values: Mapping[str, Any], constraint: str) -> float:
    match node:
        case ast.BinOp(left=left, op=operation, right=right):
            sides = _number(left, values, constraint), _number(right, values, constraint)
            try:
                return float(_OPERATIONS[type(operation)](*sides))
            except ZeroDivisionError:
                raise ValueError(f"{constraint!r} divides by 0") from None
        case ast.Name(id=key):
            if not is_number(values.get(key)):
                raise ValueError(f"{constraint!r} needs a number for `{key}`, but got {values.get(key)!r}")
            return float(values[key])
        case ast.Constant(value=number):
            return float(number)  # type: ignore[arg-type]  # checked when it was read
    raise AssertionError(node)


def is_number(value: object) -> bool:
    """Can a rule be about it?"""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
