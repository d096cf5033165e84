"""From a configuration to a network, and its parameter count without training or data.

Shapes: B batch, N latents, D latent width, Q query width, H half-life features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raystudy.data.batches import Inputs
from raystudy.data.encode import PROTEIN_SYMBOLS
from raystudy.models.attention import CrossAttention
from raystudy.models.convolution import HALF_LIFE_FEATURES, ConvolutionBranch, EmbeddingStem, OneHotStem
from raystudy.models.perceiver import PerceiverBranch
from raystudy.study.spec import ModelSpec


class ProteinDNAPerceiver(nn.Module):
    """Protein in the Perceiver branch, DNA in the convolution branch: one value per gene, [B]."""

    def __init__(self, model: ModelSpec, window_length: int, max_protein: int, attention: str = "auto") -> None:
        super().__init__()
        backend = "sdpa" if attention == "auto" else attention
        Q, D = model.queries_dim, model.latent_dim
        self.perceiver = PerceiverBranch(
            len(PROTEIN_SYMBOLS), max_protein, model.token_dim, model.num_latents, D, model.dropout, backend
        )
        stem = OneHotStem(Q) if model.encoder == "onehot" else EmbeddingStem(Q, model.embedding_dim)
        self.convolution = ConvolutionBranch(stem, window_length, Q, model.pool_size, model.dropout)
        self.half_life: nn.Module = nn.Identity()
        if model.half_life == "mlp":
            H = HALF_LIFE_FEATURES
            self.half_life = nn.Sequential(nn.Linear(H, H), nn.GELU(), nn.Linear(H, H))
        self.head = CrossAttention(Q, D, dropout=0.0, backend=backend)
        self.summary = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, Q)) if model.latent_summary else None
        self.output = nn.Linear(2 * Q if model.latent_summary else Q, 1)

    def forward(self, inputs: Inputs) -> Tensor:
        latents_BND = self.perceiver(inputs.residues_T, inputs.positions_T, inputs.lengths)
        query_B1Q = self.convolution(inputs.window_BL, self.half_life(inputs.half_life_BH))[:, None]
        answer_BQ = (query_B1Q + self.head(query_B1Q, latents_BND))[:, 0]
        if self.summary is not None:
            answer_BQ = torch.cat([answer_BQ, self.summary(latents_BND.mean(dim=1))], dim=1)
        return self.output(answer_BQ)[:, 0]


def build(model: ModelSpec, window_length: int, max_protein: int, attention: str = "auto") -> nn.Module:
    """The network of a configuration for windows of ``window_length`` bp and proteins of up to ``max_protein``."""
    return ProteinDNAPerceiver(model, window_length, max_protein, attention)


def count_parameters(model: ModelSpec, window_length: int, max_protein: int) -> int:
    """Trainable parameters, counted on a network without memory."""
    with torch.device("meta"):
        network = build(model, window_length, max_protein)
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
