from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from raystudy.data.batches import StudyData
from raystudy.errors import TrialFailed
from raystudy.training import checkpoint
from raystudy.training.loop import predict, resolve_precision, train
from raystudy.training.metrics import r2
from raystudy.training.optimisation import learning_rate
from raystudy.training.session import LocalSession, Metrics
from raystudy.training.trained import TrainedModel
from tests.training.conftest import Tiny, make_job, run, without_times

CPU = torch.device("cpu")
EPOCHS = 4


class Killed(Exception):
    """Stands for the end of a process."""


def with_inputs(data: StudyData, **changes: Any) -> StudyData:
    return replace(data, inputs=replace(data.inputs, **changes))


def same_tensors(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Metrics]]:
    """The run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(make_job(epochs=EPOCHS), tiny.data, folder)


@pytest.mark.parametrize("last_epoch", range(1, EPOCHS + 1))
def test_a_run_resumed_after_any_epoch_is_the_run_never_interrupted(
    last_epoch: int, tiny: Tiny, whole: tuple[Path, list[Metrics]], tmp_path: Path
) -> None:
    def die(metrics: Metrics) -> None:
        if metrics["epoch"] == last_epoch:
            raise Killed

    job = make_job(epochs=EPOCHS)
    with pytest.raises(Killed):
        train(job, tiny.data, LocalSession(tmp_path, die))
    torch.manual_seed(999)  # a new process begins with other random numbers
    resumed = run(job, tiny.data, tmp_path)

    assert [without_times(epoch) for epoch in resumed] == [without_times(epoch) for epoch in whole[1]]
    for name in (checkpoint.LAST, checkpoint.BEST):
        assert same_tensors(tmp_path / name, whole[0] / name)


def test_a_run_killed_between_its_two_checkpoints_loses_nothing(
    tiny: Tiny, whole: tuple[Path, list[Metrics]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = checkpoint.save

    def die_before_the_third(path: Path, tensors: Any, state: Any) -> None:
        if path.name == checkpoint.LAST and len(state["history"]) == 3:
            raise Killed
        save(path, tensors, state)

    job = make_job(epochs=EPOCHS)
    monkeypatch.setattr(checkpoint, "save", die_before_the_third)
    with pytest.raises(Killed):
        run(job, tiny.data, tmp_path)
    monkeypatch.undo()
    resumed = run(job, tiny.data, tmp_path)

    assert [without_times(epoch) for epoch in resumed] == [without_times(epoch) for epoch in whole[1]]
    assert same_tensors(tmp_path / checkpoint.BEST, whole[0] / checkpoint.BEST)


def test_the_same_seed_repeats_a_run_and_another_seed_does_not(
    tiny: Tiny, whole: tuple[Path, list[Metrics]], tmp_path: Path
) -> None:
    again = run(make_job(epochs=EPOCHS), tiny.data, tmp_path / "again")
    other = run(make_job(epochs=EPOCHS, seed=8), tiny.data, tmp_path / "other")

    assert [without_times(epoch) for epoch in again] == [without_times(epoch) for epoch in whole[1]]
    assert other[-1]["valid_r2"] != again[-1]["valid_r2"]


def test_every_epoch_is_reported_with_its_numbers(tiny: Tiny, whole: tuple[Path, list[Metrics]]) -> None:
    assert [epoch["epoch"] for epoch in whole[1]] == list(range(1, EPOCHS + 1))
    for epoch in whole[1]:
        assert epoch["epoch_seconds"] > 0
        assert epoch["eval_seconds"] > 0
        assert epoch["samples_per_second"] == pytest.approx(len(tiny.split.train) / epoch["epoch_seconds"])
        assert 0 <= epoch["valid_pearson_r2"] <= 1
        assert epoch["valid_r2"] <= epoch["valid_pearson_r2"] + 1e-9
        assert epoch["precision"] == "fp32"
        assert 0.05 < epoch["peak_memory_gb"] < 64, "a process with PyTorch in it, in 10^9 bytes"
        assert "micro_batches" not in epoch


def test_the_best_checkpoint_holds_the_weights_of_the_best_epoch(tiny: Tiny, tmp_path: Path) -> None:
    # A rate that overshoots makes the best epoch another one than the last.
    # The backend that a network has when it is loaded: another one rounds otherwise.
    job = make_job(epochs=8, learning_rate=0.05, seed=5, attention="sdpa")
    reported = run(job, tiny.data, tmp_path)
    best = max(reported, key=lambda epoch: epoch["valid_r2"])
    assert best["epoch"] < 8

    loaded, valid = TrainedModel.load(tmp_path), tiny.split.valid
    predicted = predict(loaded.network, tiny.data.inputs, valid, LocalSession(tmp_path), bf16=False)

    assert loaded.metrics == best
    assert r2(tiny.data.labels[valid, 0], predicted[:, 0]) == pytest.approx(best["valid_r2"], abs=1e-9)


def test_of_equally_good_epochs_the_first_is_kept_as_the_records_count(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raystudy.training.loop.scores", lambda *_: {"r2": 0.25})

    run(make_job(epochs=3), tiny.data, tmp_path)

    assert checkpoint.load(tmp_path / checkpoint.BEST)[1]["metrics"]["epoch"] == 1


def test_a_loss_that_is_no_number_fails_the_trial_with_its_reason(tiny: Tiny, tmp_path: Path) -> None:
    features = tiny.data.inputs.half_life_NH.copy()
    features[tiny.split.train[3]] = np.nan
    reported: list[Metrics] = []

    with pytest.raises(TrialFailed, match="nan: epoch 1: training loss nan") as caught:
        train(make_job(), with_inputs(tiny.data, half_life_NH=features), LocalSession(tmp_path, reported.append))

    assert caught.value.reason == "nan"
    assert reported == []
    assert not list(tmp_path.iterdir()), "no checkpoint of a broken network is kept"


def test_a_prediction_that_is_no_number_fails_the_trial(tiny: Tiny, tmp_path: Path) -> None:
    features, num_valid = tiny.data.inputs.half_life_NH.copy(), len(tiny.split.valid)
    features[tiny.split.valid[0]] = np.inf

    with pytest.raises(TrialFailed, match=f"{num_valid - 1} of {num_valid}") as caught:
        run(make_job(), with_inputs(tiny.data, half_life_NH=features), tmp_path)

    assert caught.value.reason == "nan"


def test_training_reads_neither_test_genes_nor_their_labels(tiny: Tiny, tmp_path: Path) -> None:
    inputs, test = tiny.data.inputs, tiny.split.test
    windows, features, proteins = inputs.windows_NL.copy(), inputs.half_life_NH.copy(), inputs.proteins.copy()
    windows[test], features[test] = 0, np.nan
    for row in test:
        proteins[inputs.protein_offsets[row] : inputs.protein_offsets[row + 1]] = 1
    labels = tiny.data.labels.copy()
    labels[test] = np.inf
    blind = with_inputs(replace(tiny.data, labels=labels), windows_NL=windows, half_life_NH=features, proteins=proteins)

    reported = run(make_job(), blind, tmp_path / "blind")

    assert [without_times(one) for one in reported] == [
        without_times(one) for one in run(make_job(), tiny.data, tmp_path / "seeing")
    ]


def test_the_optimizer_takes_the_scheduled_rate_in_each_step(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *args: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    job = make_job(epochs=3, learning_rate=0.01, warmup=0.3)
    run(job, tiny.data, tmp_path)

    assert len(rates) % 3 == 0
    planned = [learning_rate(number, len(rates), job.model, job.training) for number in range(len(rates))]
    assert rates == pytest.approx(planned)


def test_bf16_runs_on_a_cpu_and_stays_near_fp32(tiny: Tiny, whole: tuple[Path, list[Metrics]], tmp_path: Path) -> None:
    reported = run(make_job(epochs=EPOCHS, precision="bf16"), tiny.data, tmp_path)

    assert {epoch["precision"] for epoch in reported} == {"bf16"}
    for half, full in zip(reported, whole[1], strict=True):
        assert half["train_loss"] != full["train_loss"], "it really ran in another precision"
        assert half["train_loss"] == pytest.approx(full["train_loss"], rel=0.05)
        assert half["valid_r2"] == pytest.approx(full["valid_r2"], abs=0.1)
    weights = load_file(tmp_path / checkpoint.LAST)
    assert {tensor.dtype for name, tensor in weights.items() if "weight" in name} == {torch.float32}


def test_what_auto_precision_means_is_one_of_the_two() -> None:
    assert resolve_precision("auto", CPU) in ("bf16", "fp32")
    assert resolve_precision("bf16", CPU) == "bf16"
    assert resolve_precision("fp32", CPU) == "fp32"


@pytest.mark.parametrize("attention", ["sdpa", "math"])
def test_the_attention_backend_asked_for_is_trained(
    attention: str, tiny: Tiny, whole: tuple[Path, list[Metrics]], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"epochs": 1, "model": {"dropout": 0.0}}
    reported = run(make_job(attention=attention, **settings), tiny.data, tmp_path / attention)
    auto = run(make_job(attention="auto", **settings), tiny.data, tmp_path / "auto")

    assert reported[0]["train_loss"] == pytest.approx(auto[0]["train_loss"], rel=1e-4)


def test_nothing_is_learnt_from_shuffled_labels(tiny: Tiny, tmp_path: Path) -> None:
    values = []
    for seed in range(3):
        labels = tiny.data.labels.copy()
        for rows in (tiny.split.train, tiny.split.valid):
            labels[rows] = np.random.default_rng(seed).permutation(labels[rows])
        job = make_job(epochs=10, learning_rate=0.005, seed=seed)
        values.append(run(job, replace(tiny.data, labels=labels), tmp_path / str(seed))[-1]["valid_r2"])

    assert np.mean(values) < 0.05, values


def test_predictions_come_in_the_order_asked_for_however_they_are_batched(
    tiny: Tiny, whole: tuple[Path, list[Metrics]], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = TrainedModel.load(whole[0]).network
    rows = np.random.default_rng(0).permutation(tiny.genes.num_genes)
    session = LocalSession(whole[0])
    together = predict(network, tiny.data.inputs, rows, session, bf16=False)
    monkeypatch.setattr("raystudy.training.loop.EVALUATION_BATCH", 7)

    assert together.dtype == np.float32
    np.testing.assert_allclose(predict(network, tiny.data.inputs, rows, session, bf16=False), together, atol=1e-5)
    one = predict(network, tiny.data.inputs, rows[5:6], session, bf16=False)
    np.testing.assert_allclose(one, together[5:6], atol=1e-5)
