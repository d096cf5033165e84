"""Text to numbers, against counting by hand and by brute force."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from raystudy.data import encode
from raystudy.data.encode import (
    DNA_SYMBOLS,
    FEATURES,
    PROTEIN_SYMBOLS,
    codon_counts,
    composition,
    cut_window,
    half_life_features,
    kmer_counts,
    kmer_names,
    reverse_complement,
    tokenize_dna,
    tokenize_protein,
)
from raystudy.errors import DataError, SpecError

COMPLEMENT = str.maketrans("ATCG", "TAGC")


def random_dna(length: int, seed: int = 0, symbols: str = "ACGT") -> str:
    return "".join(np.random.default_rng(seed).choice(list(symbols), length))


def test_dna_tokens_are_n_0_a_1_t_2_c_3_g_4() -> None:
    assert tokenize_dna("NATCGatcgn").tolist() == [0, 1, 2, 3, 4, 1, 2, 3, 4, 0]
    assert tokenize_dna("").tolist() == []


def test_dna_ambiguity_codes_become_n() -> None:
    assert tokenize_dna("ARYSWKMBDHVa").tolist() == [1, *[0] * 10, 1]


def test_protein_tokens_are_23_symbols_with_the_pad_first() -> None:
    assert len(PROTEIN_SYMBOLS) == 23
    tokens = tokenize_protein("ACDEFGHIKLMNPQRSTVWYUX")
    assert tokens.tolist() == list(range(1, 23))
    assert tokenize_protein("acux").tolist() == tokenize_protein("ACUX").tolist()


def test_protein_ambiguity_codes_become_x() -> None:
    assert set(tokenize_protein("BZJOX").tolist()) == {PROTEIN_SYMBOLS.index("X")}


@pytest.mark.parametrize("text", ["AC-T", "ACUT", "AC T", "ACéT", "AC\u4e00T"])
def test_a_symbol_outside_the_dna_alphabet_names_gene_and_value(text: str) -> None:
    with pytest.raises(DataError, match=f"YAL001C: {text[2]!r} at position 3 is not a DNA symbol"):
        tokenize_dna(text, "YAL001C")


@pytest.mark.parametrize("symbol", ["*", "-", "1"])
def test_a_symbol_outside_the_protein_alphabet_names_gene_and_value(symbol: str) -> None:
    with pytest.raises(DataError) as error:
        tokenize_protein(f"MK{symbol}", "YAL001C")
    assert f"YAL001C: {symbol!r} at position 3" in str(error.value)


def test_reverse_complement_reads_the_other_strand() -> None:
    assert reverse_complement(tokenize_dna("AACGTN")).tolist() == tokenize_dna("NACGTT").tolist()


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize("anchor", [0, 3, 50, 98, 99])
@pytest.mark.parametrize("window_bp", [(7, 4), (0, 5), (5, 0), (150, 120)])
def test_a_window_is_what_a_reader_of_the_gene_sees(strand: str, anchor: int, window_bp: tuple[int, int]) -> None:
    text, (up, down) = random_dna(100), window_bp
    expected = ""
    for offset in range(-up, down):
        position = anchor + offset if strand == "+" else anchor - offset
        base = text[position] if 0 <= position < 100 else "N"
        expected += base if strand == "+" else base.translate(COMPLEMENT)
    window = cut_window(tokenize_dna(text), anchor, strand, window_bp)
    assert window.tolist() == tokenize_dna(expected).tolist()


def test_half_life_features_of_a_gene_with_everything_known() -> None:
    cds, utr5, utr3 = tokenize_dna("ATGCCCTAA"), tokenize_dna("GGCC"), tokenize_dna("ATNN")
    values = half_life_features(cds, utr5=utr5, utr3=utr3, intron_bp=90, num_junctions=2)
    expected = {
        "utr5_length": np.log10(4.1),
        "cds_length": np.log10(9.1),
        "utr3_length": np.log10(4.1),
        "intron_length": np.log10(90.1),
        "utr5_gc": 1.0,
        "cds_gc": 4 / 9,
        "utr3_gc": 0.0,
        "junction_density": 2 / 0.009,
    }
    assert tuple(expected) == FEATURES
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, list(expected.values()), rtol=1e-6)


def test_unknown_features_are_missing_not_zero() -> None:
    values = dict(zip(FEATURES, half_life_features(tokenize_dna("ATGTAA")), strict=True))
    known = {name for name, value in values.items() if not np.isnan(value)}
    assert known == {"cds_length", "cds_gc"}


def test_an_empty_utr_has_a_length_but_no_gc_fraction() -> None:
    values = dict(zip(FEATURES, half_life_features(tokenize_dna("ATG"), utr5=tokenize_dna("")), strict=True))
    assert values["utr5_length"] == pytest.approx(-1)
    assert np.isnan(values["utr5_gc"])


@pytest.mark.parametrize("k", [1, 2, 4])
def test_kmer_counts_equal_counting_by_hand(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "_CHUNK_BYTES", 3 * 8 * 60)  # chunks of three windows, the last one shorter
    texts = [random_dna(60, seed, "ACGTN") for seed in range(8)]
    counts = kmer_counts(np.stack([tokenize_dna(text) for text in texts]), k)
    assert counts.dtype == np.float32
    for text, row in zip(texts, counts, strict=True):
        expected = Counter(text[at : at + k] for at in range(len(text) - k + 1))
        assert row.tolist() == [expected[kmer] for kmer in kmer_names(k)]


def test_windows_shorter_than_k_have_no_kmers() -> None:
    assert kmer_counts(np.ones((2, 3), dtype=np.uint8), 4).sum() == 0


@pytest.mark.parametrize("k", [0, 9])
def test_kmers_too_many_to_count_are_refused(k: int) -> None:
    with pytest.raises(SpecError, match=f"got k={k}"):
        kmer_counts(np.ones((2, 30), dtype=np.uint8), k)


def test_codons_are_counted_in_frame() -> None:
    counts = codon_counts(["ATGAAAAAANTTTAAC", ""])
    named = dict(zip(kmer_names(3), counts[0], strict=True))
    assert {codon: count for codon, count in named.items() if count} == {"ATG": 1, "AAA": 2, "TAA": 1}
    assert counts[1].sum() == 0


def test_composition_is_fractions_of_each_protein() -> None:
    tokens = np.concatenate([tokenize_protein("AAC"), tokenize_protein("UX")])
    fractions = composition(tokens, np.array([0, 3, 3, 5]))
    assert fractions.shape == (3, 22)
    assert fractions[0, :2].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert fractions[1].sum() == 0
    assert fractions[2, 20:].tolist() == [0.5, 0.5]


def test_dna_symbols_are_in_token_order() -> None:
    assert tokenize_dna(DNA_SYMBOLS).tolist() == list(range(5))
