"""Genes as points: what the intrinsic dimension is measured on. The representation decides the answer.

n genes, L positions, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raystudy.data.encode import PROTEIN_SYMBOLS, composition, kmer_counts, residue_kmer_counts
from raystudy.data.genes import Genes
from raystudy.data.tables import GeneFeatures
from raystudy.dimension.clouds import Cloud, RealCloud, SymbolCloud
from raystudy.errors import DataError, SpecError

Values = NDArray[np.float32]
REPRESENTATIONS = ("kmer3", "kmer4", "onehot", "composition", "embedding")
INPUTS = ("dna", "protein", "both")
MAX_PROTEIN = 6000
"""Residues of a protein that a one-hot point holds, as many as the published models read."""


def default_input(representation: str) -> str:
    """What of a gene is represented unless said: the protein by its composition, else the window.

    An embedding is of the gene, whatever it was made from.
    """
    return {"composition": "protein", "embedding": "gene"}.get(representation, "dna")


def represent(
    genes: Genes,
    window_bp: tuple[int, int],
    representation: str,
    input: str | None = None,
    embedding: GeneFeatures | None = None,
    rows: NDArray[np.int64] | None = None,
) -> Cloud:
    """The genes of ``rows``, or all, as points.

    ``window_bp`` is (up, down); ``input`` is ``dna``, ``protein`` or ``both``. ``kmer3`` and ``kmer4`` count
    overlapping 3-mers and 4-mers, those with an unknown base skipped; ``composition`` is the fraction of each symbol;
    ``onehot`` is the sequence itself, N, X and the end of a protein being symbols like others. For ``both``, counts and
    fractions of window and protein stand beside each other, each scaled to the same total variance, one-hot sequences
    end to end.
    ``embedding`` gives numbers for each gene, whatever they were made from; genes that miss any are left out.
    Raises SpecError on names and combinations that do not exist, DataError on a window outside the data.
    """
    _known("representation", representation, REPRESENTATIONS)
    if representation == "embedding":
        return _embedded(embedding, rows)
    input = input or default_input(representation)
    _known("input", input, INPUTS)
    if representation == "onehot":
        return _of(SymbolCloud(_sequences(genes, window_bp, input)), rows)
    parts = {"dna": ["dna"], "protein": ["protein"], "both": ["dna", "protein"]}[input]
    makers = _OF_DNA | {f"{name} of protein": maker for name, maker in _OF_PROTEIN.items()}
    values = []
    for part in parts:
        name = representation if part == "dna" else f"{representation} of protein"
        if name not in makers:
            raise SpecError(
                f"`{representation}` of proteins would have {len(PROTEIN_SYMBOLS) - 1}**4 columns; choose "
                f"{', '.join(_OF_PROTEIN)} or onehot for `input` {input!r}"
            )
        values.append(makers[name](genes, window_bp))
    return _of(RealCloud(values[0] if len(values) == 1 else np.hstack([_scaled(part) for part in values])), rows)


def _kmers(k: int) -> Callable[[Genes, tuple[int, int]], Values]:
    return lambda genes, window_bp: kmer_counts(genes.windows(window_bp), k)


def _base_composition(genes: Genes, window_bp: tuple[int, int]) -> Values:
    counts = kmer_counts(genes.windows(window_bp), 1)
    fractions: Values = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return fractions


_OF_DNA = {"kmer3": _kmers(3), "kmer4": _kmers(4), "composition": _base_composition}
_OF_PROTEIN: dict[str, Callable[[Genes, tuple[int, int]], Values]] = {
    "kmer3": lambda genes, _: residue_kmer_counts(genes.protein_tokens, genes.protein_offsets, 3),
    "composition": lambda genes, _: composition(genes.protein_tokens, genes.protein_offsets),
}


def _sequences(genes: Genes, window_bp: tuple[int, int], input: str) -> NDArray[np.uint8]:
    """Symbols of windows, of proteins padded to the longest, or of both end to end: uint8 [n, L].

    N is a symbol of its own here: as the zero vector that the models read, it is nearer to every base than bases are
    to each other, and a window padded with N becomes the nearest neighbour of half the genome.
    """
    pieces: list[Any] = [] if input == "protein" else [genes.windows(window_bp)]
    if input != "dna":
        lengths = np.minimum(np.diff(genes.protein_offsets), MAX_PROTEIN)
        proteins = np.zeros((genes.num_genes, lengths.max(initial=1)), dtype=np.uint8)
        for gene, (first, length) in enumerate(zip(genes.protein_offsets, lengths, strict=False)):
            proteins[gene, :length] = genes.protein_tokens[first : first + length]
        pieces.append(proteins)
    return pieces[0] if len(pieces) == 1 else np.hstack(pieces)


def _embedded(embedding: GeneFeatures | None, rows: NDArray[np.int64] | None) -> RealCloud:
    if embedding is None:
        raise SpecError(
            "`embedding` needs numbers for each gene: give a table of them (a column `gene_id`, every other column "
            "numbers), or the checkpoint of a trained network, with --embeddings FILE"
        )
    values = embedding.values if rows is None else embedding.values[rows]
    known = ~np.isnan(values).any(axis=1)
    if not known.any():
        raise DataError("the embedding has no gene of the data with all its values; give one of the genes in the data")
    return RealCloud(values[known])


def _of(cloud: Cloud, rows: NDArray[np.int64] | None) -> Cloud:
    return cloud if rows is None else cloud.take(rows)


def _scaled(values: Values) -> Values:
    spread = np.sqrt(values.var(axis=0, dtype=np.float64).sum())
    return (values / spread).astype(np.float32) if spread > 0 else values


def _known(key: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        nearest = get_close_matches(name, names, n=1, cutoff=0.0)[0]
        raise SpecError(f"`{key}` is {name!r}, which is none of {', '.join(names)}. Did you mean {nearest!r}?")
