"""Text to numbers, against counting by hand and by brute force."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest

from raystudy.data import encode
from raystudy.data.encode import (
    CODON_UNKNOWN,
    DNA_SYMBOLS,
    FEATURES,
    NUM_SYMBOLS,
    PROTEIN_SYMBOLS,
    STOP_CODONS,
    codon_tokens,
    composition,
    cut_window,
    half_life_features,
    kmer_counts,
    kmer_names,
    kmer_tokens,
    residue_kmer_counts,
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


def test_kmer_tokens_are_the_place_in_the_names_and_0_where_a_base_is_unknown() -> None:
    texts = ["AAATCGNGGGG", random_dna(11, 1)]
    tokens = kmer_tokens(np.stack([tokenize_dna(text) for text in texts]))

    assert tokens.dtype == np.uint8
    for text, row in zip(texts, tokens, strict=True):
        kmers = [text[at : at + 3] for at in range(len(text) - 2)]
        assert row.tolist() == [0 if "N" in kmer else 1 + kmer_names(3).index(kmer) for kmer in kmers]
    assert tokens[0].tolist() == [1, 2, 7, 28, 0, 0, 0, 64, 64]


@pytest.mark.parametrize("length", [0, 1, 2])
def test_windows_shorter_than_a_kmer_have_no_kmer_tokens(length: int) -> None:
    assert kmer_tokens(np.ones((2, length), dtype=np.uint8)).shape == (2, 0)


def test_each_way_of_reading_has_as_many_symbols_as_its_tokens_reach() -> None:
    assert NUM_SYMBOLS == {"base": 5, "kmer": 65, "residue": 23, "codon": 66}
    assert kmer_tokens(tokenize_dna("GGG")[None]).tolist() == [[NUM_SYMBOLS["kmer"] - 1]]
    assert codon_tokens("NNN").tolist() == [NUM_SYMBOLS["codon"] - 1]


def test_codon_tokens_are_read_in_frame_one_a_residue() -> None:
    names = kmer_names(3)
    assert codon_tokens("ATGAAAGGG").tolist() == [1 + names.index(codon) for codon in ("ATG", "AAA", "GGG")]
    assert codon_tokens("ATGAAAGGG").dtype == np.uint8
    assert codon_tokens("").tolist() == []


@pytest.mark.parametrize("stop", STOP_CODONS)
def test_the_stop_codon_at_the_end_is_dropped_and_none_before(stop: str) -> None:
    inside = f"ATG{stop}CCC"
    assert len(codon_tokens(inside)) == 3
    assert codon_tokens(inside + stop).tolist() == codon_tokens(inside).tolist()
    assert codon_tokens(inside + stop + stop).tolist() == codon_tokens(inside + stop + "CCC").tolist()[:-1]
    assert codon_tokens(stop).tolist() == []


def test_codons_in_lower_case_are_the_same() -> None:
    assert codon_tokens("atgcccTaa").tolist() == codon_tokens("ATGCCCTAA").tolist()
    assert len(codon_tokens("atgccctag")) == 2


@pytest.mark.parametrize("codon", ["NAA", "ANA", "AAN", "NNN", "ARA", "TAR"])
def test_a_codon_with_an_unknown_base_is_the_unknown_codon(codon: str) -> None:
    assert CODON_UNKNOWN == 65
    assert codon_tokens(f"ATG{codon}CCC").tolist()[1] == 65
    assert codon_tokens(f"ATG{codon}").tolist()[1] == 65, "it may be no stop"


@pytest.mark.parametrize("rest", ["A", "AA"])
def test_an_unfinished_last_codon_is_not_read(rest: str) -> None:
    assert codon_tokens("ATGCCC" + rest).tolist() == codon_tokens("ATGCCC").tolist()
    assert codon_tokens("ATGCCCTGA" + rest).tolist() == codon_tokens("ATGCCC").tolist()
    assert codon_tokens(rest).tolist() == []


@pytest.mark.parametrize("text", ["ATGAUGTAA", "ATGA*GTAA", "ATGAAA-"])
def test_a_symbol_that_is_no_base_in_a_coding_sequence_names_the_gene(text: str) -> None:
    at = next(place for place, symbol in enumerate(text) if symbol in "U*-")
    with pytest.raises(DataError) as error:
        codon_tokens(text, "the CDS of YAL001C")
    assert f"the CDS of YAL001C: {text[at]!r} at position {at + 1} is not a DNA symbol" in str(error.value)


def test_composition_of_codons_is_their_usage() -> None:
    tokens = np.concatenate([codon_tokens("ATGAAAAAANTT"), codon_tokens("GGG")])
    usage = composition(tokens, np.array([0, 4, 4, 5]), NUM_SYMBOLS["codon"])

    assert usage.shape == (3, 65)
    named = dict(zip([*kmer_names(3), "unknown"], usage[0].tolist(), strict=True))
    assert {codon: share for codon, share in named.items() if share} == {"ATG": 0.25, "AAA": 0.5, "unknown": 0.25}
    assert not usage[1].any()
    assert usage[2, 63] == 1


def test_composition_is_fractions_of_each_protein() -> None:
    tokens = np.concatenate([tokenize_protein("AAC"), tokenize_protein("UX")])
    fractions = composition(tokens, np.array([0, 3, 3, 5]))
    assert fractions.shape == (3, 22)
    assert fractions[0, :2].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert fractions[1].sum() == 0
    assert fractions[2, 20:].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_kmers_of_residues_equal_counting_by_hand(k: int) -> None:
    symbols = PROTEIN_SYMBOLS[1:]
    texts = ["MMMMMKL", "AC", "", "XUX" + symbols, "M" * k, "M" * (k - 1)]
    tokens = np.concatenate([tokenize_protein(text) for text in texts])
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])])

    counts = residue_kmer_counts(tokens, offsets, k)

    assert counts.shape == (6, 22**k)
    assert counts.dtype == np.float32
    names = ["".join(residues) for residues in product(symbols, repeat=k)]
    for text, row in zip(texts, counts, strict=True):
        expected = Counter(text[at : at + k] for at in range(len(text) - k + 1))
        assert {name: count for name, count in zip(names, row.tolist(), strict=True) if count} == expected


def test_kmers_of_one_residue_are_the_composition_times_the_length() -> None:
    tokens, offsets = tokenize_protein("MKLMMAC"), np.array([0, 4, 4, 7])
    counted = residue_kmer_counts(tokens, offsets, 1)
    np.testing.assert_allclose(counted, composition(tokens, offsets) * np.diff(offsets)[:, None], rtol=1e-6)


def test_dna_symbols_are_in_token_order() -> None:
    assert tokenize_dna(DNA_SYMBOLS).tolist() == list(range(5))
