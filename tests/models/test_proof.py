"""Every family and option against tests/models/naive.py: outputs, and the gradients of every parameter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.models import naive
from tests.models.cases import CHOICES, Case, allowed, make_genes, model_of, name, packed, pairs, pairwise, randomised

ALLOWED = allowed()
COVER = list(pairwise(ALLOWED))
BACKENDS = ("sdpa", "math")
# What these add to a channel, a later BatchNorm takes away again: their gradient in training is 0 but for rounding.
CANCELLED = {f"convolution.blocks.{block}.convolution.bias_O" for block in ("0", "1.inner", "3", "4.inner")}


def reference_weights(network: nn.Module) -> dict[str, Tensor]:
    """The network's weights in float64, the trainable ones asking for gradients."""
    trainable = dict(network.named_parameters())
    return {
        name: tensor.detach().double().requires_grad_(name in trainable)
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }


def test_the_cover_holds_every_pair_of_values_that_a_network_can_have() -> None:
    covered = set().union(*map(pairs, COVER))

    assert covered == set().union(*map(pairs, ALLOWED))
    assert {value for pair in covered for value in pair} == {(k, v) for k, values in CHOICES.items() for v in values}
    assert len(COVER) < 40


@pytest.mark.parametrize("case", COVER, ids=name)
def test_outputs_are_those_of_the_plain_float64_network(case: Case) -> None:
    model, num_targets = model_of(case), case["num_targets"]
    genes = make_genes(model)
    weights = reference_weights(randomised(model, num_targets))
    with torch.no_grad():
        expected = naive.predict(weights, model.model_dump(), genes)

    assert expected.shape == (len(genes), num_targets)
    spread = expected.std(0)
    assert spread.min() > 0.05
    for backend in BACKENDS:
        network = randomised(model, num_targets, backend)
        with torch.no_grad():
            outputs = network(packed(model, genes))
        assert outputs.dtype == torch.float32
        error = float(((outputs - expected) / spread).abs().max())
        assert error < 1e-5, f"{backend}: off by {error:.2g} of the spread over genes"


@pytest.mark.parametrize("case", COVER, ids=name)
def test_every_parameters_gradient_is_that_of_the_plain_float64_network(case: Case) -> None:
    model, num_targets = model_of(case), case["num_targets"]
    genes = make_genes(model)
    targets = torch.randn(len(genes), num_targets, generator=torch.Generator().manual_seed(2))
    weights = reference_weights(randomised(model, num_targets))
    (naive.predict(weights, model.model_dump(), genes, training=True) - targets).square().mean().backward()

    for backend in BACKENDS:
        network = randomised(model, num_targets, backend).train()
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # Xpresso's is part of its definition
        (network(packed(model, genes)) - targets).square().mean().backward()
        for parameter, weight in network.named_parameters():
            expected, scale = weights[parameter].grad, size(weights[parameter])
            if parameter in CANCELLED:
                largest = size(weights[parameter.replace("bias_O", "weight_OCK")])
                assert scale < 1e-9 * largest
                scale = largest
            assert scale > 0, f"{parameter} takes no part: nothing is shown"
            error = float((weight.grad - expected).abs().max()) / scale
            assert error < 1e-4, f"{backend}, {parameter}: off by {error:.2g} of the gradient's size"


def size(weight: Tensor) -> float:
    """The root of the gradient's mean square."""
    assert weight.grad is not None
    return float(weight.grad.square().mean().sqrt())
