"""Two real processes over gloo."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from raystudy.data.batches import StudyData
from raystudy.data.genes import Genes
from raystudy.data.splits import Split
from raystudy.models import xpresso
from raystudy.training import checkpoint, loop
from raystudy.training.loop import predict, train
from raystudy.training.session import LocalSession, Metrics
from raystudy.training.trained import TrainedModel
from tests.training.conftest import READERS, Tiny, make_job, run

CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = {"epochs": 2, "model": {"dropout": 0.0}}
TARGETS = ("mrna", "protein")
"""One gene in twenty has no mRNA level, so that the ranks have different numbers of labels."""


class RankSession:
    """One of two ranks."""

    world_size = 2
    device = CPU

    def __init__(self, rank: int, folder: Path) -> None:
        self.rank = rank
        self.folder = folder
        self.reported: list[Metrics] = []

    def report(self, metrics: Metrics) -> None:
        self.reported.append(metrics)


def work(rank: int, port: int, data_folder: Path, split_path: Path, out: Path) -> None:
    """What each rank does: train, keep its own weights, then predict with the network it is given."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    job, genes = make_job(batch_size=8, **SETTINGS), Genes.open(data_folder)
    data = StudyData.of(genes, Split.load(split_path, genes), job.model, TARGETS)
    session = RankSession(rank, out / "shared")
    networks: list[torch.nn.Module] = []
    build = loop.build

    def keep(*arguments: Any) -> torch.nn.Module:
        networks.append(build(*arguments))
        return networks[-1]

    loop.build = keep
    xpresso.DROPOUTS = (0.0, 0.0)
    train(job, data, session)
    save_file({name: tensor.contiguous() for name, tensor in networks[0].state_dict().items()}, out / f"{rank}.weights")

    exact = make_job(batch_size=8, epochs=3, model=READERS["xpresso"])
    without_dropout = RankSession(rank, out / "exact")
    train(exact, StudyData.of(genes, data.split, exact.model, TARGETS), without_dropout)
    divided = RankSession(rank, out / "divided")
    train(replace(exact, micro_batches=3), StudyData.of(genes, data.split, exact.model, TARGETS), divided)
    synchronised = make_job(batch_size=8, sync_batchnorm=True, **SETTINGS)
    train(synchronised, data, RankSession(rank, out / "synchronised"))
    # Of 25 genes one rank gets 13, the other 12, of which the first alone would need two parts.
    uneven = replace(make_job(batch_size=12, sync_batchnorm=True, **SETTINGS), global_batch=25)
    train(uneven, data, RankSession(rank, out / "uneven"))
    given = TrainedModel.load(out / "given.safetensors")
    rows = np.random.default_rng(0).permutation(len(data.labels))[:51]
    predicted = predict(given.network, data.inputs, rows, session, bf16=False)
    values = [[epoch["valid_r2"], epoch["train_loss"], epoch["epoch_seconds"]] for epoch in session.reported]
    save_file(
        {
            "predicted": torch.from_numpy(predicted),
            "levels": torch.from_numpy(given.predict_inputs(data.inputs, session)),
            "epochs": torch.tensor(values, dtype=torch.float64),
        },
        out / f"{rank}.answers",
    )
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Metrics]]:
    """What two ranks left behind, and the run of one process with the same global batch."""
    out = tmp_path_factory.mktemp("two")
    job = make_job(batch_size=16, **SETTINGS)
    alone = run(job, tiny.read_by(job, *TARGETS), out / "alone")
    (out / "given.safetensors").write_bytes((out / "alone" / checkpoint.BEST).read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(work, (port, tiny.folder, tiny.split_path, out), nprocs=2)
    return out, alone


def test_two_ranks_predict_what_one_does_for_an_uneven_number_of_genes(
    two: tuple[Path, list[Metrics]], tiny: Tiny
) -> None:
    out, _ = two
    given = TrainedModel.load(out / "given.safetensors")
    rows = np.random.default_rng(0).permutation(tiny.genes.num_genes)[:51]
    expected = predict(given.network, tiny.data.inputs, rows, LocalSession(out), bf16=False)
    levels = given.predict(tiny.genes).to_numpy()

    assert expected.shape == (51, 2)
    assert (expected.std(axis=0) > 1e-3).all()
    for rank in range(2):
        answers = load_file(out / f"{rank}.answers")
        np.testing.assert_allclose(answers["predicted"].numpy(), expected, atol=1e-6, rtol=0)
        np.testing.assert_allclose(answers["levels"].numpy(), levels, atol=1e-6, rtol=0)


def test_both_ranks_end_with_the_same_weights_and_statistics(two: tuple[Path, list[Metrics]]) -> None:
    first, second = (load_file(two[0] / f"{rank}.weights") for rank in range(2))

    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=1e-7, rtol=0)
    last, _ = checkpoint.load(two[0] / "shared" / checkpoint.LAST)
    for name, tensor in first.items():
        assert torch.equal(last[f"network/{name}"], tensor), "what is kept is what was trained"


