"""Small genomes whose every gene is known, and the files in which users bring such genomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from Bio import SeqIO
from Bio.Data.CodonTable import standard_dna_table
from Bio.Seq import Seq
from Bio.SeqFeature import CompoundLocation, SeqFeature, SimpleLocation
from Bio.SeqRecord import SeqRecord

from raystudy.data.genes import GeneTable

WINDOW = (90, 60)
Spans = list[tuple[int, int]]  # 1-based, inclusive, ascending


@dataclass
class MadeGene:
    """A gene as it was planted: its parts in its own direction, its place on the chromosome."""

    gene_id: str
    symbol: str
    chrom: str
    strand: str
    protein: str
    coding: str
    utr5: str
    utr3: str
    introns: list[str]
    exons: Spans
    cds: Spans
    level: float | None


@dataclass
class MadeGenome:
    chromosomes: dict[str, str] = field(default_factory=dict)
    genes: list[MadeGene] = field(default_factory=list)
    circular: bool = False

    def write(self, folder: Path, kind: str) -> dict[str, object]:
        """The files of a kind (gff3, gtf, genbank) and the levels; as the options of `build`."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = [f"{gene.gene_id}\t{'' if gene.level is None else gene.level}\n" for gene in self.genes]
        levels = folder / "levels.tsv"
        levels.write_text("gene_id\tTPM\n" + "".join(rows))
        options: dict[str, object] = {"expression": levels, "target": ["mrna=log10(TPM + 0.1)"], "window_bp": WINDOW}
        options["homology"] = "kmer"
        if kind == "genbank":
            path = folder / "genome.gb"
            SeqIO.write([self._record(chrom) for chrom in self.chromosomes], path, "genbank")
            return {**options, "genbank": [path]}
        fasta, annotation = folder / "genome.fa", folder / f"genes.{kind}"
        fasta.write_text("".join(f">{chrom} made\n{wrapped(bases)}" for chrom, bases in self.chromosomes.items()))
        lines = self.gff3() if kind == "gff3" else self.gtf()
        annotation.write_text("".join(f"{line}\n" for line in lines))
        return {**options, "genome": [fasta], "annotation": annotation}

    def gff3(self) -> list[str]:
        lines = ["##gff-version 3"]
        if self.circular:
            lines += [
                f"{chrom}\tmade\tregion\t1\t{len(bases)}\t.\t+\t.\tID={chrom};Is_circular=true"
                for chrom, bases in self.chromosomes.items()
            ]
        for gene in self.genes:
            span = (gene.exons[0][0], gene.exons[-1][1])
            transcript = f"Parent={gene.gene_id}.t1"
            lines.append(_row(gene, "gene", span, f"ID={gene.gene_id};Name={gene.symbol}"))
            lines.append(_row(gene, "mRNA", span, f"ID={gene.gene_id}.t1;Parent={gene.gene_id}"))
            lines += [_row(gene, "exon", one, transcript) for one in gene.exons]
            lines += [
                _row(gene, "CDS", one, f"ID={gene.gene_id}.p1;{transcript}", str(phase))
                for one, phase in zip(gene.cds, phases(gene.cds, gene.strand), strict=True)
            ]
        return lines

    def gtf(self) -> list[str]:
        """The stop codon stands apart from the CDS, as Ensembl writes it."""
        lines = []
        for gene in self.genes:
            span = (gene.exons[0][0], gene.exons[-1][1])
            names = f'gene_id "{gene.gene_id}"; gene_name "{gene.symbol}";'
            of_transcript = f'{names} transcript_id "{gene.gene_id}.t1";'
            without_stop, stop = split_stop(gene.cds, gene.strand)
            lines.append(_row(gene, "gene", span, names))
            lines.append(_row(gene, "transcript", span, of_transcript))
            lines += [_row(gene, "exon", one, of_transcript) for one in gene.exons]
            lines += [
                _row(gene, "CDS", one, of_transcript, str(phase))
                for one, phase in zip(without_stop, phases(without_stop, gene.strand), strict=True)
            ]
            lines.append(_row(gene, "stop_codon", stop, of_transcript, "0"))
        return lines

    def rotated(self, by_bp: int) -> MadeGenome:
        """The same circles, cut open elsewhere; what then lies across the origin goes on past the end."""
        turned = {chrom: bases[by_bp:] + bases[:by_bp] for chrom, bases in self.chromosomes.items()}
        genes = []
        for gene in self.genes:
            length = len(self.chromosomes[gene.chrom])
            first = gene.exons[0][0]
            shift = (first - 1 - by_bp) % length + 1 - first
            exons, cds = ([(start + shift, end + shift) for start, end in spans] for spans in (gene.exons, gene.cds))
            genes.append(replace(gene, exons=exons, cds=cds))
        return MadeGenome(turned, genes, circular=True)

    def _record(self, chrom: str) -> SeqRecord:
        features, bases = [], self.chromosomes[chrom]
        for gene in (one for one in self.genes if one.chrom == chrom):
            names = {"locus_tag": [gene.gene_id], "gene": [gene.symbol]}
            span = [(gene.exons[0][0], gene.exons[-1][1])]
            coding = names | {"translation": [gene.protein], "codon_start": ["1"]}
            for kind, spans, qualifiers in (
                ("gene", span, names),
                ("mRNA", gene.exons, names),
                ("CDS", gene.cds, coding),
            ):
                place = location(spans, gene.strand, len(bases))
                features.append(SeqFeature(place, type=kind, qualifiers=qualifiers))
        annotations = {"molecule_type": "DNA", "topology": "circular" if self.circular else "linear"}
        return SeqRecord(Seq(bases), id=chrom, name=chrom, annotations=annotations, features=features)


