"""Several levels at once, of which a gene may have some: each counts for itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raystudy.data.batches import StudyData, training_batches
from raystudy.models.build import build
from raystudy.study.space import derive_seed
from raystudy.training.loop import predict
from raystudy.training.session import LocalSession
from raystudy.training.trained import TrainedModel
from tests.training.conftest import Tiny, make_job, run

CPU = torch.device("cpu")
TARGETS = ("mrna", "protein")
JOB = make_job(epochs=1, batch_size=24, model={"dropout": 0.0})


@pytest.fixture(scope="module")
def patchy(tiny: Tiny) -> StudyData:
    """Every third gene without an mRNA level, every fourth without a protein level, every twelfth with neither."""
    data = tiny.read_by(JOB, *TARGETS)
    labels = data.labels.copy()
    labels[::3, 0] = labels[::4, 1] = np.nan
    return replace(data, labels=labels)


def test_the_gradient_is_that_of_the_mean_over_the_levels_that_were_measured(
    patchy: StudyData, tmp_path: Path, gradients: list[list[torch.Tensor]]
) -> None:
    run(JOB, patchy, tmp_path)

    torch.manual_seed(JOB.seed)
    network = build(JOB.model, num_targets=2)
    order = derive_seed(JOB.seed, "order", 1)
    rows, _ = next(training_batches(patchy.split.train, JOB.training.batch_size, 0, 1, order))
    predicted = network(patchy.inputs.batch(rows, CPU))
    pairs = [(place, k) for place in range(len(rows)) for k in range(2) if not np.isnan(patchy.labels[rows[place], k])]
    assert 0 < len(pairs) < 2 * len(rows)
    loss = sum((predicted[place, k] - float(patchy.labels[rows[place], k])) ** 2 for place, k in pairs) / len(pairs)
    assert isinstance(loss, torch.Tensor)
    expected = torch.autograd.grad(loss, list(network.parameters()))
    for ours, hand in zip(gradients[0], expected, strict=True):
        torch.testing.assert_close(ours, hand, atol=1e-6, rtol=1e-4)


def test_a_level_that_no_gene_of_a_batch_has_gets_no_gradient(
    patchy: StudyData, tmp_path: Path, gradients: list[list[torch.Tensor]]
) -> None:
    labels = patchy.labels.copy()
    labels[patchy.split.train, 0] = np.nan
    run(JOB, replace(patchy, labels=labels), tmp_path)
    *_, weight, bias = gradients[0]

    assert weight[0].count_nonzero() == bias[0].count_nonzero() == 0
    assert weight[1].count_nonzero() > 0


def test_the_training_loss_is_the_mean_over_all_measured_levels(patchy: StudyData, tmp_path: Path) -> None:
    job = make_job(epochs=1, batch_size=24, learning_rate=1e-12, weight_decay=0.0, model={"dropout": 0.0})
    reported = run(job, patchy, tmp_path)

    torch.manual_seed(job.seed)
    network, squared = build(job.model, num_targets=2), []
    batches = training_batches(patchy.split.train, 24, 0, 1, derive_seed(job.seed, "order", 1))
    with torch.no_grad():
        for rows, _ in batches:
            error = network(patchy.inputs.batch(rows, CPU)).numpy() - patchy.labels[rows]
            squared += [value for value in (error**2).ravel().tolist() if not np.isnan(value)]
    assert reported[0]["train_loss"] == pytest.approx(np.mean(squared), rel=1e-5)


def test_the_validation_r2_is_the_mean_of_each_levels_own_over_the_genes_that_have_it(
    patchy: StudyData, tmp_path: Path
) -> None:
    job = make_job(epochs=3)
    reported = run(job, patchy, tmp_path)

    loaded, valid = TrainedModel.load(tmp_path), patchy.split.valid
    predicted = predict(loaded.network, patchy.inputs, valid, LocalSession(tmp_path), bf16=False)
    own = []
    for k in range(2):
        pairs = [(patchy.labels[row, k], predicted[place, k]) for place, row in enumerate(valid)]
        pairs = [(float(truth), float(guess)) for truth, guess in pairs if not np.isnan(truth)]
        assert 0 < len(pairs) < len(valid)
        mean = sum(truth for truth, _ in pairs) / len(pairs)
        own.append(1 - sum((t - g) ** 2 for t, g in pairs) / sum((t - mean) ** 2 for t, _ in pairs))
    assert [loaded.metrics[f"valid_r2_{target}"] for target in TARGETS] == pytest.approx(own, abs=1e-6)
    assert loaded.metrics["valid_r2"] == pytest.approx(np.mean(own), abs=1e-6)
    for epoch in reported:
        for name in ("r2", "pearson_r2", "spearman"):
            each = [epoch[f"valid_{name}_{target}"] for target in TARGETS]
            assert epoch[f"valid_{name}"] == pytest.approx(np.mean(each))
    assert loaded.metrics["valid_r2"] == max(epoch["valid_r2"] for epoch in reported)


def test_one_level_is_reported_without_its_name(tiny: Tiny, tmp_path: Path) -> None:
    reported = run(make_job(epochs=1), tiny.data, tmp_path)

    assert {key for key in reported[0] if key.startswith("valid_")} == {
        "valid_r2",
        "valid_pearson_r2",
        "valid_spearman",
    }


def test_each_level_has_a_scale_of_its_own(tiny: Tiny, patchy: StudyData) -> None:
    levels = np.stack([tiny.genes.target(target) for target in TARGETS], axis=1)[tiny.split.train]

    np.testing.assert_allclose(patchy.label_scale.mean, np.nanmean(levels, axis=0))
    np.testing.assert_allclose(patchy.label_scale.std, np.nanstd(levels, axis=0))
    assert np.isnan(patchy.labels[tiny.split.test]).all(), "no test label is in it"
