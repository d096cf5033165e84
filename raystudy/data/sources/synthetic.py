"""Genomes from a seed whose expression is a known function of their sequence: for tests, simulation, demos.

Half of the protein level's signal comes from the protein (its amino acids), half from the mRNA level's signal,
which comes from motifs before the start codon and from the G+C content of the CDS. Noise is added so that the
best possible R2 is known. Some proteins have mutated copies elsewhere in the genome, and many windows overlap
their neighbours', as in real genomes: a split that ignores either leaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from Bio.Data.CodonTable import standard_dna_table
from numpy.typing import NDArray

from raystudy.data.encode import (
    DNA_SYMBOLS,
    FEATURES,
    PROTEIN_SYMBOLS,
    Tokens,
    composition,
    cut_window,
    half_life_features,
    reverse_complement,
    tokenize_dna,
    tokenize_protein,
)
from raystudy.data.genes import GeneTable, Target
from raystudy.data.homology import families
from raystudy.errors import SpecError

MOTIF_EFFECTS = {"TATAAA": 1.0, "CACGTG": 0.7, "GGCGCC": -1.0}  # per copy in the promoter
RESIDUE_EFFECTS = {"A": 1.0, "G": 1.0, "K": 1.0, "V": 1.0, "L": -1.0, "N": -1.0, "S": -1.0, "C": -1.0}
PROMOTER_BP = 300
COMPOSITION_DIMENSION = 3

_CEILING_R2 = 0.8
_AMINO_ACIDS = PROTEIN_SYMBOLS[1:21]
_CODONS = {
    residue: np.stack(
        [tokenize_dna(codon) for codon, coded in standard_dna_table.forward_table.items() if coded == residue]
    )
    for residue in _AMINO_ACIDS
}


@dataclass(frozen=True)
class _Gene:
    """A gene read in its own direction: ``promoter`` ends with the 5'UTR, exons and introns alternate."""

    protein: str
    promoter: Tokens
    utr5_bp: int
    exons: tuple[Tokens, ...]
    introns: tuple[Tokens, ...]
    utr3: Tokens

    @property
    def cds(self) -> Tokens:
        return np.concatenate(self.exons)

    @property
    def body(self) -> Tokens:
        """Start codon to stop codon as it lies on the chromosome."""
        pieces = [self.exons[0]]
        for intron, exon in zip(self.introns, self.exons[1:], strict=True):
            pieces += [intron, exon]
        return np.concatenate(pieces)

    def features(self) -> NDArray[np.float32]:
        return half_life_features(
            self.cds,
            utr5=self.promoter[len(self.promoter) - self.utr5_bp :],
            utr3=self.utr3,
            intron_bp=sum(map(len, self.introns)),
            num_junctions=len(self.introns),
        )


@dataclass(frozen=True)
class _Locus:
    """Where a gene came to lie; ``start`` and ``end`` of the CDS are 1-based and inclusive."""

    gene: _Gene
    chrom: str
    start: int
    end: int
    strand: str

    @property
    def first_base(self) -> int:
        return (self.start if self.strand == "+" else self.end) - 1


