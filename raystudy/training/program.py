"""A trained model as a PyTorch program of one gene, where it computes the same as the model itself.

Shapes: L positions of the convolution branch, H half-life features, T tokens of the Perceiver branch, K targets.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from raystudy.data.batches import Floats, GeneInputs, Inputs, half_life_values
from raystudy.data.encode import CODON_UNKNOWN, DNA_SYMBOLS, HALF_LIFE_FEATURES, NUM_SYMBOLS, PROTEIN_SYMBOLS
from raystudy.errors import RaystudyError
from raystudy.models.attention import CrossAttention, SelfAttention
from raystudy.models.network import ExpressionNetwork
from raystudy.training.loop import predict
from raystudy.training.session import LocalSession
from raystudy.training.trained import TrainedModel

TOLERANCE = 1e-5
"""The largest difference to the model itself, in standard deviations of the training labels."""
SYMBOLS = {
    "base": f"bases, numbered as they stand in {DNA_SYMBOLS} from 0",
    "kmer": "3-mers, 1 + 16a + 4b + c for bases numbered as in ATCG from 0",
    "residue": f"amino acids, numbered as they stand in {PROTEIN_SYMBOLS} from 0",
    "codon": f"codons, 1 + 16a + 4b + c for bases numbered as in ATCG from 0, and {CODON_UNKNOWN} where one is unknown",
}
ARGUMENTS = {
    "sequence": "uint8 [1, {length}]: what the convolution reads, as {symbols}; 0 where unknown or behind a protein",
    "half_life": "float32 [1, 8]: the half-life features, raw, NaN where missing",
    "tokens": "int32 [T]: what the Perceiver reads, as {read}, without those that are 0; T from {least} to {most}",
    "positions": "int32 [T]: where each of them stands in the gene's window or protein, from 0",
}


class NoProgram(RaystudyError):
    """A model cannot be written as a program that computes the same."""


class OneGene(nn.Module):
    """The mean over members as a function of one gene's tensors; float64 [1, K] in the labels' own units."""

    def __init__(self, members: Sequence[TrainedModel]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(_for_one_gene(member.network) for member in members)
        self.scales = [_scales(member) for member in members]

    def forward(self, sequence: Tensor, half_life: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
        levels = list[Tensor]()
        for network, (mean_H, factor_H, mean_K, std_K) in zip(self.networks, self.scales, strict=True):
            marked = torch.cat([half_life, half_life.isnan()], dim=1) if len(mean_H) > half_life.shape[1] else half_life
            scaled = torch.nan_to_num((marked.double() - mean_H) * factor_H, nan=0.0).float()
            # How many tokens there are is a symbol here, which a list of lengths cannot hold.
            standardised = network(Inputs(sequence, scaled, tokens, positions, lengths=[0]))
            levels.append(standardised.double() * std_K + mean_K)
        return torch.stack(levels).mean(dim=0)


def describe_arguments(member: TrainedModel) -> dict[str, str]:
    """What the program takes, by the name of the argument, in their order."""
    model = member.model
    sequence = {"length": model.convolution_length, "symbols": SYMBOLS[model.convolution_reads]}
    if model.perceiver_reads is None:
        nothing = dict.fromkeys(("tokens", "positions"), "int32 [0]: not read")
        return {name: text.format(**sequence) for name, text in ARGUMENTS.items() if name not in nothing} | nothing
    tokens = {"read": SYMBOLS[model.perceiver_reads], "least": 1, "most": model.perceiver_length}
    return {name: text.format(**sequence, **tokens) for name, text in ARGUMENTS.items()}


def write_program(members: Sequence[TrainedModel], path: Path) -> float:
    """Write the mean of members as ``torch.export``'s program and return its largest difference to them.

    It computes in float32 on the CPU, as do the members that it is held against: on genes of random sequence, from
    one symbol to as many as are read. Nothing in the file is pickled. Raises NoProgram, with the reason, where
    tracing fails or the difference is above ``TOLERANCE``.
    """
    model = members[0].model
    inputs, features_NH = _random_genes(members[0])
    arguments = [_arguments(inputs, features_NH, row) for row in range(inputs.num_genes)]
    dynamic = torch.export.Dim("T", min=1, max=model.perceiver_length) if model.perceiver_reads else None
    length = {0: dynamic} if dynamic is not None else {}
    try:
        with torch.no_grad():
            program = torch.export.export(
                OneGene(members).eval(), arguments[0], dynamic_shapes=({}, {}, length, length), strict=False
            )
            computed = torch.cat([program.module()(*one) for one in arguments]).numpy()
    except Exception as error:  # whatever tracing and its compilers raise
        raise NoProgram(f"torch.export failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from None
    differences = np.abs(computed - _expected(members, inputs, features_NH)) / members[0].label_scale.std
    if not differences.max() <= TOLERANCE:
        raise NoProgram(f"the program differs by {differences.max():.2g} standard deviations; {TOLERANCE:g} is allowed")
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names this machine's folders
    program.example_inputs = None  # they would be pickled
    torch.export.save(program, path)
    return float(differences.max())


def _for_one_gene(network: ExpressionNetwork) -> ExpressionNetwork:
    """A copy on the CPU whose attention is PyTorch's own and asks nothing of how many tokens there are."""
    copied = _with_attention(network, "sdpa")
    for layer in copied.modules():
        if isinstance(layer, CrossAttention) and layer.need.ragged:
            setattr(layer, "forward_ragged", partial(_whole_stretch, layer))  # noqa: B010 (a method, to mypy)
    return copied


