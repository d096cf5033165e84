from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest

from raystudy.data.batches import LabelScale, sealed_labels
from raystudy.data.genes import Genes
from raystudy.data.sources import prepare
from raystudy.data.splits import Split, make_split
from raystudy.models.baselines import BASELINES, counted_features, fit_baseline, ridge
from raystudy.study.model import Input, ModelSpec
from raystudy.study.sections import BudgetSpec, DataSpec, SplitSpec
from raystudy.study.spec import StudySpec
from raystudy.training.metrics import r2

WINDOW, MAX_PROTEIN = (300, 100), 150
Floats = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def genes(tmp_path_factory: pytest.TempPathFactory) -> Genes:
    return prepare("synthetic", tmp_path_factory.mktemp("more") / "data", num_genes=400, num_chromosomes=10, seed=1)


@pytest.fixture(scope="module")
def split(genes: Genes) -> Split:
    return make_split(genes, SplitSpec(valid=0.2, test=0.2), WINDOW, np.ones(genes.num_genes, bool))


@pytest.fixture(scope="module")
def scale(genes: Genes, split: Split) -> LabelScale:
    return LabelScale.fit(sealed_labels(genes, ["protein"], split)[split.train], ["protein"])


@pytest.fixture(scope="module")
def labels(genes: Genes, split: Split, scale: LabelScale) -> Floats:
    """Standardised protein levels [n, 1]; the test genes' are NaN."""
    return scale.standardise(sealed_labels(genes, ["protein"], split))


def reader(*inputs: Input, **sizes: Any) -> ModelSpec:
    """A network that reads just this of a gene."""
    proteins = {"protein", "codon"} & set(inputs)
    family = "dna_protein" if proteins and "dna" in inputs else "protein" if proteins else "dna"
    return ModelSpec(
        family=family,
        tokens="codon" if "codon" in inputs else "residue",
        half_life="concat" if "half_life" in inputs else "none",
        **{"window_bp": WINDOW, "max_protein": MAX_PROTEIN, "pool_size": 2, **sizes},
    )


def count(genes: Genes, *inputs: Input) -> Floats:
    return counted_features(genes, [reader(*(inputs or ("dna", "half_life", "protein")))])


@pytest.fixture(scope="module")
def features(genes: Genes) -> Floats:
    return count(genes)


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raystudy.models.baselines.BOOSTING_ROUNDS", 60)


DNA, HALF_LIFE, PROTEIN, CODON = 4 + 16 + 64 + 256, 8, 22 + 1, 65


def test_the_counted_features_are_fractions_of_what_is_there(features: Floats, genes: Genes) -> None:
    assert features.shape == (genes.num_genes, DNA + HALF_LIFE + PROTEIN)
    np.testing.assert_allclose(features[:, :4].sum(axis=1), (genes.windows(WINDOW) > 0).mean(axis=1), rtol=1e-5)
    text = genes.texts("protein")[5][:MAX_PROTEIN]
    assert features[5, 348] == pytest.approx(text.count("A") / len(text), rel=1e-5)
    assert features[5, -1] == pytest.approx(np.log10(len(text)))


@pytest.mark.parametrize(
    ("inputs", "num_features"),
    [
        (("dna",), DNA),
        (("dna", "half_life"), DNA + HALF_LIFE),
        (("protein",), PROTEIN),
        (("codon",), PROTEIN + CODON),
        (("dna", "half_life", "codon"), DNA + HALF_LIFE + PROTEIN + CODON),
    ],
)
def test_only_what_the_networks_read_is_counted(inputs: Collection[Input], num_features: int, genes: Genes) -> None:
    assert count(genes, *inputs).shape == (genes.num_genes, num_features)


def test_what_any_network_of_the_study_reads_is_counted_and_nothing_beyond_it(genes: Genes) -> None:
    up, down = WINDOW
    left, right = reader("dna", window_bp=(up, down - 20)), reader("dna", window_bp=(up - 20, down))
    short, long = reader("protein", max_protein=20), reader("protein", max_protein=40)

    np.testing.assert_array_equal(counted_features(genes, [left, right, short]), count_parts(genes, WINDOW, 20))
    np.testing.assert_array_equal(counted_features(genes, [left, short, long]), count_parts(genes, (up, down - 20), 40))


def test_ridge_is_told_what_is_missing(genes: Genes, split: Split) -> None:
    """Where only the lack of a value tells, what stands at the mean can tell nothing."""
    random = np.random.default_rng(0)
    lacking = random.random(genes.num_genes) < 0.5
    features = np.where(lacking, np.nan, random.normal(size=genes.num_genes))[:, None]

    predicted = ridge(features, np.where(lacking, 1.0, -1.0), split)

    assert np.corrcoef(predicted[split.test], lacking[split.test])[0, 1] > 0.99


