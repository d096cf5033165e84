"""What training reads: scales, each family's batches of genes written by hand, and the order of an epoch."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raystudy.data.batches import (
    FeatureScale,
    GeneInputs,
    Inputs,
    LabelScale,
    StudyData,
    half_life_values,
    sealed_labels,
)
from raystudy.data.encode import (
    CODON_UNKNOWN,
    PROTEIN_UNKNOWN,
    codon_tokens,
    kmer_names,
    tokenize_dna,
    tokenize_protein,
)
from raystudy.data.genes import FEATURES, Genes, GeneTable, Target, write_genes
from raystudy.data.splits import Split, make_split
from raystudy.errors import DataError
from raystudy.study.model import ModelSpec
from raystudy.study.sections import SplitSpec

WINDOW = (200, 100)
CPU = torch.device("cpu")
WINDOWS = ["AAATCGNGGGGA", "NNNNACGTACGT", "CCCCCCCCCCCC"]
PROTEINS = ["MKXVA", "MC", "MBWWWWWWWW"]
CODING = ["ATGAAANNNGTTGCTTAA", "ATGTGTTGA", "ATG" + "TGG" * 9]
ROWS = np.array([2, 0, 1])
PROTEIN_TOKENS = {
    "residue": [tokenize_protein(text).tolist() for text in PROTEINS],
    "codon": [codon_tokens(text).tolist() for text in CODING],
}
DNA_FIRST = {"family": "dna_protein", "perceiver_input": "dna"}


def model(family: str = "dna_protein", **given: Any) -> ModelSpec:
    return ModelSpec(**{"family": family, "window_bp": (6, 6), "max_protein": 7, "pool_size": 2, **given})


def tokens(*windows: str) -> np.ndarray:
    """Windows of the three genes; the last one stands for all that remain."""
    return np.stack([tokenize_dna(window) for window in (*windows, *windows[-1:] * 2)[:3]])


def handmade(folder: Path, **changes: Any) -> Genes:
    """Three genes with windows of [-6, +6)."""
    features = np.arange(3 * len(FEATURES), dtype=np.float32).reshape(3, -1)
    features[1, 2] = np.nan
    table = GeneTable(
        source="handmade",
        source_digests={},
        anchor=6,
        gene_ids=["G0", "G1", "G2"],
        symbols=[""] * 3,
        chroms=["I"] * 3,
        starts=np.array([10, 50, 90]),
        ends=np.array([30, 80, 120]),
        strands=["+"] * 3,
        windows=tokens(*WINDOWS),
        proteins=PROTEINS,
        cds=CODING,
        features=features,
        targets={"protein": Target(np.array([1.0, 2.0, 3.0]), "ppm")},
        family_ids=np.arange(3),
    )
    return Genes.open(write_genes(dataclasses.replace(table, **changes), folder))


def read(genes: Genes, spec: ModelSpec) -> GeneInputs:
    return GeneInputs.of(genes, spec, FeatureScale.fit(genes.features, np.array([0, 1])))


def in_perceiver(batch: Inputs) -> list[tuple[list[int], list[int]]]:
    """Tokens and positions of each gene."""
    parts = [each.split(batch.lengths) for each in (batch.tokens_T, batch.positions_T)]
    return [(of.tolist(), at.tolist()) for of, at in zip(*parts, strict=True)]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Genes:
    return handmade(tmp_path_factory.mktemp("three") / "data")


@pytest.fixture(scope="module")
def genes(synthetic_dir: Path) -> Genes:
    return Genes.open(synthetic_dir)


@pytest.fixture(scope="module")
def split(genes: Genes) -> Split:
    labelled = np.isfinite(genes.target("mrna")) | np.isfinite(genes.target("protein"))
    return make_split(genes, SplitSpec(valid=0.15, test=0.2), WINDOW, labelled)


def study(genes: Genes, split: Split, *targets: str) -> StudyData:
    spec = ModelSpec(family="dna_protein", window_bp=WINDOW, max_protein=60, pool_size=4)
    return StudyData.of(genes, split, spec, targets or ("mrna",))


def test_training_columns_get_mean_0_and_variance_1_and_other_genes_have_no_say() -> None:
    values = np.random.default_rng(0).normal([5, -300, 0], [2, 0.01, 40], (200, 3))
    train = np.arange(0, 200, 2)
    altered = np.where(np.isin(np.arange(200), train)[:, None], values, 1e6)
    altered[1] = np.nan

    scaled = FeatureScale.fit(altered, train).apply(values)

    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[train].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled[train].std(axis=0), 1, atol=1e-4)
    np.testing.assert_allclose(scaled, (values - values[train].mean(axis=0)) / values[train].std(axis=0), atol=1e-3)


def test_missing_values_are_left_out_of_the_scale_and_become_the_mean() -> None:
    values = np.array([[1.0], [np.nan], [3.0], [np.nan], [5.0]])
    assert FeatureScale.fit(values, np.array([0, 1, 2])).apply(values)[:, 0].tolist() == [-1, 0, 1, 0, 3]


@pytest.mark.parametrize("constant", [0.0, -1.0, 2.7, 1234.567, np.nan])
def test_a_constant_or_missing_column_becomes_0_without_a_warning(constant: float) -> None:
    values = np.full((5000, 2), constant, np.float32)
    values[:, 1] = np.arange(5000)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaled = FeatureScale.fit(values, np.arange(4500)).apply(values)

    assert not scaled[:, 0].any()
    assert scaled[:, 1].any()


def test_the_label_scale_goes_there_and_back_each_target_in_its_own_unit() -> None:
    labels = np.array([[1.0, -200], [3.0, np.nan], [8.0, 400]])

    scale = LabelScale.fit(labels, ["mrna", "protein"])
    standardised = scale.standardise(labels)

    assert standardised.dtype == np.float32
    np.testing.assert_allclose(np.nanmean(standardised, axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.nanstd(standardised, axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose(scale.to_unit(standardised), labels, rtol=1e-6)


@pytest.mark.parametrize(
    ("column", "told"),
    [([2.0, 2.0, np.nan], "protein levels are all 2"), ([np.nan] * 3, "protein levels are all missing")],
)
def test_labels_without_differences_are_refused_whichever_target_has_them(column: list[float], told: str) -> None:
    with pytest.raises(DataError, match=f"the 3 training genes' {told}"):
        LabelScale.fit(np.array([[1.0, 2.0, 3.0], column]).T, ["mrna", "protein"])


def test_the_convolution_reads_each_genes_window_with_its_n(three: Genes) -> None:
    batch = read(three, model("dna_protein", window_bp=(5, 4))).batch(ROWS, CPU)

    assert batch.sequence_BL.dtype == torch.uint8
    assert batch.sequence_BL.tolist() == [tokenize_dna(WINDOWS[row][1:10]).tolist() for row in ROWS]


@pytest.mark.parametrize("given", [{"family": "protein"}, DNA_FIRST])
@pytest.mark.parametrize("symbols", ["residue", "codon"])
def test_the_convolution_reads_a_protein_padded_to_the_longest_allowed(
    three: Genes, given: dict[str, Any], symbols: str
) -> None:
    sequence_BL = read(three, model(**given, tokens=symbols)).batch(ROWS, CPU).sequence_BL

    assert sequence_BL.dtype == torch.uint8
    assert sequence_BL.tolist() == [[*PROTEIN_TOKENS[symbols][row], *[0] * 7][:7] for row in ROWS]
    assert sequence_BL[0].all(), "one of them had to be cut"


@pytest.mark.parametrize("family", ["protein", "dna_protein"])
@pytest.mark.parametrize(("symbols", "unknown"), [("residue", PROTEIN_UNKNOWN), ("codon", CODON_UNKNOWN)])
def test_the_perceiver_reads_proteins_end_to_end_and_what_is_unknown_in_them_too(
    three: Genes, family: str, symbols: str, unknown: int
) -> None:
    batch = read(three, model(family, tokens=symbols)).batch(ROWS, CPU)

    expected = [PROTEIN_TOKENS[symbols][row][:7] for row in ROWS]
    assert in_perceiver(batch) == [(one, list(range(len(one)))) for one in expected]
    assert (batch.tokens_T.dtype, batch.positions_T.dtype) == (torch.int32, torch.int32)
    assert batch.lengths == [7, 5, 2]
    assert unknown in batch.tokens_T


@pytest.mark.parametrize("given", [{"family": "dna"}, DNA_FIRST])
@pytest.mark.parametrize(("encoder", "k", "lengths"), [("onehot", 1, [12, 11, 8]), ("kmer", 3, [10, 7, 6])])
def test_the_perceiver_reads_dna_without_what_an_n_is_in_while_positions_count_it(
    three: Genes, given: dict[str, Any], encoder: str, k: int, lengths: list[int]
) -> None:
    batch = read(three, model(**given, encoder=encoder)).batch(ROWS, CPU)

    for row, (read_tokens, positions) in zip(ROWS, in_perceiver(batch), strict=True):
        kmers = {place: WINDOWS[row][place : place + k] for place in range(13 - k)}
        known = {place: kmer for place, kmer in kmers.items() if "N" not in kmer}
        assert positions == list(known)
        assert read_tokens == [1 + kmer_names(k).index(kmer) for kmer in known.values()]
    assert batch.lengths == lengths
    assert read(three, model(**given)).by_length(ROWS).tolist() == ROWS.tolist(), "windows are of one length"


def test_the_cnn_reads_the_window_and_no_perceiver_tokens(genes: Genes) -> None:
    batch = read(genes, ModelSpec(family="xpresso", window_bp=WINDOW)).batch(ROWS, CPU)

    assert np.array_equal(batch.sequence_BL.numpy(), genes.windows(WINDOW)[ROWS])
    assert (len(batch.tokens_T), len(batch.positions_T), batch.lengths) == (0, 0, [0, 0, 0])
    assert batch.tokens_T.dtype == torch.int32


def test_half_life_features_are_on_the_training_genes_scale_and_0_where_missing(three: Genes) -> None:
    scale = FeatureScale.fit(three.features, np.array([0, 1]))

    half_life_BH = read(three, model("dna")).batch(ROWS, CPU).half_life_BH

    assert np.array_equal(half_life_BH.numpy(), scale.apply(three.features)[ROWS])
    assert half_life_BH[2].tolist() == [1, 1, 0, 1, 1, 1, 1, 1]
    assert half_life_BH[0, 0] == 3


def test_an_indicator_says_which_features_are_missing_and_nothing_where_that_never_differs(three: Genes) -> None:
    marked = model("dna", half_life_missing="indicator")
    scale = FeatureScale.fit(half_life_values(three.features, marked), np.array([0, 1]))

    half_life_NH = GeneInputs.of(three, marked, scale).half_life_NH

    assert np.array_equal(half_life_NH[:, :8], read(three, model("dna")).half_life_NH)
    assert half_life_NH[:, 8 + 2].tolist() == [-1, 1, -1]  # of genes 0 and 1, it is gene 1 that lacks its third one
    assert not np.delete(half_life_NH[:, 8:], 2, axis=1).any()


@pytest.mark.parametrize("family", ["dna", "protein", "dna_protein"])
def test_a_gene_is_read_the_same_in_every_batch(three: Genes, family: str) -> None:
    inputs = read(three, model(family))
    together = inputs.batch(ROWS, CPU)
    for place, row in enumerate(ROWS):
        alone = inputs.batch(np.array([row]), CPU)
        assert torch.equal(alone.sequence_BL[0], together.sequence_BL[place])
        assert torch.equal(alone.half_life_BH[0], together.half_life_BH[place])
        assert in_perceiver(alone)[0] == in_perceiver(together)[place]


@pytest.mark.parametrize(
    ("changes", "given", "told"),
    [
        ({"proteins": ["MK", "", ""]}, {"family": "protein"}, r"G1 has an empty protein.* \(2 such genes"),
        ({"proteins": ["MK", "", "M"]}, DNA_FIRST, "G1 has an empty protein, of which the network reads every residue"),
        ({"cds": ["ATGAAA", "ATG", "TAA"]}, {"tokens": "codon"}, r"G2 has an empty coding sequence.* \(1 such genes"),
        ({"windows": tokens("A" * 12, "N" * 12)}, {"family": "dna"}, r"G1 has no known base in its window \[-6, 6\)"),
        ({"windows": tokens("A" * 12, "N" * 12)}, DNA_FIRST, "G1 has no known base"),
        ({"windows": tokens("A" * 12, "AN" * 6)}, {"family": "dna", "encoder": "kmer"}, "G1 has no 3-mer of known"),
    ],
    ids=["protein", "protein of the convolution", "codons", "window", "window beside a protein", "3-mers"],
)
def test_a_gene_of_which_nothing_can_be_read_is_named(
    tmp_path: Path, changes: dict[str, Any], given: dict[str, Any], told: str
) -> None:
    with pytest.raises(DataError, match=told + ".*prepare the data without them"):
        read(handmade(tmp_path / "data", **changes), model(**given))


@pytest.mark.parametrize(
    ("changes", "given"),
    [
        ({"proteins": [""] * 3, "cds": [""] * 3}, {"family": "dna"}),
        ({"windows": tokens("N" * 12, "N" * 12)}, {"family": "protein"}),
        ({"windows": tokens("N" * 12, "N" * 12)}, {"family": "dna_protein"}),
        ({"proteins": [""] * 3}, {"family": "protein", "tokens": "codon"}),
    ],
)
def test_what_the_network_does_not_attend_to_may_be_empty(
    tmp_path: Path, changes: dict[str, Any], given: dict[str, Any]
) -> None:
    batch = read(handmade(tmp_path / "data", **changes), model(**given)).batch(ROWS, CPU)

    assert len(batch.sequence_BL) == len(batch.lengths) == len(ROWS)
    assert min(batch.lengths) > 0


def test_a_network_without_dna_reads_genes_whatever_their_window(three: Genes) -> None:
    inputs = read(three, model("protein", window_bp=(7000, 3500)))
    assert inputs.batch(ROWS, CPU).lengths == [7, 5, 2]


@pytest.mark.parametrize("given", [{"family": "protein"}, {"family": "dna_protein", "tokens": "codon"}])
def test_ordering_by_length_keeps_every_gene_and_the_order_of_equals(genes: Genes, given: dict[str, Any]) -> None:
    inputs = read(genes, ModelSpec(**given, window_bp=WINDOW, max_protein=100, pool_size=4))
    rows = np.random.default_rng(0).permutation(genes.num_genes)

    ordered = inputs.by_length(rows)

    assert np.array_equal(ordered, rows[inputs.length_order(rows)])
    assert (np.diff(inputs.protein_lengths[ordered]) >= 0).all()
    longest = [row for row in rows.tolist() if inputs.protein_lengths[row] == 100]
    assert len(longest) > 1
    assert ordered[-len(longest) :].tolist() == longest
    assert sorted(ordered.tolist()) == list(range(genes.num_genes))


def test_sealed_labels_hold_train_and_valid_only(genes: Genes, split: Split) -> None:
    labels = sealed_labels(genes, ("protein", "mrna"), split)

    seen = np.concatenate([split.train, split.valid])
    for column, name in enumerate(("protein", "mrna")):
        assert np.array_equal(labels[seen, column], genes.target(name)[seen], equal_nan=True)
    assert np.isnan(np.delete(labels, seen, axis=0)).all()
    assert np.isnan(labels[split.test]).all()


def test_a_trial_sees_nothing_of_the_test_labels(genes: Genes, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = study(genes, split, "mrna", "protein")
    original = Genes.target

    def poisoned(self: Genes, name: str) -> Any:
        labels = original(self, name)
        labels[split.test] = 1e9
        return labels

    monkeypatch.setattr(Genes, "target", poisoned)
    data = study(genes, split, "mrna", "protein")

    assert np.isnan(data.labels[split.test]).all()
    assert data.num_labels(split.test) == 0
    assert np.array_equal(data.labels, clean.labels, equal_nan=True)
    assert np.array_equal(data.label_scale.mean, clean.label_scale.mean)


def test_several_targets_stand_side_by_side_and_a_level_not_measured_is_nan(genes: Genes, split: Split) -> None:
    data = study(genes, split, "protein", "mrna")
    rows = np.concatenate([split.train, split.valid])

    labels_BK = data.labels_of(rows, CPU)

    assert (data.targets, labels_BK.dtype, labels_BK.shape) == (("protein", "mrna"), torch.float32, (len(rows), 2))
    measured = np.stack([genes.target("protein")[rows], genes.target("mrna")[rows]], axis=1)
    assert np.isnan(measured[:, 1]).any(), "some genes have a protein level only"
    assert np.array_equal(np.isnan(measured), np.isnan(labels_BK.numpy()))
    np.testing.assert_allclose(data.label_scale.to_unit(labels_BK.numpy()), measured, rtol=1e-4, atol=1e-5)
    assert data.num_labels(rows) == np.isfinite(measured).sum()


def test_a_study_is_scaled_by_its_training_genes(genes: Genes, split: Split) -> None:
    data = study(genes, split)

    assert abs(np.nanmean(data.labels[split.train])) < 1e-6
    assert abs(np.nanstd(data.labels[split.train]) - 1) < 1e-6
    assert abs(np.nanmean(data.labels[split.valid])) > 1e-3
    of_training = FeatureScale.fit(genes.features, split.train)
    assert np.array_equal(data.inputs.half_life_NH, of_training.apply(genes.features))
    assert np.array_equal(data.feature_scale.mean, of_training.mean)
