"""What can be searched: kinds of parameters, their values, and the identity of a configuration."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Value = str | int | float | bool


class _Kind(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    when: dict[str, Value | Annotated[tuple[Value, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Searched only where each of these other searched keys has this value, or one of these; else the study's own."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # a dictionary among its values has no hash of its own

    @abstractmethod
    def allows(self, value: object) -> bool:
        """Can this kind have that value?"""

    def applies(self, chosen: Mapping[str, Any]) -> bool:
        """Is this searched where those values were chosen? A key that was not chosen does not meet a condition."""
        return all(key in chosen and chosen[key] in _several(values) for key, values in self.when.items())


class Categorical(_Kind):
    """One of a list of values, without an order."""

    kind: Literal["categorical"]
    choices: tuple[Value, ...] = Field(min_length=1)

    @field_validator("choices")
    @classmethod
    def _distinct(cls, choices: tuple[Value, ...]) -> tuple[Value, ...]:
        if len(set(choices)) < len(choices):
            raise ValueError(f"`choices` must be distinct, but got {list(choices)}")
        return choices

    def corners(self) -> tuple[Value, ...]:
        return self.choices

    def grid(self) -> tuple[Value, ...]:
        return self.choices

    def allows(self, value: object) -> bool:
        return value in self.choices


class _Range(_Kind):
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> _Range:
        if not self.low <= self.high:
            raise ValueError(f"`low <= high` must hold, but got (low={self.low:g}, high={self.high:g})")
        return self

    def corners(self) -> tuple[Value, ...]:
        return (self.low, self.high)

    def allows(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


class Integer(_Range):
    """A whole number in [low, high]."""

    kind: Literal["int"]
    low: int
    high: int

    def corners(self) -> tuple[Value, ...]:
        """The ends, and the second value: rules such as divisibility can hold at both ends and not between."""
        return tuple(sorted({self.low, min(self.low + 1, self.high), self.high}))

    def grid(self) -> tuple[Value, ...]:
        return tuple(range(self.low, self.high + 1))

    def allows(self, value: object) -> bool:
        return value in range(self.low, self.high + 1)


class _Real(_Range):
    points: int | None = Field(None, ge=2)
    """Into how many values, both ends among them, `sampler: grid` divides it."""

    def grid(self) -> tuple[Value, ...]:
        """Evenly spaced values, on this kind's own scale; none where nobody said how many."""
        if self.points is None:
            return ()
        inner = (self._at(step / (self.points - 1)) for step in range(1, self.points - 1))
        return (self.low, *inner, self.high)

    def _at(self, share: float) -> float:
        return self.low + share * (self.high - self.low)


class Uniform(_Real):
    """A real number in [low, high]."""

    kind: Literal["float"]


class Log(_Real):
    """A positive real number in [low, high], searched on a logarithmic scale."""

    kind: Literal["log"]
    low: float = Field(gt=0)

    def _at(self, share: float) -> float:
        return float(self.low * (self.high / self.low) ** share)


class PowerOfTwo(_Range):
    """A power of two in [low, high]; both ends are powers of two themselves."""

    kind: Literal["pow2"]
    low: int = Field(gt=0)
    high: int = Field(gt=0)
    seed_from: Literal["intrinsic_dimension"] | None = None
    """Where the first points come from; ``intrinsic_dimension`` puts its neighbours and 16 first."""

    @field_validator("low", "high")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"must be a power of two, but got {value}")
        return value

    @property
    def exponents(self) -> tuple[int, int]:
        return self.low.bit_length() - 1, self.high.bit_length() - 1

    def grid(self) -> tuple[Value, ...]:
        low, high = self.exponents
        return tuple(2**exponent for exponent in range(low, high + 1))

    def allows(self, value: object) -> bool:
        return value in self.grid()


Parameter = Annotated[Categorical | Integer | Uniform | Log | PowerOfTwo, Field(discriminator="kind")]


def conditions_first(search: Mapping[str, Parameter]) -> list[str]:
    """The searched keys in an order in which each comes after those that its `when` asks about, else as given.

    Raises ValueError for a condition on a key that is not searched, or on one that waits for this one.
    """
    ordered: list[str] = []

    def visit(key: str, asked_by: tuple[str, ...]) -> None:
        if key in asked_by:
            raise ValueError(f"`search.{key}.when`: {' -> '.join((*asked_by, key))} is a circle; remove one condition")
        for other in search[key].when:
            if other not in search:
                raise ValueError(f"`search.{key}.when` asks about `{other}`, which is not searched; search it too")
            visit(other, (*asked_by, key))
        if key not in ordered:
            ordered.append(key)

    for key in search:
        visit(key, ())
    return ordered


def conditions_of(key: str, search: Mapping[str, Parameter]) -> dict[str, Value]:
    """Values of other keys with which ``key`` is searched: the first that each condition allows, theirs included."""
    met: dict[str, Value] = {}
    for other, values in search[key].when.items():
        met |= conditions_of(other, search) | {other: _several(values)[0]}
    return met


def _several(values: Value | tuple[Value, ...]) -> tuple[Value, ...]:
    return values if isinstance(values, tuple) else (values,)


def canonical_hash(value: Any) -> str:
    """Twelve hexadecimal digits that depend on the value of a JSON-like object and not on its spelling."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def derive_seed(*parts: Any) -> int:
    """A seed in [0, 2**31) from what it is for, such as (study, configuration hash, replicate)."""
    return int(canonical_hash(list(parts)), 16) % 2**31
