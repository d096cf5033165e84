from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raystudy.models import stem as stem_module
from raystudy.models.convolution import ConvolutionBranch, round_even
from raystudy.models.layers import AttentionPool, Convolution, NormActivateConvolve, dropout
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


def test_weights_stand_in_the_order_in_which_old_checkpoints_have_the_optimizer_s_state() -> None:
    dense = EmbeddingStem(11, 7, 15)

    assert [name for name, _ in dense.named_parameters()] == [
        "embedding_SE.weight",
        "convolution.weight_OCK",
        "convolution.bias_O",
    ]


def convolved(stem: Stem, tokens_BL: Tensor) -> Tensor:
    """What a stem makes of every position of one gene, [L, O]."""
    windows_XH = stem.windows(tokens_BL, tokens_BL.shape[1])[0]
    return stem.unfolded(windows_XH, torch.float32) @ stem.kernel() + stem.convolution.bias_O


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


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(
    "model",
    [{}, {"encoder": "embedding", "embedding_dim": 7}, {"family": "protein"}],
    ids=["one-hot", "dense", "protein"],
)
def test_the_counted_statistics_are_those_of_the_stem_s_outputs(model: dict[str, Any], bf16: bool) -> None:
    spec = ModelSpec(window_bp=(50, 37), max_protein=87, pool_size=6, queries_dim=8, **model)
    branch, lengths = ConvolutionBranch(spec), [3, 40, 87]
    tokens = torch.randint(1, 5, (3, 87), dtype=torch.uint8)
    for gene, length in enumerate(lengths):
        tokens[gene, length:] = 0
    stem, norm = branch.blocks[0], branch.blocks[1].inner.norm
    norm.momentum = 1.0

    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        branch(tokens, lengths if model.get("family") == "protein" else None, torch.zeros(3, 8))

    outputs = torch.cat([convolved(stem, gene[None]) for gene in tokens]).double()
    torch.testing.assert_close(norm.running_mean.double(), outputs.mean(0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(norm.running_var.double(), outputs.var(0), atol=1e-6, rtol=1e-5)


def test_what_is_computed_in_chunks_depends_on_no_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    branch = ConvolutionBranch(ModelSpec(window_bp=(50, 37), pool_size=6, queries_dim=8, dropout=0.0))
    tokens = torch.randint(0, 5, (3, 87), dtype=torch.uint8)
    found = []
    for size in (1, 3 * 8 * 6 * 4, 2**20):
        monkeypatch.setitem(stem_module.CHUNK_BYTES, "cpu", size)
        out = branch(tokens, None, torch.zeros(3, 8))
        found.append([out, *torch.autograd.grad(out.sum(), list(branch.parameters()))])

    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-4)


def test_padding_is_computed_once_and_changes_nothing() -> None:
    branch = ConvolutionBranch(ModelSpec(family="protein", max_protein=203, pool_size=6, queries_dim=8, dropout=0.0))
    for lengths in ([1, 60, 203], [5, 5, 5], [197, 198, 199]):
        tokens = torch.zeros(3, 203, dtype=torch.uint8)
        for gene, length in enumerate(lengths):
            tokens[gene, :length] = torch.randint(1, 23, (length,))
        found = []
        for told in (lengths, None):
            out = branch(tokens, told, torch.zeros(3, 0))
            found.append([out, *torch.autograd.grad(out.square().sum(), list(branch.parameters()))])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-4)


def test_dropout_drops_as_many_as_it_says_and_keeps_the_mean() -> None:
    for rate in (0.01546, 0.2, 0.9):
        dropped = dropout(torch.ones(1001, 1001), rate)

        assert (dropped == 0).double().mean() == pytest.approx(rate, abs=4 * (rate * (1 - rate)) ** 0.5 / 1001)
        assert dropped.mean() == pytest.approx(1, abs=0.01)
        assert len(dropped.unique()) == 2
    assert not dropout(torch.ones(10), 0.999999).isnan().any()
    by_rows, by_columns = (dropped == 0).double().mean(1), (dropped == 0).double().mean(0)
    assert max(by_rows.std(), by_columns.std()) == pytest.approx((0.9 * 0.1 / 1001) ** 0.5, rel=0.15), "independent"
