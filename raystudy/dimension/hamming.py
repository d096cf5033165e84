"""At how many positions sequences differ, for all pairs of a genome: bit by bit, or as products on a GPU.

n sequences, L positions, P bits a symbol, W words of 64 positions, b sequences of a block.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.uint8]
Words = NDArray[np.uint64]
Block = NDArray[np.float32]

_TILE = 32  # sequences of 10,500 bases that lie in a core's nearest cache together
_GPU_PAYS = 2**36  # compared symbols; below, the processor is done before a GPU has started
_GPU_COLUMNS = 4096
_U64 = np.uint64
_PAIRS, _FOURS = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
_EIGHTS, _BYTES = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)


class Mismatches:
    """Counts of differing positions between ``tokens`` uint8 [n, L] and themselves, one block of rows at a time.

    Memory is P/8 bytes a symbol beside the block itself. With a GPU at hand, large inputs are counted there. All counts
    are exact (L < 2**24).
    """

    def __init__(self, tokens: Tokens, device: str | None = None) -> None:
        """``device``: "cpu" or a torch device; None chooses."""
        device = device or _device(tokens)
        self._gpu = None if device == "cpu" else _Products(tokens, device)
        self._packed_NPW = pack(tokens) if self._gpu is None else np.empty((0, 0, 0), np.uint64)

    def block(self, rows: slice) -> Block:
        """Differing positions of these sequences to all, float32 [b, n]."""
        if self._gpu is not None:
            return self._gpu.block(rows)
        mine = self._packed_NPW[rows]
        found = np.empty((len(mine), len(self._packed_NPW)), dtype=np.float32)
        _counter(mine.shape[1])(mine, self._packed_NPW, found)
        return found


def pack(tokens: Tokens) -> Words:
    """Symbols uint8 [n, L] as bits, a plane for each bit of a symbol: uint64 [n, P, W], zero behind the end."""
    num_planes = max(1, int(tokens.max(initial=0)).bit_length())
    num_bytes = 8 * -(-tokens.shape[1] // 64)
    packed = np.zeros((len(tokens), num_planes, num_bytes), dtype=np.uint8)
    for plane in range(num_planes):
        for first in range(0, len(tokens), 1024):
            bits = np.packbits(tokens[first : first + 1024] >> plane & 1, axis=1)
            packed[first : first + 1024, plane, : bits.shape[1]] = bits
    return packed.view(np.uint64)


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def _num_ones(bits: np.uint64) -> np.uint64:
    """Ones in a word by halving sums, which the compiler knows and turns into the processor's own instruction."""
    bits = bits - ((bits >> _U64(1)) & _PAIRS)
    bits = (bits & _FOURS) + ((bits >> _U64(2)) & _FOURS)
    bits = (bits + (bits >> _U64(4))) & _EIGHTS
    return (bits * _BYTES) >> _U64(56)


@cache
def _counter(num_planes: int) -> Any:
    """The compiled count for symbols of that many bits; known while compiling, so that eight words go at a time."""

    @numba.njit(parallel=True, nogil=True)  # type: ignore[untyped-decorator]
    def count(rows_BPW: Words, all_NPW: Words, found_BN: Block) -> None:
        num_all, num_words = len(all_NPW), all_NPW.shape[2]
        for tile in numba.prange((num_all + _TILE - 1) // _TILE):
            for row in range(len(rows_BPW)):
                for other in range(tile * _TILE, min((tile + 1) * _TILE, num_all)):
                    different = np.uint64(0)
                    for word in range(num_words):
                        bits = np.uint64(0)
                        for plane in range(num_planes):
                            bits |= rows_BPW[row, plane, word] ^ all_NPW[other, plane, word]
                        different += _num_ones(bits)
                    found_BN[row, other] = different

    return count


def _device(tokens: Tokens) -> str:
    if len(tokens) ** 2 * tokens.shape[1] < _GPU_PAYS:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


class _Products:
    """The same counts by products of one-hot blocks: sums of zeros and ones, exact in float32 and in TF32."""

    def __init__(self, tokens: Tokens, device: str) -> None:
        import torch

        self._torch = torch
        self._tokens_NL = torch.from_numpy(np.ascontiguousarray(tokens)).to(device)
        self._symbols = np.unique(tokens).tolist()

    def block(self, rows: slice) -> Block:
        mine, length = self._tokens_NL[rows], self._tokens_NL.shape[1]
        pieces = []
        for first in range(0, len(self._tokens_NL), _GPU_COLUMNS):
            others = self._tokens_NL[first : first + _GPU_COLUMNS]
            equal = sum((mine == symbol).float() @ (others == symbol).float().T for symbol in self._symbols)
            pieces.append(length - equal)
        found: Block = self._torch.cat(pieces, dim=1).cpu().numpy()
        return found
