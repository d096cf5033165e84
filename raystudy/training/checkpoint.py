"""Checkpoints: tensors as safetensors, everything else as JSON in the same file's header. Nothing is unpickled.

One file is replaced in one step, so a checkpoint is either the old one or the new one, whenever the process dies.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from raystudy.errors import DataError

LAST, BEST = "last.safetensors", "best.safetensors"


def save(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors and a JSON-like state as one file, replacing an older one in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(copies, partial, metadata={"state": json.dumps(state)})
    partial.replace(path)


def load(path: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save` wrote; DataError when the file is not such a checkpoint."""
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads(file.metadata()["state"])
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not a checkpoint that raystudy wrote ({error})") from None


def training_tensors(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The network's and the optimiser's tensors under one flat set of names."""
    tensors = {f"network/{name}": tensor for name, tensor in network.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in values.items()})
    return tensors


def restore_training(network: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put `training_tensors` back. DataError where what the optimizer knew is of another network's weights."""
    network.load_state_dict(
        {name.removeprefix("network/"): tensor for name, tensor in tensors.items() if name.startswith("network/")}
    )
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/")
            state.setdefault(int(index), {})[key] = tensor
    parameters = list(network.parameters())
    for number, moments in state.items():
        shape = parameters[number].shape if number < len(parameters) else None
        if any(
            tensor.ndim and tensor.shape != shape for tensor in moments.values()
        ):  # fused optimizers would not notice
            raise DataError(
                f"the checkpoint's optimizer state {number} does not belong to this network's weights: another version "
                "of raystudy wrote it. Remove the trial's folder to have it trained again"
            )
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
