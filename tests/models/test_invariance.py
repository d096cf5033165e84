"""What must not change an answer: padding, order, company, the attention backend, and (nearly) the precision."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raystudy.data.batches import Inputs
from tests.models.cases import READERS, Case, make_genes, model_of, name, packed, randomised, use

CASES: list[dict[str, Any]] = [
    *({"reader": reader} for reader in READERS),
    {"reader": "dna", "encoder": "kmer"},
    {"reader": "protein asked by dna", "tokens": "codon", "half_life": "mlp"},
]
PERCEIVERS = [case for case in CASES if case["reader"] != "xpresso"]
LENGTHS = np.random.default_rng(2).integers(1, 41, 40).tolist()
"""40 genes make three groups of padded attention, whose members change with the order."""


def answer(network: nn.Module, inputs: Inputs) -> Tensor:
    with torch.no_grad():
        return network(inputs)


@pytest.mark.parametrize("backend", ["sdpa", "math"])
@pytest.mark.parametrize("case", CASES, ids=name)
def test_a_genes_answer_depends_on_neither_padding_nor_order_nor_company(case: Case, backend: str) -> None:
    model = model_of(case)
    network, genes = randomised(model, backend=backend), make_genes(model, LENGTHS)
    order = np.random.default_rng(3).permutation(len(genes)).tolist()
    together = answer(network, packed(model, genes))
    shuffled = answer(network, packed(model, [genes[number] for number in order]))
    alone = torch.cat([answer(network, packed(model, [gene])) for gene in genes])
    in_pairs = torch.cat([answer(network, packed(model, [gene, genes[0]]))[:1] for gene in genes])

    allowed = 1e-5 * float(together.std())
    torch.testing.assert_close(shuffled, together[order], atol=allowed, rtol=0)
    torch.testing.assert_close(alone, together, atol=allowed, rtol=0)
    torch.testing.assert_close(in_pairs, together, atol=allowed, rtol=0)


@pytest.mark.parametrize("case", PERCEIVERS, ids=name)
def test_sdpa_and_math_are_the_same_function(case: Case) -> None:
    model = model_of(case)
    network, inputs = randomised(model), packed(model, make_genes(model, LENGTHS))
    math, sdpa = answer(use(network, "math"), inputs), answer(use(network, "sdpa"), inputs)

    torch.testing.assert_close(sdpa, math, atol=1e-5 * float(math.std()), rtol=0)


@pytest.mark.parametrize("backend", ["sdpa", "math"])
@pytest.mark.parametrize("case", CASES, ids=name)
def test_bfloat16_is_right_within_its_own_error(case: Case, backend: str) -> None:
    """Rounding the weights alone to bfloat16 shows what its 8 bits cost at least."""
    model = model_of(case)
    network, inputs = randomised(model, backend=backend), packed(model, make_genes(model, LENGTHS))
    rounded = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.bfloat16())
    full = answer(network, inputs)
    own_error = rms(answer(rounded, inputs) - full)
    with torch.autocast("cpu", torch.bfloat16):
        half = answer(network, inputs)

    error = rms(half.float() - full)
    assert 0 < error < 5 * own_error
    assert error < 0.1 * float(full.std())


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-3), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("case", PERCEIVERS, ids=name)
def test_xformers_is_the_same_function_as_sdpa(case: Case, dtype: torch.dtype, allowed: float) -> None:
    if not torch.cuda.is_available():
        pytest.skip("xFormers computes on a CUDA device only, and there is none here")
    pytest.importorskip("xformers.ops", reason="xFormers is not installed; install raystudy[gpu]")
    model = model_of({**case, "latent_dim": 64})  # 8 heads of 8, the narrowest that its kernels take in bfloat16
    network, inputs = randomised(model).cuda(), packed(model, make_genes(model, LENGTHS), "cuda")
    with torch.autocast("cuda", torch.bfloat16, enabled=dtype is torch.bfloat16):
        sdpa, xformers = answer(use(network, "sdpa"), inputs), answer(use(network, "xformers"), inputs)

    assert rms(xformers.float() - sdpa.float()) < allowed * float(sdpa.float().std())