def make_genome(
    seed: int = 0, num_genes: int = 10, proteins: list[str] | None = None, codons: dict[str, list[str]] | None = None
) -> MadeGenome:
    """Genes on two chromosomes and both strands, with UTRs, some with introns; the last is a copy of the first."""
    dice, made = np.random.default_rng(seed), MadeGenome()
    if proteins is None:
        proteins = ["M" + _text(dice, "ACDEFGHIKLMNPQRSTVWY", dice.integers(25, 60)) for _ in range(num_genes)]
        proteins[-1] = proteins[0]
    for chrom in ("chrA", "chrB"):
        made.chromosomes[chrom] = _random(dice, 60)
    for number, protein in enumerate(proteins):
        chrom = "chrA" if number < len(proteins) / 2 else "chrB"
        coding = "".join(str(dice.choice((_CODONS | (codons or {}))[residue])) for residue in protein) + "TAA"
        _plant(dice, made, chrom, f"G{number:03d}", protein, coding)
    return made


def _plant(dice: np.random.Generator, made: MadeGenome, chrom: str, gene_id: str, protein: str, coding: str) -> None:
    utr5, utr3 = _random(dice, dice.integers(10, 40)), _random(dice, dice.integers(10, 40))
    mature = utr5 + coding + utr3
    places = [int(dice.integers(1, len(utr5)))] if dice.random() < 0.3 else []
    inside = np.arange(len(utr5) + 4, len(utr5) + len(coding) - 4)
    places += sorted(dice.choice(inside, dice.choice([0, 0, 1, 2]), replace=False).tolist())
    cuts = [0, *places, len(mature)]
    introns = [_random(dice, dice.integers(30, 70)) for _ in cuts[2:]]
    unspliced, exons, cds = "", [], []
    for part, (first, last) in enumerate(pairwise(cuts)):
        shift = len(unspliced) - first
        exons.append((first + shift, last + shift))
        coded = max(first, len(utr5)), min(last, len(utr5) + len(coding))
        if coded[0] < coded[1]:
            cds.append((coded[0] + shift, coded[1] + shift))
        unspliced += mature[first:last] + (introns[part] if part < len(introns) else "")
    strand, before = str(dice.choice(["+", "-"])), made.chromosomes[chrom]
    bases = unspliced if strand == "+" else str(Seq(unspliced).reverse_complement())
    made.chromosomes[chrom] = before + bases + _random(dice, dice.integers(20, 120))

    def placed(spans: list[tuple[int, int]]) -> Spans:
        if strand == "-":
            spans = [(len(unspliced) - last, len(unspliced) - first) for first, last in reversed(spans)]
        return [(len(before) + first + 1, len(before) + last) for first, last in spans]

    symbol = f"sym{gene_id[1:]}"
    level = round(dice.uniform(1, 100), 3)
    exons, cds = placed(exons), placed(cds)
    made.genes.append(MadeGene(gene_id, symbol, chrom, strand, protein, coding, utr5, utr3, introns, exons, cds, level))


