"""Attention and feed-forward layers of the Perceiver branch and the head.

Shapes: B batch, N latents, M keys, D latent width, I input width, Q query width, T tokens of a whole batch laid
end to end (no padding between genes), h heads of d.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from raystudy.models.backends import Need, attend, attend_ragged
from raystudy.models.layers import Dropout

CROSS_HEAD_DIM = 64


class CrossAttention(nn.Module):
    """One head of 64 from queries of one width to inputs of another, LayerNorm on both sides."""

    def __init__(self, query_dim: int, input_dim: int, dropout: float, ragged: bool = False) -> None:
        """``ragged`` says which of the two forward methods will be used."""
        super().__init__()
        self.norm_query = nn.LayerNorm(query_dim)
        self.norm_input = nn.LayerNorm(input_dim)
        self.to_q = nn.Linear(query_dim, CROSS_HEAD_DIM, bias=False)
        self.to_kv = nn.Linear(input_dim, 2 * CROSS_HEAD_DIM, bias=False)
        self.to_out = nn.Linear(CROSS_HEAD_DIM, query_dim)
        self.need = Need(1, CROSS_HEAD_DIM, ragged, dropout)
        self.backend = "sdpa"

    def forward(self, queries_BND: Tensor, inputs_BMI: Tensor) -> Tensor:
        """Attend to inputs that all have the same number M of positions."""
        q_BNd = self.to_q(self.norm_query(queries_BND))
        k_BMd, v_BMd = self.to_kv(self.norm_input(inputs_BMI)).chunk(2, dim=-1)
        out_B1Nd = attend(q_BNd[:, None], k_BMd[:, None], v_BMd[:, None], self._rate, self.backend)
        return self.to_out(out_B1Nd[:, 0])

    def forward_ragged(self, queries_ND: Tensor, inputs_TI: Tensor, lengths: list[int]) -> Tensor:
        """Attend from queries, shared [N, D] or each gene's own [B, N, D], to each gene's stretch; [B, N, D].

        ``lengths`` are the B stretches' and sum to T; keys and values are computed on real positions only.
        """
        q = self.to_q(self.norm_query(queries_ND))
        kv_T2d = self.to_kv(self.norm_input(inputs_TI))
        return self.to_out(attend_ragged(q, kv_T2d, lengths, self._rate, self.backend))

    @property
    def _rate(self) -> float:
        return self.need.dropout if self.training else 0.0


class SelfAttention(nn.Module):
    """Heads of ``head_dim`` among the latents, LayerNorm before."""

    def __init__(self, dim: int, num_heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        inner = num_heads * head_dim
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim)
        self.need = Need(num_heads, head_dim, ragged=False, dropout=dropout)
        self.backend = "sdpa"

    def forward(self, x_BND: Tensor) -> Tensor:
        normed_BND = self.norm(x_BND)
        q, k, v = (
            part.unflatten(-1, (self.need.num_heads, -1)).transpose(1, 2)
            for part in (self.to_q(normed_BND), *self.to_kv(normed_BND).chunk(2, dim=-1))
        )
        out_BhNd = attend(q, k, v, self.need.dropout if self.training else 0.0, self.backend)
        return self.to_out(out_BhNd.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """LayerNorm, D -> 2 x 2D, GEGLU (first half times the exact GELU of the second), 2D -> D, dropout."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 4 * dim)
        self.contract = nn.Linear(2 * dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x_BND: Tensor) -> Tensor:
        value, gate = self.expand(self.norm(x_BND)).chunk(2, dim=-1)
        return self.dropout(self.contract(value * F.gelu(gate)))
