"""A batch in several parts is the same step of the optimizer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raystudy.data.batches import GeneInputs
from raystudy.models import xpresso
from raystudy.training import checkpoint
from tests.training.conftest import READERS, Tiny, make_job, run


@pytest.fixture(autouse=True)
def no_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xpresso, "DROPOUTS", (0.0, 0.0))


@pytest.fixture
def batch_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Genes of every batch that is read from here on."""
    found: list[int] = []
    batch = GeneInputs.batch

    def spy(self: GeneInputs, rows: Any, device: Any) -> Any:
        found.append(len(rows))
        return batch(self, rows, device)

    monkeypatch.setattr(GeneInputs, "batch", spy)
    return found


@pytest.mark.parametrize("micro_batches", [2, 3, 16, 99])
def test_the_gradient_of_a_divided_batch_is_that_of_the_whole_one(
    micro_batches: int, tiny: Tiny, tmp_path: Path, gradients: list[list[torch.Tensor]]
) -> None:
    job = make_job(batch_size=16, epochs=1, model=READERS["xpresso"])
    data = tiny.read_by(job, "mrna", "protein")  # of which some genes have one level only
    run(job, data, tmp_path / "whole")
    num_steps = len(gradients)
    run(replace(job, micro_batches=micro_batches), data, tmp_path / "divided")

    assert len(gradients) == 2 * num_steps, "one step a batch, however it is divided"
    for whole, divided in zip(gradients[0], gradients[num_steps], strict=True):
        torch.testing.assert_close(divided, whole, rtol=1e-5, atol=1e-5 * float(whole.abs().max()))


def test_a_divided_training_ends_where_the_undivided_one_does(tiny: Tiny, tmp_path: Path) -> None:
    job = make_job(batch_size=16, epochs=3, model=READERS["xpresso"])
    data = tiny.read_by(job)
    whole = run(job, data, tmp_path / "whole")
    divided = run(replace(job, micro_batches=2), data, tmp_path / "divided")

    assert [one["train_loss"] for one in divided] == pytest.approx([one["train_loss"] for one in whole], rel=1e-5)
    assert [one["micro_batches"] for one in divided] == [2, 2, 2]
    expected = checkpoint.load(tmp_path / "whole" / checkpoint.LAST)[0]
    for name, tensor in checkpoint.load(tmp_path / "divided" / checkpoint.LAST)[0].items():
        torch.testing.assert_close(tensor, expected[name], atol=2e-5, rtol=1e-3)


def test_parts_are_equal_and_none_of_them_holds_all_of_the_long_proteins(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_sizes: list[int]
) -> None:
    monkeypatch.setattr("raystudy.training.loop.recalibrate_norms", lambda *_: None)
    monkeypatch.setattr("raystudy.training.loop.predict", lambda *arguments: np.zeros((len(arguments[2]), 1)))
    job = replace(make_job(batch_size=16, epochs=1, model={"dropout": 0.0}), micro_batches=2)
    lengths: list[int] = []
    batch = GeneInputs.batch

    def spy(self: GeneInputs, rows: Any, device: Any) -> Any:
        lengths.append(int(self.protein_lengths[rows].sum()))
        return batch(self, rows, device)

    monkeypatch.setattr(GeneInputs, "batch", spy)
    run(job, tiny.data, tmp_path)

    num_train = len(tiny.split.train)
    assert sum(batch_sizes) == num_train
    num_whole = num_train // 16
    assert batch_sizes[: 2 * num_whole] == [8] * 2 * num_whole
    for short, long in zip(lengths[: 2 * num_whole : 2], lengths[1 : 2 * num_whole : 2], strict=True):
        assert short <= long < 1.5 * short


def test_a_divided_training_that_is_resumed_is_the_one_never_interrupted(tiny: Tiny, tmp_path: Path) -> None:
    job = replace(make_job(epochs=3), micro_batches=2)
    run(job, tiny.data, tmp_path / "whole")
    monkeypatch = pytest.MonkeyPatch()
    save = checkpoint.save

    def die_in_the_second_epoch(path: Path, tensors: Any, state: dict[str, Any]) -> None:
        save(path, tensors, state)
        if len(state.get("history", [])) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", die_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        run(job, tiny.data, tmp_path / "resumed")
    monkeypatch.undo()
    run(job, tiny.data, tmp_path / "resumed")

    whole, resumed = (checkpoint.load(tmp_path / name / checkpoint.LAST)[0] for name in ("whole", "resumed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
