"""What training reads: one study's genes as its network reads them, and batches of them shared out over ranks.

Shapes: B batch, L positions, H half-life features, K targets, T symbols of a batch end to end, n all genes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raystudy.data.encode import HALF_LIFE_FEATURES, kmer_tokens
from raystudy.data.genes import Genes
from raystudy.data.resident import EndToEnd, Known, Resident, fits, put
from raystudy.data.sequences import Readable
from raystudy.data.splits import Rows, Split
from raystudy.errors import DataError
from raystudy.study.model import ModelSpec

Floats = npt.NDArray[np.float32]
_CHUNK_GENES = 512


@dataclass(frozen=True)
class Inputs:
    """One batch of genes as the networks read it."""

    sequence_BL: Tensor
    """The convolution branch's tokens, uint8: a DNA window, or a protein padded with 0 to the longest allowed."""
    half_life_BH: Tensor
    """Standardised half-life features, float32, missing ones 0."""
    tokens_T: Tensor
    """The Perceiver branch's tokens of all genes end to end, int32; those that are masked are left out."""
    positions_T: Tensor
    """Where each of them stands in its gene's sequence, from 0, int32."""
    lengths: list[int]
    """How many of them each of the B genes has; they sum to T."""
    sequence_lengths: list[int] | None = None
    """How many of the convolution branch's tokens stand before each gene's padding; None where there is none."""


@dataclass(frozen=True)
class FeatureScale:
    """Columns to mean 0 and variance 1 as measured on the training genes; missing and constant ones become 0."""

    mean: npt.NDArray[np.float64]
    factor: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, values: npt.NDArray[np.floating], train: Rows) -> FeatureScale:
        seen = values[train].astype(np.float64)  # in float32 a constant column's rounded mean differs from it
        known = np.isfinite(seen)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, seen, 0).sum(axis=0) / count
        variance = (np.where(known, seen - mean, 0) ** 2).sum(axis=0) / count
        return cls(mean, np.where(variance > 1e-12, 1 / np.sqrt(np.maximum(variance, 1e-12)), 0))

    def apply(self, values: npt.NDArray[np.floating]) -> Floats:
        return np.nan_to_num((values.astype(np.float64) - self.mean) * self.factor, nan=0.0).astype(np.float32)


def half_life_values(features: npt.NDArray[np.floating], model: ModelSpec) -> npt.NDArray[np.floating]:
    """What a network reads of the raw half-life features [n, 8], NaN where missing: [n, H].

    With `half_life_missing: indicator` which of them are missing stands beside them as 0 and 1.
    """
    return np.hstack([features, np.isnan(features)]) if model.half_life_missing == "indicator" else features


def num_half_life(model: ModelSpec) -> int:
    """H, how many values those are."""
    return half_life_values(np.empty((0, HALF_LIFE_FEATURES)), model).shape[1]


