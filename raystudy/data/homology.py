"""Which proteins are similar: families of homologs, and the largest similarity across two groups.

Two engines link similar proteins. The embedded one compares k-mers: two proteins are as similar as the share of the
shorter one's distinct k-mers that the other has too, which needs no alignment and takes seconds for a proteome.
MMseqs2, where it is installed, aligns, and finds more distant homologs as well. What is linked, directly or through
others, is one family under either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from raystudy.data import mmseqs
from raystudy.data.encode import DNA_UNKNOWN, PROTEIN_SYMBOLS, PROTEIN_UNKNOWN
from raystudy.errors import SpecError

Engine = Literal["kmer", "mmseqs2"]
Homology = Literal["auto", "mmseqs2", "kmer"]
"""What a user may ask for: auto is MMseqs2 where it is installed."""
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Of proteins, by their indices."""
K = 6
CLOSE_SHARED, DISTANT_SHARED = 0.30, 0.05
"""Of 6-mers. Of the pairs of yeast proteins that align, 5 % links 98 % of those of 60-69 % identity and 66 % of those
of 50-59 %; 30 %, which the families of the built-in sources are made by, one in ten and one in twenty, 43 % of those of
70-79 %, all but three above (`python -m benchmarks.homology --part yeast`)."""
_FEWEST_SHARED = 6  # k-mers; fewer are often chance in a proteome, where they are not a large share of a short protein
_WINDOWS_AT_ONCE = 128
_HASH = np.uint64(0x9E3779B97F4A7C15)  # multiplied by, its upper bits are a hash (Knuth's, of the golden ratio)
_BLOCK_PAIRS = 5_000_000  # of proteins that share a k-mer; bounds the memory of one block of the product (100 MB)


def families(
    protein_tokens: NDArray[np.uint8],
    protein_offsets: NDArray[np.int64],
    k: int = K,
    min_shared: float = CLOSE_SHARED,
    engine: Engine = "kmer",
) -> NDArray[np.int64]:
    """Family of each protein, int64 [n], numbered by first appearance: connected components of similar pairs.

    A pair is similar when it shares at least ``min_shared`` of the shorter one's distinct k-mers, and at least six of
    them or 30 %; k-mers with an X do not count, and a protein without any k-mer is a family of its own. ``engine:
    mmseqs2`` links what MMseqs2 finds besides (`mmseqs.similar_pairs`), so that its families are whole k-mer families.

    Raises DataError when MMseqs2 fails.
    """
    pairs = [linked_by_kmers(protein_tokens, protein_offsets, k, min_shared)]
    if engine == "mmseqs2":
        pairs.append(mmseqs.similar_pairs(protein_tokens, protein_offsets))
    return families_of(pairs, len(protein_offsets) - 1)


def linked_by_kmers(
    protein_tokens: NDArray[np.uint8], protein_offsets: NDArray[np.int64], k: int = K, min_shared: float = CLOSE_SHARED
) -> Pairs:
    """The pairs that `families` calls similar by their k-mers, either way round, a protein with itself too."""
    everyone, pairs = np.arange(len(protein_offsets) - 1), list[Pairs]()
    for left, right, fraction, num_shared in distinct_kmers(protein_tokens, protein_offsets, k).similar_pairs(
        everyone, everyone
    ):
        close = (fraction >= min_shared) & ((fraction >= CLOSE_SHARED) | (num_shared >= _FEWEST_SHARED))
        pairs.append((left[close], right[close]))
    left, right = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return left, right


def families_of(pairs: Sequence[Pairs], num_proteins: int) -> NDArray[np.int64]:
    """Family of each protein, as of `families`, where these pairs are similar."""
    left, right = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = sparse.coo_array((np.ones(len(left), dtype=np.bool_), (left, right)), shape=2 * (num_proteins,))
    _, component = connected_components(graph, directed=False)
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def chosen_engine(asked: Homology) -> Engine:
    """The engine to use: MMseqs2 where it is installed, unless the k-mers are asked for.

    Raises SpecError when MMseqs2 is asked for and not there, or the word is none of the three.
    """
    if asked not in ("auto", "mmseqs2", "kmer"):
        raise SpecError(f"`homology` is auto, mmseqs2 or kmer, but got {asked!r}; auto takes MMseqs2 where it is there")
    if asked == "kmer" or (asked == "auto" and not mmseqs.installed()):
        return "kmer"
    if not mmseqs.installed():
        raise SpecError(
            f"`homology: mmseqs2` needs the program `{mmseqs.PROGRAM}`, but it is not on the PATH. Install MMseqs2 "
            "(`apt-get install mmseqs2` on Debian and Ubuntu, `conda install -c bioconda mmseqs2`, `brew install "
            "mmseqs2`), or ask for `auto` or `kmer`, which take the built-in comparison of 6-mers"
        )
    return "mmseqs2"


