"""The study file: its keys, their rules, and errors that a person can act on."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from raystudy.errors import SpecError
from raystudy.study.model import PRESETS, Input, ModelSpec, Section, Target, TrainingSpec, configure, nearest
from raystudy.study.space import Log, Parameter, PowerOfTwo, Uniform, Value, canonical_hash

Setting = Value | tuple[int, int] | None
Counted = Literal["ridge", "gbm"]
DECIDES_INPUTS = ("preset", "family", "perceiver_input", "encoder", "tokens", "half_life", "max_protein")
_WAYS = {"categorical", "int", "float", "log", "pow2", "str", "bool", "FeatureTable"}
"""How pydantic calls the kinds of values that stand for one key, in the location of a problem."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
NOT_STUDIES = {"benchmarks", "cache", "data", "dimension", "mlartifacts"}


class DataSpec(Section):
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

    def offered(self, preset: object) -> dict[str, Any]:
        """What a network reads where neither it nor its preset says: the sizes given here."""
        settings = PRESETS[preset].settings if isinstance(preset, str) and preset in PRESETS else {}
        sizes = self.model_fields_set & {"window_bp", "max_protein"} - settings.keys()
        return {key: getattr(self, key) for key in sizes}


class SplitSpec(Section):
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


class ResourcesSpec(Section):
    """What one trial gets."""

    workers: int = Field(1, ge=1)
    cpus_per_worker: int = Field(1, ge=1)
    gpus_per_worker: float = Field(0, ge=0)


class BudgetSpec(Section):
    """When the study ends, whichever comes first, and what one trial may cost."""

    trials: int = Field(ge=1)
    minutes: float = Field(gt=0)
    """For the whole study; the search stops early enough to retrain the finalists within it."""
    parameters: int | None = Field(None, ge=1)
    """The most that a trial's network may have; larger ones are infeasible and not trained."""


class ObjectiveSpec(Section):
    metric: Literal["valid_r2"] = "valid_r2"
    direction: Literal["maximize"] = "maximize"


class TrackingSpec(Section):
    uri: str | None = None
    """Where MLflow is; null is MLFLOW_TRACKING_URI, or else SQLite in the studies folder."""