@dataclass(frozen=True)
class LabelScale:
    """The affine map between labels in their own units, [n, K], and what the network predicts."""

    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, labels: npt.NDArray[np.floating], targets: Sequence[str]) -> LabelScale:
        """From the training genes' labels [n, K], of which some may be NaN."""
        for target, column in zip(targets, labels.T, strict=True):
            known = column[np.isfinite(column)]
            if not len(known) or not known.std() > 0:
                what = f"all {known[0]:g}" if len(known) else "all missing"
                raise DataError(
                    f"the {len(column)} training genes' {target} levels are {what}: there is nothing to learn from that"
                )
        return cls(np.nanmean(labels, axis=0), np.nanstd(labels, axis=0))

    def standardise(self, labels: npt.NDArray[np.floating]) -> Floats:
        return ((labels - self.mean) / self.std).astype(np.float32)

    def to_unit(self, standardised: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        return standardised * self.std + self.mean


def cut_proteins(
    tokens: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], max_protein: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Tokens and offsets of the same proteins without what lies beyond ``max_protein`` residues."""
    lengths = np.diff(offsets)
    positions = np.arange(len(tokens)) - np.repeat(offsets[:-1], lengths)
    kept = np.concatenate([[0], np.cumsum(np.minimum(lengths, max_protein))])
    return tokens[positions < max_protein], kept


def sealed_labels(genes: Genes, targets: Sequence[str], split: Split) -> npt.NDArray[np.float64]:
    """Labels [n, K] of the train and valid genes in their units; those of all others, the test genes, are NaN."""
    open_rows = np.concatenate([split.train, split.valid])
    labels = np.full((genes.num_genes, len(targets)), np.nan)
    for column, target in enumerate(targets):
        labels[open_rows, column] = genes.target(target)[open_rows]
    return labels


@dataclass(frozen=True)
class GeneInputs:
    """Genes to be read as one network reads them; no labels."""

    model: ModelSpec
    windows_NL: npt.NDArray[np.uint8]
    proteins: npt.NDArray[np.uint8]
    """Residue or codon tokens of all genes end to end, each protein cut at ``model.max_protein``."""
    protein_offsets: npt.NDArray[np.int64]
    half_life_NH: Floats
    """Standardised; missing ones 0."""
    _resident: dict[torch.device, Resident | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, genes: Readable, model: ModelSpec, scale: FeatureScale) -> GeneInputs:
        """Memory-mapped where the folder allows it. Raises DataError, naming the gene, where there is nothing to read.

        ``scale`` is that of `half_life_values`, fitted on training genes.
        """
        proteins, offsets = genes.codons if model.tokens == "codon" else (genes.protein_tokens, genes.protein_offsets)
        proteins, offsets = cut_proteins(proteins, offsets, model.max_protein)
        reads_dna = "dna" in model.inputs
        windows = genes.windows(model.window_bp) if reads_dna else np.empty((genes.num_genes, 0), np.uint8)
        half_life = scale.apply(half_life_values(genes.features, model))
        inputs = cls(model, windows, proteins, offsets, half_life)
        inputs._check(genes)
        return inputs

    def _check(self, genes: Readable) -> None:
        if {self.model.perceiver_reads, self.model.convolution_reads} & {"residue", "codon"}:
            empty = np.flatnonzero(self.protein_lengths == 0)
            what = "coding sequence" if self.model.tokens == "codon" else "protein"
            _refuse(genes, empty, f"has an empty {what}, of which the network reads every {self.model.tokens}")
        if self.model.perceiver_reads in ("base", "kmer"):
            chunks = (slice(first, first + _CHUNK_GENES) for first in range(0, self.num_genes, _CHUNK_GENES))
            blank = np.concatenate([~self._dna(chunk).any(axis=1) for chunk in chunks])
            what = "3-mer of known bases" if self.model.perceiver_reads == "kmer" else "known base"
            _refuse(
                genes, np.flatnonzero(blank), "has no {} in its window [-{}, {})".format(what, *self.model.window_bp)
            )

    @property
    def num_genes(self) -> int:
        return len(self.half_life_NH)

    @cached_property
    def protein_lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.protein_offsets)

    def batch(self, rows: Rows, device: torch.device) -> Inputs:
        """The networks' inputs for these genes, in the order given.

        On a CPU they are taken from the files, which are mapped; for a GPU from a copy that stays there, if it fits.
        """
        if device.type != "cpu":
            if device not in self._resident:
                self._resident[device] = self._moved(device) if fits(self._num_bytes, device) else None
            if (genes := self._resident[device]) is not None:
                return self._taken(genes, rows)
        tokens_T, positions_T, lengths = self._perceiver(rows)
        sequence_lengths = None
        if self.model.convolution_reads == "base":
            sequence_BL = self.windows_NL[rows]
        else:
            sequence_BL = np.zeros((len(rows), self.model.max_protein), np.uint8)
            ragged, positions, counts = self._proteins(rows)
            sequence_BL[np.repeat(np.arange(len(rows)), counts), positions] = ragged
            sequence_lengths = counts.tolist()
        return Inputs(
            sequence_BL=torch.from_numpy(sequence_BL).to(device),
            half_life_BH=torch.from_numpy(self.half_life_NH[rows]).to(device),
            tokens_T=torch.from_numpy(tokens_T.astype(np.int32)).to(device),
            positions_T=torch.from_numpy(positions_T.astype(np.int32)).to(device),
            lengths=lengths.tolist(),
            sequence_lengths=sequence_lengths,
        )

    @property
    def _num_bytes(self) -> int:
        windows = 2 if self.model.perceiver_reads == "kmer" else 1
        return windows * self.windows_NL.size + self.proteins.size + self.half_life_NH.nbytes

    def _moved(self, device: torch.device) -> Resident:
        """All genes on a device."""
        read = None
        if self.model.perceiver_reads in ("base", "kmer"):
            chunks = (slice(first, first + _CHUNK_GENES) for first in range(0, self.num_genes, _CHUNK_GENES))
            read = Known.of([self._dna(chunk) for chunk in chunks], device)
        return Resident(
            windows_NL=put(self.windows_NL, device),
            read=read,
            proteins=EndToEnd.of(self.proteins, self.protein_offsets, device),
            half_life_NH=put(self.half_life_NH, device),
        )

    def _taken(self, genes: Resident, rows: Rows) -> Inputs:
        """`batch` of genes that are on a device."""
        there = put(rows, genes.half_life_NH.device)
        sequence_lengths = None
        if self.model.convolution_reads == "base":
            sequence_BL = genes.windows_NL[there]
        else:
            sequence_BL, sequence_lengths = genes.proteins.padded(rows, self.model.max_protein)
        if self.model.perceiver_reads is None:
            tokens_T, positions_T, lengths = there[:0], there[:0], [0] * len(rows)
        elif genes.read is not None:
            tokens_T, positions_T, lengths = genes.read.take(rows)
        else:
            tokens_T, _, positions_T, lengths = genes.proteins.take(rows)
        return Inputs(
            sequence_BL, genes.half_life_NH[there], tokens_T.int(), positions_T.int(), lengths, sequence_lengths
        )

    def _perceiver(self, rows: Rows) -> tuple[npt.NDArray[Any], ...]:
        """Tokens and positions [T], lengths [B]."""
        reads = self.model.perceiver_reads
        if reads is None:
            return np.empty(0), np.empty(0), np.zeros(len(rows), int)
        if reads in ("residue", "codon"):
            return self._proteins(rows)
        tokens_BL = self._dna(rows)
        known_BL = tokens_BL != 0
        return tokens_BL[known_BL], np.nonzero(known_BL)[1], known_BL.sum(axis=1)

    def _dna(self, rows: Rows | slice) -> npt.NDArray[np.uint8]:
        """The windows' bases or 3-mers, [B, L]; 0 where unknown."""
        windows_BL = self.windows_NL[rows]
        return kmer_tokens(windows_BL) if self.model.perceiver_reads == "kmer" else windows_BL

    def _proteins(self, rows: Rows) -> tuple[npt.NDArray[Any], ...]:
        lengths = self.protein_lengths[rows]
        positions = np.concatenate([np.arange(length) for length in lengths])
        starts = np.repeat(self.protein_offsets[rows], lengths)
        return self.proteins[starts + positions], positions, lengths

    def length_order(self, rows: Rows) -> Rows:
        """The order with the fewest Perceiver tokens first, so that neighbours pad each other little."""
        if self.model.perceiver_reads not in ("residue", "codon"):
            return np.arange(len(rows))
        return np.argsort(self.protein_lengths[rows], kind="stable")

    def by_length(self, rows: Rows) -> Rows:
        """The same genes in that order."""
        return rows[self.length_order(rows)]


def _refuse(genes: Readable, rows: Rows, what: str) -> None:
    if len(rows):
        raise DataError(
            f"{genes.gene_ids[rows[0]]} {what} ({len(rows)} such genes in {genes.origin!r}); prepare the data "
            "without them, or choose a `model.family` that does not read it"
        )


@dataclass(frozen=True)
class StudyData:
    """The genes of one study as a trial sees them. The test genes' labels are not in it."""

    inputs: GeneInputs
    labels: Floats
    """Standardised, [n, K]; NaN outside train and valid, and where a gene's level was not measured."""
    targets: tuple[str, ...]
    label_scale: LabelScale
    feature_scale: FeatureScale
    split: Split

    @classmethod
    def of(cls, genes: Genes, split: Split, model: ModelSpec, targets: Sequence[str]) -> StudyData:
        """Fit the scales on the training genes. Raises DataError where the genes lack what is to be read."""
        labels = sealed_labels(genes, targets, split)
        label_scale = LabelScale.fit(labels[split.train], targets)
        feature_scale = FeatureScale.fit(half_life_values(genes.features, model), split.train)
        inputs = GeneInputs.of(genes, model, feature_scale)
        return cls(inputs, label_scale.standardise(labels), tuple(targets), label_scale, feature_scale, split)

    def labels_of(self, rows: Rows, device: torch.device) -> Tensor:
        return torch.from_numpy(self.labels[rows]).to(device)

    def num_labels(self, rows: Rows) -> int:
        """How many levels were measured in these genes."""
        return int(np.isfinite(self.labels[rows]).sum())


def shard(rows: Rows, rank: int, world_size: int) -> Rows:
    """Every ``world_size``-th row from ``rank`` on: no row twice, none left out."""
    return rows[rank::world_size]


def training_steps(num_train: int, global_batch: int, world_size: int) -> int:
    """Steps of one epoch; genes left over that cannot give every rank one are left for another epoch."""
    whole, rest = divmod(num_train, global_batch)
    return whole + (rest >= world_size)


def training_batches(
    rows: Rows, global_batch: int, rank: int, world_size: int, seed: int
) -> Iterator[tuple[Rows, Rows]]:
    """One epoch in an order given by ``seed``: this rank's genes of each step, and those of all ranks together."""
    order = np.random.default_rng(seed).permutation(rows)
    for step in range(training_steps(len(rows), global_batch, world_size)):
        together = order[step * global_batch : (step + 1) * global_batch]
        yield shard(together, rank, world_size), together
