from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from raystudy.errors import DataError
from raystudy.training import checkpoint

STATE = {"seed": 3, "nested": {"list": [1, 2.5, None, "x"]}}
TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7), "c": torch.ones(2, dtype=torch.bfloat16)}


class Bomb:
    """Unpickling it runs code."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.proof,))


def test_what_is_saved_is_loaded_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.safetensors"
    checkpoint.save(path, TENSORS, STATE)
    checkpoint.save(path, {**TENSORS, "a": TENSORS["a"].t()}, STATE)

    tensors, state = checkpoint.load(path)

    assert state == STATE
    assert tensors.keys() == TENSORS.keys()
    assert torch.equal(tensors["a"], TENSORS["a"].t())
    assert torch.equal(tensors["c"], TENSORS["c"])
    assert [file.name for file in path.parent.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, TENSORS, STATE)
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(DataError, match=r"x\.safetensors: not a checkpoint that raystudy wrote"):
        checkpoint.load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.safetensors"):
        checkpoint.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("metadata", [None, {"other": "1"}, {"state": "{not json"}])
def test_safetensors_of_someone_else_are_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path, metadata=metadata)

    with pytest.raises(DataError, match="not a checkpoint that raystudy wrote"):
        checkpoint.load(path)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_is_refused_and_not_run(tmp_path: Path, how: str) -> None:
    path, proof = tmp_path / "x.safetensors", tmp_path / "proof"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Bomb(proof)))
    else:
        torch.save(Bomb(proof), path)

    with pytest.raises(DataError, match="not a checkpoint that raystudy wrote"):
        checkpoint.load(path)

    assert not proof.exists()


def test_the_optimizer_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(5, 4, 3)

    def step(network: torch.nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
        optimizer.zero_grad()
        network(inputs[number]).square().sum().backward()
        optimizer.step()

    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(network.parameters(), 0.1, (0.9, 0.98))
    step(network, optimizer, 0)
    step(network, optimizer, 1)
    checkpoint.save(tmp_path / "x.safetensors", checkpoint.training_tensors(network, optimizer), {})
    again = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    other = torch.optim.AdamW(again.parameters(), 0.1, (0.9, 0.98))
    checkpoint.restore_training(again, other, checkpoint.load(tmp_path / "x.safetensors")[0])
    for number in range(2, 5):
        step(network, optimizer, number)
        step(again, other, number)

    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_an_optimizer_that_knew_other_weights_is_refused() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    tensors = checkpoint.training_tensors(network, optimizer)
    checkpoint.restore_training(network, optimizer, tensors)

    swapped = {name.replace("optimizer/0/", "optimizer/9/"): tensor for name, tensor in tensors.items()}
    for wrong in (swapped, {**tensors, "optimizer/2/exp_avg": torch.zeros(4, 4)}):
        with pytest.raises(DataError, match=r"optimizer state \d does not belong to this network's weights"):
            checkpoint.restore_training(network, optimizer, wrong)
