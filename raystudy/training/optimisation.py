"""The optimizer, and its learning rate in each step."""

from __future__ import annotations

import math

import torch
from torch import nn

from raystudy.study.model import ModelSpec, TrainingSpec

ADAM_BETAS = (0.9, 0.98)
SGD_MOMENTUM = 0.9
TRANSFORMER_RISE = 8000
"""Steps; the published Perceivers'."""


def make_optimizer(network: nn.Module, training: TrainingSpec) -> torch.optim.Optimizer:
    parameters, decay = network.parameters(), training.weight_decay
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, training.learning_rate, SGD_MOMENTUM, weight_decay=decay, fused=True)
    kind = torch.optim.Adam if training.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, training.learning_rate, ADAM_BETAS, weight_decay=decay, fused=True)


def learning_rate(step: int, num_steps: int, model: ModelSpec, training: TrainingSpec) -> float:
    """The learning rate of ``step`` (from 0) of at most ``num_steps``.

    Source of ``transformer``: Vaswani et al. 2017, section 5.3, with the width of the tokens for the model's.
    """
    if training.schedule == "transformer":
        taken = step + 1
        return float(model.token_dim**-0.5 * min(taken**-0.5, taken * TRANSFORMER_RISE**-1.5))
    rise = max(1.0, training.warmup * num_steps)
    if step < rise:
        return training.learning_rate * min(1.0, (step + 1) / rise)
    if training.schedule == "constant":
        return training.learning_rate
    return training.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, num_steps - rise)))
