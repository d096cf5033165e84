"""Exports: trained models in a folder of their own, which can be given away and is read without their study.

``config.json`` says what is in it and has the digest of every other file; weights are safetensors, and nothing is
ever unpickled. A ``program.pt2`` is for other software: PyTorch's own loader can unpickle, so raystudy never reads it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from raystudy.data.streams import CHUNK_GENES, Table, chunks_of
from raystudy.errors import DataError, SpecError
from raystudy.study.model import Input, ModelSpec, Section, configure
from raystudy.tracking.records import jsonable
from raystudy.training.trained import Precision, TrainedModel

if TYPE_CHECKING:
    import pandas as pd

FORMAT, VERSION = "raystudy-export", 1
CONFIG = "config.json"

JsonObject = dict[str, Any]


class Member(Section):
    """One trained network of an export. What it says of the network stands in the weights' file too, and must agree."""

    file: str = Field(pattern=r"^member-[0-9]{1,6}\.safetensors$")
    sha256: str
    replicate: str | None
    """What the study called it; None where it is from no study."""
    fold: int | None
    seed: int | None
    config: JsonObject
    """Keys of the network and of its training."""
    targets: list[str]
    label_scale: JsonObject
    feature_scale: JsonObject
    metrics: JsonObject
    """What was measured in the epoch whose weights these are."""


class Coverage(Section):
    """In how many test genes the interval held the measured level."""

    num_genes: int
    num_covered: int
    coverage: float
    interval: tuple[float, float]
    """95 %, of the coverage over the choice of genes, as if these were independent."""


class Interval(Section):
    """What an ensemble adds to and takes from its prediction, and whether that held."""

    coverage: float = Field(gt=0, lt=1)
    """What was asked for."""
    half_width: dict[str, float]
    """By target, in the labels' own units; one that no validation gene was measured for has none."""
    num_residuals: dict[str, int]
    method: str
    measured: dict[str, Coverage] | None
    """By target; None while the test genes were sealed."""


class ExportConfig(Section):
    """``config.json``."""

    format: Literal["raystudy-export"]
    version: Literal[1]
    raystudy: str
    """The version that wrote it."""
    members: list[Member] = Field(min_length=1)
    units: dict[str, str] | None
    """Of each target's levels; None where the study did not record them."""
    interval: Interval | None
    numbers: JsonObject
    study: JsonObject | None
    program: JsonObject
    """``file`` and what its arguments are, or the ``reason`` why there is none."""
    files: dict[str, str]
    """sha256 of every other file."""


@dataclass(frozen=True)
class Ensemble:
    """Several trained models that predict together."""

    members: tuple[TrainedModel, ...]
    interval: Interval | None

    @property
    def model(self) -> ModelSpec:
        """The network of the first of them; all read the same of a gene."""
        return self.members[0].model

    @property
    def targets(self) -> tuple[str, ...]:
        return self.members[0].targets

    @property
    def inputs(self) -> frozenset[Input]:
        """What any of them reads of a gene."""
        return frozenset[Input]().union(*(member.inputs for member in self.members))

    def predict(self, table: Table, **how: Any) -> pd.DataFrame:
        """The mean over the members for each gene of a table, and its interval; see `TrainedModel.predict`.

        Columns are ``<target>`` and, where there is an interval, ``<target>_low`` and ``<target>_high``, in the labels'
        own units; NaN for a target that has none.
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
        """The same, so many genes at a time; see `TrainedModel.predict_chunks`."""
        for genes in chunks_of(table, self.inputs, chunk_genes):
            asked = {"chunk_genes": chunk_genes, "batch_size": batch_size, "precision": precision}
            predicted = [member.predict(genes, **asked) for member in self.members]
            yield self._with_interval(sum(predicted[1:], start=predicted[0]) / len(predicted))

    def _with_interval(self, mean: pd.DataFrame) -> pd.DataFrame:
        if self.interval is None:
            return mean
        columns = {}
        for target in self.targets:
            half_width = self.interval.half_width.get(target, math.nan)
            columns[target] = mean[target]
            columns[f"{target}_low"] = mean[target] - half_width
            columns[f"{target}_high"] = mean[target] + half_width
        return mean.assign(**columns)[list(columns)]


def is_export(path: Path) -> bool:
    """Is there an export's ``config.json`` in this folder, of whatever version and state?"""
    return (path / CONFIG).is_file()


def load_export(folder: Path, device: str = "cpu") -> TrainedModel | Ensemble:
    """What an export holds: the one model, or an ensemble where there are several or an interval.

    Raises DataError where the folder is no export, is of another version, or was damaged or altered.
    """
    config = read_config(folder)
    members = tuple(_load_member(folder, member, device) for member in config.members)
    if len(members) == 1 and config.interval is None:
        return members[0]
    ensemble = Ensemble(members, config.interval)
    intervals = set() if config.interval is None else config.interval.half_width.keys()
    reading = {(member.targets, member.model.reading) for member in members}
    if len(reading) > 1 or not intervals <= set(ensemble.targets):
        raise _altered(folder / CONFIG, "its members and interval are not of the same targets and inputs")
    return ensemble


def read_config(folder: Path) -> ExportConfig:
    """An export's ``config.json``; DataError where it is none that this raystudy reads."""
    path = folder / CONFIG
    try:
        document = json.loads(path.read_bytes())
        made_by, version = document.get("format"), document.get("version")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give the folder of an export") from None
    except (ValueError, AttributeError, RecursionError) as error:
        raise _altered(path, f"not JSON of an export ({' '.join(str(error).split())[:200]})") from None
    if made_by != FORMAT:
        raise DataError(f"{path}: its `format` is {made_by!r}, an export's is {FORMAT!r}; give the folder of an export")
    if version != VERSION:
        raise DataError(
            f"{path}: this export is of version {version!r}, and this raystudy reads version {VERSION}; install the "
            f"raystudy that wrote it ({document.get('raystudy')!r}), or export the model again with this one"
        )
    try:
        return ExportConfig.model_validate(document)
    except ValidationError as error:
        raise _altered(path, " ".join(str(error).split())[:300]) from None


def describe(model: TrainedModel) -> JsonObject:
    """What an export says of one model, as strict JSON."""
    scales = {"label_scale": vars(model.label_scale), "feature_scale": vars(model.feature_scale)}
    whole: JsonObject = jsonable(
        {
            "config": {**model.model.model_dump(mode="json"), **model.training.model_dump(mode="json")},
            "targets": list(model.targets),
            **scales,
            "metrics": model.metrics,
        }
    )
    return whole


def digest(path: Path) -> str:
    """sha256 of a file; DataError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); the export is not whole, get it again") from None


def _load_member(folder: Path, member: Member, device: str) -> TrainedModel:
    path = folder / member.file
    if (found := digest(path)) != member.sha256:
        raise _altered(path, f"its sha256 is {found}, and {CONFIG} says {member.sha256}")
    model = TrainedModel.load(path, device)
    said = describe(model) | {"config": _as_read(member.config)}
    really = member.model_dump() | {"config": (model.model, model.training)}
    for key, value in said.items():
        if value != really[key]:
            raise _altered(folder / CONFIG, f"`{key}` of {member.file} is not what the weights were trained with")
    return model


def _as_read(config: JsonObject) -> object:
    """A configuration with what is the default where it says nothing: other versions may know other keys."""
    try:
        return configure(config)
    except (SpecError, ValidationError):
        return None


def _altered(path: Path, what: str) -> DataError:
    return DataError(
        f"{path}: the export is damaged or was altered: {what}. Nothing in it can be trusted; get it again, or write "
        "it again with `raystudy export`"
    )
