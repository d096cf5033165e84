"""Escherichia coli K-12 MG1655 from public archives: its circular genome, and all three levels.

The genome, genes, transcription units, mRNA levels and mRNA half-lives come from vecoli (the whole-cell model's EcoCyc
tables, members of a source archive that is read but never built), the protein levels by b-number from ecmpy.
"""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from Bio.SeqIO.FastaIO import SimpleFastaParser
from numpy.typing import NDArray

from raystudy.data.archives import read_members
from raystudy.data.encode import Tokens, half_life_features, tokenize_protein
from raystudy.data.findings import Findings
from raystudy.data.genes import GeneTable, Target
from raystudy.data.genome.loci import Chromosome, text_of, tokens_of
from raystudy.data.homology import Homology, find_families
from raystudy.data.sources import ecoli_tables as tables
from raystudy.data.sources.ecoli_tables import rows_by_key
from raystudy.data.sources.index import Archive, fetch
from raystudy.data.splits import CIRCULAR
from raystudy.errors import DataError

WINDOW_BP = (7_000, 3_500)
LONGEST_UTR_BP = 1_000
GENOME = Archive(
    "vecoli",
    "1.1.2.post3",
    "vecoli-1.1.2.post3.tar.gz",
    "8fd1bcb1b3cb2c6cd5a496eb39afbeb9eaf2c125327549b98b761158899848ae",
)
LEVELS = Archive(
    "ecmpy",
    "1.0",
    "ecmpy-1.0-py3-none-any.whl",
    "a75bbeaf9d380a2f388b7abfbf46be37c2e01691d0bfb45d6f65d84fad1b0f5b",
)
GENOME_FOLDER = "vecoli-1.1.2.post3/reconstruction/ecoli/flat/"
LEVELS_FOLDER = "ecmpy/data/"
SEQUENCE = "sequence.fasta"


@dataclass(frozen=True)
class _Gene:
    """A coding gene; ``start`` and ``end`` of its coding sequence are 1-based and inclusive."""

    gene_id: str
    symbol: str
    b_number: str | None
    start: int
    end: int
    strand: str
    protein: str
    utr5_bp: int
    utr3_bp: int

    def window(self, genome: Chromosome, window_bp: tuple[int, int]) -> Tokens:
        """Around the start codon."""
        return genome.window(self.start if self.strand == "+" else self.end, self.strand, window_bp)

    def parts(self, genome: Chromosome) -> list[Tokens]:
        """5'UTR, coding sequence and 3'UTR."""
        cds_bp = self.end - self.start + 1
        whole = self.window(genome, (self.utr5_bp, cds_bp + self.utr3_bp))
        return np.split(whole, [self.utr5_bp, self.utr5_bp + cds_bp])


def build(homology: Homology | None = None) -> GeneTable:
    """The 4,309 genes that code for a protein: windows of 7,000 bp up and 3,500 down of the start codon, around the
    origin where need be; targets ``mrna``, ``protein`` and ``mrna_half_life``, NaN where not measured.

    The coding sequence is the gene's whole span, also for the 27 genes whose protein is not its translation from
    end to end (frameshifts, inner starts). The 100 genes of no transcription unit have UTRs of 0 bp. A protein at
    0 ppm, and a half-life of 0, were not measured. ``homology`` finds more distant relatives than the families have
    that are the same on every machine.
    Raises DataError when an archive cannot be had, or does not hold what it should.
    """
    findings = Findings()
    members = _read_archives()
    genome = _genome(members[SEQUENCE])
    genes = sorted(_genes(members, len(genome.tokens), findings), key=lambda gene: (gene.start, gene.end))
    parts = [gene.parts(genome) for gene in genes]
    proteins = [tokenize_protein(gene.protein, gene.gene_id) for gene in genes]
    family_ids, how = find_families(proteins, homology)
    return GeneTable(
        source="ecoli",
        source_digests={archive.filename: archive.sha256 for archive in (GENOME, LEVELS)},
        anchor=WINDOW_BP[0],
        gene_ids=[gene.gene_id for gene in genes],
        symbols=[gene.symbol for gene in genes],
        chroms=[genome.name] * len(genes),
        starts=np.array([gene.start for gene in genes]),
        ends=np.array([gene.end for gene in genes]),
        strands=[gene.strand for gene in genes],
        windows=np.stack([gene.window(genome, WINDOW_BP) for gene in genes]),
        proteins=[gene.protein for gene in genes],
        cds=[text_of(cds) for _, cds, _ in parts],
        features=np.stack(
            [half_life_features(cds, utr5=utr5, utr3=utr3, intron_bp=0, num_junctions=0) for utr5, cds, utr3 in parts]
        ),
        targets=_targets(genes, members, findings),
        family_ids=family_ids,
        notes={
            "anchor": "start codon",
            CIRCULAR: {genome.name: len(genome.tokens)},
            "genome": "Escherichia coli K-12 substr. MG1655",
            "genetic_code": 11,
            "homology": how,
            "findings": findings.as_json(),
        },
    )


