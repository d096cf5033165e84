"""From a configuration to a network, and its parameter count without training or data.

Shapes: B batch, N latents, D latent width, Q query width, H half-life features, K targets.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from raystudy.data.batches import Inputs, num_half_life
from raystudy.models.attention import CrossAttention
from raystudy.models.convolution import ConvolutionBranch
from raystudy.models.network import ExpressionNetwork
from raystudy.models.perceiver import PerceiverBranch
from raystudy.models.xpresso import Xpresso
from raystudy.study.model import ModelSpec, Tokens


class TwoBranchPerceiver(ExpressionNetwork):
    """Stefanini et al. 2023: a query made by convolution asks latents made by a Perceiver; [B, K]."""

    def __init__(self, model: ModelSpec, reads: Tokens, half_life: nn.Module, num_targets: int) -> None:
        super().__init__()
        self.num_targets = num_targets
        Q = model.queries_dim
        self.perceiver = PerceiverBranch(model, reads)
        self.convolution = ConvolutionBranch(model)
        self.half_life = half_life
        width = self.perceiver.width
        self.head = CrossAttention(Q, width, dropout=0.0)
        self.summary = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, Q)) if model.latent_summary else None
        self.output = nn.Linear(2 * Q if model.latent_summary else Q, num_targets)

    def forward(self, inputs: Inputs) -> Tensor:
        half_life_BH = self.half_life(inputs.half_life_BH)
        latents_BND = self.perceiver(inputs.tokens_T, inputs.positions_T, inputs.lengths, half_life_BH)
        query_B1Q = self.convolution(inputs.sequence_BL, inputs.sequence_lengths, half_life_BH)[:, None]
        answer_BQ = (query_B1Q + self.head(query_B1Q, latents_BND))[:, 0]
        if self.summary is not None:
            answer_BQ = torch.cat([answer_BQ, self.summary(latents_BND.mean(dim=1))], dim=1)
        return self.output(answer_BQ)


def build(model: ModelSpec, num_targets: int = 1) -> ExpressionNetwork:
    """The network of a configuration: ``Inputs`` of B genes -> [B, num_targets]."""
    half_life: nn.Module = nn.Identity()
    if model.half_life == "mlp":  # one module, also where its values join twice
        H = num_half_life(model)
        half_life = nn.Sequential(nn.Linear(H, H), nn.GELU(), nn.Linear(H, H))
    reads = model.perceiver_reads
    if reads is None:
        return Xpresso(model, half_life, num_targets)
    return TwoBranchPerceiver(model, reads, half_life, num_targets)


def count_parameters(model: ModelSpec, num_targets: int = 1) -> int:
    """Trainable parameters, counted on a network without memory."""
    return _count(model.model_copy(update={"dropout": 0.0}), num_targets)  # which changes no shape


@lru_cache(maxsize=4096)
def _count(model: ModelSpec, num_targets: int) -> int:
    with torch.device("meta"):
        network = build(model, num_targets)
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
