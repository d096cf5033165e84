"""From a chromosome and its transcripts to genes of the table: the rules by which one is used, or counted out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from Bio.Data.CodonTable import unambiguous_dna_by_id
from numpy.typing import NDArray

from raystudy.data.encode import Tokens, tokenize_protein
from raystudy.data.findings import EXAMPLES, Findings
from raystudy.data.loci import Chromosome, start_codon, text_of
from raystudy.data.proteins import ProteinFile, agree, missing_ends, translated, unrelated
from raystudy.data.transcripts import Transcript, representative
from raystudy.errors import DataError

FARTHEST_TSS_BP = 100_000
SEVERAL_PLACES = "a gene id that stands for several places"
REPRESENTATIVE = "complete ones first, then the longest CDS, 5'UTR, 3'UTR, then the transcript id"


class _Drop(Exception):
    """Why a gene is left out."""


@dataclass(frozen=True)
class Placed:
    """What the table has of a gene: ``start`` and ``end`` are 1-based, from the window's anchor to the end of the CDS,
    or from the TSS to the end of the transcript; on a circular chromosome ``end`` may be past the origin."""

    start: int
    end: int
    window: Tokens  # uint8 [up + down]
    features: NDArray[np.float32]  # [8]


@dataclass(frozen=True)
class Gene:
    """A gene with a protein; ``placed`` is None where it is not to be in the table."""

    transcript: Transcript
    cds: str
    protein: str
    protein_tokens: Tokens
    placed: Placed | None


@dataclass
class Cutter:
    """How genes are cut out of chromosomes; counts what it meets.

    ``tss`` gives a gene's TSS (1-based; None: the table has none) where a table was given; else, with the anchor
    ``tss``, it is the representative transcript's 5' end. ``has_level`` tells which genes the table is to have,
    ``files`` is what messages call them all.
    """

    window_bp: tuple[int, int]
    anchor: Literal["cds", "tss"]
    tss: Callable[[str], int | None] | None
    genetic_code: int
    proteins: ProteinFile | None
    has_level: Callable[[str], bool]
    findings: Findings
    files: str
    num_met: int = 0
    num_broken: int = 0
    codes: set[int] = field(default_factory=set)
    translation: Counter[str] = field(default_factory=Counter)
    differing: list[str] = field(default_factory=list)
    origins: Counter[str] = field(default_factory=Counter)

    def genes(self, chromosome: Chromosome) -> Iterator[Gene]:
        """The genes on it that can be used, in genome order, each by its representative transcript."""
        for transcript in representative(self._in_one_place(chromosome.transcripts)):
            try:
                yield self._gene(chromosome, transcript)
            except _Drop as reason:
                self.findings.drop(str(reason), transcript.gene_id)

    def check(self) -> None:
        """Raises DataError where most coding sequences are none: genome and annotation do not belong together."""
        if self.num_broken > self.num_met / 2:
            raise DataError(
                f"annotation and genome do not belong together: of {self.num_met:,} coding sequences "
                f"{self.num_broken:,} reach beyond their chromosome, have stop codons inside, are no multiple of three "
                "bases, neither begin nor end as one, or are unlike their protein. Give the annotation of this very "
                "assembly and its own proteins, if any, or, where the organism has another genetic code than "
                f"{self.genetic_code}, `--genetic-code`. The files are {self.files}"
            )
        if self.proteins is not None and self.origins["translated"] and not self.origins["FASTA"]:
            raise DataError(
                f"{self.proteins.path} has a protein of none of the {self.origins['translated']:,} genes that have "
                f"none in the annotation: its first header is {self.proteins.first[:80]!r}. Its ids must be protein, "
                "transcript or gene ids of the annotation; leave it out to translate the genome instead"
            )

    def notes(self) -> dict[str, Any]:
        """How translations and given proteins agree, and where proteins are from."""
        counts = {kind: self.translation[kind] for kind in ("agree", "differ", "not compared")}
        return {
            "translation": {**counts, "examples": self.differing[:EXAMPLES]},
            "proteins": dict(self.origins),
        }

    def _in_one_place(self, transcripts: Iterable[Transcript]) -> Iterator[Transcript]:
        """Without genes whose transcripts lie apart or on both strands: one id for several genes."""
        by_gene: dict[str, list[Transcript]] = {}
        for transcript in transcripts:
            by_gene.setdefault(transcript.gene_id, []).append(transcript)
        for gene_id, ones in by_gene.items():
            reached = min(one.exons[0][0] for one in ones)
            is_apart = len({one.strand for one in ones}) > 1
            for first, last in sorted((one.exons[0][0], one.exons[-1][1]) for one in ones):
                is_apart |= first > reached
                reached = max(reached, last)
            if is_apart:
                self.findings.drop(SEVERAL_PLACES, gene_id)
            else:
                yield from ones

    def _gene(self, chromosome: Chromosome, transcript: Transcript) -> Gene:
        if not transcript.complete:
            raise _Drop("an incomplete coding sequence: the annotation does not know both its ends")
        code = self.genetic_code if transcript.genetic_code is None else transcript.genetic_code
        if code not in unambiguous_dna_by_id:
            raise _Drop("an unknown genetic code (transl_table)")
        self.num_met += 1
        self.codes.add(code)
        if not chromosome.holds(transcript.exons):
            self.num_broken += 1
            raise _Drop("bases beyond the end of its chromosome")
        cds = text_of(chromosome.bases(transcript.cds, transcript.strand))
        protein = self._protein(transcript, cds, code)
        try:
            tokens = tokenize_protein(protein)
        except DataError:
            raise _Drop("a given protein with symbols that are no residue's") from None
        placed = None
        if self.has_level(transcript.gene_id):
            placed = self._placed(chromosome, transcript)
        else:
            self.findings.drop("no expression value", transcript.gene_id)
        return Gene(transcript, cds, protein, tokens, placed)

    def _protein(self, transcript: Transcript, cds: str, code: int) -> str:
        """The annotation's protein, else the file's, else the translation."""
        translation = translated(cds, code)
        given, origin = transcript.protein.upper().removesuffix("*"), "annotation"
        if not given and self.proteins is not None:
            given, origin = self.proteins.protein(transcript), "FASTA"
        is_unlike = bool(given) and "N" not in cds and unrelated(given, translation)
        has_stop, is_shifted = "*" in translation, len(cds) % 3 > 0
        missing = missing_ends(cds, code)
        is_open = len(missing) == 2 and not (given and agree(given, translation))
        self.num_broken += has_stop or is_shifted or is_unlike or is_open
        flaws = {
            "a coding sequence that is no multiple of three bases, and no protein given": is_shifted and not given,
            "a stop codon inside its coding sequence, and no protein given": has_stop and not given,
            "unknown bases (N) in its coding sequence, and no protein given": "N" in cds and not given,
            "an empty protein": not given and not translation,
            "a given protein that has nothing of its coding sequence": is_unlike,
            "a coding sequence that neither begins with a start codon nor ends with a stop codon": is_open,
            "a stop inside its given protein": "*" in given,
        }
        for flaw in (flaw for flaw, is_so in flaws.items() if is_so):
            raise _Drop(flaw)
        for end in missing:
            self.findings.repair(f"a coding sequence that {end}, read as it is", transcript.gene_id)
        self.origins[origin if given else "translated"] += 1
        how = "not compared" if not given or "N" in cds else "agree" if agree(given, translation) else "differ"
        self.translation[how] += 1
        if how == "differ":
            self.differing.append(transcript.gene_id)
        return given or translation

    def _placed(self, chromosome: Chromosome, transcript: Transcript) -> Placed:
        start, end = transcript.start, transcript.end
        if self.anchor == "tss" and transcript.strand == "+":
            start, end = start - self._upstream_bp(chromosome, transcript), transcript.exons[-1][1]
        elif self.anchor == "tss":
            start, end = transcript.exons[0][0], end + self._upstream_bp(chromosome, transcript)
        anchor = start if transcript.strand == "+" else end
        window = chromosome.window(anchor, transcript.strand, self.window_bp)
        turns = (start - 1) // len(chromosome.tokens) * len(chromosome.tokens)  # 0, but for some on circular ones
        return Placed(start - turns, end - turns, window, chromosome.features(transcript))

    def _upstream_bp(self, chromosome: Chromosome, transcript: Transcript) -> int:
        """How far upstream of the start codon transcription starts."""
        codon = start_codon(transcript)
        length, cds_span = len(chromosome.tokens), transcript.end - transcript.start + 1
        if self.tss is None:
            if not transcript.utr5:
                raise _Drop("no annotated 5'UTR, so its TSS is not known")
            tss = transcript.exons[0][0] if transcript.strand == "+" else transcript.exons[-1][1]
        else:
            given = self.tss(transcript.gene_id)
            if given is None:
                raise _Drop("no TSS in the TSS table")
            if not 1 <= given <= length:
                raise _Drop("a TSS beyond the end of its chromosome")
            tss = given
        upstream_bp = codon - tss if transcript.strand == "+" else tss - codon
        farthest_bp = FARTHEST_TSS_BP
        if chromosome.circular:
            upstream_bp, farthest_bp = upstream_bp % length, min(farthest_bp, length - cds_span)
        if not 0 <= upstream_bp <= farthest_bp:
            raise _Drop(f"a TSS that is not within the {FARTHEST_TSS_BP:,} bp upstream of its start codon")
        return upstream_bp
