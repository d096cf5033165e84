from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raystudy.data.batches import StudyData
from raystudy.data.genes import Genes
from raystudy.data.sources import prepare
from raystudy.data.splits import make_split
from raystudy.models.baselines import BASELINES, counted_features
from raystudy.study.spec import BudgetSpec, DataSpec, SplitSpec, StudySpec
from raystudy.training.metrics import r2

WINDOW = (300, 100)


@pytest.fixture(scope="module")
def genes(tmp_path_factory: pytest.TempPathFactory) -> Genes:
    return prepare("synthetic", tmp_path_factory.mktemp("more") / "data", num_genes=400, num_chromosomes=10, seed=1)


@pytest.fixture(scope="module")
def data(genes: Genes, tmp_path_factory: pytest.TempPathFactory) -> StudyData:
    path = tmp_path_factory.mktemp("split") / "split.json"
    labelled = np.ones(genes.num_genes, bool)
    make_split(genes, SplitSpec(valid=0.2, test=0.2), WINDOW, labelled).save(path, genes)
    return StudyData.load(genes.folder, path, DataSpec(path=genes.folder, window_bp=WINDOW), "protein")


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raystudy.models.baselines.BOOSTING_ROUNDS", 60)


def test_the_counted_features_are_fractions_of_what_is_there(data: StudyData, genes: Genes) -> None:
    features = counted_features(data)

    assert features.shape == (genes.num_genes, 4 + 16 + 64 + 256 + 8 + 22 + 1)
    np.testing.assert_allclose(features[:, :4].sum(axis=1), (genes.windows(WINDOW) > 0).mean(axis=1), rtol=1e-5)
    text = genes.texts("protein")[5]
    assert features[5, 348] == pytest.approx(text.count("A") / len(text), rel=1e-5)
    assert features[5, -1] == pytest.approx(np.log10(len(text)))


def test_every_baseline_that_a_study_file_can_name_is_there() -> None:
    spec = StudySpec(
        name="a", data=DataSpec(source="yeast"), arms=({"name": "x"},), budget=BudgetSpec(trials=1, minutes=1)
    )

    assert set(spec.baselines) == set(BASELINES)


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_baseline_learns_what_is_there_and_nothing_from_shuffled_labels(
    name: str, data: StudyData, genes: Genes
) -> None:
    features, test = counted_features(data), data.split.test
    measured = (genes.target("protein")[test] - data.label_scale.mean) / data.label_scale.std
    labels = data.labels.copy()
    for rows in (data.split.train, data.split.valid):
        labels[rows] = np.random.default_rng(0).permutation(labels[rows])

    assert r2(measured, BASELINES[name](features, data)[test]) > 0.1
    assert r2(measured, BASELINES[name](features, replace(data, labels=labels))[test]) < 0.1


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_baseline_takes_missing_features_and_predicts_every_gene(name: str, data: StudyData) -> None:
    half_life = data.raw_half_life_NH.copy()
    half_life[:, 0] = np.nan
    half_life[::7, 1] = np.nan
    features = counted_features(replace(data, raw_half_life_NH=half_life))
    assert features.shape[1] == counted_features(data).shape[1] - 1, "what no training gene has is left out"
    assert np.isnan(features[::7, 340]).all()

    predicted = BASELINES[name](features, data)

    assert predicted.shape == (len(data.labels),)
    assert np.isfinite(predicted).all()


def test_ridge_reads_no_label_but_those_of_the_training_genes(data: StudyData) -> None:
    features = counted_features(data)
    labels = np.full_like(data.labels, np.nan)
    labels[data.split.train] = data.labels[data.split.train]

    blind = BASELINES["ridge"](features, replace(data, labels=labels))

    assert np.array_equal(blind, BASELINES["ridge"](features, data))


def test_boosting_takes_the_round_that_is_best_on_validation(data: StudyData, tmp_path: Path) -> None:
    # Validation labels that are noise are fitted best by the first, weakest round.
    features, valid = counted_features(data), data.split.valid
    labels = data.labels.copy()
    labels[valid] = -labels[valid]

    early = BASELINES["gbm"](features, replace(data, labels=labels))

    assert early.std() < 0.2 * BASELINES["gbm"](features, data).std()
