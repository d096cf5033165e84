"""Genes that stay in a GPU's memory, from which batches are taken there; the windows of 16,000 genes are 168 MB.

Shapes: n all genes, B batch, L positions, H half-life features, T symbols of a batch end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raystudy.data.splits import Rows

SHARE_OF_FREE_MEMORY = 0.25
"""What genes may take of a GPU; where they are more, batches are put together on the CPU."""


@dataclass(frozen=True)
class EndToEnd:
    """Proteins of all genes end to end, and how long each is, which the CPU knows too."""

    tokens: Tensor
    starts: Tensor
    lengths: npt.NDArray[np.int64]

    @classmethod
    def of(cls, tokens: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], device: torch.device) -> EndToEnd:
        return cls(put(tokens, device), put(offsets[:-1], device), np.diff(offsets))

    def take(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """Of these genes: tokens, the gene and the position of each, all [T], and lengths [B]."""
        lengths = self.lengths[rows]
        device, total = self.tokens.device, int(lengths.sum())
        before = put(np.cumsum(lengths) - lengths, device)
        gene = torch.repeat_interleave(put(lengths, device), output_size=total)
        position = torch.arange(total, device=device) - before[gene]
        return self.tokens[self.starts[put(rows, device)][gene] + position], gene, position, lengths.tolist()

    def padded(self, rows: Rows, longest: int) -> tuple[Tensor, list[int]]:
        """Of these genes: tokens followed by 0, uint8 [B, longest], and lengths [B]."""
        tokens, gene, position, lengths = self.take(rows)
        padded = torch.zeros(len(rows), longest, dtype=torch.uint8, device=tokens.device)
        padded[gene, position] = tokens
        return padded, lengths


@dataclass(frozen=True)
class Known:
    """As many symbols of each gene, of which those that are 0 are unknown, [n, L]."""

    tokens_NL: Tensor
    lengths: npt.NDArray[np.int64]
    """How many are known, which the CPU knows too."""

    @classmethod
    def of(cls, chunks_NL: Sequence[npt.NDArray[np.uint8]], device: torch.device) -> Known:
        """``chunks_NL``: so many genes each."""
        counts = [np.count_nonzero(chunk, axis=1) for chunk in chunks_NL]
        return cls(torch.cat([put(chunk, device) for chunk in chunks_NL]), np.concatenate(counts))

    def take(self, rows: Rows) -> tuple[Tensor, Tensor, list[int]]:
        """Of these genes: the known symbols and the position of each, [T], and how many each gene has, [B]."""
        tokens_BL, lengths = self.tokens_NL[put(rows, self.tokens_NL.device)], self.lengths[rows]
        gene, position = torch.nonzero_static(tokens_BL, size=int(lengths.sum())).unbind(dim=1)
        return tokens_BL[gene, position], position, lengths.tolist()


@dataclass(frozen=True)
class Resident:
    """What one network reads of all genes."""

    windows_NL: Tensor
    read: Known | None
    """Of the windows what the Perceiver reads, if it does."""
    proteins: EndToEnd
    half_life_NH: Tensor


def fits(num_bytes: int, device: torch.device) -> bool:
    """Whether so many bytes may stay on a device."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return num_bytes < SHARE_OF_FREE_MEMORY * free


def put(values: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """A copy on a device."""
    return torch.tensor(values, device=device)
