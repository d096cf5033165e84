"""What can be searched: kinds of parameters, their values, and the identity of a configuration."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Value = str | int | float | bool


class _Kind(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


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


class Integer(_Range):
    """A whole number in [low, high]."""

    kind: Literal["int"]
    low: int
    high: int

    def corners(self) -> tuple[Value, ...]:
        """The ends, and the second value: rules such as divisibility can hold at both ends and not between."""
        return tuple(sorted({self.low, min(self.low + 1, self.high), self.high}))


class Uniform(_Range):
    """A real number in [low, high]."""

    kind: Literal["float"]


class Log(_Range):
    """A positive real number in [low, high], searched on a logarithmic scale."""

    kind: Literal["log"]
    low: float = Field(gt=0)


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


Parameter = Annotated[Categorical | Integer | Uniform | Log | PowerOfTwo, Field(discriminator="kind")]


def canonical_hash(value: Any) -> str:
    """Twelve hexadecimal digits that depend on the value of a JSON-like object and not on its spelling."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def derive_seed(*parts: Any) -> int:
    """A seed in [0, 2**31) from what it is for, such as (study, configuration hash, replicate)."""
    return int(canonical_hash(list(parts)), 16) % 2**31
