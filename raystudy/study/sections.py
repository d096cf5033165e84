"""The sections of a study file besides network, training and search space: data, split, budget, and the like."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, PositiveInt, model_validator

from raystudy.study.model import PRESETS, Section
from raystudy.study.space import Value
from raystudy.study.urls import refuse_password

Setting = Value | tuple[int, int] | None
Counted = Literal["ridge", "gbm"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""Of a study, whose folder it becomes."""


class DataSpec(Section):
    """Which genes, and how much of each."""

    source: str | None = None
    """A built-in source (``yeast``, ``ecoli``, ``synthetic``), prepared on first use."""
    path: Path | None = None
    """A folder written by ``raystudy prepare``, instead of a source."""
    window_bp: tuple[int, int] = (7000, 3500)
    """Bases before the anchor (TSS or CDS start) and from it on."""
    max_protein: int = Field(6000, ge=1)
    """Residues after which a protein is cut."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.source is None) == (self.path is None):
            raise ValueError("give either `source` or `path`, not both and not neither")
        if min(self.window_bp) < 0 or sum(self.window_bp) == 0:
            raise ValueError(f"`window_bp` is [bases up, bases down], none negative, but got {list(self.window_bp)}")
        return self

    def offered(self, preset: object) -> dict[str, Any]:
        """What a network reads where neither it nor its preset says: the sizes given here."""
        settings = PRESETS[preset].settings if isinstance(preset, str) and preset in PRESETS else {}
        sizes = self.model_fields_set & {"window_bp", "max_protein"} - settings.keys()
        return {key: getattr(self, key) for key in sizes}


class SplitSpec(Section):
    """How genes are parted into train, valid and test."""

    by: Literal["block", "chromosome", "family", "random", "published"] = "block"
    """``published`` takes the parts that the data's authors made, of the sizes that they have, and drops nothing."""
    valid: float = Field(0.1, gt=0, lt=1)
    test: float = Field(0.1, gt=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _leaves_training_genes(self) -> Self:
        if self.valid + self.test >= 1:
            raise ValueError(f"`valid + test < 1` must hold, but got {self.valid + self.test:g}")
        fields = type(self).model_fields
        if self.by == "published" and any(getattr(self, part) != fields[part].default for part in ("valid", "test")):
            raise ValueError(
                f"`by: published` has its own sizes, but got `valid: {self.valid:g}` and `test: {self.test:g}`; leave "
                "both out, or part the genes another way"
            )
        return self


class ResourcesSpec(Section):
    """What one trial gets."""

    workers: PositiveInt | tuple[PositiveInt, PositiveInt] = 1
    """Processes that train one trial together; ``[fewest, most]`` goes on with as many as there is room for."""
    cpus_per_worker: int = Field(1, ge=1)
    gpus_per_worker: float = Field(0, ge=0)
    memory_gb_per_worker: float | None = Field(None, gt=0)
    """The most that a worker may need (of its GPU where it has one); larger trials are infeasible and not trained."""
    accelerator: str | None = Field(None, pattern=r"^[A-Za-z0-9_.-]+$")
    """The kind of GPU, as Ray calls it (``A100``); null takes any."""
    executor: Literal["auto", "inprocess", "torch_trainer"] = "auto"
    """``inprocess`` is for one worker and starts in a second; ``auto`` takes it where a worker has no GPU."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if isinstance(self.workers, tuple) and self.workers[0] > self.workers[1]:
            raise ValueError(f"`workers` is [fewest, most], but got {list(self.workers)}")
        if self.accelerator and not self.gpus_per_worker:
            raise ValueError(
                f"`accelerator: {self.accelerator}` asks for a kind of GPU, but `gpus_per_worker` is 0; set it to 1"
            )
        if self.executor == "inprocess" and self.most_workers > 1:
            raise ValueError(
                f"`executor: inprocess` trains in one process, but `workers` is {self.workers}; "
                "use `executor: torch_trainer`, or leave it out"
            )
        return self

    @property
    def fewest_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """Which share a trial's global batch; with fewer, each takes more of it."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def nested(self) -> bool:
        """Is each trial a TorchTrainer of its own, inside of Tune's?"""
        if self.executor == "auto":
            return self.most_workers > 1 or self.gpus_per_worker > 0
        return self.executor == "torch_trainer"


class NodeSpec(Section):
    """Machines of one kind in a cluster."""

    count: int = Field(1, ge=1)
    """How many of them there are, or may be started by autoscaling."""
    cpus: int = Field(ge=1)
    gpus: int = Field(0, ge=0)
    memory_gb: float | None = Field(None, gt=0)
    gpu_memory_gb: float | None = Field(None, gt=0)
    """Of one GPU."""
    accelerator: str | None = None
    """The kind of its GPUs, as Ray calls it (``A100``)."""


class PricesSpec(Section):
    """What resources cost while a trial holds them."""

    currency: str = "USD"
    cpu_hour: float = Field(0, ge=0)
    gpu_hour: float = Field(0, ge=0)

    def hourly(self, resources: ResourcesSpec) -> float:
        """What one trial costs in an hour."""
        worker = resources.cpus_per_worker * self.cpu_hour + resources.gpus_per_worker * self.gpu_hour
        return resources.most_workers * worker


class BudgetSpec(Section):
    """When the study ends, whichever comes first, and what one trial may cost."""

    trials: int = Field(ge=1)
    """Configurations that are trained; refused ones and repetitions are not counted."""
    minutes: float = Field(gt=0)
    """For the whole study; the search stops early enough to retrain the finalists within it."""
    cost: float | None = Field(None, gt=0)
    """For the trials of the search, in the currency of `prices`."""
    valid_r2: float | None = Field(None, le=1)
    """Good enough: the search ends when a trial has reached it."""
    no_improvement: int | None = Field(None, ge=1)
    """Ended trials without a new best after which no further one is started."""
    trial_minutes: float | None = Field(None, gt=0)
    """The longest that one attempt at a trial may take; what hangs is ended and fails."""
    parameters: int | None = Field(None, ge=1)
    """The most that a trial's network may have; larger ones are infeasible and not trained."""


BETTER: dict[str, Literal["maximize", "minimize"]] = {
    "valid_r2": "maximize",
    "epoch_seconds": "minimize",
    "parameters": "minimize",
}
"""What can be an objective, and which way is better."""


class ObjectiveSpec(Section):
    """A metric that the search makes better; several of them make a front of compromises."""

    metric: Literal["valid_r2", "epoch_seconds", "parameters"] = "valid_r2"
    direction: Literal["maximize", "minimize"]

    @model_validator(mode="before")
    @classmethod
    def _usual_direction(cls, given: Any) -> Any:
        if isinstance(given, dict) and "direction" not in given:
            return given | {"direction": BETTER.get(given.get("metric", "valid_r2"), "maximize")}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.direction != BETTER[self.metric]:
            raise ValueError(f"`{self.metric}` is to {BETTER[self.metric]}, but got {self.direction!r}; change it")
        return self


class ReplicatesSpec(Section):
    """How often each finalist is trained again: on every fold, with every seed."""

    folds: int = Field(1, ge=1)
    """Into how many folds training and validation genes are parted anew; 1 keeps the split as it is."""
    seeds: int = Field(1, ge=1)


class WarmStartSpec(Section):
    """The best configurations of an earlier study are tried first, and measured anew."""

    study: str = Field(pattern=f"^{NAME.pattern}$")
    """Its name, in the same studies folder."""
    trials: int = Field(5, ge=1)
    """How many of them."""


class TrackingSpec(Section):
    """Where results are written besides the study's folder."""

    uri: str | None = None
    """Where MLflow is; null is MLFLOW_TRACKING_URI, or else SQLite in the studies folder."""
    storage: str | None = None
    """Optuna's database (an SQLAlchemy URL); null is SQLite in the study's folder."""

    @model_validator(mode="after")
    def _without_passwords(self) -> Self:
        refuse_password("tracking.uri", self.uri)  # a SpecError as it is: pydantic's would quote what it received
        refuse_password("tracking.storage", self.storage)
        return self


class ArmSpec(Section):
    """A named, fixed configuration: besides these keys, those of `model` and `training` that differ."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Setting]

    name: str
    workers: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    """Instead of `resources.workers`."""
    against: str | None = None
    """The arm that it differs from in one thing, for a published table."""
    printed: dict[str, Value] = Field(default_factory=dict)
    """What a publication prints for it, to stand beside ours."""
    note: str | None = None
    """What a reader should know of it."""

    @property
    def overrides(self) -> dict[str, Setting]:
        return dict(self.__pydantic_extra__)


class FeatureTable(Section):
    """A table of numbers for each gene (embeddings of a language model, say) as baselines of its own."""

    features: Path
    """Parquet, Feather, CSV or TSV with a column `gene_id`; every other column is a feature."""
    models: tuple[Counted, ...] = Field(("ridge", "gbm"), min_length=1)
    name: str | None = None
    """What the baselines are called after the model's name; the file's name unless said."""

    def arm(self, model: Counted) -> str:
        """The baseline's name in the results."""
        return f"{model}-{self.name or self.features.name.split('.')[0]}"
