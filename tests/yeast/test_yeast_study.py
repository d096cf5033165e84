"""What the yeast study rests on, on the real data: signal where there is one, none where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raystudy.data.batches import StudyData
from raystudy.data.genes import Genes
from raystudy.data.sources import prepare
from raystudy.data.splits import make_split
from raystudy.models.baselines import BASELINES, counted_features
from raystudy.study.spec import StudySpec, load_spec
from raystudy.training import checkpoint
from raystudy.training.loop import Job, predict, train
from raystudy.training.selection import open_test
from raystudy.training.session import LocalSession

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def spec() -> StudySpec:
    return load_spec(Path(__file__).parents[2] / "search_spaces/yeast.yaml")


@pytest.fixture(scope="module")
def genes(tmp_path_factory: pytest.TempPathFactory) -> Genes:
    return prepare("yeast", tmp_path_factory.mktemp("yeast"))


@pytest.fixture(scope="module")
def data(genes: Genes, spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> StudyData:
    path = tmp_path_factory.mktemp("split") / "split.json"
    labelled = np.isfinite(genes.target("protein"))
    make_split(genes, spec.split, spec.data.window_bp, labelled).save(path, genes)
    return StudyData.load(genes.folder, path, spec.data, spec.target)


def trained(spec: StudySpec, data: StudyData, epochs: int, folder: Path) -> tuple[float, Any]:
    """Best validation R2 and predictions for every gene of one configuration like those that searches find."""
    torch.set_num_threads(2)
    model, training = spec.configure({"latent_dim": 16, "learning_rate": 1e-3, "dropout": 0.3, "epochs": epochs})
    session = LocalSession(folder)
    train(Job(model, training, sum(spec.data.window_bp), spec.data.max_protein, seed=0), data, session)
    network, state = checkpoint.load_network(folder / checkpoint.BEST)
    everyone = np.arange(len(data.protein_lengths))
    return state["metrics"]["valid_r2"], predict(network, data, everyone, session, bf16=False)


def test_a_perceiver_reaches_a_validation_r2_of_a_quarter(spec: StudySpec, data: StudyData, tmp_path: Path) -> None:
    valid_r2, _ = trained(spec, data, 3, tmp_path)
    assert valid_r2 >= 0.25


def test_with_shuffled_labels_every_model_has_a_test_r2_of_about_0(
    genes: Genes, spec: StudySpec, data: StudyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shuffled = np.random.default_rng(0).permutation(genes.target("protein"))
    monkeypatch.setattr(genes, "target", lambda _name: shuffled)
    labels = np.where(np.isfinite(data.labels), (shuffled - shuffled.mean()) / shuffled.std(), np.nan)
    blind = replace(data, labels=labels.astype(np.float32))
    predicted = {name: fit(counted_features(blind), blind) for name, fit in BASELINES.items()}
    _, predicted["perceiver"] = trained(spec, blind, 2, tmp_path)
    in_unit = {name: values * shuffled.std() + shuffled.mean() for name, values in predicted.items()}
    scores = open_test(genes, "protein", data.split, in_unit)
    assert set(scores) == {"ridge", "gbm", "perceiver"}
    for score in scores.values():
        assert -0.1 < score["test_r2"] < 0.03
