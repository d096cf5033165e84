"""Similar proteins, against comparing every pair."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from raystudy.data import homology
from raystudy.data.encode import tokenize_protein
from raystudy.data.homology import families, shared_fraction

AMINO_ACIDS = list("ACDEFGHIKLMNPQRSTVWY")


def pack(proteins: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    tokens = [tokenize_protein(protein) for protein in proteins]
    return np.concatenate(tokens), np.concatenate([[0], np.cumsum([len(part) for part in tokens])])


def kmers(protein: str, k: int) -> set[str]:
    return {kmer for at in range(len(protein) - k + 1) if "X" not in (kmer := protein[at : at + k])}


def similarity(one: str, other: str, k: int = 6) -> float:
    smaller = min(len(kmers(one, k)), len(kmers(other, k)))
    return len(kmers(one, k) & kmers(other, k)) / smaller if smaller else 0.0


def make_proteins(seed: int) -> list[str]:
    """Random proteins, fragments and mutants of them, repeats, unknown residues, and very short ones."""
    random = np.random.default_rng(seed)
    proteins = ["".join(random.choice(AMINO_ACIDS, random.integers(20, 60))) for _ in range(12)]
    for protein in proteins[:6]:
        mutant = list(protein)
        for at in random.choice(len(mutant), random.integers(1, 6)):
            mutant[at] = str(random.choice([*AMINO_ACIDS, "X"]))
        proteins += ["".join(mutant), protein[5:18] + proteins[7][:20]]
    proteins += ["Q" * 40, "Q" * 10 + "ACDEFGHIKL", "XXXXXXXXXX", "XXXXXXXXXX", "MKV", "MKV", ""]
    return [proteins[index] for index in random.permutation(len(proteins))]


def brute_force_families(proteins: list[str]) -> list[int]:
    label = list(range(len(proteins)))
    for i, j in combinations(range(len(proteins)), 2):
        if similarity(proteins[i], proteins[j]) >= 0.30:
            label = [label[i] if own == label[j] else own for own in label]
    order = list(dict.fromkeys(label))
    return [order.index(own) for own in label]


@pytest.mark.parametrize("block_pairs", [5_000_000, 7], ids=["one block", "many blocks"])
@pytest.mark.parametrize("seed", range(3))
def test_families_equal_comparing_every_pair(seed: int, block_pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homology, "_BLOCK_PAIRS", block_pairs)
    proteins = make_proteins(seed)
    found = families(*pack(proteins))
    assert found.tolist() == brute_force_families(proteins)
    assert len(set(found.tolist())) < len(proteins) - 5


@pytest.mark.parametrize("block_pairs", [5_000_000, 7], ids=["one block", "many blocks"])
def test_shared_fraction_is_the_largest_over_the_other_group(block_pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homology, "_BLOCK_PAIRS", block_pairs)
    proteins = make_proteins(5)
    left, right = np.arange(0, 14), np.arange(14, len(proteins))
    expected = [max(similarity(proteins[i], proteins[j]) for j in right) for i in left]
    assert max(expected) > 0.3
    np.testing.assert_allclose(shared_fraction(*pack(proteins), left, right), expected)


def test_a_kmer_does_not_run_on_into_the_next_protein() -> None:
    proteins = ["ACDEFGHIK", "LMNPQRSTV", "GHIKLMNPQ"]
    assert families(*pack(proteins)).tolist() == [0, 1, 2]


def test_similar_proteins_of_similar_proteins_are_one_family() -> None:
    chain = "".join(np.random.default_rng(1).choice(AMINO_ACIDS, 90))
    proteins = [chain[:40], chain[50:], chain[20:70]]
    assert similarity(proteins[0], proteins[1]) == 0
    assert families(*pack(proteins)).tolist() == [0, 0, 0]


def test_groups_without_a_shared_kmer_have_fraction_zero() -> None:
    proteins = ["ACDEFGHIK", "LMNPQRSTV", "MKV"]
    assert shared_fraction(*pack(proteins), np.array([0, 2]), np.array([1])).tolist() == [0, 0]
    assert shared_fraction(*pack(proteins), np.array([0]), np.array([], dtype=np.int64)).tolist() == [0]
