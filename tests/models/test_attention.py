from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from raystudy.models import backends
from raystudy.models.attention import CrossAttention, SelfAttention
from raystudy.models.backends import attend, attend_ragged, pad_stretches
from raystudy.models.ragged import GeneByGene

BACKENDS = ["sdpa", "math", "xformers"]


class DocumentedXformers:
    """The two functions of xFormers that are used, as its documentation gives them: [batch, length, heads, width]."""

    fmha = SimpleNamespace()

    class BlockDiagonalMask:
        def __init__(self, q_seqlen: Sequence[int], kv_seqlen: Sequence[int]) -> None:
            blocks = [torch.zeros(q, kv) for q, kv in zip(q_seqlen, kv_seqlen, strict=True)]
            self.bias = torch.block_diag(*[block + 1 for block in blocks]).log()

        from_seqlens = classmethod(lambda cls, q_seqlen, kv_seqlen: cls(q_seqlen, kv_seqlen))

    fmha.BlockDiagonalMask = BlockDiagonalMask

    @staticmethod
    def memory_efficient_attention(
        query: Tensor, key: Tensor, value: Tensor, attn_bias: BlockDiagonalMask | None = None, p: float = 0.0
    ) -> Tensor:
        assert query.ndim == key.ndim == value.ndim == 4
        assert query.shape[0] == key.shape[0]
        scores = torch.einsum("bmhk,bnhk->bhmn", query, key) / query.shape[-1] ** 0.5
        if attn_bias is not None:
            assert query.shape[0] == 1, "genes stand end to end"
            scores = scores + attn_bias.bias
        weights = torch.nn.functional.dropout(scores.softmax(-1), p)
        return torch.einsum("bhmn,bnhk->bmhk", weights, value)


@pytest.fixture(autouse=True)
def _seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(backends, "_xformers", lambda: DocumentedXformers)


