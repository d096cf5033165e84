"""What the tests of the networks share: a pairwise cover of the options, genes, and networks away from their start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from raystudy.data.batches import GeneInputs, Inputs, cut_proteins
from raystudy.models.build import build
from raystudy.study.model import ModelSpec
from tests.models.naive import MAX_SYMBOL, Gene

WINDOW_BP, MAX_PROTEIN = (180, 120), 40
SIZES: dict[str, Any] = {
    "window_bp": WINDOW_BP, "max_protein": MAX_PROTEIN, "latent_dim": 16, "num_latents": 5, "token_dim": 6,
    "queries_dim": 10, "embedding_dim": 7, "pool_size": 4, "dropout": 0.0,
}  # fmt: skip
PRESET_PARAMETERS = {
    "dnaperceiver": 785_453,
    "dnaperceiver_dual": 822_382,
    "proteinperceiver": 628_093,
    "protein_dna": 723_181,
    "table1": 1_042_821,
    "xpresso": 112_485,
}
READERS: dict[str, dict[str, Any]] = {
    "dna": {"family": "dna"},
    "protein": {"family": "protein"},
    "protein asked by dna": {"family": "dna_protein", "perceiver_input": "protein"},
    "dna asked by protein": {"family": "dna_protein", "perceiver_input": "dna"},
    "xpresso": {"family": "xpresso", "window_bp": (420, 230)},  # two positions after its pooling, and tails
}
CHOICES: dict[str, Sequence[Any]] = {
    "reader": list(READERS),
    "encoder": ["onehot", "embedding", "kmer"],
    "tokens": ["residue", "codon"],
    "half_life": ["concat", "mlp", "none"],
    "latent_summary": [True, False],
    "depth": [1, 2],
    "pool_size": [4, 5],
    "position_rows": [None, 400],
    "num_targets": [1, 2],
}

Case = Mapping[str, Any]
Pair = tuple[tuple[str, Any], tuple[str, Any]]


def allowed() -> list[Case]:
    """Every combination that ModelSpec takes, without the options that its family does not read."""
    found: dict[tuple[tuple[str, Any], ...], Case] = {}
    for values in product(*CHOICES.values()):
        case = dict(zip(CHOICES, values, strict=True))
        unread = model_of({"reader": case["reader"]}).unread
        case = {name: value for name, value in case.items() if name not in unread}
        try:
            model_of(case)
        except ValidationError:
            continue
        found.setdefault(tuple(case.items()), case)
    return list(found.values())


def pairs(case: Case) -> set[Pair]:
    return set(combinations(case.items(), 2))


def pairwise(cases: Sequence[Case]) -> Iterator[Case]:
    """Greedily, few of the cases that together hold every pair of values that stands in any of them."""
    of_case = [pairs(case) for case in cases]
    missing = set().union(*of_case)
    while missing:
        best = max(range(len(cases)), key=lambda number: len(of_case[number] & missing))
        missing -= of_case[best]
        yield cases[best]


def name(case: Case) -> str:
    return " ".join(str(value) if key == "reader" else f"{key}={value}" for key, value in case.items())


def model_of(case: Case) -> ModelSpec:
    settings = {key: value for key, value in case.items() if key not in ("reader", "num_targets")}
    return ModelSpec(**{**SIZES, **READERS[case["reader"]], **settings})


def make_genes(model: ModelSpec, lengths: Sequence[int] = (40, 1, 17, 33, 47, 8), seed: int = 1) -> list[Gene]:
    """Genes of different composition with a tenth of their bases unknown, the first with unknown ends, and one
    protein beyond the maximum."""
    random = np.random.default_rng(seed)
    genes = []
    for number, length in enumerate(lengths):
        window = random.choice([1, 2, 3, 4], sum(model.window_bp), p=random.dirichlet(np.ones(4)))
        window[random.random(len(window)) < 0.1] = 0
        if number == 0:
            window[:20] = window[-7:] = 0
        protein = random.integers(1, MAX_SYMBOL[model.tokens] + 1, length)
        features = random.normal(size=8).astype(np.float32) * (random.random(8) > 0.1)
        genes.append(Gene(window.tolist(), protein.tolist(), features.tolist()))
    return genes


def packed(model: ModelSpec, genes: Sequence[Gene], device: str = "cpu") -> Inputs:
    """The same genes as the networks of raystudy read them, packed by raystudy."""
    tokens = np.concatenate([np.array(gene.protein, np.uint8) for gene in genes])
    offsets = np.cumsum([0, *(len(gene.protein) for gene in genes)])
    windows = np.array([gene.window for gene in genes], np.uint8)
    half_life = np.array([gene.half_life for gene in genes], np.float32)
    inputs = GeneInputs(model, windows, *cut_proteins(tokens, offsets, model.max_protein), half_life)
    return inputs.batch(np.arange(len(genes)), torch.device(device))


def randomised(model: ModelSpec, num_targets: int = 1, backend: str = "math") -> nn.Module:
    """A network in which nothing stands at its start value, so that no weight could be left out unseen."""
    torch.manual_seed(3)
    network = build(model, num_targets)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith("running_mean"):
                tensor.normal_()
            elif tensor.is_floating_point():
                tensor.add_(0.2 * torch.randn_like(tensor))
            if name == "dense.3.weight":
                tensor.abs_()  # so that Xpresso's two units before the last answer to every gene
    return use(network, backend).eval()


def use(network: nn.Module, backend: str) -> nn.Module:
    """Give every attention layer this backend, whatever a probe would say."""
    for module in network.modules():
        if hasattr(module, "need"):
            module.backend = backend
    return network
