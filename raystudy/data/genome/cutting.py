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
from raystudy.data.genome.loci import Chromosome, is_mitochondrial, start_codon, text_of
from raystudy.data.genome.proteins import ProteinFile, agree, missing_ends, translated, unrelated
from raystudy.data.genome.transcripts import Transcript, representative
from raystudy.errors import DataError

FARTHEST_TSS_BP = 100_000
SEVERAL_PLACES = (
    "a gene id that stands for several places (alternative contigs, PAR or repeats of a name): leave those sequences "
    "out of `--genome`, or name genes by `--gene-id ID`"
)
MITOCHONDRIAL = (
    "mitochondrial, and neither a genetic code nor a protein is given: `transl_table` in the annotation (2 in "
    "vertebrates, 3 in yeasts, 5 in invertebrates) or `--proteins`"
)
REPRESENTATIVE = (
    "complete ones first, then the longest CDS, 5'UTR, 3'UTR, then the transcript id; of these the first whose CDS can "
    "be used, has a start and a stop codon at its ends, and no stop inside unless its given protein agrees; where "
    "there is none, the very first. Those of nonsense-mediated decay and the like only where there is no other"
)


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
class _Reading:
    """A transcript's coding sequence as it is read: ``flaw`` is why it cannot be used, or empty.

    ``is_broken`` where genome and annotation may not belong together; ``missing`` are the ends it has not. It ``holds``
    where nothing tells against it, so that no other transcript need be looked at.
    """

    transcript: Transcript
    code: int
    flaw: str
    is_broken: bool = False
    cds: str = ""
    given: str = ""
    origin: str = "translated"
    translation: str = ""
    missing: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        return bool(self.given) and agree(self.given, self.translation)

    @property
    def holds(self) -> bool:
        return not self.flaw and not self.missing and ("*" not in self.translation or self.agrees)


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
        """The genes on it that can be used, in genome order, each by its representative transcript (REPRESENTATIVE)."""
        for ranked in representative(self._in_one_place(chromosome.transcripts)):
            readings = (self._read(chromosome, one) for one in ranked)  # mostly just the first
            first = next(readings)
            chosen = first if first.holds else next((one for one in readings if one.holds), first)
            try:
                gene = self._gene(chromosome, chosen)
            except _Drop as reason:
                self.findings.drop(str(reason), chosen.transcript.gene_id)
                continue
            if chosen is not first:
                self.findings.repair(
                    "read as another transcript than its longest, whose coding sequence is not whole or cannot be used",
                    gene.transcript.gene_id,
                )
            yield gene

    def check(self) -> None:
        """Raises DataError where most coding sequences are none: genome and annotation do not belong together."""
        if self.num_broken > self.num_met / 2:
            codes = " or ".join(map(str, sorted(self.codes)))
            raise DataError(
                f"annotation and genome do not belong together: of {self.num_met:,} coding sequences "
                f"{self.num_broken:,} reach beyond their chromosome, have stop codons inside, are no multiple of three "
                "bases, neither begin nor end as one, or are unlike their protein. Give the annotation of this very "
                "assembly and its own proteins, if any, or, where the organism has another genetic code than "
                f"{codes}, by which they were read, `--genetic-code`. The files are {self.files}"
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
        """Without genes whose transcripts lie apart or on both strands: one id for several genes.

        Below one line of a gene they may lie apart.
        """
        by_gene: dict[str, list[Transcript]] = {}
        for transcript in transcripts:
            by_gene.setdefault(transcript.gene_id, []).append(transcript)
        for gene_id, ones in by_gene.items():
            reached = min(one.exons[0][0] for one in ones)
            lines = {one.gene_line for one in ones}
            is_apart = False
            for first, last in sorted((one.exons[0][0], one.exons[-1][1]) for one in ones):
                is_apart |= first > reached
                reached = max(reached, last)
            if len({one.strand for one in ones}) > 1 or (is_apart and (len(lines) > 1 or "" in lines)):
                self.findings.drop(SEVERAL_PLACES, gene_id)
            else:
                yield from ones

    def _read(self, chromosome: Chromosome, transcript: Transcript) -> _Reading:
        """The coding sequence and its protein: the annotation's, else the file's, else the translation."""
        code = self.genetic_code if transcript.genetic_code is None else transcript.genetic_code
        given, origin = transcript.protein.upper().removesuffix("*"), "annotation"
        if not given and self.proteins is not None:
            given, origin = self.proteins.protein(transcript), "FASTA"
        no_code = transcript.genetic_code is None and self.genetic_code == 1  # as it is where the user says nothing
        early = {
            "an incomplete coding sequence: the annotation does not know both its ends": not transcript.complete,
            "an unknown genetic code (transl_table)": code not in unambiguous_dna_by_id,
            MITOCHONDRIAL: no_code and not given and is_mitochondrial(chromosome.name),
        }
        if flaw := next((flaw for flaw, is_so in early.items() if is_so), ""):
            return _Reading(transcript, 0, flaw)
        if not chromosome.holds(transcript.exons):
            return _Reading(transcript, code, "bases beyond the end of its chromosome", is_broken=True)
        cds = text_of(chromosome.bases(transcript.cds, transcript.strand))
        translation = translated(cds, code)
        is_unlike = bool(given) and "N" not in cds and unrelated(given, translation)
        has_stop, is_shifted = "*" in translation, len(cds) % 3 > 0
        missing = missing_ends(cds, code)
        is_open = len(missing) == 2 and not (given and agree(given, translation))
        flaws = {
            "a coding sequence that is no multiple of three bases, and no protein given": is_shifted and not given,
            "a stop codon inside its coding sequence, and no protein given": has_stop and not given,
            "unknown bases (N) in its coding sequence, and no protein given": "N" in cds and not given,
            "an empty protein": not given and not translation,
            "a given protein that has nothing of its coding sequence": is_unlike,
            "a coding sequence that neither begins with a start codon nor ends with a stop codon": is_open,
            "a stop inside its given protein": "*" in given,
        }
        flaw = next((flaw for flaw, is_so in flaws.items() if is_so), "")
        is_broken = has_stop or is_shifted or is_unlike or is_open
        origin = origin if given else "translated"
        return _Reading(transcript, code, flaw, is_broken, cds, given, origin, translation, tuple(missing))

    def _gene(self, chromosome: Chromosome, reading: _Reading) -> Gene:
        transcript = reading.transcript
        if reading.code:
            self.num_met += 1
            self.num_broken += reading.is_broken
            self.codes.add(reading.code)
        if reading.flaw:
            raise _Drop(reading.flaw)
        for end in reading.missing:
            self.findings.repair(f"a coding sequence that {end}, read as it is", transcript.gene_id)
        self.origins[reading.origin] += 1
        is_compared = bool(reading.given) and "N" not in reading.cds
        how = "not compared" if not is_compared else "agree" if reading.agrees else "differ"
        self.translation[how] += 1
        if how == "differ":
            self.differing.append(transcript.gene_id)
        protein = reading.given or reading.translation
        try:
            tokens = tokenize_protein(protein)
        except DataError:
            raise _Drop("a given protein with symbols that are no residue's") from None
        placed = None
        if self.has_level(transcript.gene_id):
            placed = self._placed(chromosome, transcript)
        else:
            self.findings.drop("no expression value", transcript.gene_id)
        return Gene(transcript, reading.cds, protein, tokens, placed)

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
