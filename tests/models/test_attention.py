from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raystudy.models.attention import CrossAttention, FeedForward, SelfAttention, attend, pad_stretches


def spread(module: nn.Module) -> nn.Module:
    """The module with every parameter away from its start value, in evaluation mode."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module.eval()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_both_backends_agree_with_and_without_a_mask() -> None:
    q, k, v = torch.randn(3, 2, 4, 8), torch.randn(3, 2, 7, 8), torch.randn(3, 2, 7, 8)
    valid = torch.arange(7)[None] < torch.tensor([[7], [1], [4]])

    for mask in (None, valid):
        sdpa, math = (attend(q, k, v, mask, 0.0, backend) for backend in ("sdpa", "math"))
        torch.testing.assert_close(sdpa, math, atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", ["sdpa", "math"])
def test_a_masked_key_has_no_say_whatever_it_holds(backend: str) -> None:
    q, k, v = torch.randn(1, 1, 4, 8), torch.randn(1, 1, 7, 8), torch.randn(1, 1, 7, 8)
    valid = torch.arange(7)[None] < 5
    before = attend(q, k, v, valid, 0.0, backend)
    k[..., 5:, :], v[..., 5:, :] = 100.0, -1e6

    assert torch.equal(attend(q, k, v, valid, 0.0, backend), before)
    torch.testing.assert_close(before, attend(q, k[..., :5, :], v[..., :5, :], None, 0.0, backend))


@pytest.mark.parametrize("backend", ["sdpa", "math"])
@pytest.mark.parametrize("num_genes", [1, 16, 17, 35])
def test_ragged_attention_is_padded_attention_with_a_mask(num_genes: int, backend: str) -> None:
    lengths = torch.randint(1, 30, (num_genes,)).tolist()
    layer = spread(CrossAttention(24, 10, dropout=0.2, backend=backend))
    assert isinstance(layer, CrossAttention)
    queries, inputs = torch.randn(5, 24), torch.randn(sum(lengths), 10)
    longest = max(lengths)
    padded = torch.full((num_genes, longest, 10), 7.0)
    for gene, own in enumerate(inputs.split(lengths)):
        padded[gene, : len(own)] = own
    blocked = torch.arange(longest)[None] >= torch.tensor(lengths)[:, None]

    q = layer.to_q(layer.norm_query(queries)).expand(num_genes, -1, -1)
    k, v = layer.to_kv(layer.norm_input(padded)).chunk(2, dim=-1)
    scores = torch.einsum("bnd,bmd->bnm", q, k) / 64**0.5
    expected = layer.to_out(scores.masked_fill(blocked[:, None], -1e9).softmax(-1) @ v)

    torch.testing.assert_close(layer.forward_ragged(queries, inputs, lengths), expected, atol=1e-5, rtol=0)


def test_ragged_attention_over_equal_lengths_is_plain_attention() -> None:
    layer = spread(CrossAttention(24, 10, dropout=0.0, backend="sdpa"))
    assert isinstance(layer, CrossAttention)
    queries, inputs = torch.randn(5, 24), torch.randn(4, 9, 10)

    ragged = layer.forward_ragged(queries, inputs.flatten(0, 1), [9] * 4)

    torch.testing.assert_close(ragged, layer(queries.expand(4, -1, -1), inputs), atol=1e-5, rtol=0)


def test_padding_is_zero_and_known_as_such() -> None:
    padded, valid = pad_stretches([torch.ones(2, 3), torch.ones(4, 3), torch.ones(1, 3)])

    assert padded.shape == (3, 4, 3)
    assert valid.tolist() == [[True, True, False, False], [True] * 4, [True, False, False, False]]
    assert torch.equal(padded[..., 0].bool(), valid)


@pytest.mark.parametrize("backend", ["sdpa", "math"])
def test_self_attention_is_pytorchs_own_multi_head_attention(backend: str) -> None:
    layer = spread(SelfAttention(32, num_heads=8, dropout=0.0, backend=backend))
    assert isinstance(layer, SelfAttention)
    theirs = nn.MultiheadAttention(32, 8, batch_first=True).eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.to_q.weight, layer.to_kv.weight]))
        theirs.in_proj_bias.zero_()
        theirs.out_proj.weight.copy_(layer.to_out.weight)
        theirs.out_proj.bias.copy_(layer.to_out.bias)
    x = torch.randn(3, 6, 32)
    normed = layer.norm(x)

    torch.testing.assert_close(layer(x), theirs(normed, normed, normed)[0], atol=1e-5, rtol=0)


def test_the_feed_forward_multiplies_the_first_half_by_the_exact_gelu_of_the_second() -> None:
    layer = spread(FeedForward(6, dropout=0.2))
    assert isinstance(layer, FeedForward)
    x = torch.randn(2, 3, 6)
    wide = layer.expand(F.layer_norm(x, (6,), layer.norm.weight, layer.norm.bias, 1e-5))
    assert wide.shape[-1] == 24
    value, gate = wide[..., :12], wide[..., 12:]
    gelu = gate * 0.5 * (1 + torch.erf(gate / 2**0.5))

    torch.testing.assert_close(layer(x), layer.contract(value * gelu))


@pytest.mark.parametrize("backend", ["sdpa", "math"])
def test_dropout_acts_in_training_and_not_in_evaluation(backend: str) -> None:
    layer = CrossAttention(24, 10, dropout=0.5, backend=backend)
    queries, inputs = torch.randn(5, 24), torch.randn(20, 10)

    def run() -> torch.Tensor:
        return layer.forward_ragged(queries, inputs, [12, 8])

    assert not torch.equal(run(), run())
    layer.eval()
    assert torch.equal(run(), run())