class ArmSpec(Section):
    """A named, fixed configuration: besides these keys, those of `model` and `training` that differ."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Setting]

    name: str
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


class StudySpec(Section):
    """A whole study file."""

    name: str
    data: DataSpec
    target: Target | tuple[Target, ...] = "protein"
    """One level, or several that one network predicts together."""
    split: SplitSpec = SplitSpec()
    model: ModelSpec = Field(default_factory=dict, validate_default=True)
    search: dict[str, Parameter] = Field(default_factory=dict)
    arms: tuple[ArmSpec, ...] = ()
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["successive_halving", "none"] = "successive_halving"
    objectives: tuple[ObjectiveSpec, ...] = Field((ObjectiveSpec(),), min_length=1, max_length=1)
    training: TrainingSpec = TrainingSpec()
    resources: ResourcesSpec = ResourcesSpec()
    budget: BudgetSpec
    finalists: int = Field(1, ge=1)
    baselines: tuple[Counted | FeatureTable, ...] = ("ridge", "gbm")
    tracking: TrackingSpec = TrackingSpec()

    @field_validator("model", mode="wrap")
    @classmethod
    def _reads_data(cls, given: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        """A network reads what the data section names, unless its preset or the model section says otherwise."""
        data = info.data.get("data")
        if data is None or not isinstance(given, dict):
            return handler(given)
        model = handler(data.offered(given.get("preset")) | given)
        model.model_fields_set.intersection_update(given)
        return model

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"`name` becomes a folder: letters, digits, '.', '_' and '-', at most 64, but got {self.name!r}"
            )
        if self.name in NOT_STUDIES:
            raise ValueError(f"`name` {self.name!r} is a folder of raystudy's own beside the studies; choose another")
        if not self.search and not self.arms:
            raise ValueError("nothing to try: give `search`, `arms` or both")
        if len(set(self.targets)) < len(self.targets) or not self.targets:
            raise ValueError(f"`target` is one level or several different ones, but got {list(self.targets)}")
        names = self.baseline_names
        if len(set(names)) < len(names) or not all(NAME.fullmatch(name) for name in names):
            raise ValueError(f"each baseline needs a `name` of its own that can name a file, but got {list(names)}")
        self._configure({}, where="model")
        self._check_search()
        self._check_arms()
        self._check_use()
        return self

    def _check_use(self) -> None:
        """Each key of the model section and of the search must mean something to some network of the study."""
        networks = self._combinations
        if not networks:
            raise ValueError("no combination of the searched values keeps the rules; each breaks one with the others")
        unread = set.intersection(*(model.unread for model in networks)) - {"half_life"}
        for where, keys in (("model", self.model.model_fields_set), ("search", self.search.keys())):
            if useless := unread & keys:
                raise ValueError(_do_nothing(where, useless, networks[0]))

    def _check_search(self) -> None:
        fields = {**ModelSpec.model_fields, **TrainingSpec.model_fields}
        for key, parameter in self.search.items():
            if isinstance(parameter, Uniform | Log) and key in fields and _is_whole(fields[key].annotation):
                raise ValueError(
                    f"`search.{key}` is a whole number: search it as int or pow2, but got {parameter.kind}"
                )
            if isinstance(parameter, PowerOfTwo) and parameter.seed_from and key != "latent_dim":
                raise ValueError(f"`search.{key}.seed_from`: only `latent_dim` can be seeded, remove it")
            for value in parameter.corners():
                self._configure({key: value}, where=f"search.{key}")

    def _check_arms(self) -> None:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"each arm needs a `name` of its own, but got {names}")
        for arm in self.arms:
            model = self._configure(arm.overrides, where=f"arms.{arm.name}")
            own = self.model.model_fields_set  # an arm may have to take one of these back
            if useless := model.unread.intersection(arm.overrides) - own:
                raise ValueError(_do_nothing(f"arms.{arm.name}", useless, model))

    def _configure(self, overrides: Mapping[str, Setting], where: str) -> ModelSpec:
        """This configuration's network; ValueError where it breaks a rule or would read more than is offered."""
        try:
            model, _ = self.configure(overrides)
        except ValidationError as error:
            raise ValueError(f"`{where}`: {first_rule(error)}") from None
        except SpecError as error:
            raise ValueError(f"`{where}`: {error}") from None
        (up, down), (most_up, most_down) = model.window_bp, self.data.window_bp
        too_wide = "window_bp" not in model.unread and (up > most_up or down > most_down)
        too_long = "max_protein" not in model.unread and model.max_protein > self.data.max_protein
        if too_wide or too_long:
            raise ValueError(
                f"`{where}`: the network would read {[up, down]} bp and {model.max_protein} residues, which is more "
                f"than the study's data section offers ({[most_up, most_down]} bp, {self.data.max_protein}); "
                "widen `data.window_bp` or `data.max_protein`, or give the network a smaller one of its own"
            )
        return model

    def configure(self, overrides: Mapping[str, Setting]) -> tuple[ModelSpec, TrainingSpec]:
        """The network and training of one configuration: this study's own keys with some replaced."""
        return configure(self.merge(overrides))

    def merge(self, overrides: Mapping[str, Setting]) -> dict[str, Any]:
        """The flat configuration as it was given, before rules, presets and defaults."""
        own = self.model.model_dump(exclude_unset=True)
        if isinstance(preset := overrides.get("preset"), str) and preset in PRESETS:
            own = {key: value for key, value in own.items() if key not in PRESETS[preset].settings}
        given = {**own, **self.training.model_dump(), **overrides}
        return {**self.data.offered(given.get("preset")), **given}

    @property
    def targets(self) -> tuple[Target, ...]:
        return (self.target,) if isinstance(self.target, str) else self.target

    @property
    def _combinations(self) -> list[ModelSpec]:
        """The network of each arm, and of each combination of those searched values that decide what is read."""
        configurations: list[Mapping[str, Setting]] = [arm.overrides for arm in self.arms]
        if self.search:
            deciding = [key for key in DECIDES_INPUTS if key in self.search]
            corners = product(*(self.search[key].corners() for key in deciding))
            configurations += [dict(zip(deciding, corner, strict=True)) for corner in corners]
        found = []
        for overrides in configurations:
            with suppress(ValidationError, SpecError):  # a combination that no trial can be trained with
                found.append(self.configure(overrides)[0])
        return found

    @property
    def networks(self) -> list[ModelSpec]:
        """One configuration for each way in which the study's networks read a gene."""
        return list({model.reading: model for model in self._combinations}.values())

    @property
    def inputs(self) -> frozenset[Input]:
        """What any of the study's networks reads of a gene; the baselines count the same."""
        return frozenset().union(*(model.inputs for model in self.networks))

    @property
    def baseline_names(self) -> tuple[str, ...]:
        """The baselines as the results call them."""
        return tuple(
            name
            for one in self.baselines
            for name in ([one] if isinstance(one, str) else [one.arm(model) for model in one.models])
        )

    @property
    def seeded_width(self) -> PowerOfTwo | None:
        """The latent width's range where the intrinsic dimension seeds it."""
        width = self.search.get("latent_dim")
        return width if isinstance(width, PowerOfTwo) and width.seed_from else None

    @property
    def identity(self) -> dict[str, Any]:
        """What makes it this study; budget, resources and tracking may change when it is taken up again."""
        words = {"arms": {"__all__": {"printed", "note"}}}
        return self.model_dump(mode="json", exclude={"budget": True, "resources": True, "tracking": True, **words})

    @property
    def hash(self) -> str:
        return canonical_hash(self.identity)


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
        raise SpecError(f"{where}: {'; '.join(_explained(error))}") from None


