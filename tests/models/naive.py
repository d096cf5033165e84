"""Every network written once more, as plainly as possible: float64, loops over positions, genes and heads.

It shares nothing with raystudy.models but the names of the weights, and reads genes as lists of symbols rather than
packed batches. Whatever weights ask for gradients get reference gradients from autograd.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
Options = Mapping[str, Any]
"""The keys of a study file's model section."""
MAX_SYMBOL = {"residue": 22, "codon": 65}


@dataclass(frozen=True)
class Gene:
    """Bases N=0 A=1 T=2 C=3 G=4; residues 1 to 22 or codons 1 to 65, not yet cut; eight standardised features."""

    window: Sequence[int]
    protein: Sequence[int]
    half_life: Sequence[float]


def predict(w: Weights, options: Options, genes: Sequence[Gene], training: bool = False) -> Tensor:
    """[genes, targets]. In training BatchNorm uses the batch's own statistics; there is no dropout."""
    half_life = torch.tensor([gene.half_life for gene in genes], dtype=torch.float64)
    if options["half_life"] == "mlp":
        half_life = linear(w, "half_life.2", gelu(linear(w, "half_life.0", half_life)))
    if options["family"] == "xpresso":
        return xpresso(w, options, genes, half_life)
    queries = query(w, options, genes, half_life, training)
    answers = []
    for gene, features, own_query in zip(genes, half_life, queries, strict=True):
        latents = perceiver(w, options, gene, features)
        asked = own_query[None]
        answer = (asked + cross_attention(w, "head", asked, latents, blocked=[False] * len(latents)))[0]
        if options["latent_summary"]:
            summary = linear(w, "summary.1", layer_norm(w, "summary.0", latents.mean(0)))
            answer = torch.cat([answer, summary])
        answers.append(linear(w, "output", answer))
    return torch.stack(answers)


def perceiver_reads_dna(options: Options) -> bool:
    return bool(
        options["family"] == "dna" or (options["family"] == "dna_protein" and options["perceiver_input"] == "dna")
    )


def convolution_reads_dna(options: Options) -> bool:
    family = options["family"]
    return family in ("dna", "xpresso") or (family == "dna_protein" and options["perceiver_input"] == "protein")


# Layers


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    y = torch.einsum("...i,oi->...o", x, w[f"{name}.weight"])
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def layer_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / ((centred**2).mean(-1, keepdim=True) + 1e-5) ** 0.5
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def softmax(x: Tensor, dim: int) -> Tensor:
    e = torch.exp(x - x.max(dim, keepdim=True).values)
    return e / e.sum(dim, keepdim=True)


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    middle = x.shape[-1] // 2
    return x[..., :middle], x[..., middle:]


# The Perceiver branch, one gene at a time


def attention(q: Tensor, k: Tensor, v: Tensor, blocked: Sequence[bool]) -> Tensor:
    scores = torch.einsum("nd,md->nm", q, k) / q.shape[1] ** 0.5
    scores = scores.masked_fill(torch.tensor(blocked)[None], -torch.inf)
    return torch.einsum("nm,md->nd", softmax(scores, 1), v)


def cross_attention(w: Weights, name: str, queries: Tensor, inputs: Tensor, blocked: Sequence[bool]) -> Tensor:
    q = linear(w, f"{name}.to_q", layer_norm(w, f"{name}.norm_query", queries))
    k, v = halves(linear(w, f"{name}.to_kv", layer_norm(w, f"{name}.norm_input", inputs)))
    assert q.shape[1] == k.shape[1] == 64
    return linear(w, f"{name}.to_out", attention(q, k, v, blocked))


def self_attention(w: Weights, name: str, x: Tensor, latent_dim: int) -> Tensor:
    normed = layer_norm(w, f"{name}.norm", x)
    q = linear(w, f"{name}.to_q", normed)
    k, v = halves(linear(w, f"{name}.to_kv", normed))
    d, heads = latent_dim // 8, []
    for head in range(8):
        own = slice(head * d, (head + 1) * d)
        heads.append(attention(q[:, own], k[:, own], v[:, own], blocked=[False] * len(x)))
    return linear(w, f"{name}.to_out", torch.cat(heads, 1))


def feed_forward(w: Weights, name: str, x: Tensor) -> Tensor:
    value, gate = halves(linear(w, f"{name}.expand", layer_norm(w, f"{name}.norm", x)))
    assert value.shape[1] == 2 * x.shape[1]
    return linear(w, f"{name}.contract", value * gelu(gate))


def perceiver(w: Weights, options: Options, gene: Gene, features: Tensor) -> Tensor:
    """Latents of one gene. The whole padded sequence is read; symbol 0 (pad, N, a 3-mer with N) is masked."""
    dna = perceiver_reads_dna(options)
    symbols = list(gene.window) if dna else padded(gene.protein, options["max_protein"])
    if dna and options["encoder"] == "kmer":
        symbols = kmers(symbols)
    tokens = torch.stack(
        [w["perceiver.embedding.weight"][s] + w["perceiver.positions_LE"][i] for i, s in enumerate(symbols)]
    )
    latents = w["perceiver.latents_ND"]
    if dna and options["half_life"] != "none":
        latents = torch.stack([torch.cat([latent, features]) for latent in latents])
    latents = latents + cross_attention(w, "perceiver.cross", latents, tokens, blocked=[s == 0 for s in symbols])
    latents = latents + feed_forward(w, "perceiver.cross_feed_forward", latents)
    for block in (f"perceiver.blocks.{number}" for number in range(options["depth"])):
        latents = latents + self_attention(w, f"{block}.attention", latents, options["latent_dim"])
        latents = latents + feed_forward(w, f"{block}.feed_forward", latents)
    return latents


