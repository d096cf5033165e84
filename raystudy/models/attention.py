"""Attention and feed-forward layers of the Perceiver branch and the head.

Shapes: B batch, N latents, M keys, D latent width, I input width, Q query width, T residues of a whole batch laid
end to end (no padding between proteins), h heads of d.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CROSS_HEAD_DIM = 64
GENES_PER_GROUP = 16


def attend(
    q_BhNd: Tensor, k_BhMd: Tensor, v_BhMd: Tensor, valid_BM: Tensor | None, dropout: float, backend: str
) -> Tensor:
    """Softmax attention; keys where ``valid_BM`` is False get no weight. ``backend`` is ``sdpa`` or ``math``."""
    mask = None if valid_BM is None else valid_BM[:, None, None, :]
    if backend == "sdpa":
        return F.scaled_dot_product_attention(q_BhNd, k_BhMd, v_BhMd, attn_mask=mask, dropout_p=dropout)
    scores_BhNM = q_BhNd @ k_BhMd.transpose(-1, -2) * q_BhNd.shape[-1] ** -0.5
    if mask is not None:
        scores_BhNM = scores_BhNM.masked_fill(~mask, float("-inf"))
    return F.dropout(scores_BhNM.softmax(-1), dropout) @ v_BhMd


class CrossAttention(nn.Module):
    """One head of 64 from queries of one width to inputs of another, LayerNorm on both sides."""

    def __init__(self, query_dim: int, input_dim: int, dropout: float, backend: str) -> None:
        super().__init__()
        self.norm_query = nn.LayerNorm(query_dim)
        self.norm_input = nn.LayerNorm(input_dim)
        self.to_q = nn.Linear(query_dim, CROSS_HEAD_DIM, bias=False)
        self.to_kv = nn.Linear(input_dim, 2 * CROSS_HEAD_DIM, bias=False)
        self.to_out = nn.Linear(CROSS_HEAD_DIM, query_dim)
        self.dropout = dropout
        self.backend = backend

    def forward(self, queries_BND: Tensor, inputs_BMI: Tensor) -> Tensor:
        """Attend to inputs that all have the same number M of positions."""
        q_BNd = self.to_q(self.norm_query(queries_BND))
        k_BMd, v_BMd = self.to_kv(self.norm_input(inputs_BMI)).chunk(2, dim=-1)
        out = attend(q_BNd[:, None], k_BMd[:, None], v_BMd[:, None], None, self._rate, self.backend)
        return self.to_out(out[:, 0])

    def forward_ragged(self, queries_ND: Tensor, inputs_TI: Tensor, lengths: list[int]) -> Tensor:
        """Attend from shared queries to each gene's own stretch of ``inputs_TI``; [B, N, D].

        ``lengths`` are the B genes' and sum to T. Keys and values are computed on the T real positions only; padding
        happens inside groups of genes, which a batch ordered by length keeps small, and never changes a result.
        """
        q_Nd = self.to_q(self.norm_query(queries_ND))
        stretches = self.to_kv(self.norm_input(inputs_TI)).split(lengths)
        groups = []
        for first in range(0, len(lengths), GENES_PER_GROUP):
            kv_BM2d, valid_BM = pad_stretches(stretches[first : first + GENES_PER_GROUP])
            k_BMd, v_BMd = kv_BM2d.chunk(2, dim=-1)
            q_B1Nd = q_Nd.expand(len(kv_BM2d), 1, *q_Nd.shape)
            groups.append(attend(q_B1Nd, k_BMd[:, None], v_BMd[:, None], valid_BM, self._rate, self.backend)[:, 0])
        return self.to_out(torch.cat(groups))

    @property
    def _rate(self) -> float:
        return self.dropout if self.training else 0.0


def pad_stretches(stretches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stretches [length, C] as one zero-padded [B, M, C], and where it is real, bool [B, M]."""
    padded_BMC = nn.utils.rnn.pad_sequence(list(stretches), batch_first=True)
    lengths_B1 = torch.tensor([[len(stretch)] for stretch in stretches])
    valid_BM = torch.arange(padded_BMC.shape[1])[None] < lengths_B1
    return padded_BMC, valid_BM.to(padded_BMC.device, non_blocking=True)


class SelfAttention(nn.Module):
    """Eight heads of D//8 among the latents, LayerNorm before."""

    def __init__(self, dim: int, num_heads: int, dropout: float, backend: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        inner = num_heads * (dim // num_heads)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim)
        self.num_heads = num_heads
        self.dropout = dropout
        self.backend = backend

    def forward(self, x_BND: Tensor) -> Tensor:
        normed_BND = self.norm(x_BND)
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.to_q(normed_BND), *self.to_kv(normed_BND).chunk(2, dim=-1))
        )
        out_BhNd = attend(q, k, v, None, self.dropout if self.training else 0.0, self.backend)
        return self.to_out(out_BhNd.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """LayerNorm, D -> 2 x 2D, GEGLU (first half times the exact GELU of the second), 2D -> D, dropout."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 4 * dim)
        self.contract = nn.Linear(2 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BND: Tensor) -> Tensor:
        value, gate = self.expand(self.norm(x_BND)).chunk(2, dim=-1)
        return self.dropout(self.contract(value * F.gelu(gate)))
