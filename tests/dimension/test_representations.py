"""Genes as points: every representation of window and protein, against making it by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from raystudy.data.encode import PROTEIN_SYMBOLS, kmer_counts, residue_kmer_counts, tokenize_dna, tokenize_protein
from raystudy.data.genes import Genes
from raystudy.data.tables import GeneFeatures
from raystudy.dimension import representations
from raystudy.dimension.clouds import Cloud, RealCloud, SymbolCloud
from raystudy.dimension.representations import INPUTS, REPRESENTATIONS, default_input, represent
from raystudy.errors import DataError, SpecError

NUM_GENES = 12
WINDOW = (100, 50)


def make_genes(windows: list[str], proteins: list[str]) -> Genes:
    """The part of a prepared folder that this room reads, in memory; the anchor is the middle of the window."""
    tokens = np.stack([tokenize_dna(window) for window in windows])
    middle = tokens.shape[1] // 2
    residues = [tokenize_protein(protein) for protein in proteins]
    return cast(
        Genes,
        SimpleNamespace(
            num_genes=len(windows),
            windows=lambda window_bp: tokens[:, middle - window_bp[0] : middle + window_bp[1]],
            protein_tokens=np.concatenate(residues),
            protein_offsets=np.concatenate([[0], np.cumsum([len(one) for one in residues])]),
        ),
    )


@pytest.fixture
def genes() -> Genes:
    random = np.random.default_rng(0)
    proteins = ["".join(random.choice(list(PROTEIN_SYMBOLS[1:]), length)) for length in range(40, 40 + NUM_GENES)]
    return make_genes(["".join(random.choice(list("ACGTN"), 300)) for _ in range(NUM_GENES)], proteins)


def embedding(values: Any) -> GeneFeatures:
    table = np.array(values, dtype=np.float32)
    return GeneFeatures(table, tuple(map(str, range(table.shape[1]))), "0" * 64, 0, 0)


def values_of(cloud: Cloud) -> NDArray[Any]:
    assert isinstance(cloud, RealCloud)
    return cloud.values


def tokens_of(cloud: Cloud) -> NDArray[np.uint8]:
    assert isinstance(cloud, SymbolCloud)
    return cloud.tokens


SHAPES = {
    ("kmer3", "dna"): 64,
    ("kmer3", "protein"): 22**3,
    ("kmer3", "both"): 64 + 22**3,
    ("kmer4", "dna"): 256,
    ("onehot", "dna"): 150,
    ("onehot", "protein"): 51,
    ("onehot", "both"): 201,
    ("composition", "dna"): 4,
    ("composition", "protein"): 22,
    ("composition", "both"): 26,
}


@pytest.mark.parametrize(("representation", "input"), SHAPES)
def test_every_combination_is_a_point_a_gene(representation: str, input: str, genes: Genes) -> None:
    cloud = represent(genes, WINDOW, representation, input)
    points: NDArray[Any] = tokens_of(cloud) if representation == "onehot" else values_of(cloud)
    assert points.shape == (NUM_GENES, SHAPES[representation, input])
    assert points.dtype == (np.uint8 if representation == "onehot" else np.float32)
    assert cloud.num_bad() == 0
    some = represent(genes, WINDOW, representation, input, rows=np.array([7, 2]))
    assert len(some) == 2
    assert [some.row_bytes(0), some.row_bytes(1)] == [cloud.row_bytes(7), cloud.row_bytes(2)]


def test_all_that_is_left_are_combinations_that_do_not_exist(genes: Genes) -> None:
    missing = {(name, of) for name in REPRESENTATIONS if name != "embedding" for of in INPUTS} - SHAPES.keys()
    assert missing == {("kmer4", "protein"), ("kmer4", "both")}
    for name, of in missing:
        with pytest.raises(
            SpecError, match=rf"`{name}` of proteins would have 22\*\*4 columns; choose kmer3, .*{of!r}"
        ):
            represent(genes, WINDOW, name, of)


@pytest.mark.parametrize(
    ("representation", "input"), [("kmer3", "dna"), ("kmer4", "dna"), ("onehot", "dna"), ("composition", "protein")]
)
def test_unless_said_the_window_is_represented_and_the_protein_by_its_composition(
    representation: str, input: str, genes: Genes
) -> None:
    assert default_input(representation) == input
    default, said = (represent(genes, WINDOW, representation, of) for of in (None, input))
    assert [default.row_bytes(row) for row in range(NUM_GENES)] == [said.row_bytes(row) for row in range(NUM_GENES)]


def test_kmers_are_counted_in_the_window_and_in_the_protein(genes: Genes) -> None:
    windows = genes.windows(WINDOW)
    np.testing.assert_array_equal(values_of(represent(genes, WINDOW, "kmer3")), kmer_counts(windows, 3))
    np.testing.assert_array_equal(values_of(represent(genes, WINDOW, "kmer4")), kmer_counts(windows, 4))
    expected = residue_kmer_counts(genes.protein_tokens, genes.protein_offsets, 3)
    np.testing.assert_array_equal(values_of(represent(genes, WINDOW, "kmer3", "protein")), expected)


def test_composition_is_the_fraction_of_each_symbol_that_is_known() -> None:
    genes = make_genes(["AATCNNNN", "NNNNNNNN", "GGGGCCCC"], ["MMAC", "A", "UX"])
    bases = values_of(represent(genes, (4, 4), "composition", "dna"))
    assert bases.tolist() == [[0.5, 0.25, 0.25, 0], [0, 0, 0, 0], [0, 0, 0.5, 0.5]]
    residues = values_of(represent(genes, (4, 4), "composition"))
    named = dict(zip(PROTEIN_SYMBOLS[1:], residues[0].tolist(), strict=True))
    assert {symbol: share for symbol, share in named.items() if share} == {"A": 0.25, "C": 0.25, "M": 0.5}


def test_one_hot_distances_count_mismatches_with_n_as_a_symbol_of_its_own() -> None:
    genes = make_genes(["ACGTACGT", "ACGTTTTT", "NNNNACGT"], ["MK", "MKL", "MC"])
    squares = represent(genes, (4, 4), "onehot").squares(slice(0, 3))
    np.testing.assert_array_equal(squares, 2 * np.array([[0, 3, 4], [3, 0, 7], [4, 7, 0]]))


def test_one_hot_proteins_are_padded_with_a_symbol_to_the_longest() -> None:
    genes = make_genes(["AC", "AC", "AG"], ["MK", "MKL", "MC"])
    proteins = represent(genes, (1, 1), "onehot", "protein")
    assert tokens_of(proteins).tolist()[0] == [*tokenize_protein("MK"), 0]
    np.testing.assert_array_equal(proteins.squares(slice(0, 3)), 2 * np.array([[0, 1, 1], [1, 0, 2], [1, 2, 0]]))
    both = represent(genes, (1, 1), "onehot", "both")
    assert tokens_of(both)[1].tolist() == [*tokenize_dna("AC"), *tokenize_protein("MKL")]


def test_proteins_longer_than_a_one_hot_point_holds_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(representations, "MAX_PROTEIN", 3)
    genes = make_genes(["AC", "AC"], ["MKLAA", "MC"])
    found = tokens_of(represent(genes, (1, 1), "onehot", "protein"))
    assert found.tolist() == [tokenize_protein("MKL").tolist(), [*tokenize_protein("MC"), 0]]
    assert tokens_of(represent(genes, (1, 1), "onehot", "both")).shape == (2, 5)


@pytest.mark.parametrize(("representation", "num_columns"), [("kmer3", 64), ("composition", 4)])
def test_window_and_protein_have_the_same_say_where_both_are_represented(
    representation: str, num_columns: int, genes: Genes
) -> None:
    both = values_of(represent(genes, WINDOW, representation, "both"))
    parts = {
        "dna": both[:, :num_columns],
        "protein": both[:, num_columns:],
    }
    for of, part in parts.items():
        assert part.var(axis=0, dtype=np.float64).sum() == pytest.approx(1, rel=1e-4)
        alone = values_of(represent(genes, WINDOW, representation, of)).astype(np.float64)
        factors = part[alone > 0] / alone[alone > 0]
        np.testing.assert_allclose(factors, factors[0], rtol=1e-5)


def test_a_part_that_is_the_same_in_all_genes_is_not_scaled() -> None:
    genes = make_genes(["ACGT", "ACGT"], ["MK", "MC"])
    both = values_of(represent(genes, (2, 2), "composition", "both"))
    assert np.isfinite(both).all()
    assert both[:, :4].tolist() == [[0.25] * 4] * 2


def test_an_embedding_is_the_numbers_of_the_genes_it_knows() -> None:
    nan = np.nan
    table = embedding([[1, 2], [nan, nan], [3, 4], [nan, 5]])
    genes = make_genes(["AC"] * 4, ["M"] * 4)
    assert values_of(represent(genes, (1, 1), "embedding", embedding=table)).tolist() == [[1, 2], [3, 4]]
    some = values_of(represent(genes, (1, 1), "embedding", embedding=table, rows=np.array([2, 1])))
    assert some.tolist() == [[3, 4]]


def test_an_embedding_that_is_not_there_is_asked_for(genes: Genes) -> None:
    with pytest.raises(SpecError, match=r"`embedding` needs numbers .*gene_id.* checkpoint .* --embeddings FILE"):
        represent(genes, WINDOW, "embedding")


def test_an_embedding_of_none_of_the_genes_is_refused(genes: Genes) -> None:
    table = embedding(np.where(np.arange(NUM_GENES) < 6, 1.0, np.nan)[:, None])
    with pytest.raises(DataError, match="no gene of the data with all its values"):
        represent(genes, WINDOW, "embedding", embedding=table, rows=np.arange(6, 12))


def test_a_name_that_does_not_exist_is_refused_with_the_nearest(genes: Genes) -> None:
    with pytest.raises(SpecError, match=r"`representation` is 'kmr3', which is none of kmer3, .* mean 'kmer3'"):
        represent(genes, WINDOW, "kmr3")
    with pytest.raises(SpecError, match=r"`input` is 'protien', which is none of dna, protein, both.* mean 'protein'"):
        represent(genes, WINDOW, "kmer3", "protien")


def test_a_window_outside_the_data_is_refused(synthetic_dir: Any) -> None:
    with pytest.raises(DataError, match="9000"):
        represent(Genes.open(synthetic_dir), (9000, 100), "kmer3")
