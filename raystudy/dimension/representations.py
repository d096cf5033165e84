"""Genes as points: what the intrinsic dimension is measured on. The representation decides the answer.

n genes, L window positions.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from raystudy.data.encode import DNA_SYMBOLS, composition, kmer_counts
from raystudy.data.genes import Genes
from raystudy.errors import SpecError

Points = NDArray[np.float32]


def _kmer3(genes: Genes, window_bp: tuple[int, int]) -> Points:
    return kmer_counts(genes.windows(window_bp), 3)


def _kmer4(genes: Genes, window_bp: tuple[int, int]) -> Points:
    return kmer_counts(genes.windows(window_bp), 4)


def _onehot(genes: Genes, window_bp: tuple[int, int]) -> Points:
    # N is a symbol of its own here: as the zero vector that the models read, it is nearer to every base than
    # bases are to each other, and a window padded with N becomes the nearest neighbour of half the genome.
    symbols = np.arange(len(DNA_SYMBOLS), dtype=np.uint8)
    windows = genes.windows(window_bp)
    return (windows[:, :, None] == symbols).reshape(len(windows), -1).astype(np.float32)


def _composition(genes: Genes, window_bp: tuple[int, int]) -> Points:
    return composition(genes.protein_tokens, genes.protein_offsets)


REPRESENTATIONS: dict[str, Callable[[Genes, tuple[int, int]], Points]] = {
    "kmer3": _kmer3,
    "kmer4": _kmer4,
    "onehot": _onehot,
    "composition": _composition,
}


def represent(genes: Genes, window_bp: tuple[int, int], representation: str) -> Points:
    """Every gene as a point, float32 [n, features].

    ``kmer3`` and ``kmer4`` are the raw counts in the window of ``window_bp`` = (up, down); ``onehot`` is that
    window itself (5 L features, 20 L bytes a gene); ``composition`` is the protein's 22 amino-acid fractions.
    Raises SpecError on an unknown name, DataError on a window outside the data.
    """
    if representation not in REPRESENTATIONS:
        nearest = get_close_matches(representation, REPRESENTATIONS, n=1, cutoff=0.0)[0]
        raise SpecError(
            f"`representation` is {representation!r}, which is none of {', '.join(REPRESENTATIONS)}. "
            f"Did you mean {nearest!r}?"
        )
    return REPRESENTATIONS[representation](genes, window_bp)