def _explained(error: ValidationError) -> list[str]:
    """One text a place; of the several ways to give a value, only those that what was given comes nearest to."""
    places: dict[tuple[str, ...], list[Any]] = {}
    for problem in error.errors():
        parts = [str(part) for part in problem["loc"]]
        place = tuple(part for part in parts if part not in _WAYS and "[" not in part)
        places.setdefault(place, []).append(problem)
    inner = {place[:depth] for place in places for depth in range(len(place))}
    return [_explain(list(place), problems) for place, problems in places.items() if place not in inner or not place]


def _explain(location: list[str], problems: list[Any]) -> str:
    key = ".".join(location)
    if any(problem["type"] == "extra_forbidden" for problem in problems):
        return f"unknown key `{key}`{nearest(location[-1], _keys_beside(location))}"
    message = ", or: ".join(dict.fromkeys(problem["msg"].removeprefix("Value error, ") for problem in problems))
    received = problems[0]["input"]
    shown = f" (got {received!r})" if isinstance(received, str | int | float | bool | type(None)) else ""
    return f"`{key}`: {message}{shown}" if key else message


def _keys_beside(location: list[str]) -> list[str]:
    """The keys that are known where an unknown one was met."""
    section: Any = StudySpec
    for part in location[:-1]:
        if part.isdigit() and get_args(section):
            section = get_args(section)[0]
            section = next(filter(_is_section, get_args(section)), section)
            continue
        field = section.model_fields.get(part) if _is_section(section) else None
        section = None if field is None else field.annotation
    if _is_section(section):
        return list(section.model_fields)
    return ["kind", "low", "high", "choices", "seed_from"]


def _is_whole(annotation: Any) -> bool:
    return int in (annotation, *get_args(annotation)) and tuple not in (annotation, get_origin(annotation))


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _do_nothing(where: str, keys: Collection[str], model: ModelSpec) -> str:
    named = ", ".join(f"`{key}`" for key in sorted(keys))
    who = f"`encoder: {model.encoder}`" if keys == {"embedding_dim"} else f"family `{model.family}`"
    return f"`{where}`: {named} would do nothing, {who} does not read it; remove it"


def first_rule(error: ValidationError) -> str:
    """What is wrong with a configuration: the key, the rule and the value received."""
    problem = error.errors()[0]
    received, key = problem["input"], "".join(f"`{part}`: " for part in problem["loc"][:1])
    shown = f", but got {received!r}" if isinstance(received, str | int | float) else ""
    return key + problem["msg"].removeprefix("Value error, ") + ("" if "but got" in problem["msg"] else shown)