def _whole_stretch(layer: CrossAttention, queries: Tensor, tokens_TE: Tensor, _: list[int]) -> Tensor:
    """`CrossAttention.forward_ragged` of one gene, whose stretch is all of the tokens."""
    return layer(queries if queries.ndim == 3 else queries[None], tokens_TE[None])


def _with_attention(network: ExpressionNetwork, backend: str) -> ExpressionNetwork:
    """A copy on the CPU whose attention is computed so."""
    copied = copy.deepcopy(network).cpu().eval()
    for layer in copied.modules():
        if isinstance(layer, CrossAttention | SelfAttention):
            layer.backend = backend
    return copied


def _scales(member: TrainedModel) -> tuple[Tensor, ...]:
    features, labels = member.feature_scale, member.label_scale
    return tuple(torch.from_numpy(values) for values in (features.mean, features.factor, labels.mean, labels.std))


def _arguments(inputs: GeneInputs, features_NH: Floats, row: int) -> tuple[Tensor, ...]:
    gene = inputs.batch(np.array([row]), torch.device("cpu"))
    return gene.sequence_BL, torch.from_numpy(features_NH[[row]]), gene.tokens_T, gene.positions_T


def _expected(members: Sequence[TrainedModel], inputs: GeneInputs, features_NH: Floats) -> npt.NDArray[np.float64]:
    """What the members say of all genes in one batch, by the path of every other prediction; [n, K]."""
    session, levels = LocalSession(Path(), device="cpu"), []
    for member in members:
        network = _with_attention(member.network, "math")
        own = replace(inputs, half_life_NH=member.feature_scale.apply(half_life_values(features_NH, member.model)))
        standardised = predict(network, own, np.arange(inputs.num_genes), session, bf16=False)
        levels.append(member.label_scale.to_unit(standardised))
    return np.mean(levels, axis=0)


def _random_genes(member: TrainedModel) -> tuple[GeneInputs, Floats]:
    """Genes of all lengths that the network reads, the longest first, and their raw half-life features."""
    model, random = member.model, np.random.default_rng(0)
    shares = np.array([1.0, 0.0, 0.02, 0.4, 0.8])
    window = sum(model.window_bp)
    known = np.maximum(3, (shares * window).astype(int))  # a 3-mer needs three bases
    windows = random.integers(1, NUM_SYMBOLS["base"], (len(shares), window), dtype=np.uint8)
    windows[np.arange(window) >= known[:, None]] = 0
    lengths = np.maximum(1, (shares * model.max_protein).astype(int))
    proteins = random.integers(1, NUM_SYMBOLS[model.tokens], lengths.sum(), dtype=np.uint8)
    features = random.normal(size=(len(shares), HALF_LIFE_FEATURES)).astype(np.float32)
    features = (features + member.feature_scale.mean[:HALF_LIFE_FEATURES]).astype(np.float32)
    features[-1, 0] = np.nan
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    half_life = member.feature_scale.apply(half_life_values(features, model))
    return GeneInputs(model, windows, proteins, offsets, half_life), features
