"""Similar proteins, against comparing every pair."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from raystudy.data import homology
from raystudy.data.encode import reverse_complement, tokenize_dna, tokenize_protein
from raystudy.data.homology import chosen_engine, distinct_kmers, families, find_families, window_kmers
from raystudy.errors import SpecError

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


def brute_force_families(proteins: list[str], min_shared: float = 0.30) -> list[int]:
    label = list(range(len(proteins)))
    for i, j in combinations(range(len(proteins)), 2):
        share, number = similarity(proteins[i], proteins[j]), len(kmers(proteins[i], 6) & kmers(proteins[j], 6))
        if share >= min_shared and (share >= 0.30 or number >= 6):
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


@pytest.mark.parametrize("seed", range(3))
def test_distant_families_equal_comparing_every_pair_and_join_close_ones(seed: int) -> None:
    proteins = make_proteins(seed)
    found = families(*pack(proteins), min_shared=homology.DISTANT_SHARED)
    assert found.tolist() == brute_force_families(proteins, 0.05)
    close = families(*pack(proteins)).tolist()
    assert len(set(zip(found.tolist(), close, strict=True))) == len(set(close)), "a close family is in one distant one"


@pytest.mark.parametrize("block_pairs", [5_000_000, 7], ids=["one block", "many blocks"])
def test_shared_fraction_is_the_largest_over_the_other_group(block_pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homology, "_BLOCK_PAIRS", block_pairs)
    proteins = make_proteins(5)
    left, right = np.arange(0, 14), np.arange(14, len(proteins))
    expected = [max(similarity(proteins[i], proteins[j]) for j in right) for i in left]
    assert max(expected) > 0.3
    np.testing.assert_allclose(distinct_kmers(*pack(proteins)).shared_fraction(left, right), expected)


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
    found = distinct_kmers(*pack(proteins))
    assert found.shared_fraction(np.array([0, 2]), np.array([1])).tolist() == [0, 0]
    assert found.shared_fraction(np.array([0]), np.array([], dtype=np.int64)).tolist() == [0]


def test_five_shared_kmers_are_chance_and_six_are_not_unless_they_are_a_large_share() -> None:
    random = np.random.default_rng(3)
    long, other, short = ("".join(random.choice(AMINO_ACIDS, length)) for length in (100, 100, 7))
    for num_shared, together in ((5, False), (6, True)):
        copied = other[:40] + long[: num_shared + 5] + other[40:]
        found = families(*pack([long, copied]), min_shared=0.05)
        assert (found[0] == found[1]) == together
    assert families(*pack([short, long + short]), min_shared=0.05).tolist() == [0, 0], "all of its two 6-mers"


def test_the_default_of_families_is_the_rule_that_built_in_sources_are_made_by() -> None:
    proteins = make_proteins(0)
    tokens, offsets = pack(proteins)
    expected = families(tokens, offsets, k=6, min_shared=0.30, engine="kmer")
    assert families(tokens, offsets).tolist() == expected.tolist() == brute_force_families(proteins)


def test_without_mmseqs2_the_kmers_are_chosen_and_asking_for_it_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chosen_engine("auto") == chosen_engine("kmer") == "kmer"
    with pytest.raises(SpecError, match=r"`mmseqs`.* not on the PATH.*apt-get install mmseqs2.*`kmer`"):
        chosen_engine("mmseqs2")
    with pytest.raises(SpecError, match="got 'blast'"):
        chosen_engine("blast")  # type: ignore[arg-type]


def test_a_program_that_is_there_is_chosen_unless_kmers_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mmseqs").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chosen_engine("auto") == chosen_engine("mmseqs2") == "mmseqs2"
    assert chosen_engine("kmer") == "kmer"


def test_families_of_a_users_proteins_say_by_which_rule_they_are() -> None:
    proteins = make_proteins(1)
    tokens = [tokenize_protein(protein) for protein in proteins]
    found, how = find_families(tokens, "kmer")
    assert found.tolist() == brute_force_families(proteins, 0.05)
    assert how == {"engine": "k-mers", "rule": "5% of the shorter one's 6-mers, and at least 6 of them or 30%"}
    found, how = find_families(tokens, None)
    assert found.tolist() == brute_force_families(proteins)
    assert how == {"engine": "k-mers", "rule": "30% of the shorter one's 6-mers"}


def dna(random: np.random.Generator, length: int) -> NDArray[np.uint8]:
    return random.integers(1, 5, length, dtype=np.uint8)


def test_windows_are_as_similar_as_the_share_of_the_chromosome_that_they_have_in_common() -> None:
    random = np.random.default_rng(0)
    chromosome, elsewhere = dna(random, 20_000), dna(random, 8_000)
    windows = np.stack([chromosome[at : at + 8_000] for at in (0, 2_000, 4_000, 8_000)] + [elsewhere])
    windows[1] = reverse_complement(windows[1])
    kmers = window_kmers(windows)
    found = [kmers.shared_fraction(np.array([0]), np.array([other])).item() for other in range(1, 5)]
    np.testing.assert_allclose(found, [0.75, 0.5, 0, 0], atol=0.08)
    assert found[2:] == [0, 0]
    assert kmers.num_distinct.mean() == pytest.approx(8_000 / 32, rel=0.1)


def test_sampled_kmers_are_those_of_a_plain_reading_of_both_strands() -> None:
    random = np.random.default_rng(1)
    window = dna(random, 3_000)
    window[[700, 701, 2_000]] = 0
    kmers = window_kmers(np.stack([window, reverse_complement(window)]))
    text = "".join("NATCG"[token] for token in window)
    sampled = set()
    for at in range(len(text) - 15):
        kmer = text[at : at + 16]
        if "N" in kmer:
            continue
        other = "".join("NATCG"[token] for token in reverse_complement(tokenize_dna(kmer)))
        code = min(int("".join(str("ATCG".index(base)) for base in one), 4) for one in (kmer, other))
        if (code + 1) * 0x9E3779B97F4A7C15 % 2**64 >> 59 == 0:
            sampled.add(code)
    assert kmers.num_distinct.tolist() == [len(sampled)] * 2
    assert kmers.shared_fraction(np.array([0]), np.array([1])).tolist() == [1]


def test_windows_shorter_than_a_kmer_share_nothing() -> None:
    kmers = window_kmers(np.ones((3, 15), np.uint8))
    assert kmers.shared_fraction(np.array([0]), np.array([1, 2])).tolist() == [0]