def count_parts(genes: Genes, window_bp: tuple[int, int], max_protein: int) -> Floats:
    return counted_features(genes, [reader("dna", "protein", window_bp=window_bp, max_protein=max_protein)])


def test_codons_are_counted_in_frame_as_far_as_the_protein_is_read(genes: Genes) -> None:
    row = int(np.argmax(np.diff(genes.protein_offsets)))
    text = genes.texts("cds")[row]
    codons = [text[first : first + 3] for first in range(0, 3 * MAX_PROTEIN, 3)]
    assert len(text) > 3 * (MAX_PROTEIN + 1)

    counted = count(genes, "codon")[row, -CODON:]

    letters = "ATCG"
    for number, codon in enumerate(
        first + second + third for first in letters for second in letters for third in letters
    ):
        assert counted[number] == pytest.approx(codons.count(codon) / MAX_PROTEIN, abs=1e-6)


def test_what_is_counted_names_the_same_inputs_as_the_networks() -> None:
    assert ModelSpec(family="dna").inputs == {"dna", "half_life"}
    assert ModelSpec(tokens="codon", half_life="none").inputs == {"dna", "codon"}


def test_every_baseline_that_a_study_file_can_name_is_there() -> None:
    spec = StudySpec(
        name="a", data=DataSpec(source="yeast"), arms=({"name": "x"},), budget=BudgetSpec(trials=1, minutes=1)
    )

    assert set(spec.baselines) == set(BASELINES)


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_baseline_learns_what_is_there_and_nothing_from_shuffled_labels(
    name: str, features: Floats, labels: Floats, split: Split, scale: LabelScale, genes: Genes
) -> None:
    measured = scale.standardise(genes.target("protein")[:, None])[split.test, 0]
    shuffled = labels.copy()
    for rows in (split.train, split.valid):
        shuffled[rows] = np.random.default_rng(0).permutation(labels[rows])

    assert r2(measured, fit_baseline(name, features, labels, split)[split.test, 0]) > 0.1
    assert r2(measured, fit_baseline(name, features, shuffled, split)[split.test, 0]) < 0.1


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_baseline_takes_missing_features_and_predicts_every_gene(
    name: str, features: Floats, labels: Floats, split: Split
) -> None:
    patchy = features.copy()
    patchy[::7, DNA + 1] = np.nan

    predicted = fit_baseline(name, patchy, labels, split)

    assert predicted.shape == labels.shape
    assert np.isfinite(predicted).all()


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_feature_that_no_training_gene_has_is_left_out(
    name: str, features: Floats, labels: Floats, split: Split
) -> None:
    useless = np.full((len(features), 1), np.nan)
    useless[split.test] = 1e9

    predicted = fit_baseline(name, np.hstack([useless, features]), labels, split)

    assert np.array_equal(predicted, fit_baseline(name, features, labels, split))


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_each_level_is_learnt_from_the_genes_that_have_it_and_from_no_other_level(
    name: str, features: Floats, labels: Floats, split: Split
) -> None:
    patchy = labels.copy()
    patchy[split.train[::3]] = patchy[split.valid[::3]] = np.nan
    both = np.hstack([-2 * patchy, labels])

    predicted = fit_baseline(name, features, both, split)

    assert predicted.shape == (len(features), 2)
    np.testing.assert_array_equal(predicted[:, 1:], fit_baseline(name, features, labels, split))
    np.testing.assert_array_equal(predicted[:, :1], fit_baseline(name, features, -2 * patchy, split))
    assert not np.array_equal(fit_baseline(name, features, patchy, split), predicted[:, 1:])


def test_ridge_reads_no_label_but_those_of_the_training_genes(features: Floats, labels: Floats, split: Split) -> None:
    blind = np.full_like(labels, np.nan)
    blind[split.train] = labels[split.train]

    assert np.array_equal(fit_baseline("ridge", features, blind, split), fit_baseline("ridge", features, labels, split))


def test_boosting_takes_the_round_that_is_best_on_validation(features: Floats, labels: Floats, split: Split) -> None:
    # Validation labels that are noise are fitted best by the first, weakest round.
    upside_down = labels.copy()
    upside_down[split.valid] = -upside_down[split.valid]

    early = fit_baseline("gbm", features, upside_down, split)

    assert early.std() < 0.2 * fit_baseline("gbm", features, labels, split).std()
