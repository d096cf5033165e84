"""From text to numbers: tokens, the 8 half-life features, k-mer, codon and amino-acid counts.

n genes, L window positions. DNA tokens are ``N/pad=0 A=1 T=2 C=3 G=4``; protein tokens are ``pad=0``, the
20 amino acids, selenocysteine ``U`` and the unknown ``X``; k-mer tokens are 0 where a base is unknown, else 1 + the
k-mer's place in `kmer_names`; codon tokens are the same for 3-mers, ``pad=0``, and 65 where a base is unknown.
"""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from raystudy.errors import DataError, SpecError

Tokens = NDArray[np.uint8]

FEATURES: tuple[str, ...] = (
    "utr5_length",  # the four lengths are log10(bp + 0.1)
    "cds_length",
    "utr3_length",
    "intron_length",
    "utr5_gc",  # fractions of G+C
    "cds_gc",
    "utr3_gc",
    "junction_density",  # exon junctions per 1,000 bp of CDS
)
HALF_LIFE_FEATURES = len(FEATURES)
DNA_SYMBOLS = "NATCG"
PROTEIN_SYMBOLS = "-ACDEFGHIKLMNPQRSTVWYUX"  # the leading "-" is the pad and never stands in a sequence
TOKEN_KMER = 3
NUM_SYMBOLS = {"base": 5, "kmer": 1 + 4**TOKEN_KMER, "residue": len(PROTEIN_SYMBOLS), "codon": 2 + 4**3}
"""How many symbols each way of reading a sequence has, the pad included."""
DNA_UNKNOWN = DNA_SYMBOLS.index("N")
CODON_UNKNOWN = NUM_SYMBOLS["codon"] - 1
PROTEIN_UNKNOWN = PROTEIN_SYMBOLS.index("X")

PROTEIN_AMBIGUOUS = "BZJO"
STOP_CODONS = ("TAA", "TAG", "TGA")

_INVALID = 255
_CHUNK_BYTES = 32 * 2**20


def _lookup(symbols: str, ambiguous: str, unknown: int) -> Tokens:
    table = np.full(256, _INVALID, dtype=np.uint8)
    for token, symbol in enumerate(symbols):
        if symbol != "-":
            table[[ord(symbol), ord(symbol.lower())]] = token
    for symbol in ambiguous:
        table[[ord(symbol), ord(symbol.lower())]] = unknown
    return table


_DNA = _lookup(DNA_SYMBOLS, "RYSWKMBDHV", DNA_UNKNOWN)  # the IUPAC codes for "one of several bases"
_PROTEIN = _lookup(PROTEIN_SYMBOLS, PROTEIN_AMBIGUOUS, PROTEIN_UNKNOWN)
_COMPLEMENT = np.array([DNA_SYMBOLS.index(symbol) for symbol in "NTAGC"], dtype=np.uint8)


def tokenize_dna(text: str, name: str = "the sequence") -> Tokens:
    """Tokens uint8 [len(text)] of a DNA text in either case; IUPAC ambiguity codes become N (token 0).

    ``name`` (usually the gene) is what the message calls it. Raises DataError on any other symbol.
    """
    return _tokenize(text, _DNA, "DNA", "A, C, G, T and the IUPAC ambiguity codes", name)


def tokenize_protein(text: str, name: str = "the sequence") -> Tokens:
    """Tokens uint8 [len(text)] of a protein text in either case; B, Z, J and O become X.

    ``name`` (usually the gene) is what the message calls it. Raises DataError on any other symbol.
    """
    return _tokenize(text, _PROTEIN, "protein", "the 20 amino acids, U, X and the ambiguity codes B, Z, J, O", name)


def _tokenize(text: str, table: Tokens, kind: str, rule: str, name: str) -> Tokens:
    tokens = table[np.frombuffer(text.encode("latin-1", "replace"), dtype=np.uint8)]
    wrong = np.flatnonzero(tokens == _INVALID)
    if len(wrong):
        at = int(wrong[0])
        raise DataError(
            f"{name}: {text[at]!r} at position {at + 1} is not a {kind} symbol ({len(wrong)} such in all); "
            f"allowed are {rule}. Correct the sequence, or leave this gene out."
        )
    return tokens


def reverse_complement(tokens: Tokens) -> Tokens:
    """The other strand, read in its own direction; N stays N."""
    return _COMPLEMENT[tokens[::-1]]


def cut_window(chromosome: Tokens, anchor: int, strand: str, window_bp: tuple[int, int]) -> Tokens:
    """Tokens of [-up, +down) around a gene's first base, in the gene's own direction: uint8 [up + down].

    ``anchor`` is the 0-based index of that base on the chromosome, ``window_bp`` is (up, down); beyond the
    chromosome's ends there is N.
    """
    up, down = window_bp
    first, last = (anchor - up, anchor + down) if strand == "+" else (anchor - down + 1, anchor + up + 1)
    inside = chromosome[max(first, 0) : max(last, 0)]
    window = np.full(up + down, DNA_UNKNOWN, dtype=np.uint8)
    window[max(-first, 0) : max(-first, 0) + len(inside)] = inside
    return window if strand == "+" else reverse_complement(window)