def _read_archives() -> dict[str, bytes]:
    """What is used of both archives, by its name within the folder that holds it there."""
    kinds = (tables.Gene, tables.Rna, tables.Protein, tables.Unit, tables.Mrna, tables.HalfLife)
    members: dict[str, bytes] = {}
    for archive, folder, names in (
        (GENOME, GENOME_FOLDER, [SEQUENCE, *(kind.member for kind in kinds)]),
        (LEVELS, LEVELS_FOLDER, [tables.Abundance.member]),
    ):
        found = read_members(fetch(archive), [folder + name for name in names])
        members |= {name.removeprefix(folder): content for name, content in found.items()}
    return members


def _genome(fasta: bytes) -> Chromosome:
    records = list(SimpleFastaParser(io.StringIO(fasta.decode("latin-1"))))
    if len(records) != 1 or not records[0][0].split() or not records[0][1]:
        raise DataError(
            f"{SEQUENCE} has {len(records)} records; it must have one, with a name and a sequence. "
            f"Get the archive that this source names."
        )
    name = records[0][0].split()[0]
    return Chromosome(name, tokens_of(records[0][1], name), circular=True, transcripts=[])


def _genes(members: Mapping[str, bytes], genome_bp: int, findings: Findings) -> list[_Gene]:
    """Genes with a place on the genome whose mRNA has a protein; the others are counted by what they lack."""
    rows = rows_by_key(members, tables.Gene)
    rnas = rows_by_key(members, tables.Rna)
    proteins = rows_by_key(members, tables.Protein)
    utr5_bp, utr3_bp = _utrs_bp(rows_by_key(members, tables.Unit).values(), rows)
    genes = []
    for gene_id, row in rows.items():
        rna = rnas.get(gene_id)
        protein = proteins.get(rna.monomers[0]) if rna and rna.monomers else None
        if rna is None or rna.type != "mRNA":
            findings.drop("makes no mRNA: a pseudogene, or a gene of another RNA", gene_id)
        elif protein is None or not protein.sequence:
            findings.drop("has no protein sequence", gene_id)
        elif row.left is None or row.right is None or row.strand is None:
            findings.drop("has no place on the genome", gene_id)
        elif not row.left <= row.right <= genome_bp:
            raise DataError(
                f"{tables.Gene.member}: the gene {gene_id!r} lies from {row.left} to {row.right}, but "
                f"`left <= right <= {genome_bp}`, the genome's length, must hold. "
                f"Get the archive that this source names."
            )
        else:
            genes.append(
                _Gene(
                    gene_id=gene_id,
                    symbol=row.symbol or "",
                    b_number=next((name for name in row.synonyms if re.fullmatch(r"b\d{4}", name)), None),
                    start=row.left,
                    end=row.right,
                    strand=row.strand,
                    protein=protein.sequence,
                    utr5_bp=utr5_bp.get(gene_id, 0),
                    utr3_bp=utr3_bp.get(gene_id, 0),
                )
            )
    return genes