def test_both_ranks_report_the_same_numbers(two: tuple[Path, list[Metrics]]) -> None:
    first, second = (load_file(two[0] / f"{rank}.answers")["epochs"] for rank in range(2))

    assert len(first) == 2
    assert torch.equal(first, second)


def test_the_first_epoch_of_two_ranks_is_about_that_of_one_with_the_same_global_batch(
    two: tuple[Path, list[Metrics]],
) -> None:
    # Not exactly: BatchNorm sees each rank's own half of the batch.
    epochs = load_file(two[0] / "0.answers")["epochs"]

    assert float(epochs[0, 1]) == pytest.approx(two[1][0]["train_loss"], rel=0.1)


def test_with_batchnorm_over_all_ranks_two_of_them_train_the_network_of_one(two: tuple[Path, list[Metrics]]) -> None:
    out, alone = two
    together, state = checkpoint.load(out / "synchronised" / checkpoint.LAST)

    assert any("running_var" in name for name in together), "there is a BatchNorm in it"
    apart = load_file(out / "0.answers")["epochs"]
    for column, name in enumerate(("valid_r2", "train_loss")):
        expected = [epoch[name] for epoch in alone]
        assert [epoch[name] for epoch in state["history"]] == pytest.approx(expected, abs=1e-5)
        assert apart[:, column].tolist() != pytest.approx(expected, abs=1e-5), "each rank with its own statistics"


def test_ranks_with_different_numbers_of_genes_go_through_the_network_as_often(
    two: tuple[Path, list[Metrics]],
) -> None:
    job = replace(make_job(batch_size=12), global_batch=25)
    assert [job.parts(25, 2), job.parts(24, 2), job.parts(3, 2), job.parts(2, 2)] == [2, 1, 1, 1]
    assert replace(job, micro_batches=4).parts(7, 2) == 3

    _, state = checkpoint.load(two[0] / "uneven" / checkpoint.LAST)
    assert [epoch["epoch"] for epoch in state["history"]] == [1, 2], "neither waited for the other without end"


def test_one_rank_that_does_the_work_of_two_takes_their_steps_in_parts_of_the_size_of_theirs(
    two: tuple[Path, list[Metrics]], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xpresso, "DROPOUTS", (0.0, 0.0))
    job = replace(make_job(batch_size=8, epochs=3, model=READERS["xpresso"]), global_batch=16)
    alone = run(job, tiny.read_by(job, *TARGETS), tmp_path)

    _, state = checkpoint.load(two[0] / "exact" / checkpoint.LAST)

    assert (job.parts(16, 1), job.parts(16, 2), job.parts(5, 1)) == (2, 1, 1)
    assert [epoch["train_loss"] for epoch in alone] == pytest.approx([one["train_loss"] for one in state["history"]])


@pytest.mark.parametrize("folder", ["exact", "divided"])
def test_two_ranks_take_the_very_steps_of_one_though_they_hold_different_numbers_of_labels(
    folder: str, two: tuple[Path, list[Metrics]], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # "divided" ran with each rank's batch of 8 genes in three parts.
    # Xpresso without dropout, for it has no BatchNorm, which would see each rank's own half of the batch.
    monkeypatch.setattr(xpresso, "DROPOUTS", (0.0, 0.0))
    job = make_job(batch_size=16, epochs=3, model=READERS["xpresso"])
    data = tiny.read_by(job, *TARGETS)
    assert np.isnan(data.labels[data.split.train]).any()
    alone = run(job, data, tmp_path)

    together, state = checkpoint.load(two[0] / folder / checkpoint.LAST)

    assert [epoch["train_loss"] for epoch in state["history"]] == pytest.approx(
        [epoch["train_loss"] for epoch in alone]
    )
    for name, tensor in checkpoint.load(tmp_path / checkpoint.LAST)[0].items():
        torch.testing.assert_close(together[name], tensor, atol=2e-5, rtol=1e-3)


def test_ranks_wait_for_each_other_once_a_step_however_many_parts_it_has(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone: list[bool] = []

    class Parallel(torch.nn.Module):
        """Tells in which passes gradients would stay on their rank."""

        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network, self.unsynchronised = network, False

        @contextmanager
        def no_sync(self) -> Iterator[None]:
            self.unsynchronised = True
            yield
            self.unsynchronised = False

        def forward(self, inputs: Any) -> Any:
            alone.append(self.unsynchronised)
            return self.network(inputs)

    monkeypatch.setattr(loop, "DistributedDataParallel", Parallel)
    rows, network = tiny.split.train[:8], Parallel(loop.build(make_job().model, 1))

    loop._accumulate_gradients(network, 3, tiny.data, LocalSession(tmp_path), rows, len(rows), bf16=False)

    assert alone == [True, True, False]
