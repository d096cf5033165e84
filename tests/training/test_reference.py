"""Predictions of the test genes after every epoch: kept whole, and looked at by nothing that is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from raystudy.errors import DataError
from raystudy.training import checkpoint, loop
from raystudy.training.loop import train
from raystudy.training.reference import TEST_EPOCHS, keep_test_epochs, read_test_epochs
from raystudy.training.session import LocalSession, Metrics
from raystudy.training.trained import TrainedModel
from tests.training.conftest import Tiny, make_job, run

EPOCHS = 3
JOB = make_job(epochs=EPOCHS, learning_rate=0.02)


class Killed(Exception):
    """Stands for the end of a process."""


def run_reference(tiny: Tiny, folder: Path, on_epoch: Any = None) -> list[Metrics]:
    reported: list[Metrics] = []

    def report(metrics: Metrics) -> None:
        reported.append(metrics)
        if on_epoch is not None:
            on_epoch(metrics)

    session = LocalSession(folder, report)
    train(JOB, tiny.data, session, keep_test_epochs(tiny.data, session))
    return reported


@pytest.fixture(scope="module")
def whole(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run_reference(tiny, folder)
    return folder


def test_every_epoch_predicts_each_test_gene_in_its_own_units(tiny: Tiny, whole: Path) -> None:
    kept = read_test_epochs(whole, EPOCHS)
    _, state = checkpoint.load(whole / checkpoint.BEST)

    assert kept.dtype == np.float32
    assert kept.shape == (EPOCHS, len(tiny.split.test), 1)
    assert len({one.tobytes() for one in kept}) == EPOCHS
    again = TrainedModel.load(whole).predict(tiny.genes).to_numpy()[tiny.split.test]
    np.testing.assert_allclose(kept[state["metrics"]["epoch"] - 1], again, atol=1e-4 * again.std())


@pytest.mark.parametrize("moment", ["reported", "predicted", "saved best"])
@pytest.mark.parametrize("last_epoch", range(1, EPOCHS + 1))
def test_whenever_the_process_dies_the_epochs_predictions_are_those_of_the_run_that_did_not(
    moment: str, last_epoch: int, tiny: Tiny, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = checkpoint.save

    def dying_save(path: Path, tensors: Any, state: dict[str, Any]) -> None:
        save(path, tensors, state)
        epoch = state.get("epochs") or state.get("metrics", {}).get("epoch")
        when = {TEST_EPOCHS: "predicted", checkpoint.BEST: "saved best"}.get(path.name)
        if when == moment and epoch == last_epoch:
            raise Killed

    def die(metrics: Metrics) -> None:
        if moment == "reported" and metrics["epoch"] == last_epoch:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", dying_save)
        try:
            run_reference(tiny, tmp_path, die)
        except Killed:
            pass
        else:
            assert moment == "saved best", "an epoch that is not the best saves no such file"
    run_reference(tiny, tmp_path)

    assert np.array_equal(read_test_epochs(tmp_path, EPOCHS), read_test_epochs(whole, EPOCHS))


def test_an_epoch_that_is_only_reported_again_is_not_predicted_again(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_reference(tiny, tmp_path)
    before = (tmp_path / TEST_EPOCHS).stat().st_mtime_ns

    def predict(*_: Any, **__: Any) -> None:
        raise AssertionError("predicted")

    monkeypatch.setattr(loop, "predict", predict)
    assert len(run_reference(tiny, tmp_path)) == EPOCHS
    assert (tmp_path / TEST_EPOCHS).stat().st_mtime_ns == before


def test_neither_the_weights_nor_the_chosen_epoch_depend_on_it(tiny: Tiny, whole: Path, tmp_path: Path) -> None:
    sealed = run(JOB, tiny.data, tmp_path)

    assert not (tmp_path / TEST_EPOCHS).exists()
    for name in (checkpoint.BEST, checkpoint.LAST):
        ours, theirs = load_file(whole / name), load_file(tmp_path / name)
        assert all(bool((ours[key] == theirs[key]).all()) for key in theirs), name
    _, state = checkpoint.load(whole / checkpoint.BEST)
    best = max(sealed, key=lambda epoch: epoch["valid_r2"])
    assert (state["metrics"]["epoch"], state["metrics"]["valid_r2"]) == (best["epoch"], best["valid_r2"])


def test_predictions_that_are_missing_epochs_are_refused_with_both_counts(tiny: Tiny, whole: Path) -> None:
    with pytest.raises(DataError, match=rf"test_epochs\.safetensors has the predictions of {EPOCHS} epochs, but 9 "):
        read_test_epochs(whole, 9)
