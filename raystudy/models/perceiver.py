"""The Perceiver branch: tokens of any length, read by a fixed number of latents.

Shapes: B batch, N latents, D latent width, E token width, T residues of a whole batch laid end to end.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from raystudy.models.attention import CrossAttention, FeedForward, SelfAttention

NUM_HEADS = 8


def sinusoid(length: int, dim: int) -> Tensor:
    """The position table of Vaswani et al. 2017, float32 [length, dim]; dim is even."""
    position_L1 = torch.arange(length)[:, None]
    frequency = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    table_LE = torch.empty(length, dim)
    table_LE[:, 0::2] = torch.sin(position_L1 * frequency)
    table_LE[:, 1::2] = torch.cos(position_L1 * frequency)
    return table_LE


class PerceiverBranch(nn.Module):
    """Stefanini et al. 2023, depth 1: cross-attention to the tokens, then one latent self-attention."""

    def __init__(
        self,
        num_symbols: int,
        max_length: int,
        token_dim: int,
        num_latents: int,
        latent_dim: int,
        dropout: float,
        backend: str,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_symbols, token_dim)
        self.embedding_dropout = nn.Dropout(dropout)
        self.positions_LE = nn.Parameter(sinusoid(max_length, token_dim))
        self.latents_ND = nn.Parameter(torch.randn(num_latents, latent_dim))
        self.cross = CrossAttention(latent_dim, token_dim, dropout, backend)
        self.cross_feed_forward = FeedForward(latent_dim, dropout)
        self.attention = SelfAttention(latent_dim, NUM_HEADS, dropout, backend)
        self.feed_forward = FeedForward(latent_dim, dropout)

    def forward(self, tokens_T: Tensor, positions_T: Tensor, lengths: list[int]) -> Tensor:
        """Latents [B, N, D] of B proteins; ``positions_T`` counts from 0 in each, ``lengths`` sum to T."""
        tokens_TE = self.embedding_dropout(self.embedding(tokens_T)) + self.positions_LE[positions_T]
        latents_BND = self.latents_ND + self.cross.forward_ragged(self.latents_ND, tokens_TE, lengths)
        latents_BND = latents_BND + self.cross_feed_forward(latents_BND)
        latents_BND = latents_BND + self.attention(latents_BND)
        return latents_BND + self.feed_forward(latents_BND)
