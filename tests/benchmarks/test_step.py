"""The naive network is the same function as raystudy's, useful FLOP are those of its products, and the command answers.

What the command measures at full size is in its own table.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
import typer
from torch import Tensor, nn
from typer.testing import CliRunner

from benchmarks import step
from benchmarks.measuring import YEAST_RESIDUES, Ratio, alternate, made_genes, peak_bytes, useful_flops, yeast_lengths
from benchmarks.naive import NaivePerceiver, copy_weights, loader, naive_name
from raystudy.data.batches import StudyData
from raystudy.models.build import build
from raystudy.study.model import ModelSpec

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "window_bp": (300, 200), "max_protein": 300, "num_latents": 8, "latent_dim": 16, "queries_dim": 16, "dropout": 0.0
}  # fmt: skip
IRREGULAR: dict[str, Any] = {
    "window_bp": (211, 136), "max_protein": 97, "num_latents": 5, "latent_dim": 24, "queries_dim": 18, "token_dim": 6,
    "pool_size": 7, "depth": 2, "dropout": 0.0,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "table1, small": {**SMALL, "preset": "table1"},
    "table1, irregular": {**IRREGULAR, "preset": "table1"},
    "through an MLP": {**IRREGULAR, "half_life": "mlp", "half_life_missing": "indicator"},
    "dense input": {**IRREGULAR, "encoder": "embedding", "embedding_dim": 7},
    "codons": {**IRREGULAR, "tokens": "codon"},
    "dna": {**SMALL, "family": "dna"},
    "dna as 3-mers": {**IRREGULAR, "family": "dna", "encoder": "kmer"},
    "protein": {**SMALL, "family": "protein"},
    "dna asked by protein": {**IRREGULAR, "family": "dna_protein", "perceiver_input": "dna", "max_protein": 150},
}


def both(model: ModelSpec, num_targets: int = 2) -> tuple[nn.Module, NaivePerceiver]:
    """The same weights, none of them at its start value."""
    torch.manual_seed(1)
    network = build(model, num_targets)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point():
                tensor.add_(0.2 * torch.randn_like(tensor))
    naive = NaivePerceiver(model, num_targets)
    copy_weights(network, naive)
    return network, naive


def answers(network: nn.Module, naive: NaivePerceiver, data: StudyData) -> tuple[Tensor, Tensor]:
    rows = data.split.train
    (batch,) = loader(data, rows, len(rows))
    return network(data.inputs.batch(rows, CPU)), naive(*batch[:-1])


def assert_near(ours: Tensor, reference: Tensor, name: str, scale: Tensor | None = None) -> None:
    """Nearer than a ten-thousandth of the spread of the reference, or of what else gives its scale."""
    spread = float((reference if scale is None else scale).detach().std())
    assert float((ours - reference).detach().abs().max()) <= 1e-4 * spread, name


@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)
def test_the_naive_network_is_the_same_function(settings: dict[str, Any]) -> None:
    model = ModelSpec(**settings)
    network, naive = both(model)
    longest = model.max_protein
    data = made_genes(model, 5, targets=("protein", "mrna"), lengths=(longest, 1, 17, longest // 2, longest + 40))

    for training in (False, True):
        network.train(training), naive.train(training)
        ours, reference = answers(network, naive, data)
        assert_near(ours, reference, f"training: {training}")
        assert_same_gradients(network, naive, ours, reference)
    statistics = {name: value for name, value in naive.named_buffers() if value.is_floating_point()}
    for name, value in network.named_buffers():
        if value.is_floating_point():
            assert_near(value, statistics[naive_name(name)], name)


def assert_same_gradients(network: nn.Module, naive: NaivePerceiver, ours: Tensor, reference: Tensor) -> None:
    """Of all parameters. Those of most biases in front of BatchNorm vanish: their scale is that of their weights'."""
    network.zero_grad(), naive.zero_grad()
    upstream = torch.linspace(-1, 1, ours.numel()).view_as(ours)
    ours.backward(upstream), reference.backward(upstream)
    expected = {name: value.grad for name, value in naive.named_parameters()}
    assert len(expected) == len(list(network.parameters()))
    for name, value in network.named_parameters():
        same = naive_name(name)
        assert value.grad is not None
        assert_near(
            value.grad,
            expected[same],
            name,
            expected[same.removesuffix("bias") + "weight"] if same.endswith(".bias") else None,
        )


