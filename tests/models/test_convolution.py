from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raystudy.models.convolution import (
    AttentionPool,
    Convolution,
    ConvolutionBranch,
    EmbeddingStem,
    NormActivateConvolve,
    OneHotStem,
    round_even,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def conv1d(layer: Convolution, x_BLC: Tensor) -> Tensor:
    """PyTorch's own same-padded convolution, channels first, with this layer's weights."""
    return F.conv1d(x_BLC.transpose(1, 2), layer.weight_OCK, layer.bias_O, padding="same").transpose(1, 2)


@pytest.mark.parametrize("kernel", [1, 5, 15])
@pytest.mark.parametrize("length", [4, 20])
def test_the_convolution_is_pytorchs_conv1d_with_channels_last(kernel: int, length: int) -> None:
    layer, x = Convolution(6, 9, kernel), torch.randn(3, length, 6)

    torch.testing.assert_close(layer(x), conv1d(layer, x), atol=1e-5, rtol=0)
    torch.testing.assert_close(layer(x, scale=0.3), conv1d(layer, 0.3 * x), atol=1e-5, rtol=0)


def test_the_convolution_starts_as_pytorchs_does() -> None:
    torch.manual_seed(5)
    ours = Convolution(6, 9, 5)
    torch.manual_seed(5)
    theirs = nn.Conv1d(6, 9, 5)

    assert torch.equal(ours.weight_OCK, theirs.weight)
    assert theirs.bias is not None
    assert torch.equal(ours.bias_O, theirs.bias)


@pytest.mark.parametrize("kernel", [1, 5])
def test_the_folded_activation_is_batchnorm_sigmoid_gelu_and_conv1d(kernel: int) -> None:
    block = NormActivateConvolve(6, 9, kernel)
    norm = nn.BatchNorm1d(6)
    with torch.no_grad():
        for parameter in block.norm.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    norm.load_state_dict(block.norm.state_dict())

    def reference(x_BLC: Tensor) -> Tensor:
        y = norm(x_BLC.transpose(1, 2))
        return conv1d(block.convolution, (y * torch.sigmoid(1.702 * y)).transpose(1, 2))

    for _ in range(3):
        x = 2 + 3 * torch.randn(4, 20, 6)
        torch.testing.assert_close(block(x), reference(x), atol=1e-5, rtol=0)
    assert norm.running_mean is not None
    assert norm.running_mean.abs().max() > 0.1
    for name, statistic in norm.state_dict().items():
        if name != "num_batches_tracked":
            torch.testing.assert_close(block.norm.state_dict()[name], statistic, atol=1e-5, rtol=0)

    block.eval()
    norm.eval()
    x = torch.randn(2, 20, 6)
    torch.testing.assert_close(block(x), reference(x), atol=1e-5, rtol=0)


def test_the_folded_activation_has_the_same_gradients() -> None:
    block, x = NormActivateConvolve(6, 9, 5), torch.randn(4, 20, 6, requires_grad=True)
    mine = torch.autograd.grad(block(x).square().sum(), [x, *block.parameters()])
    y = F.batch_norm(x.transpose(1, 2), None, None, block.norm.weight, block.norm.bias, training=True)
    plain = conv1d(block.convolution, (y * torch.sigmoid(1.702 * y)).transpose(1, 2))
    theirs = torch.autograd.grad(plain.square().sum(), [x, *block.parameters()])

    for ours, expected in zip(mine, theirs, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-3, rtol=1e-4)


def test_the_embedding_stem_is_an_embedding_and_a_convolution_unfolded() -> None:
    stem = EmbeddingStem(7, 11)
    tokens = torch.randint(0, 5, (3, 40), dtype=torch.uint8)
    assert (tokens == 0).any()
    theirs = nn.Conv1d(11, 7, 15, padding="same")
    with torch.no_grad():
        theirs.weight.copy_(stem.convolution.weight_OCK)
        assert theirs.bias is not None
        theirs.bias.copy_(stem.convolution.bias_O)

    expected = theirs(stem.embedding_SE(tokens.long()).transpose(1, 2)).transpose(1, 2)

    torch.testing.assert_close(stem(tokens), expected, atol=1e-5, rtol=0)


def test_the_one_hot_stem_reads_an_n_and_what_is_beyond_the_window_as_zeros() -> None:
    stem = OneHotStem(7)
    tokens = torch.randint(0, 5, (3, 40), dtype=torch.uint8)
    onehot = torch.stack([(tokens == base).float() for base in (1, 2, 3, 4)], dim=1)

    expected = F.conv1d(onehot, stem.convolution.weight_OCK, stem.convolution.bias_O, padding="same")

    torch.testing.assert_close(stem(tokens), expected.transpose(1, 2), atol=1e-5, rtol=0)
    nothing = stem(torch.zeros(1, 40, dtype=torch.uint8))
    assert torch.equal(nothing, stem.convolution.bias_O.expand_as(nothing))


@pytest.mark.parametrize("size", [2, 5])
def test_attention_pooling_is_a_softmax_weighted_sum_in_every_window_and_channel(size: int) -> None:
    pool = AttentionPool(4, size)
    with torch.no_grad():
        pool.mix_CC.add_(torch.randn(4, 4))
    x = torch.randn(2, 17, 4)

    pooled, mix = pool(x).detach(), pool.mix_CC.detach()

    assert pooled.shape == (2, 17 // size, 4), "the tail shorter than a window is dropped"
    for gene in range(2):
        for window in range(17 // size):
            for channel in range(4):
                positions = range(window * size, (window + 1) * size)
                logits = [sum(float(x[gene, p, c] * mix[c, channel]) for c in range(4)) for p in positions]
                weights = [math.exp(logit) for logit in logits]
                values = [float(x[gene, p, channel]) for p in positions]
                expected = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
                assert float(pooled[gene, window, channel]) == pytest.approx(expected, abs=1e-5)


def test_attention_pooling_starts_from_each_channels_own_values() -> None:
    assert torch.equal(AttentionPool(4, 2).mix_CC, torch.eye(4))


def test_the_dropped_tail_has_no_say() -> None:
    pool, x = AttentionPool(4, 5), torch.randn(2, 17, 4)
    before = pool(x)
    x[:, 15:] = 100

    assert torch.equal(pool(x), before)


@pytest.mark.parametrize(("value", "even"), [(128 / 2**0.5, 90), (64 / 2**0.5, 46), (20 / 2**0.5, 14), (4.0, 4)])
def test_the_towers_widths_are_even(value: float, even: int) -> None:
    assert round_even(value) == even


def test_the_flatten_is_channel_major_and_the_half_life_values_come_last() -> None:
    branch = ConvolutionBranch(OneHotStem(8), 300, 8, pool_size=10, dropout=0.0).eval()
    tokens, half_life = torch.randint(0, 5, (2, 300), dtype=torch.uint8), torch.randn(2, 8)
    x_BLC = branch.blocks(tokens)
    assert x_BLC.shape == (2, 1, 4)
    long = ConvolutionBranch(OneHotStem(8), 900, 8, pool_size=10, dropout=0.0).eval()
    longer = torch.randint(0, 5, (2, 900), dtype=torch.uint8)
    features = long.blocks(longer)
    assert features.shape == (2, 3, 4)
    with torch.no_grad():
        for unit in range(8):  # unit i reads input i, then one of the last eight
            long.to_query.weight[unit] = torch.eye(20)[unit]
        long.to_query.bias.zero_()
        first_eight = torch.stack([features[:, p, c] for c in range(4) for p in range(3)], dim=1)[:, :8]
        torch.testing.assert_close(long(longer, half_life), first_eight.relu())
        for unit in range(8):
            long.to_query.weight[unit] = torch.eye(20)[12 + unit]
        torch.testing.assert_close(long(longer, half_life), half_life.relu())