def spread(module: nn.Module) -> nn.Module:
    """The module with every parameter away from its start value, in evaluation mode."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module.eval()


def plain(q_Nd: Tensor, k_Md: Tensor, v_Md: Tensor) -> Tensor:
    return (torch.einsum("nd,md->nm", q_Nd, k_Md) / q_Nd.shape[1] ** 0.5).softmax(1) @ v_Md


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_head_of_every_gene_attends_by_itself(backend: str) -> None:
    q, k, v = torch.randn(3, 2, 4, 8), torch.randn(3, 2, 7, 8), torch.randn(3, 2, 7, 8)

    out = attend(q, k, v, 0.0, backend)

    for gene in range(3):
        for head in range(2):
            expected = plain(q[gene, head], k[gene, head], v[gene, head])
            torch.testing.assert_close(out[gene, head], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_genes", [1, 16, 17, 35])
def test_ragged_attention_gives_each_gene_its_own_keys_only(num_genes: int, backend: str) -> None:
    lengths = torch.randint(1, 30, (num_genes,)).tolist()
    q, kv = torch.randn(num_genes, 5, 8), torch.randn(sum(lengths), 16)

    out = attend_ragged(q, kv, lengths, 0.0, backend)

    for gene, own in enumerate(kv.split(lengths)):
        torch.testing.assert_close(out[gene], plain(q[gene], own[:, :8], own[:, 8:]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_genes_keys_have_no_say_whatever_they_hold(backend: str) -> None:
    q, kv = torch.randn(2, 4, 8), torch.randn(7, 16)
    before = attend_ragged(q, kv, [5, 2], 0.0, backend)
    kv[5:, :8], kv[5:, 8:] = 100.0, -1e6

    assert torch.equal(attend_ragged(q, kv, [5, 2], 0.0, backend)[0], before[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_queries_may_be_shared_or_each_genes_own(backend: str) -> None:
    layer = spread(CrossAttention(24, 10, dropout=0.2, ragged=True))
    assert isinstance(layer, CrossAttention)
    layer.backend = backend
    queries, inputs = torch.randn(5, 24), torch.randn(20, 10)

    shared = layer.forward_ragged(queries, inputs, [12, 8])

    torch.testing.assert_close(shared, layer.forward_ragged(queries.expand(2, -1, -1), inputs, [12, 8]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_ragged_attention_over_equal_lengths_is_plain_attention(backend: str) -> None:
    layer = spread(CrossAttention(24, 10, dropout=0.2))
    assert isinstance(layer, CrossAttention)
    layer.backend = backend
    queries, inputs = torch.randn(5, 24), torch.randn(4, 9, 10)

    ragged = layer.forward_ragged(queries, inputs.flatten(0, 1), [9] * 4)

    torch.testing.assert_close(ragged, layer(queries.expand(4, -1, -1), inputs), atol=1e-5, rtol=0)


def test_padding_is_zero_and_known_as_such() -> None:
    packed = torch.arange(1.0, 22).view(7, 3)
    padded, valid = pad_stretches(packed, [2, 4, 1])

    assert valid is not None
    assert valid.tolist() == [[True, True, False, False], [True] * 4, [True, False, False, False]]
    assert torch.equal(padded[valid], packed)
    assert not padded[~valid].any()
    same, everywhere = pad_stretches(packed[:6], [3, 3])
    assert torch.equal(same, packed[:6].view(2, 3, 3))
    assert everywhere is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_self_attention_is_pytorchs_own_multi_head_attention(backend: str) -> None:
    layer = spread(SelfAttention(32, num_heads=8, head_dim=4, dropout=0.2))
    assert isinstance(layer, SelfAttention)
    layer.backend = backend
    theirs = nn.MultiheadAttention(32, 8, batch_first=True).eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.to_q.weight, layer.to_kv.weight]))
        theirs.in_proj_bias.zero_()
        theirs.out_proj.weight.copy_(layer.to_out.weight)
        theirs.out_proj.bias.copy_(layer.to_out.bias)
    x = torch.randn(3, 6, 32)
    normed = layer.norm(x)

    torch.testing.assert_close(layer(x), theirs(normed, normed, normed)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_falls_on_attention_weights_in_training_only(backend: str) -> None:
    cross, own = CrossAttention(24, 10, dropout=0.5, ragged=True), SelfAttention(24, 8, 3, dropout=0.5)
    cross.backend = own.backend = backend
    queries, inputs, x = torch.randn(5, 24), torch.randn(20, 10), torch.randn(2, 5, 24)

    for layer, run in ((cross, lambda: cross.forward_ragged(queries, inputs, [12, 8])), (own, lambda: own(x))):
        assert not torch.equal(run(), run())
        layer.eval()
        assert torch.equal(run(), run())


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_leaves_the_mean_answer(backend: str) -> None:
    q, k, v = torch.randn(1, 1, 4, 8), torch.randn(1, 1, 50, 8), torch.ones(1, 1, 50, 8)

    dropped = torch.stack([attend(q, k, v, 0.2, backend) for _ in range(400)])

    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)
    assert float(dropped.std()) > 0.02


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_attention_gene_by_gene_has_the_gradient_of_what_it_computes(shared: bool, rate: float) -> None:
    lengths = [4, 1, 6]
    q = torch.randn(*([] if shared else [3]), 5, 2, dtype=torch.float64, requires_grad=True)
    kv = torch.randn(11, 4, dtype=torch.float64, requires_grad=True)

    def attended(q: Tensor, kv: Tensor) -> Tensor:
        torch.manual_seed(1)  # the same keys are dropped each time
        return GeneByGene.apply(q, kv, lengths, rate)

    assert torch.autograd.gradcheck(attended, (q, kv))
    assert torch.equal(attended(q, kv), attended(q, kv))
    plainly = attend_ragged(q, kv, lengths, 0.0, "math")
    assert torch.allclose(attended(q, kv), plainly) == (rate == 0)
