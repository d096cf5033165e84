"""Attention of one head to stretches of keys, gene by gene and without padding, for the CPU.

PyTorch has no kernel for it there that knows dropout. Shapes: B batch, N queries of width d, T keys of a whole batch
end to end, M keys of one gene.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from raystudy.models.layers import kept


class GeneByGene(torch.autograd.Function):
    """softmax(q k / sqrt d) v of each gene's stretch of ``kv_T2d``, [B, N, d].

    The queries are each gene's own, [B, N, d], or shared, [N, d]; with these, products go over all genes at once.
    Shares are kept with the keys first, [T, N], where a gene's are one block. Its gradient has no gradient itself.
    """

    @staticmethod
    def forward(context: Any, q: Tensor, kv_T2d: Tensor, lengths: list[int], rate: float) -> Tensor:
        scaled = q * q.shape[-1] ** -0.5
        k_Td, v_Td = kv_T2d.chunk(2, dim=1)
        shares_TN = _by_gene(k_Td, scaled.mT, lengths)
        for shares_MN in torch.split(shares_TN, lengths):
            torch.softmax(shares_MN, dim=0, out=shares_MN)
        kept_TN = kept(shares_TN, rate) if rate else None
        used_TN = shares_TN if kept_TN is None else shares_TN * kept_TN
        context.lengths = lengths
        context.save_for_backward(scaled, kv_T2d, shares_TN, kept_TN)
        genes = zip(torch.split(used_TN, lengths), torch.split(v_Td, lengths), strict=True)
        return torch.stack([used_MN.T.mm(v_Md) for used_MN, v_Md in genes])

    @staticmethod
    @once_differentiable
    def backward(context: Any, upstream_BNd: Tensor) -> tuple[Tensor | None, ...]:
        scaled, kv_T2d, shares_TN, kept_TN = context.saved_tensors
        lengths, (k_Td, v_Td) = context.lengths, kv_T2d.chunk(2, dim=1)
        used_TN, dshares_TN = shares_TN, _by_gene(v_Td, upstream_BNd.mT, lengths)
        if kept_TN is not None:
            used_TN, dshares_TN = shares_TN * kept_TN, dshares_TN.mul_(kept_TN)
        genes = zip(torch.split(dshares_TN, lengths), torch.split(shares_TN, lengths), strict=True)
        softmax_backward = torch.ops.aten._softmax_backward_data
        dscores_TN = torch.cat([softmax_backward(up_MN, share_MN, 0, share_MN.dtype) for up_MN, share_MN in genes])
        dkv_T2d = torch.cat([_by_gene(dscores_TN, scaled, lengths), _by_gene(used_TN, upstream_BNd, lengths)], dim=1)
        if scaled.ndim == 2:
            dq = dscores_TN.T.mm(k_Td)
        else:
            pairs = zip(torch.split(dscores_TN, lengths), torch.split(k_Td, lengths), strict=True)
            dq = torch.stack([dscores_MN.T.mm(k_Md) for dscores_MN, k_Md in pairs])
        return dq * scaled.shape[-1] ** -0.5, dkv_T2d, None, None


def _by_gene(packed_TC: Tensor, matrices: Tensor, lengths: list[int]) -> Tensor:
    """Each gene's stretch times its matrix of [B, C, O], or times the shared one, [C, O]; [T, O]."""
    if matrices.ndim == 2:
        return packed_TC.mm(matrices)
    return torch.cat([one.mm(matrix) for one, matrix in zip(torch.split(packed_TC, lengths), matrices, strict=True)])
