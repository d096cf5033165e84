"""What the yeast study rests on, on the real data: signal where there is one, none where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from raystudy.data.batches import StudyData
from raystudy.data.genes import Genes
from raystudy.data.sources import prepare
from raystudy.data.splits import make_split
from raystudy.models.baselines import BASELINES, counted_features, fit_baseline
from raystudy.study.model import ModelSpec, TrainingSpec
from raystudy.study.reading import load_spec
from raystudy.study.spec import StudySpec
from raystudy.training.loop import Job, train
from raystudy.training.selection import open_test
from raystudy.training.session import LocalSession
from raystudy.training.trained import TrainedModel

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def spec() -> StudySpec:
    return load_spec(Path(__file__).parents[2] / "search_spaces/yeast.yaml")


@pytest.fixture(scope="module")
def genes(tmp_path_factory: pytest.TempPathFactory) -> Genes:
    return prepare("yeast", tmp_path_factory.mktemp("yeast"))


@pytest.fixture(scope="module")
def configured(spec: StudySpec) -> tuple[ModelSpec, TrainingSpec]:
    """One configuration like those that searches find."""
    return spec.configure({"latent_dim": 16, "learning_rate": 1e-3, "dropout": 0.3, "epochs": 3})


@pytest.fixture(scope="module")
def data(genes: Genes, spec: StudySpec, configured: tuple[ModelSpec, TrainingSpec]) -> StudyData:
    labelled = np.isfinite(genes.target("protein"))
    split = make_split(genes, spec.split, spec.data.window_bp, labelled)
    return StudyData.of(genes, split, configured[0], spec.targets)


def trained(configured: tuple[ModelSpec, TrainingSpec], data: StudyData, folder: Path) -> TrainedModel:
    torch.set_num_threads(2)
    train(Job(*configured, seed=0), data, LocalSession(folder))
    return TrainedModel.load(folder)


def test_a_perceiver_reaches_a_validation_r2_of_a_quarter(
    configured: tuple[ModelSpec, TrainingSpec], data: StudyData, tmp_path: Path
) -> None:
    assert trained(configured, data, tmp_path).metrics["valid_r2"] >= 0.25


def test_with_shuffled_labels_every_model_has_a_test_r2_of_about_0(
    genes: Genes,
    spec: StudySpec,
    configured: tuple[ModelSpec, TrainingSpec],
    data: StudyData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    levels = genes.target("protein")
    known = np.isfinite(levels)
    shuffled = levels.copy()
    shuffled[known] = np.random.default_rng(0).permutation(levels[known])
    monkeypatch.setattr(genes, "target", lambda _name: shuffled)
    blind = StudyData.of(genes, data.split, configured[0], spec.targets)
    features = counted_features(genes, spec.networks)
    predicted = {
        name: blind.label_scale.to_unit(fit_baseline(name, features, blind.labels, blind.split)) for name in BASELINES
    }
    model, training = configured
    shorter = (model, training.model_copy(update={"epochs": 2}))
    predicted["perceiver"] = trained(shorter, blind, tmp_path).predict(genes).to_numpy()

    scores = open_test(genes, spec.targets, blind.split, predicted)

    assert set(scores) == {"ridge", "gbm", "perceiver"}
    for score in scores.values():
        assert -0.1 < score["test_r2"] < 0.03
