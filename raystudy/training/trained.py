"""A trained network taken from its checkpoint, to be looked into or to predict any prepared genes.

Shapes: n genes, K targets.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from raystudy.data.batches import FeatureScale, GeneInputs, Inputs, LabelScale
from raystudy.data.genes import Genes
from raystudy.data.tables import GeneFeatures
from raystudy.errors import DataError, Infeasible, SpecError
from raystudy.models.backends import choose_backends
from raystudy.models.build import build
from raystudy.models.network import ExpressionNetwork
from raystudy.study.model import ModelSpec, TrainingSpec, configure
from raystudy.training import checkpoint
from raystudy.training.loop import DTYPES, predict, resolve_precision
from raystudy.training.session import LocalSession, Session


@dataclass(frozen=True)
class TrainedModel:
    """The network in evaluation mode with everything that it was trained with."""

    network: ExpressionNetwork
    model: ModelSpec
    training: TrainingSpec
    targets: tuple[str, ...]
    label_scale: LabelScale
    feature_scale: FeatureScale
    metrics: dict[str, Any]
    """What was measured in the epoch whose weights these are."""
    sha256: str
    """Of the checkpoint."""

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> TrainedModel:
        """From a checkpoint, or the folder of a trial or finalist, whose best epoch is taken.

        Nothing is unpickled: tensors are safetensors, the rest is JSON. Raises DataError when it is no such file.
        """
        path = path / checkpoint.BEST if path.is_dir() else path
        if not path.is_file():
            raise DataError(
                f"there is no checkpoint {path}; give the folder of a trial or finalist that has finished an epoch "
                "(studies/NAME/finalists/t0000-r0, say), or the file itself"
            )
        tensors, state = checkpoint.load(path)
        try:
            model, training = configure(state["config"])
            targets = tuple(state["targets"])
            labels = {name: np.array(values, float) for name, values in state["label_scale"].items()}
            features = {name: np.array(values, float) for name, values in state["feature_scale"].items()}
            network = build(model, len(targets))
            network.load_state_dict(tensors)
            scales = (LabelScale(**labels), FeatureScale(**features))
            metrics = dict(state["metrics"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, SpecError) as error:
            reason = " ".join(str(error).split())[:300]
            raise DataError(f"{path}: not the {checkpoint.BEST} of a finished epoch ({reason})") from None
        try:
            network = network.to(device)
        except (RuntimeError, AssertionError) as error:
            raise Infeasible(
                f"the device {str(device)!r} cannot be used here: {' '.join(str(error).split())}"
            ) from None
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return cls(network.eval(), model, training, targets, *scales, metrics, sha256)

    def predict(self, genes: Genes) -> npt.NDArray[np.float64]:
        """Levels of all genes of a prepared folder in the labels' own units, [n, K].

        Raises DataError where the genes lack what the network reads.
        """
        device = next(self.network.parameters()).device
        inputs = GeneInputs.of(genes, self.model, self.feature_scale)
        return self.predict_inputs(inputs, LocalSession(Path(), device=str(device)))

    def embed(self, genes: Genes) -> GeneFeatures:
        """What enters the network's last layer for each gene of a prepared folder, as a table of features [n, F].

        Raises DataError where the genes lack what the network reads.
        """
        inputs = GeneInputs.of(genes, self.model, self.feature_scale)
        session = LocalSession(Path(), device=str(next(self.network.parameters()).device))
        choose_backends(self.network, "auto", session.device, DTYPES["fp32"])
        values = predict(_BeforeLast(self.network), inputs, np.arange(inputs.num_genes), session, bf16=False)
        names = tuple(str(column) for column in range(values.shape[1]))
        return GeneFeatures(values, names, self.sha256, num_missing=0, num_unknown=0)

    def predict_inputs(self, inputs: GeneInputs, session: Session) -> npt.NDArray[np.float64]:
        """The same for genes already read, shared out over the ranks of a session."""
        precision = resolve_precision(self.training.precision, session.device)
        try:
            asked, before = self.training.attention, self.metrics.get("attention")
            choose_backends(self.network, asked, session.device, DTYPES[precision], before)
        except Infeasible:  # trained on another device; how attention is computed is not part of the function
            choose_backends(self.network, "auto", session.device, DTYPES[precision])
        standardised = predict(self.network, inputs, np.arange(inputs.num_genes), session, precision == "bf16")
        return self.label_scale.to_unit(standardised)


class _BeforeLast(ExpressionNetwork):
    """A network without its last layer: ``Inputs`` of B genes -> what that layer would read, [B, F]."""

    def __init__(self, network: ExpressionNetwork) -> None:
        super().__init__()
        self.network = network
        self.last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
        self.num_targets = self.last.in_features

    def forward(self, inputs: Inputs) -> Tensor:
        read: list[Tensor] = []
        hook = self.last.register_forward_pre_hook(lambda _, arguments: read.append(arguments[0]))
        try:
            self.network(inputs)
        finally:
            hook.remove()
        return read[0]