def find_families(
    proteins: Sequence[NDArray[np.uint8]], asked: Homology | None
) -> tuple[NDArray[np.int64], dict[str, str]]:
    """Families of tokenized proteins by the most sensitive rule there is, and of how: ``engine`` and ``rule``.

    None is the rule of the built-in sources, which finds close relatives only and the same ones on every machine.
    Raises SpecError as `chosen_engine` does, DataError when MMseqs2 fails.
    """
    tokens = np.concatenate(proteins)
    offsets = np.cumsum([0, *map(len, proteins)], dtype=np.int64)
    if asked is None:
        rule = f"{CLOSE_SHARED:.0%} of the shorter one's {K}-mers"
        return families(tokens, offsets), {"engine": "k-mers", "rule": rule}
    engine = chosen_engine(asked)
    share = f"{DISTANT_SHARED:.0%} of the shorter one's {K}-mers"
    rule = f"{share}, and at least {_FEWEST_SHARED} of them or {CLOSE_SHARED:.0%}"
    name = "k-mers"
    if engine == "mmseqs2":
        name = f"MMseqs2 {mmseqs.version()}"
        rule = f"{mmseqs.RULE}; or {rule}"
    return families(tokens, offsets, min_shared=DISTANT_SHARED, engine=engine), {"engine": name, "rule": rule}


@dataclass(frozen=True)
class DistinctKmers:
    """Which sequence holds which k-mer (those of a single one left out), and how many distinct ones each has in all."""

    incidence: sparse.csr_array  # int32 [n, k-mers]
    num_distinct: NDArray[np.int64]

    def shared_fraction(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
        """For each of ``left`` its largest similarity to one of ``right``, float64 [len(left)] in [0, 1]."""
        largest = np.zeros(len(self.num_distinct))
        for rows, _, fraction, _ in self.similar_pairs(left, right):
            np.maximum.at(largest, rows, fraction)
        return largest[left]

    def similar_pairs(
        self, left: NDArray[np.int64], right: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int32]]]:
        """Pairs that share a k-mer as (left index, right index, fraction and number shared), in bounded blocks.

        A low-complexity k-mer makes its holders' number squared of pairs, so the blocks are cut by that cost.
        """
        others = self.incidence[right].T.tocsr()
        cost = np.cumsum(self.incidence[left] @ np.diff(others.indptr))
        for block in np.split(np.arange(len(left)), np.flatnonzero(np.diff(cost // _BLOCK_PAIRS)) + 1):
            shared = (self.incidence[left[block]] @ others).tocoo()
            rows, columns = left[block][shared.row], right[shared.col]
            fraction = shared.data / np.minimum(self.num_distinct[rows], self.num_distinct[columns])
            yield rows, columns, fraction, shared.data


def distinct_kmers(tokens: NDArray[np.uint8], offsets: NDArray[np.int64], k: int = K) -> DistinctKmers:
    """The k-mers of proteins; those with an X do not count."""
    num_proteins = len(offsets) - 1
    codes = np.zeros(max(len(tokens) - k + 1, 0), dtype=np.int64)
    known = np.ones(len(codes), dtype=np.bool_)
    for offset in range(k):
        column = tokens[offset : offset + len(codes)]
        codes = len(PROTEIN_SYMBOLS) * codes + column
        known &= column != PROTEIN_UNKNOWN
    protein = np.repeat(np.arange(num_proteins), np.diff(offsets))
    known &= protein[: len(codes)] == protein[k - 1 :]  # a k-mer must not run on into the next protein
    return _held_by(protein[: len(codes)][known], codes[known], num_proteins)


def window_kmers(windows: NDArray[np.uint8]) -> DistinctKmers:
    """One in 32 of the 16-mers of DNA windows uint8 [n, length], chosen by their hash, so the same ones everywhere.

    A 16-mer and its reverse complement count as one, those with an N do not. The share of sampled k-mers in common
    estimates that of all (FracMinHash; Irber et al. 2022).
    """
    rows, codes = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    for first in range(0, len(windows), _WINDOWS_AT_ONCE):
        bases = windows[first : first + _WINDOWS_AT_ONCE]
        forward, known = bases.astype(np.uint64) - np.uint64(1), bases != DNA_UNKNOWN
        forward[~known] = 0
        backward = forward ^ np.uint64(1)  # A and T, C and G are neighbours among the tokens
        for half in (1, 2, 4, 8):  # a k-mer of twice the length from two that follow each other
            bits = np.uint64(2 * half)
            forward = (forward[:, :-half] << bits) | forward[:, half:]
            backward = (backward[:, half:] << bits) | backward[:, :-half]
            known = known[:, :-half] & known[:, half:]
        either = np.minimum(forward, backward)
        window, at = np.nonzero(known & ((either + np.uint64(1)) * _HASH >> np.uint64(64 - 5) == 0))
        rows.append(window + first)
        codes.append(either[window, at])
    return _held_by(np.concatenate(rows), np.concatenate(codes), len(windows))


def _held_by(rows: NDArray[np.int64], codes: NDArray[Any], num_rows: int) -> DistinctKmers:
    values, kmer = np.unique(codes, return_inverse=True)
    incidence = sparse.csr_array((np.ones(len(kmer), np.int32), (rows, kmer)), shape=(num_rows, len(values)))
    incidence.sum_duplicates()
    incidence.data[:] = 1
    several = np.bincount(incidence.indices, minlength=len(values)) > 1
    return DistinctKmers(incidence[:, several], np.diff(incidence.indptr).astype(np.int64))
