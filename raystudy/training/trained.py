"""A trained network taken from its checkpoint, to be looked into or to predict any genes.

Shapes: n genes, K targets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

from raystudy.data.batches import FeatureScale, GeneInputs, Inputs, LabelScale
from raystudy.data.encode import TOKEN_KMER
from raystudy.data.genes import Genes
from raystudy.data.sequences import KNOWN_BASES, Sequences, lacking_error
from raystudy.data.streams import CHUNK_GENES, Table, chunks_of
from raystudy.data.tables import GeneFeatures
from raystudy.errors import DataError, Infeasible, SpecError
from raystudy.models.backends import choose_backends
from raystudy.models.build import build
from raystudy.models.network import ExpressionNetwork
from raystudy.study.model import Input, ModelSpec, TrainingSpec, configure
from raystudy.training import checkpoint
from raystudy.training.loop import DTYPES, predict, resolve_precision
from raystudy.training.session import LocalSession, Session

if TYPE_CHECKING:
    import pandas as pd

Precision = Literal["auto", "bf16", "fp32"]


class Predictor(Protocol):
    """What a trained model is to those who only ask it: `TrainedModel`, or several of them together."""

    @property
    def model(self) -> ModelSpec: ...
    @property
    def targets(self) -> tuple[str, ...]: ...
    @property
    def inputs(self) -> frozenset[Input]: ...
    def predict_chunks(
        self,
        table: Table,
        chunk_genes: int = CHUNK_GENES,
        batch_size: int | None = None,
        precision: Precision | None = None,
    ) -> Iterator[pd.DataFrame]: ...


def lacking(model: Predictor, genes: Sequences) -> dict[str, npt.NDArray[np.bool_]]:
    """Everything that the model reads of a gene -> which genes do not have it, [n].

    Raises DataError where DNA of which every base or 3-mer is read does not hold the model's window.
    """
    found: dict[str, npt.NDArray[np.bool_]] = {name: genes.lacking(name) for name in sorted(model.inputs)}
    reads = model.model.perceiver_reads
    if reads in ("base", "kmer"):
        whole = np.flatnonzero(~np.logical_or.reduce(list(found.values())))
        known = genes.take(whole).windows(model.model.window_bp) != 0
        stretches = sliding_window_view(known, TOKEN_KMER if reads == "kmer" else 1, axis=1)
        found[KNOWN_BASES] = np.zeros(genes.num_genes, bool)
        found[KNOWN_BASES][whole] = ~np.any(np.all(stretches, axis=2), axis=1)
    return found


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

    @property
    def inputs(self) -> frozenset[Input]:
        """What it reads of a gene. Features of which none varied among the training genes have no say."""
        return self.model.inputs - (set() if self.feature_scale.factor.any() else {"half_life"})

    def predict(self, table: Table, **how: Any) -> pd.DataFrame:
        """Levels of all genes of a table in the labels' own units, [n, K]; see `predict_chunks`.

        Rows are named by ``gene_id`` in the table's order, columns by target.
        """
        import pandas as pd

        return pd.concat(self.predict_chunks(table, **how))

    def predict_chunks(
        self,
        table: Table,
        chunk_genes: int = CHUNK_GENES,
        batch_size: int | None = None,
        precision: Precision | None = None,
    ) -> Iterator[pd.DataFrame]:
        """The same, so many genes at a time: memory does not grow with the number of genes, but for their ids.

        ``table`` is a `Genes`, a `Sequences`, a pyarrow.Table or pandas.DataFrame with columns as in ``genes.parquet``,
        the path to a prepared folder or to a file of such columns, or an iterable of `Sequences`. ``batch_size`` genes
        are computed at a time, ``precision`` is as in `predict_inputs`.
        Raises DataError where a gene lacks what the network reads, SpecError where one of the numbers cannot be.
        """
        import pandas as pd

        session = self._session()
        for genes in chunks_of(table, self.inputs, chunk_genes):
            for name, missing in lacking(self, genes).items():
                if len(rows := np.flatnonzero(missing)):
                    raise lacking_error(genes.origin, name, genes.gene_ids[rows[0]], len(rows), genes.num_genes)
            inputs = GeneInputs.of(genes, self.model, self.feature_scale)
            levels = self.predict_inputs(inputs, session, batch_size, precision)
            yield pd.DataFrame(levels, pd.Index(genes.gene_ids, name="gene_id"), list(self.targets))

    def embed(self, genes: Genes) -> GeneFeatures:
        """What enters the network's last layer for each gene of a prepared folder, as a table of features [n, F].

        Raises DataError where the genes lack what the network reads.
        """
        inputs = GeneInputs.of(genes, self.model, self.feature_scale)
        session = self._session()
        choose_backends(self.network, "auto", session.device, DTYPES["fp32"])
        values = predict(_BeforeLast(self.network), inputs, np.arange(inputs.num_genes), session, bf16=False)
        names = tuple(str(column) for column in range(values.shape[1]))
        return GeneFeatures(values, names, self.sha256, num_missing=0, num_unknown=0)

    def predict_inputs(
        self,
        inputs: GeneInputs,
        session: Session,
        batch_size: int | None = None,
        precision: Precision | None = None,
    ) -> npt.NDArray[np.float64]:
        """Levels of genes already read, [n, K], shared out over the ranks of a session.

        At most ``batch_size`` genes, and never more than ``EVALUATION_BATCH``, go through the network at a time.
        ``precision`` is by default the one it was trained in, where the device computes in that.
        Raises SpecError where either cannot be.
        """
        if batch_size is not None and batch_size < 1:
            raise SpecError(f"`batch_size` is how many genes are computed at a time, 1 at least, but got {batch_size}")
        if precision is not None and precision not in get_args(Precision):
            raise SpecError(f"`precision` is one of {', '.join(get_args(Precision))}, but got {precision!r}")
        computed_in = resolve_precision(precision or self._trained_in(), session.device)
        try:
            asked, before = self.training.attention, self.metrics.get("attention")
            choose_backends(self.network, asked, session.device, DTYPES[computed_in], before)
        except Infeasible:  # trained on another device; how attention is computed is not part of the function
            choose_backends(self.network, "auto", session.device, DTYPES[computed_in])
        order = inputs.length_order(np.arange(inputs.num_genes))
        standardised = np.full((inputs.num_genes, self.network.num_targets), np.nan, np.float32)
        step = batch_size or max(1, len(order))
        for first in range(0, len(order), step):
            rows = order[first : first + step]
            standardised[rows] = predict(self.network, inputs, rows, session, computed_in == "bf16")
        return self.label_scale.to_unit(standardised)

    def _trained_in(self) -> Precision:
        """What the epoch of these weights was computed in; bf16 only where it need not be emulated."""
        known: Precision = self.metrics.get("precision", self.training.precision)
        return "auto" if known == "bf16" else known

    def _session(self) -> Session:
        return LocalSession(Path(), device=str(next(self.network.parameters()).device))


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