_CODONS = {
    residue: [codon for codon, coded in standard_dna_table.forward_table.items() if coded == residue]
    for residue in "CDEFGHIKLNPQRSTVWYA"
} | {"M": ["ATG"]}


def _random(dice: np.random.Generator, length: int) -> str:
    return _text(dice, "ACGT", length)


def _text(dice: np.random.Generator, symbols: str, length: int) -> str:
    return "".join(dice.choice(list(symbols), length))


def wrapped(bases: str) -> str:
    return "".join(f"{bases[first : first + 60]}\n" for first in range(0, len(bases), 60))


def location(spans: Spans, strand: str, length: int) -> SimpleLocation | CompoundLocation:
    """On a circle of that length, what lies past its end is written as starting anew."""
    sign, parts = 1 if strand == "+" else -1, []
    for first, last in spans:
        pieces = [(first, last)] if last <= length or first > length else [(first, length), (length + 1, last)]
        parts += [SimpleLocation((one - 1) % length, (other - 1) % length + 1, sign) for one, other in pieces]
    return parts[0] if len(parts) == 1 else CompoundLocation(parts[::sign])


def phases(cds: Spans, strand: str) -> list[int]:
    """Bases to skip in each part before its first whole codon."""
    found, num_read = [], 0
    for first, last in cds if strand == "+" else reversed(cds):
        found.append(-num_read % 3)
        num_read += last - first + 1
    return found if strand == "+" else found[::-1]


def split_stop(cds: Spans, strand: str) -> tuple[Spans, tuple[int, int]]:
    """The CDS without its last three bases, which lie in one part, and these."""
    if strand == "+":
        first, last = cds[-1]
        return [*cds[:-1], (first, last - 3)], (last - 2, last)
    first, last = cds[0]
    return [(first + 3, last), *cds[1:]], (first, first + 2)


def _row(gene: MadeGene, kind: str, span: tuple[int, int], attributes: str, phase: str = ".") -> str:
    return "\t".join([gene.chrom, "made", kind, str(span[0]), str(span[1]), ".", gene.strand, phase, attributes])


def dropped(table: GeneTable) -> dict[str, list[str]]:
    return {reason: one["examples"] for reason, one in table.notes["findings"]["dropped"].items()}


def repaired(table: GeneTable) -> dict[str, list[str]]:
    return {reason: one["examples"] for reason, one in table.notes["findings"]["repaired"].items()}


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def plain_gene(made: MadeGenome, strand: str = "+") -> MadeGene:
    """One without introns."""
    return next(gene for gene in made.genes if gene.strand == strand and len(gene.exons) == 1)


def put(made: MadeGenome, gene: MadeGene, codon: int, bases: str) -> None:
    """Write over the codon of that number; the gene has no introns and is on the + strand."""
    first = gene.cds[0][0] - 1 + 3 * codon
    chromosome = made.chromosomes[gene.chrom]
    made.chromosomes[gene.chrom] = chromosome[:first] + bases + chromosome[first + len(bases) :]
