from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raystudy.models.convolution import round_even
from raystudy.models.layers import AttentionPool, Convolution, NormActivateConvolve
from raystudy.models.stem import EmbeddingStem, OneHotStem, Stem
from raystudy.models.xpresso import Xpresso, max_pool
from raystudy.study.model import ModelSpec


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def conv1d(layer: Convolution, x_BLC: Tensor) -> Tensor:
    """PyTorch's own same-padded convolution, channels first, with this layer's weights."""
    return F.conv1d(x_BLC.transpose(1, 2), layer.weight_OCK, layer.bias_O, padding="same").transpose(1, 2)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("kernel", [1, 5, 6, 15])
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


def test_running_statistics_are_kept_as_pytorchs_batchnorm_keeps_them() -> None:
    block, norm = NormActivateConvolve(6, 9, 5), nn.BatchNorm1d(6)
    for _ in range(3):
        x = 2 + 3 * torch.randn(4, 20, 6)
        block(x)
        norm(x.transpose(1, 2))

    assert norm.running_mean is not None
    assert norm.running_mean.abs().max() > 0.1
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(block.norm.state_dict()[name], norm.state_dict()[name], atol=1e-5, rtol=0)
    kept = block.norm.running_mean.clone()
    block.eval()(x)
    assert torch.equal(block.norm.running_mean, kept)


def convolved(stem: Stem, tokens_BL: Tensor) -> Tensor:
    """What a stem makes of every position of one gene, [L, O]."""
    windows_XH = stem.windows(tokens_BL, tokens_BL.shape[1])[0]
    return stem.unfolded(windows_XH, torch.float32) @ stem.kernel_IO() + stem.convolution.bias_O


def test_an_n_is_all_zeros_in_one_hot_and_a_vector_of_its_own_in_the_embedding() -> None:
    unknown, length = torch.zeros(1, 40, dtype=torch.uint8), 40
    onehot, embedding = OneHotStem("base", 7, 15), EmbeddingStem(11, 7, 15)

    assert torch.equal(convolved(onehot, unknown), onehot.convolution.bias_O.expand(length, 7))
    middle = convolved(embedding, unknown)[length // 2]
    own = torch.einsum("oek,e->o", embedding.convolution.weight_OCK, embedding.embedding_SE.weight[0])
    torch.testing.assert_close(middle, own + embedding.convolution.bias_O, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("reads", "symbols"), [("residue", 23), ("codon", 66)])
def test_the_pad_after_a_protein_is_a_symbol_of_its_own(reads: str, symbols: int) -> None:
    stem = OneHotStem(reads, 7, 15)  # type: ignore[arg-type]
    assert stem.convolution.weight_OCK.shape == (7, symbols, 15)

    middle = convolved(stem, torch.zeros(1, 40, dtype=torch.uint8))[20]

    expected = stem.convolution.weight_OCK[:, 0].sum(1) + stem.convolution.bias_O
    torch.testing.assert_close(middle, expected, atol=1e-5, rtol=0)


def test_attention_pooling_starts_from_each_channels_own_values() -> None:
    assert torch.equal(AttentionPool(4, 2).mix_CC, torch.eye(4))


@pytest.mark.parametrize("pool", [AttentionPool(4, 5), lambda x: max_pool(x, 5)], ids=["attention", "max"])
def test_the_dropped_tail_has_no_say(pool: nn.Module) -> None:
    x = torch.randn(2, 17, 4)
    before = pool(x)
    assert before.shape == (2, 3, 4)
    x[:, 15:] = 100

    assert torch.equal(pool(x), before)


@pytest.mark.parametrize(("value", "even"), [(128 / 2**0.5, 90), (64 / 2**0.5, 46), (20 / 2**0.5, 14), (4.0, 4)])
def test_the_towers_widths_are_even(value: float, even: int) -> None:
    assert round_even(value) == even


def test_max_pooling_is_pytorchs() -> None:
    x = torch.randn(2, 65, 4)

    assert torch.equal(max_pool(x, 30), F.max_pool1d(x.transpose(1, 2), 30).transpose(1, 2))


def test_xpresso_drops_at_the_published_rates_after_its_dense_layers() -> None:
    layers = Xpresso(ModelSpec(preset="xpresso"), nn.Identity(), 1).dense

    assert [layer.out_features for layer in layers if isinstance(layer, nn.Linear)] == [64, 2, 1]
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.00099, 0.01546]
