"""The study file: its keys, their rules, and errors that a person can act on."""

from __future__ import annotations

import difflib
import math
import re
from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from raystudy.errors import SpecError
from raystudy.study.space import Log, Parameter, PowerOfTwo, Uniform, Value, canonical_hash

LATENT_HEADS = 8
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class DataSpec(_Section):
    """Which genes, and how much of each."""

    source: str | None = None
    """A built-in source (``yeast``, ``synthetic``), prepared on first use."""
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


class SplitSpec(_Section):
    """How genes are parted into train, valid and test."""

    by: Literal["block", "chromosome", "family", "random"] = "block"
    valid: float = Field(0.1, gt=0, lt=1)
    test: float = Field(0.1, gt=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _leaves_training_genes(self) -> Self:
        if self.valid + self.test >= 1:
            raise ValueError(f"`valid + test < 1` must hold, but got {self.valid + self.test:g}")
        return self


class ModelSpec(_Section):
    """The network. Shapes: N latents of width D, token width E, query width Q, pool size P."""

    family: Literal["dna_protein"] = "dna_protein"
    perceiver_input: Literal["protein"] = "protein"
    encoder: Literal["onehot", "embedding"] = "onehot"
    """How the DNA window enters the convolution: one-hot, or a dense embedding (computed folded)."""
    embedding_dim: int = Field(128, ge=1)
    half_life: Literal["concat", "mlp"] = "concat"
    """How the eight half-life features join: as they are, or through a two-layer MLP."""
    latent_dim: int = Field(128, ge=LATENT_HEADS)
    num_latents: int = Field(128, ge=1)
    token_dim: int = Field(32, ge=2, multiple_of=2)
    queries_dim: int = Field(128, ge=2, multiple_of=2)
    pool_size: int = Field(10, ge=2)
    latent_summary: bool = True
    dropout: float = Field(0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.latent_dim % LATENT_HEADS:
            raise ValueError(
                f"`latent_dim` must be a multiple of its {LATENT_HEADS} attention heads, but got {self.latent_dim}"
            )
        return self

    @property
    def smallest_window(self) -> int:
        """Bases below which nothing is left after the three poolings (P, P//2, P//2)."""
        return self.pool_size * (self.pool_size // 2) ** 2


class TrainingSpec(_Section):
    """How one configuration is trained: MSE on the standardised label, AdamW, one warm-up and cosine decay."""

    epochs: int = Field(8, ge=1)
    batch_size: int = Field(64, ge=2)
    """Genes a worker sees in one step."""
    learning_rate: float = Field(1e-3, gt=0, lt=1)
    weight_decay: float = Field(0.02, ge=0)
    warmup: float = Field(0.15, ge=0, lt=1)
    """Share of all steps in which the learning rate rises to its peak."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """``auto`` is bf16 where the processor computes in it, else fp32; what ran is recorded."""
    attention: Literal["auto", "sdpa", "math"] = "auto"


class ResourcesSpec(_Section):
    """What one trial gets."""

    workers: int = Field(1, ge=1)
    cpus_per_worker: int = Field(1, ge=1)
    gpus_per_worker: float = Field(0, ge=0)


class BudgetSpec(_Section):
    """When the study ends, whichever comes first."""

    trials: int = Field(ge=1)
    minutes: float = Field(gt=0)
    """For the whole study; the search stops early enough to retrain the finalists within it."""


class ObjectiveSpec(_Section):
    metric: Literal["valid_r2"] = "valid_r2"
    direction: Literal["maximize"] = "maximize"


class TrackingSpec(_Section):
    uri: str | None = None
    """Where MLflow is; null is MLFLOW_TRACKING_URI, or else SQLite in the studies folder."""


class StudySpec(_Section):
    """A whole study file."""

    name: str
    data: DataSpec
    target: Literal["protein", "mrna"] = "protein"
    split: SplitSpec = SplitSpec()
    model: ModelSpec = ModelSpec()
    search: dict[str, Parameter] = {}
    arms: tuple[dict[str, Value], ...] = ()
    """Named, fixed configurations: `name` and the keys of `model` and `training` that differ."""
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["successive_halving", "none"] = "successive_halving"
    objectives: tuple[ObjectiveSpec, ...] = Field((ObjectiveSpec(),), min_length=1, max_length=1)
    training: TrainingSpec = TrainingSpec()
    resources: ResourcesSpec = ResourcesSpec()
    budget: BudgetSpec
    finalists: int = Field(1, ge=1)
    baselines: tuple[Literal["ridge", "gbm"], ...] = ("ridge", "gbm")
    tracking: TrackingSpec = TrackingSpec()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"`name` becomes a folder: letters, digits, '.', '_' and '-', at most 64, but got {self.name!r}"
            )
        if not self.search and not self.arms:
            raise ValueError("nothing to try: give `search`, `arms` or both")
        self._check_search()
        self._check_arms()
        return self

    def _check_search(self) -> None:
        fields = {**ModelSpec.model_fields, **TrainingSpec.model_fields}
        for key, parameter in self.search.items():
            if isinstance(parameter, Uniform | Log) and key in fields and fields[key].annotation is int:
                raise ValueError(
                    f"`search.{key}` is a whole number: search it as int or pow2, but got {parameter.kind}"
                )
            if isinstance(parameter, PowerOfTwo) and parameter.seed_from and key != "latent_dim":
                raise ValueError(f"`search.{key}.seed_from`: only `latent_dim` can be seeded, remove it")
            for value in parameter.corners():
                self._configure({key: value}, where=f"search.{key}")

    def _check_arms(self) -> None:
        names = [arm.get("name") for arm in self.arms]
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise ValueError(f"each arm needs a `name` of its own, a text, but got {names}")
        for arm in self.arms:
            overrides = {key: value for key, value in arm.items() if key != "name"}
            self._configure(overrides, where=f"arms.{arm['name']}")

    def _configure(self, overrides: dict[str, Value], where: str) -> None:
        try:
            model, _ = self.configure(overrides)
        except ValidationError as error:
            raise ValueError(f"`{where}`: {_first_rule(error)}") from None
        except SpecError as error:
            raise ValueError(f"`{where}`: {error}") from None
        if sum(self.data.window_bp) < model.smallest_window:
            raise ValueError(
                f"`{where}`: a window of {sum(self.data.window_bp)} bp is shorter than the "
                f"{model.smallest_window} bp that pooling by {model.pool_size} and twice {model.pool_size // 2} "
                "needs; widen `data.window_bp` or lower `model.pool_size`"
            )

    def configure(self, overrides: dict[str, Value]) -> tuple[ModelSpec, TrainingSpec]:
        """The network and training of one configuration: this study's own with some keys replaced."""
        return configure({**self.model.model_dump(), **self.training.model_dump(), **overrides})

    @property
    def seeded_width(self) -> PowerOfTwo | None:
        """The latent width's range where the intrinsic dimension seeds it."""
        width = self.search.get("latent_dim")
        return width if isinstance(width, PowerOfTwo) and width.seed_from else None

    @property
    def identity(self) -> dict[str, Any]:
        """What makes it this study; budget, resources and tracking may change when it is taken up again."""
        return self.model_dump(mode="json", exclude={"budget", "resources", "tracking"})

    @property
    def hash(self) -> str:
        return canonical_hash(self.identity)


def configure(flat: dict[str, Any]) -> tuple[ModelSpec, TrainingSpec]:
    """A flat configuration (as the records keep it) as its two validated halves.

    Raises SpecError for a key that neither half has, pydantic's ValidationError for a value outside its rule.
    """
    model_keys, training_keys = ModelSpec.model_fields.keys(), TrainingSpec.model_fields.keys()
    for key in flat:
        if key not in model_keys and key not in training_keys:
            raise SpecError(f"unknown parameter `{key}`{_nearest(key, [*model_keys, *training_keys])}")
    return (
        ModelSpec(**{key: value for key, value in flat.items() if key in model_keys}),
        TrainingSpec(**{key: value for key, value in flat.items() if key in training_keys}),
    )


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, of which PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = []
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"`{key.value}` is given twice", key.start_mark)
            seen.append(key.value)
        return super().construct_mapping(node, deep)


def load_spec(path: Path) -> StudySpec:
    """Read and validate a study file; SpecError names the file, the key, the value and the rule."""
    try:
        document = yaml.load(path.read_text(), Loader=_UniqueKeys)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise SpecError(f"{path}: the study file cannot be read ({error.strerror}); check its path") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise SpecError(f"{path}: a study file is a mapping of keys (name, data, search, ...), got {document!r:.60}")
    return parse_spec(document, where=str(path))


def parse_spec(document: dict[str, Any], where: str = "study") -> StudySpec:
    """Validate a study given as plain objects; see `load_spec`."""
    try:
        return StudySpec.model_validate(document)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
        raise SpecError(f"{where}: {'; '.join(problems)}") from None


def _explain(problem: Any) -> str:
    kinds = {"categorical", "int", "float", "log", "pow2"}
    location = [str(part) for part in problem["loc"] if part not in kinds]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        return f"unknown key `{key}`{_nearest(location[-1], _keys_beside(location))}"
    message = problem["msg"].removeprefix("Value error, ")
    received = problem["input"]
    shown = f" (got {received!r})" if isinstance(received, str | int | float | bool | type(None)) else ""
    return f"`{key}`: {message}{shown}" if key else message


def _keys_beside(location: list[str]) -> list[str]:
    """The keys that are known where an unknown one was met."""
    section: Any = StudySpec
    for part in location[:-1]:
        if part.isdigit() and get_args(section):
            section = get_args(section)[0]
            continue
        field = section.model_fields.get(part) if _is_section(section) else None
        section = None if field is None else field.annotation
    if _is_section(section):
        return list(section.model_fields)
    return ["kind", "low", "high", "choices", "seed_from"]


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f", did you mean `{near[0]}`?" if near else f"; known are {', '.join(sorted(known))}"


def _first_rule(error: ValidationError) -> str:
    problem = error.errors()[0]
    received = problem["input"]
    shown = f", but got {received:g}" if isinstance(received, int | float) and math.isfinite(received) else ""
    return problem["msg"].removeprefix("Value error, ") + ("" if "but got" in problem["msg"] else shown)