def padded(protein: Sequence[int], length: int) -> list[int]:
    return [protein[i] if i < len(protein) else 0 for i in range(length)]


def kmers(window: Sequence[int]) -> list[int]:
    """3-mers at stride 1; 0 where a base is unknown, else 1 to 64."""
    tokens = []
    for first, second, third in zip(window, window[1:], window[2:], strict=False):
        known = 0 not in (first, second, third)
        tokens.append(1 + 16 * (first - 1) + 4 * (second - 1) + (third - 1) if known else 0)
    return tokens


# The convolution branch and Xpresso, all genes of a batch together (BatchNorm looks at all of them); [B, C, L]


def channels(w: Weights, options: Options, genes: Sequence[Gene], stem: str) -> Tensor:
    """What the first convolution reads: one-hot symbols, or the bases' dense embedding."""
    if convolution_reads_dna(options):
        if options["encoder"] == "embedding":
            table = w[f"{stem}.embedding_SE.weight"]
            return torch.stack([torch.stack([table[s] for s in gene.window], 1) for gene in genes])
        wanted, sequences = range(1, 5), [list(gene.window) for gene in genes]
    else:
        wanted = range(MAX_SYMBOL[options["tokens"]] + 1)
        sequences = [padded(gene.protein, options["max_protein"]) for gene in genes]
    onehot = [[[float(symbol == one) for symbol in sequence] for one in wanted] for sequence in sequences]
    return torch.tensor(onehot, dtype=torch.float64)


def convolution(w: Weights, name: str, x: Tensor) -> Tensor:
    """As long as its input; beyond both ends is nothing. An even kernel reaches one further to the right."""
    weight, length = w[f"{name}.weight_OCK"], x.shape[2]
    kernel = weight.shape[2]
    outputs = []
    for position in range(length):
        start = position - (kernel - 1) // 2
        first, last = max(start, 0), min(start + kernel, length)
        taps = weight[:, :, first - start : last - start]
        outputs.append(torch.einsum("bck,ock->bo", x[:, :, first:last], taps) + w[f"{name}.bias_O"])
    return torch.stack(outputs, 2)


def batch_norm(w: Weights, name: str, x: Tensor, training: bool) -> Tensor:
    mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    if training:
        mean = torch.einsum("bcl->c", x) / (x.shape[0] * x.shape[2])
        variance = torch.einsum("bcl->c", (x - mean[:, None]) ** 2) / (x.shape[0] * x.shape[2])
    scaled = (x - mean[:, None]) / (variance[:, None] + 1e-5) ** 0.5
    return scaled * w[f"{name}.weight"][:, None] + w[f"{name}.bias"][:, None]


def norm_activate_convolve(w: Weights, name: str, x: Tensor, training: bool) -> Tensor:
    y = batch_norm(w, f"{name}.norm", x, training)
    return convolution(w, f"{name}.convolution", y / (1 + torch.exp(-1.702 * y)))


def attention_pool(w: Weights, name: str, x: Tensor, size: int) -> Tensor:
    pooled = []
    for start in range(0, x.shape[2] - size + 1, size):
        window = x[:, :, start : start + size]
        logits = torch.einsum("bcp,ce->bep", window, w[f"{name}.mix_CC"])
        pooled.append((window * softmax(logits, 2)).sum(2))
    return torch.stack(pooled, 2)


def query(w: Weights, options: Options, genes: Sequence[Gene], half_life: Tensor, training: bool) -> Tensor:
    blocks, size = "convolution.blocks", options["pool_size"]
    x = channels(w, options, genes, f"{blocks}.0")
    x = convolution(w, f"{blocks}.0.convolution", x)
    x = x + norm_activate_convolve(w, f"{blocks}.1.inner", x, training)
    x = attention_pool(w, f"{blocks}.2", x, size)
    for first in (3, 6):
        x = norm_activate_convolve(w, f"{blocks}.{first}", x, training)
        x = x + norm_activate_convolve(w, f"{blocks}.{first + 1}.inner", x, training)
        x = attention_pool(w, f"{blocks}.{first + 2}", x, size // 2)
    flat = torch.stack([torch.cat([*gene]) for gene in x])
    if convolution_reads_dna(options) and options["half_life"] != "none":
        flat = torch.cat([flat, half_life], 1)
    return linear(w, "convolution.to_query", flat).clamp(min=0)


def max_pool(x: Tensor, size: int) -> Tensor:
    windows = [x[:, :, start : start + size] for start in range(0, x.shape[2] - size + 1, size)]
    return torch.stack([window.amax(2) for window in windows], 2)


def xpresso(w: Weights, options: Options, genes: Sequence[Gene], half_life: Tensor) -> Tensor:
    """Flattened position by position, as Keras does, whose Flatten comes after channels-last layers."""
    x = convolution(w, "stem.convolution", channels(w, options, genes, "stem"))
    x = convolution(w, "convolution", max_pool(x.clamp(min=0), 30))
    x = max_pool(x.clamp(min=0), 10)
    flat = torch.stack([torch.cat([gene[:, position] for position in range(x.shape[2])]) for gene in x])
    if options["half_life"] != "none":
        flat = torch.cat([flat, half_life], 1)
    for layer in ("dense.0", "dense.3"):
        flat = linear(w, layer, flat).clamp(min=0)
    return linear(w, "dense.6", flat)