def test_batches_are_those_of_the_naive_loop() -> None:
    model = ModelSpec(**MODELS["table1, small"])
    data = made_genes(model, 5, lengths=(300, 1, 17, 150, 340))

    batches = list(loader(data, data.split.train[1:], 3))

    assert [len(batch[-1]) for batch in batches] == [3, 1]
    onehot, tokens, half_life, labels = batches[0]
    assert onehot.shape == (3, 4, 500)
    assert tokens.shape == (3, 300)
    assert (tokens != 0).sum(1).tolist() == [1, 17, 150]
    windows = torch.from_numpy(data.inputs.windows_NL[1:4])
    assert torch.equal(onehot.argmax(1) + onehot.sum(1), (windows.clamp(min=1) - 1) + (windows > 0))
    assert np.array_equal(half_life, data.inputs.half_life_NH[1:4])
    assert np.array_equal(labels, data.labels[1:4])


def test_a_network_without_perceiver_is_refused() -> None:
    with pytest.raises(ValueError, match="xpresso"):
        NaivePerceiver(ModelSpec(family="xpresso"))


def test_proteins_are_as_long_as_yeasts() -> None:
    lengths = yeast_lengths(8000, np.random.default_rng(0))

    assert np.quantile(lengths, [0.25, 0.5, 0.75]) == pytest.approx([227, 399, 624], abs=1)
    assert YEAST_RESIDUES[0] <= lengths.min() <= lengths.max() <= YEAST_RESIDUES[-1]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["table1, small", "dna asked by protein", "dna"])
def test_useful_flops_are_those_of_the_products_where_nothing_is_padding(name: str, training: bool) -> None:
    """Then the naive network has to make them all, but for the queries that it makes again for every gene."""
    model = ModelSpec(**{**MODELS[name], "pool_size": 4, "window_bp": (200, 200), "max_protein": 240})
    _, naive = both(model, num_targets=1)
    data = made_genes(model, 3, lengths=(240, 240, 240))
    (batch,) = loader(data, data.split.train, 3)

    def once() -> None:
        predicted = naive(*batch[:-1])
        if training:
            predicted.sum().backward()

    again = 0 if model.half_life_joins_latents else 2 * 2 * model.num_latents * model.latent_dim * 64
    expected = step.counted_flops(once) - (3 if training else 1) * again
    assert useful_flops(model, [240, 240, 240], training) == expected


def test_padding_is_of_no_use() -> None:
    model = ModelSpec(**MODELS["protein"])

    assert useful_flops(model, [100, 300]) < useful_flops(model, [300, 300]) == useful_flops(model, [300, 999])


def test_tasks_take_turns_and_their_ratio_is_each_rounds_own() -> None:
    calls: list[str] = []
    found = alternate({name: lambda name=name: calls.append(name) for name in "ab"}, 2, CPU, least_seconds=0)

    assert "".join(calls) == "a" + "b" + "ab" + "ba"
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 2, "b": 2}
    assert Ratio.of([4, 9, 2], [2, 3, 2]) == Ratio(2, 1, 3)


def hold(megabytes: int) -> Any:
    return lambda: torch.ones(megabytes, 250_000).sum()


def test_memory_is_what_the_call_holds_besides_what_stood_before() -> None:
    standing = torch.ones(150, 250_000)  # of this process, not of the one that is measured

    assert 75e6 <= peak_bytes(hold, (80,), CPU) <= 110e6 < standing.nbytes


def test_the_command_answers_with_numbers() -> None:
    app = typer.Typer()
    app.command()(step.main)
    done = CliRunner().invoke(app, ["--small", "--batch", "3", "--rounds", "1", "--json"])

    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    ratios = {"fp32_ratio", "bf16_ratio", "eval_ratio", "eval_fp32_ratio", "memory_ratio", "memory_ratio_bf16"}
    rates = {"genes_per_second", "reached_gflops_fp32", "reached_share_of_peak_fp32", "peak_gflops_bf16"}
    assert ratios | rates <= set(figures)
    assert all(math.isfinite(value) and value >= 0 for value in figures.values())
    assert all(figures[name] > 0 for name in ratios | rates)


@pytest.mark.parametrize("preset", ["xpresso", "table2"])
def test_a_preset_that_has_no_naive_network_is_refused_with_those_that_have(preset: str) -> None:
    app = typer.Typer()
    app.command()(step.main)
    done = CliRunner().invoke(app, ["--small", "--preset", preset])

    assert done.exit_code == 2
    assert "proteinperceiver" in done.output
