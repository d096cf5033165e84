from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from raystudy.models.build import build, count_parameters
from raystudy.models.perceiver import PerceiverBranch
from raystudy.study.model import PRESETS, ModelSpec
from tests.models.cases import PRESET_PARAMETERS, READERS, SIZES, make_genes, model_of, packed

TABLE_1 = [
    ({}, 1_042_821),
    ({"latent_dim": 16}, 724_741),
    ({"latent_dim": 64}, 811_909),
    ({"latent_dim": 512}, 5_180_805),
    ({"half_life": "mlp"}, 1_042_965),
    ({"encoder": "embedding"}, 1_281_541),
]


def parameters_of(preset: str, **changes: Any) -> int:
    return count_parameters(ModelSpec(preset=preset, **changes), len(PRESETS[preset].targets))


def test_the_presets_have_the_published_parameters() -> None:
    assert {name: parameters_of(name) for name in PRESETS} == PRESET_PARAMETERS


@pytest.mark.parametrize(("preset", "published"), [("dnaperceiver", 1_089_453), ("dnaperceiver_dual", 1_126_382)])
def test_with_the_position_rows_that_the_published_code_allocates(preset: str, published: int) -> None:
    assert PRESETS[preset].published_position_rows == 20_000
    assert parameters_of(preset, position_rows=20_000) == published


@pytest.mark.parametrize(("changes", "parameters"), TABLE_1)
def test_the_arms_of_the_reports_table_have_its_parameters(changes: dict[str, Any], parameters: int) -> None:
    assert parameters_of("table1", **changes) == parameters
    assert count_parameters(ModelSpec(**changes)) == parameters, "the defaults are the report's baseline"


D = Q = 128
SELF_ATTENTION = 2 * D + 3 * D * D + (D * D + D)
FEED_FORWARD = 2 * D + (D * 4 * D + 4 * D) + (2 * D * D + D)


@pytest.mark.parametrize(
    ("preset", "changes", "more"),
    [
        ("dnaperceiver", {"encoder": "kmer"}, (65 - 5) * 32),
        ("protein_dna", {"encoder": "kmer"}, (65 - 5) * 32),
        ("proteinperceiver", {"tokens": "codon"}, (66 - 23) * 32 + (66 - 23) * 64 * 15),
        ("protein_dna", {"tokens": "codon"}, (66 - 23) * 64 * 15),
        ("table1", {"tokens": "codon"}, (66 - 23) * 32),
        ("table1", {"depth": 2}, SELF_ATTENTION + FEED_FORWARD),
        ("table1", {"latent_summary": False}, -(2 * D + D * Q + Q) - Q),
        ("table1", {"half_life": "none"}, -8 * Q),
        ("dnaperceiver", {"half_life": "mlp"}, 144),
        ("table1", {"half_life_missing": "indicator"}, 8 * Q),
        ("xpresso", {"half_life": "mlp", "half_life_missing": "indicator"}, 8 * 64 + 2 * (16 * 16 + 16)),
        ("xpresso", {"encoder": "embedding"}, 5 * 128 + (128 - 4) * 128 * 6),
        ("xpresso", {"half_life": "mlp"}, 144),
        ("xpresso", {"half_life": "none"}, -8 * 64),
    ],
)
def test_an_option_adds_the_parameters_that_its_formula_says(preset: str, changes: dict[str, Any], more: int) -> None:
    assert parameters_of(preset, **changes) - PRESET_PARAMETERS[preset] == more


@pytest.mark.parametrize("reader", READERS)
def test_the_count_of_an_unbuilt_network_is_that_of_a_built_one(reader: str) -> None:
    model = model_of({"reader": reader})

    network = build(model, num_targets=2)

    assert count_parameters(model, 2) == sum(parameter.numel() for parameter in network.parameters())


def test_dropout_is_where_the_paper_has_it() -> None:
    network = build(ModelSpec(**{**SIZES, "pool_size": 4, "depth": 2, "dropout": 0.3}))

    rates = {name: module.p for name, module in network.named_modules() if isinstance(module, nn.Dropout)}
    attention = {name: module.need.dropout for name, module in network.named_modules() if hasattr(module, "need")}

    blocks = ("perceiver.blocks.0", "perceiver.blocks.1")
    feed_forwards = ["perceiver.cross_feed_forward", *(f"{block}.feed_forward" for block in blocks)]
    assert rates == {
        "perceiver.embedding_dropout": 0.3,
        "convolution.dropout": 0.3,
        **{f"{name}.dropout": 0.3 for name in feed_forwards},
    }
    assert attention == {"perceiver.cross": 0.3, **{f"{block}.attention": 0.3 for block in blocks}, "head": 0.0}


def test_the_half_life_values_join_the_latents_after_their_own() -> None:
    branch = build(model_of({"reader": "dna"})).perceiver
    assert isinstance(branch, PerceiverBranch)

    assert branch.width == SIZES["latent_dim"] + 8
    assert branch.latents_ND.shape == (SIZES["num_latents"], SIZES["latent_dim"])
    assert branch.blocks[0].attention.need.width == SIZES["latent_dim"] // 8, "heads divide D, not D + 8"


def test_a_network_runs_in_training_with_its_dropout() -> None:
    torch.manual_seed(0)
    model = ModelSpec(**{**SIZES, "dropout": 0.5})
    network = build(model)

    inputs = packed(model, make_genes(model))
    assert not torch.equal(network(inputs), network(inputs))
    network.eval()
    assert torch.equal(network(inputs), network(inputs))


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"latent_dim": 20}, ("latent_dim", "8 attention heads", "20")),
        ({"family": "dna", "window_bp": (100, 149)}, ("window of 249", "250", "10 and 5 and 5", "window_bp")),
        ({"family": "protein", "max_protein": 249}, ("protein of 249", "250", "max_protein")),
        ({"family": "xpresso", "window_bp": (299, 0)}, ("window of 299", "300", "30 and 10", "window_bp")),
    ],
)
def test_an_impossible_network_is_refused_with_the_value_and_the_rule(
    settings: dict[str, Any], parts: tuple[str, ...]
) -> None:
    with pytest.raises(ValidationError) as caught:
        ModelSpec(**settings)

    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"family": "dna", "window_bp": (100, 150)},
        {"family": "protein", "max_protein": 250},
        {"family": "xpresso", "window_bp": (200, 100)},
    ],
)
def test_the_smallest_allowed_length_still_gives_one_position(settings: dict[str, Any]) -> None:

    model = ModelSpec(**{"num_latents": 2, "latent_dim": 8, "queries_dim": 4, **settings})
    genes = make_genes(model, lengths=(3, 250))

    assert build(model).eval()(packed(model, genes)).isfinite().all()