def build(
    seed: int = 0, num_genes: int = 400, num_chromosomes: int = 6, window_bp: tuple[int, int] = (600, 300)
) -> GeneTable:
    """A genome of ``num_genes`` genes with targets ``mrna`` and ``protein``; the same seed, the same table.

    ``window_bp`` (upstream, downstream of the start codon) is what is stored. ``notes`` hold each target's
    ``noise_ceiling_r2``, the R2 of the true function on these genes, and ``composition_dimension``, how many
    latent factors the expected amino-acid composition varies along (residues are then drawn from it, which
    adds sampling noise). About one gene in 20 has no mRNA level. Raises SpecError for impossible sizes.
    """
    if not 1 <= num_chromosomes <= num_genes or min(window_bp) < 0 or sum(window_bp) == 0:
        raise SpecError(
            f"`1 <= num_chromosomes <= num_genes` and a window of at least 1 bp must hold, but got "
            f"num_chromosomes={num_chromosomes}, num_genes={num_genes}, window_bp={list(window_bp)}. "
            f"Choose sizes that fit."
        )
    rng = np.random.default_rng(seed)
    genes = [_gene(rng, protein) for protein in _proteins(rng, num_genes)]
    chromosomes, loci = _assemble(rng, genes, num_chromosomes)
    genes = [locus.gene for locus in loci]
    tokens = [tokenize_protein(gene.protein) for gene in genes]
    offsets = np.concatenate([[0], np.cumsum([len(protein) for protein in tokens])])
    features = np.stack([gene.features() for gene in genes])
    signals = _signals(genes, composition(np.concatenate(tokens), offsets), features)
    targets, ceilings = _measure(rng, signals)
    return GeneTable(
        source="synthetic",
        source_digests={},
        anchor=window_bp[0],
        gene_ids=[f"SYN{number:05d}" for number in range(num_genes)],
        symbols=[""] * num_genes,
        chroms=[locus.chrom for locus in loci],
        starts=np.array([locus.start for locus in loci]),
        ends=np.array([locus.end for locus in loci]),
        strands=[locus.strand for locus in loci],
        windows=np.stack(
            [cut_window(chromosomes[locus.chrom], locus.first_base, locus.strand, window_bp) for locus in loci]
        ),
        proteins=[gene.protein for gene in genes],
        cds=[_text(gene.cds) for gene in genes],
        features=features,
        targets=targets,
        family_ids=families(np.concatenate(tokens), offsets),
        notes={"seed": seed, "noise_ceiling_r2": ceilings, "composition_dimension": COMPOSITION_DIMENSION},
    )


def _proteins(rng: np.random.Generator, num_genes: int) -> list[str]:
    """Proteins of 40-200 residues in random order; about four in ten are copies or have them."""
    loadings = rng.normal(0, 0.6, (COMPOSITION_DIMENSION, len(_AMINO_ACIDS)))
    proteins: list[str] = []
    while len(proteins) < num_genes:
        weights = np.exp(rng.normal(size=COMPOSITION_DIMENSION) @ loadings)
        length = int(rng.integers(40, 201))
        original = "M" + "".join(rng.choice(list(_AMINO_ACIDS), length - 1, p=weights / weights.sum()))
        num_copies = int(rng.integers(1, 4)) if rng.random() < 0.2 else 0
        proteins += [original, *(_mutated(rng, original) for _ in range(num_copies))]
    return [str(protein) for protein in rng.permutation(proteins[:num_genes])]


def _mutated(rng: np.random.Generator, protein: str) -> str:
    """5 % of the residues changed: at least 60 % of the 6-mers stay."""
    residues = list(protein)
    for position in rng.choice(np.arange(1, len(protein)), round(0.05 * len(protein)), replace=False):
        residues[position] = str(rng.choice(list(_AMINO_ACIDS)))
    return "".join(residues)


def _gene(rng: np.random.Generator, protein: str) -> _Gene:
    cds = _coding_sequence(rng, protein)
    num_introns = rng.choice(3, p=[0.8, 0.15, 0.05])
    cuts = sorted(rng.choice(np.arange(10, len(cds) - 10), num_introns, replace=False))
    return _Gene(
        protein=protein,
        promoter=_promoter(rng),
        utr5_bp=int(rng.integers(15, 150)),
        exons=tuple(np.split(cds, cuts)),
        introns=tuple(_intron(rng) for _ in cuts),
        utr3=_random_dna(rng, int(rng.integers(50, 200))),
    )


def _coding_sequence(rng: np.random.Generator, protein: str) -> Tokens:
    """Codons that translate to ``protein`` and a stop; how much they favour G and C is the gene's own."""
    gc_preference = rng.normal(0, 0.8)
    residues = np.array(list(protein))
    codons = np.empty((len(protein), 3), dtype=np.uint8)
    for residue in sorted(set(protein)):
        choices = _CODONS[residue]
        weights = np.exp(gc_preference * (choices >= DNA_SYMBOLS.index("C")).sum(axis=1))
        chosen = rng.choice(len(choices), np.count_nonzero(residues == residue), p=weights / weights.sum())
        codons[residues == residue] = choices[chosen]
    return np.concatenate([codons.reshape(-1), tokenize_dna("TAA")])


