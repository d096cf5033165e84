"""Which proteins are similar: families of homologs, and the largest similarity across two groups.

Two proteins are as similar as the share of the shorter one's distinct k-mers that the other has too. No
alignment is needed: k=6 and 30 % find the homologs that let a random split leak, in seconds for a proteome.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from raystudy.data.encode import PROTEIN_SYMBOLS, PROTEIN_UNKNOWN

_BLOCK_PAIRS = 5_000_000  # of proteins that share a k-mer; bounds the memory of one block of the product (100 MB)


def families(
    protein_tokens: NDArray[np.uint8],
    protein_offsets: NDArray[np.int64],
    k: int = 6,
    min_shared: float = 0.30,
) -> NDArray[np.int64]:
    """Family of each protein, int64 [n], numbered by first appearance: connected components of similar pairs.

    A pair is similar when it shares at least ``min_shared`` of the shorter one's distinct k-mers; k-mers with
    an X do not count, and a protein without any k-mer is a family of its own.
    """
    kmers = _distinct_kmers(protein_tokens, protein_offsets, k)
    everyone = np.arange(len(protein_offsets) - 1)
    pairs = [
        (left[fraction >= min_shared], right[fraction >= min_shared])
        for left, right, fraction in kmers.similar_pairs(everyone, everyone)
    ]
    rows, columns = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = sparse.coo_array((np.ones(len(rows), dtype=np.bool_), (rows, columns)), shape=2 * (len(everyone),))
    _, component = connected_components(graph, directed=False)
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def shared_fraction(
    protein_tokens: NDArray[np.uint8],
    protein_offsets: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    k: int = 6,
) -> NDArray[np.float64]:
    """For each protein of ``left`` its largest similarity to one of ``right``, float64 [len(left)] in [0, 1].

    ``left`` and ``right`` are indices of proteins. The maximum of the result audits a split.
    """
    largest = np.zeros(len(protein_offsets) - 1)
    kmers = _distinct_kmers(protein_tokens, protein_offsets, k)
    for rows, _, fraction in kmers.similar_pairs(left, right):
        np.maximum.at(largest, rows, fraction)
    return largest[left]


@dataclass(frozen=True)
class _DistinctKmers:
    """Which protein holds which k-mer (those of a single protein left out), and how many each has in all."""

    incidence: sparse.csr_array  # int32 [n, k-mers]
    num_distinct: NDArray[np.int64]

    def similar_pairs(
        self, left: NDArray[np.int64], right: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
        """Pairs that share a k-mer as (left index, right index, fraction shared), in blocks of bounded size.

        A low-complexity k-mer makes its holders' number squared of pairs, so the blocks are cut by that cost.
        """
        others = self.incidence[right].T.tocsr()
        cost = np.cumsum(self.incidence[left] @ np.diff(others.indptr))
        for block in np.split(np.arange(len(left)), np.flatnonzero(np.diff(cost // _BLOCK_PAIRS)) + 1):
            shared = (self.incidence[left[block]] @ others).tocoo()
            rows, columns = left[block][shared.row], right[shared.col]
            yield rows, columns, shared.data / np.minimum(self.num_distinct[rows], self.num_distinct[columns])


def _distinct_kmers(tokens: NDArray[np.uint8], offsets: NDArray[np.int64], k: int) -> _DistinctKmers:
    num_proteins = len(offsets) - 1
    codes = np.zeros(max(len(tokens) - k + 1, 0), dtype=np.int64)
    known = np.ones(len(codes), dtype=np.bool_)
    for offset in range(k):
        column = tokens[offset : offset + len(codes)]
        codes = len(PROTEIN_SYMBOLS) * codes + column
        known &= column != PROTEIN_UNKNOWN
    protein = np.repeat(np.arange(num_proteins), np.diff(offsets))
    known &= protein[: len(codes)] == protein[k - 1 :]  # a k-mer must not run on into the next protein
    values, kmer = np.unique(codes[known], return_inverse=True)
    counts = (np.ones(len(kmer), dtype=np.int32), (protein[: len(codes)][known], kmer))
    incidence = sparse.csr_array(counts, shape=(num_proteins, len(values)))
    incidence.sum_duplicates()
    incidence.data[:] = 1
    several = np.bincount(incidence.indices, minlength=len(values)) > 1
    return _DistinctKmers(incidence[:, several], np.diff(incidence.indptr).astype(np.int64))
