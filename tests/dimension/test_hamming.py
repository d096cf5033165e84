"""Counts of differing positions, against comparing symbol by symbol."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from raystudy.dimension import hamming
from raystudy.dimension.hamming import Mismatches, _Products, pack

Tokens = NDArray[np.uint8]


def sequences(num_symbols: int, length: int, num_sequences: int = 70, seed: int = 0) -> Tokens:
    return np.random.default_rng(seed).integers(0, num_symbols, (num_sequences, length)).astype(np.uint8)


def brute_force(tokens: Tokens) -> NDArray[np.int64]:
    return (tokens[:, None] != tokens).sum(axis=2)


@pytest.mark.parametrize("num_symbols", [2, 5, 22, 23])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 130, 200])
def test_both_ways_of_counting_equal_brute_force(num_symbols: int, length: int) -> None:
    tokens = sequences(num_symbols, length)
    expected = brute_force(tokens)
    for counts in (Mismatches(tokens, "cpu"), _Products(tokens, "cpu")):
        found = counts.block(slice(0, 70))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def test_symbols_that_differ_in_one_bit_alone_are_told_apart() -> None:
    symbols = np.arange(23, dtype=np.uint8)
    tokens = np.repeat(symbols[:, None], 3, axis=1)
    np.testing.assert_array_equal(Mismatches(tokens).block(slice(0, 23)), 3 * (1 - np.eye(23)))


@pytest.mark.parametrize("rows", [slice(0, 1), slice(31, 34), slice(64, 70), slice(69, 70)])
def test_a_block_is_the_rows_of_the_whole(rows: slice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hamming, "_GPU_COLUMNS", 32)
    tokens = sequences(5, 90)
    for counts in (Mismatches(tokens), _Products(tokens, "cpu")):
        np.testing.assert_array_equal(counts.block(rows), brute_force(tokens)[rows])


def test_the_symbols_need_not_lie_side_by_side() -> None:
    tokens = sequences(5, 300)[::2, 50:250:3]
    np.testing.assert_array_equal(Mismatches(tokens).block(slice(0, 35)), brute_force(tokens))
    np.testing.assert_array_equal(_Products(tokens, "cpu").block(slice(0, 35)), brute_force(tokens))


def test_counts_beyond_sixteen_bits_are_exact() -> None:
    tokens = sequences(5, 150_001, num_sequences=3)
    expected = brute_force(tokens)
    assert expected.max() > 2**16
    np.testing.assert_array_equal(Mismatches(tokens).block(slice(0, 3)), expected)


@pytest.mark.parametrize(("largest", "num_planes"), [(0, 1), (1, 1), (2, 2), (4, 3), (8, 4), (22, 5)])
def test_a_symbol_takes_as_many_bits_as_the_largest_needs(largest: int, num_planes: int) -> None:
    tokens = np.array([[0, largest] * 33], dtype=np.uint8)
    packed = pack(tokens)
    assert packed.shape == (1, num_planes, 2), "66 positions are two words of 64"
    assert packed.dtype == np.uint64


def test_packing_a_genome_never_needs_as_much_memory_as_its_tokens() -> None:
    tokens = sequences(5, 1000, num_sequences=12_000)
    tracemalloc.start()
    try:
        counts = Mismatches(tokens, "cpu")
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 12_000 * (3 * 16 * 8) * 1.02, "three bits for each of 1,024 positions"
    assert peak < tokens.nbytes, "one-hot points would be 20 times the tokens"
    assert counts.block(slice(0, 2)).shape == (2, 12_000)


def test_a_block_is_all_that_counting_allocates() -> None:
    tokens = sequences(5, 400, num_sequences=3000)
    counts = Mismatches(tokens, "cpu")
    counts.block(slice(0, 1))
    tracemalloc.start()
    try:
        block = counts.block(slice(0, 100))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * block.nbytes + 100_000


def test_small_inputs_stay_on_the_processor_even_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert hamming._device(sequences(5, 1000)) == "cpu"


@pytest.mark.parametrize(("has_gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_large_inputs_go_to_a_gpu_where_there_is_one(
    has_gpu: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    genome = np.broadcast_to(np.zeros(1, dtype=np.uint8), (6000, 2000))
    assert hamming._device(genome) == device


@pytest.mark.gpu
def test_a_gpu_counts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    monkeypatch.setattr(hamming, "_GPU_COLUMNS", 64)
    tokens = sequences(23, 3000, num_sequences=150)
    np.testing.assert_array_equal(Mismatches(tokens, "cuda").block(slice(20, 150)), brute_force(tokens)[20:])