def _utrs_bp(units: Iterable[tables.Unit], genes: Mapping[str, tables.Gene]) -> tuple[dict[str, int], dict[str, int]]:
    """Lengths of the 5' and of the 3'UTR of every gene in a transcription unit, each in [0, LONGEST_UTR_BP].

    5': the distance to the nearest start of a unit whose first gene it is, else the gap to the gene before it.
    3': the largest of the distances to the end of units whose last gene it is and the gaps to the gene after it.
    A unit's genes are ordered by their left ends, from right to left on the - strand.
    """
    to_start: dict[str, list[int]] = {}
    gaps: dict[str, list[int]] = {}
    after: dict[str, list[int]] = {}
    for unit in units:
        sign = 1 if unit.strand == "+" else -1  # with it, positions grow in the direction of transcription
        unit_begin, unit_end = sorted((sign * unit.left, sign * unit.right))
        rows = [row for row in map(genes.get, unit.genes) if row]
        placed = [(row.left, row.right, row.key) for row in rows if row.left and row.right]
        previous, previous_end = None, unit_begin - 1
        for left, right, gene in sorted(placed, key=lambda one: one[0])[::sign]:
            begin, end = sorted((sign * left, sign * right))
            distance = begin - previous_end - 1
            if previous is None:
                to_start.setdefault(gene, []).append(distance)
            else:
                gaps.setdefault(gene, []).append(distance)
                after.setdefault(previous, []).append(distance)
            previous, previous_end = gene, end
        if previous is not None:
            after.setdefault(previous, []).append(unit_end - previous_end)
    utr5_bp = {gene: min(distances) for gene, distances in (gaps | to_start).items()}
    utr3_bp = {gene: max(distances) for gene, distances in after.items()}
    return _clipped(utr5_bp), _clipped(utr3_bp)


def _clipped(lengths_bp: Mapping[str, int]) -> dict[str, int]:
    return {gene: min(max(length, 0), LONGEST_UTR_BP) for gene, length in lengths_bp.items()}


def _targets(genes: list[_Gene], members: Mapping[str, bytes], findings: Findings) -> dict[str, Target]:
    mrna = {gene: row.level + 0.1 for gene, row in rows_by_key(members, tables.Mrna).items()}
    minutes = {gene: row.level for gene, row in rows_by_key(members, tables.HalfLife).items()}
    by_number = {number: row.level for number, row in rows_by_key(members, tables.Abundance).items()}
    num_genes = Counter(gene.b_number for gene in genes)
    ppm: dict[str, float] = {}
    for gene in genes:
        if gene.b_number in by_number and num_genes[gene.b_number] == 1:
            ppm[gene.gene_id] = by_number[gene.b_number]
        elif gene.b_number in by_number:
            findings.repair("no protein level: its b-number is another gene's too", gene.gene_id)
    return {
        "mrna": Target(_logarithms(genes, mrna, "", findings), "log10(TPM + 0.1), M9 glucose without amino acids"),
        "protein": Target(_logarithms(genes, ppm, "a protein at 0 ppm was not detected", findings), "log10(ppm)"),
        "mrna_half_life": Target(
            _logarithms(genes, minutes, "a half-life of 0 was not measured", findings), "log10 of minutes"
        ),
    }


def _logarithms(
    genes: list[_Gene], values: Mapping[str, float], zero_means: str, findings: Findings
) -> NDArray[np.float64]:
    levels = np.full(len(genes), np.nan)
    for row, gene in enumerate(genes):
        value = values.get(gene.gene_id)
        if value is not None and value > 0:
            # rounded, so that the last bits of a machine's logarithm are not in the content hash
            levels[row] = round(math.log10(value), 12)
        elif value is not None:
            findings.repair(f"no level: {zero_means}", gene.gene_id)
    return levels
