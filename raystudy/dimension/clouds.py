"""Genes as a cloud of points, known by the distances between them.

n points, f features, L positions, b points of a block.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from raystudy.dimension.hamming import Mismatches

Floats = NDArray[np.float64]
Block = NDArray[np.float32]


class Cloud(Protocol):
    """n points; what an estimator may ask of them."""

    @property
    def step(self) -> float | None:
        """What every squared distance is a multiple of, exactly; None where there is no such number."""

    @property
    def unit(self) -> float:
        """The distance that 1 stands for in ``squares``."""

    def __len__(self) -> int: ...

    def take(self, rows: NDArray[np.int64]) -> Self:
        """The cloud of these points."""

    def row_bytes(self, row: int) -> bytes:
        """The same for equal points, and for no others."""

    def num_bad(self) -> int:
        """Points with a value that is not finite."""

    def squares(self, rows: slice) -> Block:
        """Squared distances of a block of points to all, in squared units: [b, n]."""

    def coordinates(self) -> Floats:
        """The points themselves, up to a rotation and a shift: [n, at most n]."""


@dataclass(frozen=True)
class RealCloud:
    """Points given by numbers, [n, f]. Counts are measured without any rounding, hence with their ties intact."""

    values: NDArray[Any]
    step: None = None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[np.int64]) -> RealCloud:
        return RealCloud(self.values[rows])

    def row_bytes(self, row: int) -> bytes:
        return (self.values[row] + 0.0).tobytes()  # -0.0 becomes 0.0: one value, one bit pattern

    def num_bad(self) -> int:
        return int(np.count_nonzero(~np.isfinite(self.values).all(axis=1)))

    @property
    def unit(self) -> float:
        return self._measurable[1]

    @cached_property
    def _measurable(self) -> tuple[NDArray[Any], float, NDArray[Any]]:
        """Points whose squared distances float32 can hold, the length of 1 in them, and their squared lengths."""
        x = self.values.astype(np.result_type(self.values, np.float32), copy=False)
        unit = 1.0
        if np.array_equal(x, np.rint(x)) and 4 * np.einsum("nd,nd->n", x, x).max() < 2**24:
            x = x.astype(np.float32, copy=False)
        else:
            wide = x - x.mean(axis=0, dtype=np.float64)
            largest = float(np.abs(wide).max())
            wide /= largest
            spread = float(np.sqrt(np.einsum("nd,nd->n", wide, wide).mean()))
            x, unit = wide / spread, largest * spread
        return x, unit, np.einsum("nd,nd->n", x, x)

    def squares(self, rows: slice) -> Block:
        x, _, lengths = self._measurable
        found = lengths[rows, None] + lengths - 2 * (x[rows] @ x.T)
        return np.maximum(found, 0).astype(np.float32, copy=False)

    def coordinates(self) -> Floats:
        centred = np.asarray(self.values - self.values.mean(axis=0, dtype=np.float64), dtype=np.float64)
        return centred if centred.shape[1] <= len(self) else _from_products(centred @ centred.T)


@dataclass(frozen=True)
class SymbolCloud:
    """Sequences of one length as one-hot points, uint8 [n, L], which are never written out.

    Two of them that differ at h positions are sqrt(2 h) apart.
    """

    tokens: NDArray[np.uint8]
    step: float = 2.0
    unit: float = 1.0

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: NDArray[np.int64]) -> SymbolCloud:
        return SymbolCloud(self.tokens[rows])

    def row_bytes(self, row: int) -> bytes:
        return self.tokens[row].tobytes()

    def num_bad(self) -> int:
        return 0

    @cached_property
    def _mismatches(self) -> Mismatches:
        return Mismatches(self.tokens)

    def squares(self, rows: slice) -> Block:
        return 2 * self._mismatches.block(rows)

    def coordinates(self) -> Floats:
        """From the distances (Torgerson 1952)."""
        products = -0.5 * self.squares(slice(0, len(self))).astype(np.float64)
        products -= products.mean(axis=0)
        products -= products.mean(axis=1, keepdims=True)
        return _from_products(products)


def _from_products(products: Floats) -> Floats:
    """Points with these scalar products [n, n], in their principal axes: [n, rank]."""
    spectrum, directions = np.linalg.eigh(products)
    kept = spectrum > spectrum[-1] * 1e-9  # what is smaller is rounding
    return directions[:, kept] * np.sqrt(spectrum[kept])


def distinct(cloud: Cloud) -> Cloud:
    """The cloud with each point once, in the order of their first appearance."""
    first: dict[bytes, int] = {}
    for row in range(len(cloud)):
        first.setdefault(hashlib.blake2b(cloud.row_bytes(row), digest_size=16).digest(), row)
    return cloud if len(first) == len(cloud) else cloud.take(np.array(list(first.values())))
