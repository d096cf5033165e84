"""Genes on a chromosome: the window around a gene's anchor, its coding sequence, its half-life features."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raystudy.data.encode import DNA_SYMBOLS, Tokens, cut_window, half_life_features, reverse_complement, tokenize_dna
from raystudy.data.genome.joining import without_version
from raystudy.data.genome.transcripts import Intervals, Transcript

_SYMBOLS = np.frombuffer(DNA_SYMBOLS.encode(), dtype=np.uint8)
_CHUNK_BP = 2**24
_MITOCHONDRIAL = re.compile(r"mt|mtdna|mito|(\w+_)?mitochondrion(_genome)?")


@dataclass(frozen=True)
class Chromosome:
    """A chromosome's bases, tokens uint8 [length], and the coding transcripts on it, in the annotation's order."""

    name: str
    tokens: Tokens
    circular: bool
    transcripts: list[Transcript]

    def holds(self, intervals: Intervals) -> bool:
        """Whether all these bases are there; on a circular chromosome they may go on past the origin, once around."""
        first, last, length = intervals[0][0], intervals[-1][1], len(self.tokens)
        return 1 <= first <= length and last <= (first + length - 1 if self.circular else length)

    def bases(self, intervals: Intervals, strand: str) -> Tokens:
        """The bases of intervals that it holds, one after the other in the gene's own direction, uint8."""
        mode: Literal["wrap", "raise"] = "wrap" if self.circular else "raise"
        pieces = [np.take(self.tokens, np.arange(first - 1, last), mode=mode) for first, last in intervals]
        joined: Tokens = np.concatenate([self.tokens[:0], *pieces])
        return joined if strand == "+" else reverse_complement(joined)

    def window(self, anchor: int, strand: str, window_bp: tuple[int, int]) -> Tokens:
        """Tokens [up + down] around the base ``anchor`` (1-based), in the gene's own direction.

        Beyond the ends of a linear chromosome there is N; a circular one is gone around.
        """
        if not self.circular:
            return cut_window(self.tokens, anchor - 1, strand, window_bp)
        up, down = window_bp
        first = anchor - 1 - up if strand == "+" else anchor - down
        window: Tokens = np.take(self.tokens, np.arange(first, first + up + down), mode="wrap")
        return window if strand == "+" else reverse_complement(window)

    def features(self, transcript: Transcript) -> NDArray[np.float32]:
        """The 8 half-life features, float32 [8]; NaN for a UTR that the annotation does not show."""
        utr5, utr3 = (self.bases(utr, transcript.strand) for utr in (transcript.utr5, transcript.utr3))
        return half_life_features(
            self.bases(transcript.cds, transcript.strand),
            utr5=utr5 if len(utr5) else None,
            utr3=utr3 if len(utr3) else None,
            intron_bp=transcript.intron_bp,
            num_junctions=transcript.num_cds_junctions,
        )


def bare_name(chrom: str) -> str:
    """A chromosome's name as far as those of different origins agree: chr1, Chr1 and 1; chrM and MT."""
    bare = re.sub(r"^chr(?:omosome)?[ _]?(?=.)", "", without_version(chrom).lower())
    return "mt" if bare == "m" else bare


def is_mitochondrial(chrom: str) -> bool:
    """Whether a chromosome's name says so, as those of Ensembl, UCSC, SGD and FlyBase do."""
    return _MITOCHONDRIAL.fullmatch(bare_name(chrom)) is not None


def start_codon(transcript: Transcript) -> int:
    """The first base of its coding sequence in its own direction, 1-based."""
    return transcript.start if transcript.strand == "+" else transcript.end


def tokens_of(bases: str, name: str) -> Tokens:
    """A chromosome's tokens, uint8 [length]; a piece at a time, so that they and the text are all that is in memory.

    Raises DataError on what is no base.
    """
    tokens = np.empty(len(bases), dtype=np.uint8)
    for first in range(0, len(bases), _CHUNK_BP):
        piece = bases[first : first + _CHUNK_BP]
        tokens[first : first + len(piece)] = tokenize_dna(piece, f"{name} from base {first + 1:,}")
    return tokens


def text_of(tokens: Tokens) -> str:
    """The bases as text, in upper case."""
    return _SYMBOLS[tokens].tobytes().decode()