def _promoter(rng: np.random.Generator) -> Tokens:
    """Random DNA with motifs planted in slots of their own, so that none overwrites another."""
    promoter = _random_dna(rng, PROMOTER_BP)
    slots = iter(rng.permutation(PROMOTER_BP // 10))
    for motif in MOTIF_EFFECTS:
        for slot in [next(slots) for _ in range(min(rng.poisson(1.0), 5))]:
            promoter[10 * slot : 10 * slot + len(motif)] = tokenize_dna(motif)
    return promoter


def _intron(rng: np.random.Generator) -> Tokens:
    middle = _random_dna(rng, int(rng.integers(60, 200)))
    return np.concatenate([tokenize_dna("GTATGT"), middle, tokenize_dna("TAG")])


def _random_dna(rng: np.random.Generator, length: int) -> Tokens:
    return rng.integers(1, len(DNA_SYMBOLS), length, dtype=np.uint8)


def _text(tokens: Tokens) -> str:
    return "".join(DNA_SYMBOLS[token] for token in tokens)


def _assemble(
    rng: np.random.Generator, genes: list[_Gene], num_chromosomes: int
) -> tuple[dict[str, Tokens], list[_Locus]]:
    """Genes in their order one after the other on the chromosomes, on random strands, with random gaps."""
    chromosomes: dict[str, Tokens] = {}
    loci: list[_Locus] = []
    for number, members in enumerate(np.array_split(np.arange(len(genes)), num_chromosomes), start=1):
        chrom = f"chr{number}"
        pieces = [_random_dna(rng, 200)]
        length = 200
        for gene in (genes[index] for index in members):
            strand = str(rng.choice(["+", "-"]))
            unit = np.concatenate([gene.promoter, gene.body, gene.utr3])
            before = len(gene.promoter) if strand == "+" else len(gene.utr3)
            loci.append(_Locus(gene, chrom, length + before + 1, length + before + len(gene.body), strand))
            gap = _random_dna(rng, int(rng.exponential(250)))
            pieces += [unit if strand == "+" else reverse_complement(unit), gap]
            length += len(unit) + len(gap)
        chromosomes[chrom] = np.concatenate(pieces)
    return chromosomes, loci


def _signals(
    genes: list[_Gene], amino_acids: NDArray[np.float32], features: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """What expression would be without noise, each with mean 0 and variance 1."""
    promoters = [_text(gene.promoter) for gene in genes]
    motifs = sum(
        effect * np.array([promoter.count(motif) for promoter in promoters]) for motif, effect in MOTIF_EFFECTS.items()
    )
    residues = sum(
        effect * amino_acids[:, PROTEIN_SYMBOLS.index(residue) - 1] for residue, effect in RESIDUE_EFFECTS.items()
    )
    cds_gc = features[:, FEATURES.index("cds_gc")]
    mrna = _standard(np.sqrt(0.6) * _standard(motifs) + np.sqrt(0.4) * _standard(cds_gc))
    return {"mrna": mrna, "protein": _standard(_standard(residues) + mrna)}


def _standard(values: Any) -> NDArray[np.float64]:
    """The values with mean 0 and variance 1; constant ones (a very small genome) become 0."""
    centred = np.asarray(values, dtype=np.float64) - np.mean(values)
    spread = centred.std()
    return centred / spread if spread > 0 else centred


def _measure(
    rng: np.random.Generator, signals: dict[str, NDArray[np.float64]]
) -> tuple[dict[str, Target], dict[str, float]]:
    """Noisy levels, and for each target the R2 that the true signal reaches on them."""
    targets: dict[str, Target] = {}
    ceilings: dict[str, float] = {}
    for name, signal in signals.items():
        noise = rng.normal(0, np.sqrt(1 / _CEILING_R2 - 1), len(signal))
        level = np.round(signal + noise, 9)  # so that the last bits of a machine's sums are not in the hash
        ceilings[name] = float(1 - np.sum(noise**2) / np.sum((level - level.mean()) ** 2))
        targets[name] = Target(level, "log10 of an arbitrary unit")
    targets["mrna"].values[rng.random(len(signals["mrna"])) < 0.05] = np.nan
    return targets, ceilings
