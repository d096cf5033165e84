"""Proteins of coding sequences: a user's FASTA of them, the genetic code, and whether the two agree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from Bio.Data.CodonTable import unambiguous_dna_by_id

from raystudy.data.encode import tokenize_protein
from raystudy.data.fasta import fasta_records
from raystudy.data.files import open_text
from raystudy.data.genome.joining import without_version
from raystudy.data.genome.transcripts import Transcript
from raystudy.errors import SpecError

# Ensembl writes `gene:ID transcript:ID`, NCBI `[locus_tag=ID] [protein_id=ID]`, GENCODE and UniProt `ID|ID|ID`.
_NAMES = re.compile(r"(?:\b(?:gene|transcript):|\[(?:locus_tag|protein_id)=)([^\s\]]+)")
_NAME_IN_BARS = re.compile(r"(?=.*[A-Za-z]).{4,}")
_READ_ON = "UOX"  # residues that may stand where the genetic code has a stop
_KMER = 6


def check_code(genetic_code: int) -> int:
    """The same number. Raises SpecError where NCBI has no genetic code of it."""
    if genetic_code not in unambiguous_dna_by_id:
        known = ", ".join(map(str, sorted(unambiguous_dna_by_id)))
        raise SpecError(f"there is no genetic code {genetic_code}; NCBI numbers them {known}. 1 is the standard code")
    return genetic_code


def translated(cds: str, genetic_code: int) -> str:
    """The protein of a spliced coding sequence without its last stop; ``*`` is a stop inside, X an unknown codon.

    A start codon of that genetic code is read as M, as a ribosome does.
    """
    table = unambiguous_dna_by_id[genetic_code]
    codons = [cds[first : first + 3] for first in range(0, len(cds) // 3 * 3, 3)]
    if codons and codons[-1] in table.stop_codons:
        codons.pop()
    residues = _residues(genetic_code)
    start = "M" if codons and codons[0] in table.start_codons else ""
    return start + "".join([residues.get(codon, "X") for codon in codons[len(start) :]])


def missing_ends(cds: str, genetic_code: int) -> list[str]:
    """What a coding sequence does instead of beginning with a start codon, of ending with a stop codon.

    An N may be any base.
    """
    table = unambiguous_dna_by_id[genetic_code]
    first, last = cds[:3], cds[-3:]
    begins = "N" in first or first in table.start_codons
    ends = "N" in last or last in table.stop_codons
    how = "begins with GTG, no start codon of genetic code 1 (in bacteria and archaea: `--genetic-code 11`)"
    how = how if genetic_code == 1 and first == "GTG" else "begins without a start codon"
    return [how] * (not begins) + ["ends without a stop codon"] * (not ends)


@cache
def _residues(genetic_code: int) -> dict[str, str]:
    table = unambiguous_dna_by_id[genetic_code]
    return dict.fromkeys(table.stop_codons, "*") | dict(table.forward_table)  # some codes read a stop as a residue too


def agree(protein: str, translation: str) -> bool:
    """Whether a given protein is the translation; a residue may stand where a stop codon is read on."""
    if len(protein) != len(translation):
        return False
    pairs = zip(protein, translation, strict=True)
    return all(given == own or (own == "*" and given in _READ_ON) for given, own in pairs)


def unrelated(protein: str, translation: str) -> bool:
    """Whether they have no 6 residues in a row in common: a frameshift or another splice form would leave some."""
    kmers = {protein[first : first + _KMER] for first in range(len(protein) - _KMER + 1)}
    return bool(kmers) and not any(
        translation[first : first + _KMER] in kmers for first in range(len(translation) - _KMER + 1)
    )


class ProteinFile:
    """A FASTA of proteins, found by protein, transcript or gene id, with or without version."""

    def __init__(self, path: Path) -> None:
        """Raises DataError where it cannot be read, is no FASTA, or a sequence is no protein's."""
        self.path = path
        self.first = ""
        self._proteins: dict[str, str | None] = {}  # None where several differ
        with open_text(path, "FASTA") as text:
            for header, sequence in fasta_records(path, text):
                self.first = self.first or header
                protein = sequence.upper().rstrip("*")
                tokenize_protein(protein.replace("*", "X"), f"{path}: {header[:60]!r}")
                for name in set(_names(header)):
                    known = self._proteins.setdefault(name, protein)
                    self._proteins[name] = protein if known == protein else None

    def protein(self, transcript: Transcript) -> str:
        """Empty where the file has none, or several different ones, under any of its ids."""
        ids = [one for one in (transcript.protein_id, transcript.transcript_id, transcript.gene_id) if one]
        names = [*ids, *map(without_version, ids)]
        return next((protein for name in names if (protein := self._proteins.get(name))), "")


def _names(header: str) -> Iterator[str]:
    first = header.split(maxsplit=1)[0] if header.strip() else ""
    parts = first.split("|") if "|" in first else []
    for name in (first, *filter(_NAME_IN_BARS.fullmatch, parts), *_NAMES.findall(header)):
        if name:
            yield name
            yield without_version(name)
