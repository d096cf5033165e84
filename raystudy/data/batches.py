"""What training reads: standardised arrays of one study's genes, and batches of them shared out over ranks.

Shapes: B batch, L window, H half-life features, T residues of a batch end to end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raystudy.data.genes import Genes
from raystudy.data.splits import Rows, Split
from raystudy.errors import DataError
from raystudy.study.spec import DataSpec

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Inputs:
    """One batch of genes as the networks read it."""

    window_BL: Tensor
    """DNA tokens, uint8: N/pad 0, A 1, T 2, C 3, G 4."""
    half_life_BH: Tensor
    """Standardised half-life features, float32, missing ones 0."""
    residues_T: Tensor
    """Protein tokens of all genes end to end, int32."""
    positions_T: Tensor
    """Position of each residue in its protein from 0, int32."""
    lengths: list[int]
    """Residues of each of the B proteins; they sum to T."""


def standardise(values: npt.NDArray[np.floating], train: Rows) -> Floats:
    """Columns with mean 0 and variance 1 over the training rows; missing and constant values become 0."""
    values = values.astype(np.float64)  # in float32 the rounded mean of a constant column differs from the constant
    seen = values[train]
    known = np.isfinite(seen)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, seen, 0).sum(axis=0) / count
    variance = (np.where(known, seen - mean, 0) ** 2).sum(axis=0) / count
    scale = np.where(variance > 1e-12, 1 / np.sqrt(np.maximum(variance, 1e-12)), 0)
    return np.nan_to_num((values - mean) * scale, nan=0.0).astype(np.float32)


@dataclass(frozen=True)
class LabelScale:
    """The affine map between a label's own unit and what the network predicts, fitted on the training genes."""

    mean: float
    std: float

    @classmethod
    def fit(cls, labels: npt.NDArray[np.floating]) -> LabelScale:
        std = float(labels.std())
        if not std > 0:
            raise DataError(
                f"the {len(labels)} training labels are all {labels[0]:g}: there is nothing to learn from a constant"
            )
        return cls(float(labels.mean()), std)

    def to_unit(self, standardised: Floats) -> Floats:
        return standardised * self.std + self.mean


def cut_proteins(
    tokens: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], max_protein: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Tokens and offsets of the same proteins without what lies beyond ``max_protein`` residues."""
    lengths = np.diff(offsets)
    positions = np.arange(len(tokens)) - np.repeat(offsets[:-1], lengths)
    kept = np.concatenate([[0], np.cumsum(np.minimum(lengths, max_protein))])
    return tokens[positions < max_protein], kept


def sealed_labels(genes: Genes, target: str, split: Split) -> npt.NDArray[np.float64]:
    """Labels of the train and valid genes in their own unit; every other gene's is NaN, the test genes' above all."""
    open_rows = np.concatenate([split.train, split.valid])
    labels = np.full(genes.num_genes, np.nan)
    labels[open_rows] = genes.target(target)[open_rows]
    return labels


@dataclass(frozen=True)
class StudyData:
    """The genes of one study as a trial sees them. The test genes' labels are not in it."""

    windows_NL: npt.NDArray[np.uint8]
    residues: npt.NDArray[np.uint8]
    """Protein tokens of all genes end to end, each protein cut at ``max_protein``."""
    residue_offsets: npt.NDArray[np.int64]
    raw_half_life_NH: Floats
    half_life_NH: Floats
    """Standardised; missing ones 0."""
    labels: Floats
    """Standardised; NaN outside train and valid."""
    label_scale: LabelScale
    split: Split

    @classmethod
    def load(cls, folder: Path, split_path: Path, spec: DataSpec, target: str) -> StudyData:
        """Memory-map a prepared gene table and fit the scales on its training genes."""
        genes = Genes.open(folder)
        split = Split.load(split_path, genes)
        labels = sealed_labels(genes, target, split)
        scale = LabelScale.fit(labels[split.train])
        residues, residue_offsets = cut_proteins(genes.protein_tokens, genes.protein_offsets, spec.max_protein)
        return cls(
            windows_NL=genes.windows(spec.window_bp),
            residues=residues,
            residue_offsets=residue_offsets,
            raw_half_life_NH=genes.features,
            half_life_NH=standardise(genes.features, split.train),
            labels=((labels - scale.mean) / scale.std).astype(np.float32),
            label_scale=scale,
            split=split,
        )

    @property
    def protein_lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.residue_offsets)

    def inputs(self, rows: Rows, device: torch.device) -> Inputs:
        """The networks' inputs for these genes, in the order given."""
        lengths = self.protein_lengths[rows]
        positions_T = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
        starts = np.repeat(self.residue_offsets[rows], lengths)
        return Inputs(
            window_BL=torch.from_numpy(self.windows_NL[rows]).to(device),
            half_life_BH=torch.from_numpy(self.half_life_NH[rows]).to(device),
            residues_T=torch.from_numpy(self.residues[starts + positions_T].astype(np.int32)).to(device),
            positions_T=torch.from_numpy(positions_T).to(device),
            lengths=lengths.tolist(),
        )

    def targets(self, rows: Rows, device: torch.device) -> Tensor:
        return torch.from_numpy(self.labels[rows]).to(device)

    def by_length(self, rows: Rows) -> Rows:
        """The same genes, short proteins first, so that neighbours pad each other little."""
        return rows[np.argsort(self.protein_lengths[rows], kind="stable")]


def shard(rows: Rows, rank: int, world_size: int) -> Rows:
    """Every ``world_size``-th row from ``rank`` on: no row twice, none left out."""
    return rows[rank::world_size]


def training_steps(num_train: int, batch_size: int, world_size: int) -> int:
    """Steps of one epoch; genes left over that cannot give every rank one are left for another epoch."""
    whole, rest = divmod(num_train, batch_size * world_size)
    return whole + (rest >= world_size)


def training_batches(rows: Rows, batch_size: int, rank: int, world_size: int, seed: int) -> Iterator[tuple[Rows, int]]:
    """One epoch in an order given by ``seed``: this rank's genes of each step, and how many all ranks hold."""
    order = np.random.default_rng(seed).permutation(rows)
    per_step = batch_size * world_size
    for step in range(training_steps(len(rows), batch_size, world_size)):
        together = order[step * per_step : (step + 1) * per_step]
        yield shard(together, rank, world_size), len(together)
