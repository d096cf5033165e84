from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from raystudy.data.batches import Inputs
from raystudy.models.build import build, count_parameters
from raystudy.study.spec import ModelSpec
from tests.models import naive

LENGTHS = [40, 1, 17, 33, 5]
WINDOW, MAX_PROTEIN = 300, 40

# The report's Table 1: protein up to 6,000 residues in the Perceiver, 10,500 bp of DNA in the convolution, E=32,
# N=128, Q=128, P=10, latent summary. The last row's printed count (3.47M) cannot be derived from the text.
TABLE_1 = [
    ({}, 1_042_821),
    ({"latent_dim": 16}, 724_741),
    ({"latent_dim": 64}, 811_909),
    ({"latent_dim": 512}, 5_180_805),
    ({"half_life": "mlp"}, 1_042_965),
    ({"encoder": "embedding"}, 1_281_541),
]


@pytest.mark.parametrize(("settings", "parameters"), TABLE_1)
def test_parameters_are_those_of_the_reports_table(settings: dict[str, Any], parameters: int) -> None:
    assert count_parameters(ModelSpec(**settings), 10_500, 6_000) == parameters


def test_the_count_of_an_unbuilt_network_is_that_of_a_built_one() -> None:
    model = small(encoder="embedding", half_life="mlp")

    network = build(model, WINDOW, MAX_PROTEIN)

    built = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert count_parameters(model, WINDOW, MAX_PROTEIN) == built


def small(**settings: Any) -> ModelSpec:
    return ModelSpec(
        **{"latent_dim": 16, "num_latents": 6, "queries_dim": 20, "token_dim": 8, "embedding_dim": 12, **settings}
    )


def made(model: ModelSpec, seed: int = 0, attention: str = "auto") -> nn.Module:
    """A network in which nothing stands at its start value, so that no weight could be left out unseen."""
    torch.manual_seed(seed)
    network = build(model, WINDOW, MAX_PROTEIN, attention)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point():
                tensor.add_(0.1 * torch.randn_like(tensor))
    return network.eval()


def genes(lengths: list[int] = LENGTHS, seed: int = 1) -> Inputs:
    random = np.random.default_rng(seed)
    total = sum(lengths)
    positions = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    return Inputs(
        torch.from_numpy(random.integers(0, 5, (len(lengths), WINDOW), dtype=np.uint8)),
        torch.from_numpy(random.normal(size=(len(lengths), 8)).astype(np.float32)),
        torch.from_numpy(random.integers(1, 23, total).astype(np.int32)),
        torch.from_numpy(positions),
        lengths,
    )


def picked(inputs: Inputs, order: list[int]) -> Inputs:
    """The same genes in another order or company."""
    residues, positions = inputs.residues_T.split(inputs.lengths), inputs.positions_T.split(inputs.lengths)
    return Inputs(
        inputs.window_BL[order],
        inputs.half_life_BH[order],
        torch.cat([residues[gene] for gene in order]),
        torch.cat([positions[gene] for gene in order]),
        [inputs.lengths[gene] for gene in order],
    )


@pytest.mark.parametrize("latent_summary", [True, False])
@pytest.mark.parametrize("half_life", ["concat", "mlp"])
@pytest.mark.parametrize("encoder", ["onehot", "embedding"])
def test_the_network_is_the_function_of_the_paper_written_plainly(
    encoder: str, half_life: str, latent_summary: bool
) -> None:
    model = small(encoder=encoder, half_life=half_life, latent_summary=latent_summary)
    network, inputs = made(model), genes()
    weights = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    proteins = [protein.tolist() for protein in inputs.residues_T.split(inputs.lengths)]

    expected = np.array(
        [
            naive.predict(weights, window.tolist(), features.double().numpy(), protein, model.pool_size)
            for window, features, protein in zip(inputs.window_BL, inputs.half_life_BH, proteins, strict=True)
        ]
    )
    with torch.no_grad():
        predicted = network(inputs).double().numpy()

    assert expected.std() > 0.05
    np.testing.assert_allclose(predicted, expected, atol=1e-5 * expected.std(), rtol=0)


def test_every_weight_takes_part_and_learns() -> None:
    network = made(small(encoder="embedding", half_life="mlp")).train()

    network(genes()).square().sum().backward()

    assert [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_a_genes_prediction_depends_on_neither_order_nor_company() -> None:
    # 40 genes make three groups of padded attention, whose members change with the order.
    lengths = np.random.default_rng(2).integers(1, 41, 40).tolist()
    network, inputs = made(small()), genes(lengths)
    order = np.random.default_rng(3).permutation(40).tolist()
    with torch.no_grad():
        together = network(inputs)
        shuffled = network(picked(inputs, order))
        alone = torch.cat([network(picked(inputs, [gene])) for gene in range(40)])

    torch.testing.assert_close(shuffled, together[order], atol=1e-5, rtol=0)
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


def test_each_input_changes_the_prediction_of_its_gene_only() -> None:
    network, inputs = made(small()), genes()
    with torch.no_grad():
        before = network(inputs)
        for tensor, place in (
            (inputs.window_BL, (2, 150)),
            (inputs.half_life_BH, (2, 7)),
            (inputs.residues_T, (sum(LENGTHS[:2]) + 3,)),
        ):
            kept = tensor[place].clone()
            tensor[place] = 1 + (kept.long() + 1) % 4
            changed = (network(inputs) - before).abs() > 1e-6
            tensor[place] = kept
            assert changed.tolist() == [False, False, True, False, False]


def test_both_attention_backends_are_the_same_function() -> None:
    sdpa, math, inputs = made(small(), attention="sdpa"), made(small(), attention="math"), genes()
    with torch.no_grad():
        torch.testing.assert_close(sdpa(inputs), math(inputs), atol=1e-5, rtol=0)
        assert torch.equal(made(small(), attention="auto")(inputs), sdpa(inputs))


def test_the_batch_is_read_in_any_floating_precision_it_is_run_in() -> None:
    network, inputs = made(small()), genes()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = network(inputs)
    with torch.no_grad():
        full = network(inputs)

    assert (half.float() - full).abs().max() < 0.1 * full.std()
