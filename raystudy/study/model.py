"""The network's and the training's keys: what they mean, their rules, and the published networks by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from raystudy.errors import SpecError

LATENT_HEADS = 8
XPRESSO_POOLS = (30, 10)

Target = Literal["protein", "mrna", "mrna_half_life"]
Tokens = Literal["base", "kmer", "residue", "codon"]
"""What one symbol of a branch's input is."""
Input = Literal["dna", "half_life", "protein", "codon"]
"""What is known of a gene; baselines count the same ones that the networks read."""


class Section(BaseModel):
    """Part of a study file: unknown keys are refused, nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
    came_later: ClassVar[frozenset[str]] = frozenset()
    """Keys that are written only where they are not the default, so that hashes stay what they were before them."""

    @model_serializer(mode="wrap")
    def _without_defaults_that_came_later(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = written(self)
        for key in self.came_later:
            if key in found and found[key] == type(self).model_fields[key].default:
                del found[key]
        return found


@dataclass(frozen=True)
class Preset:
    """A published network: its settings, the targets that it was published for, and where."""

    settings: Mapping[str, Any]
    targets: tuple[Target, ...]
    source: str
    published_position_rows: int | None = None
    """Rows that the published code allocates for positions, where they are more than can be read."""


_DEPTH_1 = {"num_latents": 128, "latent_dim": 128, "depth": 1, "token_dim": 32, "dropout": 0.2, "half_life": "concat"}
_PUBLISHED = {**_DEPTH_1, "queries_dim": 64, "pool_size": 10, "latent_summary": False}
_STEFANINI = "Stefanini et al. 2023"
PRESETS: dict[str, Preset] = {
    "dnaperceiver": Preset(
        {**_PUBLISHED, "family": "dna", "window_bp": (7000, 3500), "pool_size": 12}, ("mrna",), _STEFANINI, 20_000
    ),
    "dnaperceiver_dual": Preset(
        {**_PUBLISHED, "family": "dna", "window_bp": (7000, 3500)}, ("mrna", "protein"), _STEFANINI, 20_000
    ),
    "proteinperceiver": Preset(
        {**_PUBLISHED, "family": "protein", "max_protein": 6000, "half_life": "none"}, ("protein",), _STEFANINI
    ),
    "protein_dna": Preset(
        {
            **_PUBLISHED,
            "family": "dna_protein",
            "perceiver_input": "dna",
            "window_bp": (5000, 3000),
            "max_protein": 6000,
        },
        ("protein",),
        _STEFANINI,
    ),
    "table1": Preset(
        {
            **_DEPTH_1,
            "family": "dna_protein",
            "perceiver_input": "protein",
            "window_bp": (7000, 3500),
            "max_protein": 6000,
            "queries_dim": 128,
            "pool_size": 10,
            "latent_summary": True,
        },
        ("protein",),
        "the follow-up report, Table 1",
    ),
    "xpresso": Preset({"family": "xpresso", "window_bp": (7000, 3500)}, ("mrna",), "Agarwal & Shendure 2020"),
}

_PERCEIVER_KEYS = {
    "perceiver_input", "latent_dim", "num_latents", "depth", "token_dim", "queries_dim", "pool_size",
    "latent_summary", "dropout", "position_rows",
}  # fmt: skip
_UNREAD: dict[str, set[str]] = {
    "dna": {"perceiver_input", "tokens", "max_protein"},
    "protein": {"perceiver_input", "window_bp", "encoder", "embedding_dim", "half_life", "half_life_missing"},
    "dna_protein": set(),
    "xpresso": {*_PERCEIVER_KEYS, "tokens", "max_protein"},
}


class ModelSpec(Section):
    """The network. Shapes: N latents of width D, token width E, query width Q, pool size P."""

    came_later = frozenset({"half_life_missing"})
    preset: str | None = None
    """A published network by name, whose settings hold where nothing else is said."""
    family: Literal["dna", "protein", "dna_protein", "xpresso"] = "dna_protein"
    """What is read: a DNA window, a protein, both, or a DNA window by the Xpresso CNN."""
    perceiver_input: Literal["protein", "dna"] = "protein"
    """Which of the two the Perceiver branch of ``dna_protein`` reads; the convolution reads the other."""
    window_bp: tuple[int, int] = (7000, 3500)
    """Bases before and from the anchor; the study's `data.window_bp` unless said."""
    max_protein: int = Field(6000, ge=1)
    """Residues after which a protein is cut; the study's `data.max_protein` unless said."""
    encoder: Literal["onehot", "embedding", "kmer"] = "onehot"
    """How the DNA window enters: one-hot, as a dense embedding in front of the convolution (computed folded, a
    reparameterisation), or as 3-mers where the Perceiver reads it."""
    embedding_dim: int = Field(128, ge=1)
    """Width of that dense embedding."""
    tokens: Literal["residue", "codon"] = "residue"
    """How a protein is read: its residues, or the codons of its spliced coding sequence."""
    half_life: Literal["concat", "mlp", "none"] = "concat"
    """How the eight half-life features join: as they are, through a two-layer MLP, or not at all."""
    half_life_missing: Literal["mean", "indicator"] = "mean"
    """A missing feature stands at the training genes' mean; `indicator` gives eight more that say which are missing."""
    latent_dim: int = Field(128, ge=LATENT_HEADS)
    """D, a multiple of the attention heads."""
    num_latents: int = Field(128, ge=1)
    """N."""
    depth: int = Field(1, ge=1)
    """Latent self-attention blocks after the one cross-attention to the tokens."""
    token_dim: int = Field(32, ge=2, multiple_of=2)
    """E, of the Perceiver's tokens and of their positions."""
    queries_dim: int = Field(128, ge=2, multiple_of=2)
    """Q, of the convolution and of the one query that it makes."""
    pool_size: int = Field(10, ge=2)
    """P; the first pooling is by it, the two after by half of it."""
    latent_summary: bool = True
    """Does the mean of the latents join the answer before the output?"""
    dropout: float = Field(0.2, ge=0, lt=1)
    """On token embeddings, attention weights, feed-forwards and the query."""
    position_rows: int | None = Field(None, ge=1)
    """Rows of the learned position table; null is as many as the Perceiver's input can have symbols."""

    @model_validator(mode="wrap")
    @classmethod
    def _filled(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Fill in the preset and what the family decides; only what was given counts as set."""
        if not isinstance(given, dict):
            return handler(given)
        name = given.get("preset")
        if name is not None and (not isinstance(name, str) or name not in PRESETS):
            raise ValueError(f"`preset` is one of {', '.join(PRESETS)}, but got {name!r}")
        settings = {**(PRESETS[name].settings if name else {}), **given}
        if settings.get("family") == "protein" and "half_life" not in given:
            settings["half_life"] = "none"
        spec = handler(settings)
        spec.model_fields_set.intersection_update(given)
        return spec

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.latent_dim % LATENT_HEADS:
            raise ValueError(
                f"`latent_dim` must be a multiple of its {LATENT_HEADS} attention heads, but got {self.latent_dim}"
            )
        if min(self.window_bp) < 0 or sum(self.window_bp) == 0:
            raise ValueError(f"`window_bp` is [bases up, bases down], none negative, but got {list(self.window_bp)}")
        if self.encoder == "embedding" and self.convolution_reads != "base":
            raise ValueError(f"`encoder: embedding` needs DNA in the convolution, but {self._who} has a protein there")
        if self.encoder == "kmer" and self.perceiver_reads != "kmer":
            raise ValueError(f"`encoder: kmer` needs DNA in the Perceiver branch, but {self._who} has none there")
        if self.tokens == "codon" and "codon" not in (self.perceiver_reads, self.convolution_reads):
            raise ValueError(f"`tokens: codon` needs a protein to read, but {self._who} reads none")
        if self.family == "protein" and self.half_life != "none":
            raise ValueError(f"{self._who} reads no half-life features; remove `half_life: {self.half_life}`")
        if self.convolution_length < self.smallest_length:
            window = self.convolution_reads == "base"
            what, unit, key = ("window", "bp", "window_bp") if window else ("protein", "residues", "max_protein")
            raise ValueError(
                f"a {what} of {self.convolution_length} {unit} is shorter than the {self.smallest_length} that pooling "
                f"by {' and '.join(map(str, self.pools))} needs; raise `{key}`"
                + ("" if "pool_size" in self.unread else " or lower `pool_size`")
            )
        read = self.perceiver_reads is not None
        if read and self.position_rows is not None and self.position_rows < self.perceiver_length:
            raise ValueError(
                f"`position_rows` must reach the {self.perceiver_length} symbols that are read, "
                f"but got {self.position_rows}"
            )
        return self

    @property
    def _who(self) -> str:
        reads = f" with `perceiver_input: {self.perceiver_input}`" if self.family == "dna_protein" else ""
        return f"family `{self.family}`{reads}"

    @property
    def unread(self) -> set[str]:
        """Keys that mean nothing to this network."""
        unread = _UNREAD[self.family] | (set() if self.encoder == "embedding" else {"embedding_dim"})
        return unread | ({"half_life_missing"} if self.half_life == "none" else set())

    @property
    def perceiver_reads(self) -> Tokens | None:
        """The Perceiver branch's symbols; None where there is no such branch."""
        if self.family == "xpresso":
            return None
        if self.family == "dna" or (self.family == "dna_protein" and self.perceiver_input == "dna"):
            return "kmer" if self.encoder == "kmer" else "base"
        return self.tokens

    @property
    def convolution_reads(self) -> Tokens:
        """The convolution branch's symbols."""
        if self.family == "protein" or (self.family == "dna_protein" and self.perceiver_input == "dna"):
            return self.tokens
        return "base"

    @property
    def perceiver_length(self) -> int:
        """The most symbols that the Perceiver branch reads; a window's 3-mers are counted as its bases."""
        return self.max_protein if self.perceiver_reads in ("residue", "codon") else sum(self.window_bp)

    @property
    def convolution_length(self) -> int:
        return sum(self.window_bp) if self.convolution_reads == "base" else self.max_protein

    @property
    def pools(self) -> tuple[int, ...]:
        """Positions that become one, pooling after pooling."""
        if self.family == "xpresso":
            return XPRESSO_POOLS
        return (self.pool_size, self.pool_size // 2, self.pool_size // 2)

    @property
    def smallest_length(self) -> int:
        """Positions below which nothing is left after the poolings."""
        smallest = 1
        for pool in self.pools:
            smallest *= pool
        return smallest

    @property
    def reading(self) -> tuple[Any, ...]:
        """What decides how a gene is read; networks that agree in it can share their inputs."""
        half_life = None if self.half_life == "none" else self.half_life_missing
        how = (self.perceiver_reads, self.convolution_reads, half_life)
        return (*how, *(() if "window_bp" in self.unread else self.window_bp), self.max_protein)

    @property
    def half_life_joins_latents(self) -> bool:
        return self.half_life != "none" and self.perceiver_reads in ("base", "kmer")

    @property
    def half_life_joins_query(self) -> bool:
        return self.half_life != "none" and self.convolution_reads == "base"

    @property
    def inputs(self) -> frozenset[Input]:
        """What the network reads of a gene."""
        found: set[Input] = {"half_life"} if self.half_life != "none" else set()
        for tokens in (self.perceiver_reads, self.convolution_reads):
            if tokens in ("base", "kmer"):
                found.add("dna")
            elif tokens is not None:
                found.add("protein" if tokens == "residue" else "codon")
        return frozenset(found)


class TrainingSpec(Section):
    """How one configuration is trained, with the mean squared error of the standardised labels."""

    came_later = frozenset({"deterministic"})
    epochs: int = Field(8, ge=1)
    """Passes over the training genes, at most."""
    patience: int | None = Field(None, ge=1)
    """Epochs without a better validation R2 after which a training ends; null goes through them all."""
    batch_size: int = Field(64, ge=2)
    """Genes a worker sees in one step."""
    learning_rate: float = Field(1e-3, gt=0, lt=1)
    """At its peak."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """``adam`` adds the weight decay to the gradient, as Stefanini et al. did; ``sgd`` has Xpresso's momentum, 0.9."""
    schedule: Literal["cosine", "constant", "transformer"] = "cosine"
    """Of the learning rate: a rise and half a cosine down, a rise and no fall, or that of Vaswani et al. 2017 with a
    rise of 8,000 steps, whose rate `learning_rate` has no part in."""
    weight_decay: float = Field(0.02, ge=0)
    """The optimizer's."""
    warmup: float = Field(0.15, ge=0, lt=1)
    """Share of all steps in which the learning rate rises to its peak."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """``auto`` is bf16 where the processor computes in it, else fp32; what ran is recorded."""
    attention: Literal["auto", "sdpa", "math", "xformers"] = "auto"
    """How attention is computed; ``auto`` is, layer by layer, what a probe found right and fastest."""
    sync_batchnorm: bool = False
    """Does BatchNorm look at the genes of all workers? Else each worker normalises with its own, as was published."""
    deterministic: bool = False
    """Must the same training on the same kind of machine give the same numbers to the last digit? Then only algorithms
    are used that promise it, and attention is not chosen by speed."""


def configure(flat: Mapping[str, Any]) -> tuple[ModelSpec, TrainingSpec]:
    """A flat configuration (as the records keep it) as its two validated halves.

    Raises SpecError for a key that neither half has, pydantic's ValidationError for a value outside its rule.
    """
    for key in flat:
        if key not in ModelSpec.model_fields and key not in TrainingSpec.model_fields:
            raise SpecError(
                f"unknown parameter `{key}`{nearest(key, [*ModelSpec.model_fields, *TrainingSpec.model_fields])}"
            )
    return (
        ModelSpec(**{key: value for key, value in flat.items() if key in ModelSpec.model_fields}),
        TrainingSpec(**{key: value for key, value in flat.items() if key in TrainingSpec.model_fields}),
    )


def nearest(word: str, known: list[str]) -> str:
    """The end of a message: the known word most like this one, or all of them."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f", did you mean `{near[0]}`?" if near else f"; known are {', '.join(sorted(known))}"
