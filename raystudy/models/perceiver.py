"""The Perceiver branch: tokens of any length, read by a fixed number of latents.

Shapes: B batch, N latents, D latent width, E token width, H half-life features, T tokens of a whole batch end to end.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from raystudy.data.batches import num_half_life
from raystudy.data.encode import NUM_SYMBOLS
from raystudy.models.attention import CrossAttention, FeedForward, SelfAttention
from raystudy.models.layers import Dropout
from raystudy.study.model import LATENT_HEADS, ModelSpec, Tokens


def sinusoid(length: int, dim: int) -> Tensor:
    """The position table of Vaswani et al. 2017, float32 [length, dim]; dim is even."""
    position_L1 = torch.arange(length)[:, None]
    frequency = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    table_LE = torch.empty(length, dim)
    table_LE[:, 0::2] = torch.sin(position_L1 * frequency)
    table_LE[:, 1::2] = torch.cos(position_L1 * frequency)
    return table_LE


class LatentBlock(nn.Module):
    """Self-attention among the latents, then a feed-forward, both residual."""

    def __init__(self, dim: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(dim, LATENT_HEADS, head_dim, dropout)
        self.feed_forward = FeedForward(dim, dropout)

    def forward(self, latents_BND: Tensor) -> Tensor:
        latents_BND = latents_BND + self.attention(latents_BND)
        return latents_BND + self.feed_forward(latents_BND)


class PerceiverBranch(nn.Module):
    """Stefanini et al. 2023: one cross-attention to the tokens, then self-attention among the latents."""

    def __init__(self, model: ModelSpec, reads: Tokens) -> None:
        super().__init__()
        D, E = model.latent_dim, model.token_dim
        self.embedding = nn.Embedding(NUM_SYMBOLS[reads], E)
        self.embedding_dropout = Dropout(model.dropout)
        self.positions_LE = nn.Parameter(sinusoid(model.position_rows or model.perceiver_length, E))
        self.latents_ND = nn.Parameter(torch.randn(model.num_latents, D))
        self.width = D + (num_half_life(model) if model.half_life_joins_latents else 0)
        self.cross = CrossAttention(self.width, E, model.dropout, ragged=True)
        self.cross_feed_forward = FeedForward(self.width, model.dropout)
        self.blocks = nn.Sequential(
            *(LatentBlock(self.width, D // LATENT_HEADS, model.dropout) for _ in range(model.depth))
        )

    def forward(self, tokens_T: Tensor, positions_T: Tensor, lengths: list[int], half_life_BH: Tensor) -> Tensor:
        """Latents of B genes, [B, N, D] or, where the half-life features join them, [B, N, D + H].

        ``positions_T`` counts from 0 in each gene, ``lengths`` sum to T.
        """
        tokens_TE = self.embedding_dropout(self.embedding(tokens_T)) + self.positions_LE[positions_T]
        latents: Tensor = self.latents_ND
        if self.width > latents.shape[1]:
            B, N = len(lengths), len(latents)
            latents = torch.cat([latents.expand(B, -1, -1), half_life_BH[:, None].expand(-1, N, -1)], dim=2)
        latents_BND = latents + self.cross.forward_ragged(latents, tokens_TE, lengths)
        return self.blocks(latents_BND + self.cross_feed_forward(latents_BND))