def half_life_features(
    cds: Tokens,
    *,
    utr5: Tokens | None = None,
    utr3: Tokens | None = None,
    intron_bp: int | None = None,
    num_junctions: int | None = None,
) -> NDArray[np.float32]:
    """The 8 raw values in the order of ``FEATURES``, float32 [8]; what is not known (None) is NaN, not zero.

    Lengths are log10(bp + 0.1); G+C fractions ignore N and are NaN for an empty part; ``intron_bp`` is the
    total length of the introns; junctions are counted per 1,000 bp of CDS.
    Source: Agarwal & Shendure, Cell Reports 2020.
    """
    values = {
        "utr5_length": _log_length(None if utr5 is None else len(utr5)),
        "cds_length": _log_length(len(cds)),
        "utr3_length": _log_length(None if utr3 is None else len(utr3)),
        "intron_length": _log_length(intron_bp),
        "utr5_gc": _gc(utr5),
        "cds_gc": _gc(cds),
        "utr3_gc": _gc(utr3),
        "junction_density": np.nan if num_junctions is None or not len(cds) else 1000 * num_junctions / len(cds),
    }
    return np.array([values[name] for name in FEATURES], dtype=np.float32)


def _log_length(bp: int | None) -> float:
    return np.nan if bp is None else float(np.log10(bp + 0.1))


def _gc(tokens: Tokens | None) -> float:
    if tokens is None:
        return np.nan
    known = np.count_nonzero(tokens)
    strong = np.count_nonzero(tokens >= DNA_SYMBOLS.index("C"))
    return strong / known if known else np.nan


def kmer_tokens(windows: Tokens) -> Tokens:
    """3-mers at stride 1: DNA tokens uint8 [n, L] -> uint8 [n, L - 2], 0 where one of the three bases is unknown."""
    codes, known = _kmer_codes(windows, TOKEN_KMER)
    return np.where(known, codes + 1, 0).astype(np.uint8)


def codon_tokens(cds: str, name: str = "the coding sequence") -> Tokens:
    """In-frame codons of a spliced coding sequence without its stop, uint8: as many as its protein has residues.

    Raises DataError, with ``name``, on a symbol that is no base.
    """
    end = len(cds) // 3 * 3
    codes, known = _kmer_codes(tokenize_dna(cds, name)[None, :end], 3)
    tokens = np.where(known, codes + 1, CODON_UNKNOWN)[0, ::3].astype(np.uint8)
    return tokens[:-1] if cds[end - 3 : end].upper() in STOP_CODONS else tokens


def kmer_names(k: int) -> list[str]:
    """The 4**k k-mers in the order of ``kmer_counts``' columns."""
    return ["".join(letters) for letters in product(DNA_SYMBOLS[1:], repeat=k)]


def kmer_counts(windows: Tokens, k: int) -> NDArray[np.float32]:
    """Overlapping k-mers of each window: [n, L] tokens -> float32 [n, 4**k]; a k-mer with an N is skipped.

    Raises SpecError unless 1 <= k <= 8 (4**8 columns are the most that a dense matrix is sensible for).
    """
    if not 1 <= k <= 8:
        raise SpecError(f"`1 <= k <= 8` must hold for k-mer counts, but got k={k}. Choose a k in that range.")
    num_genes, length = windows.shape
    counts = np.zeros((num_genes, 4**k), dtype=np.float32)
    rows = max(1, _CHUNK_BYTES // (8 * max(length, 1)))
    for first in range(0, num_genes if length >= k else 0, rows):
        chunk = windows[first : first + rows]
        codes, known = _kmer_codes(chunk, k)
        codes += 4**k * np.arange(len(chunk))[:, None]
        flat = np.bincount(codes[known], minlength=4**k * len(chunk))
        counts[first : first + rows] = flat.reshape(len(chunk), 4**k)
    return counts


def _kmer_codes(tokens: Tokens, k: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Base-4 code of the k-mer that begins at each position, and whether it is free of N: both [n, L-k+1]."""
    num_kmers = max(tokens.shape[1] - k + 1, 0)
    codes = np.zeros((len(tokens), num_kmers), dtype=np.int64)
    known = np.ones(codes.shape, dtype=np.bool_)
    for offset in range(k):
        column = tokens[:, offset : offset + num_kmers]
        codes = 4 * codes + column - 1
        known &= column != DNA_UNKNOWN
    return codes, known


def composition(
    tokens: Tokens, offsets: NDArray[np.int64], num_symbols: int = len(PROTEIN_SYMBOLS)
) -> NDArray[np.float32]:
    """Fractions of each symbol (pad left out) in each protein: float32 [n, num_symbols - 1]; 0 if empty.

    ``tokens`` holds the residues or codons of all proteins one after the other, protein i being
    ``tokens[offsets[i]:offsets[i+1]]``.
    """
    num_genes = len(offsets) - 1
    lengths = np.diff(offsets)
    gene = np.repeat(np.arange(num_genes), lengths)
    counts = np.bincount(gene * num_symbols + tokens, minlength=num_genes * num_symbols)
    fractions = counts.reshape(num_genes, num_symbols)[:, 1:] / np.maximum(lengths, 1)[:, None]
    return fractions.astype(np.float32)


def residue_kmer_counts(tokens: Tokens, offsets: NDArray[np.int64], k: int) -> NDArray[np.float32]:
    """Overlapping k-mers of residues in each protein, float32 [n, (symbols - 1)**k]; `composition` has the layout."""
    num_symbols = len(PROTEIN_SYMBOLS) - 1
    counts = np.zeros((len(offsets) - 1, num_symbols**k), dtype=np.float32)
    weights = num_symbols ** np.arange(k)[::-1]
    for gene, (first, last) in enumerate(pairwise(offsets)):
        if last - first >= k:
            codes = sliding_window_view(tokens[first:last].astype(np.int64) - 1, k) @ weights
            np.add.at(counts[gene], codes, 1)
    return counts
