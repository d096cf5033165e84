"""A whole study: the keys of its file, and the rules that hold between them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from itertools import product
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import (
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from raystudy.errors import SpecError
from raystudy.study.constraints import Constraint, is_number, keys_of
from raystudy.study.model import PRESETS, Input, ModelSpec, Section, Target, TrainingSpec, configure, nearest
from raystudy.study.published import PublishedSpec
from raystudy.study.sections import (
    NAME,
    ArmSpec,
    BudgetSpec,
    Counted,
    DataSpec,
    FeatureTable,
    NodeSpec,
    ObjectiveSpec,
    PricesSpec,
    ReplicatesSpec,
    ResourcesSpec,
    Setting,
    SplitSpec,
    TrackingSpec,
    WarmStartSpec,
)
from raystudy.study.space import (
    Log,
    Parameter,
    PowerOfTwo,
    Uniform,
    canonical_hash,
    conditions_first,
    conditions_of,
)

RATES = {"learning_rate", "warmup"}
PRINTED = {"parameters", "epoch_seconds", "pearson_r2", "gpus"}
DECIDES_INPUTS = ("preset", "family", "perceiver_input", "encoder", "tokens", "half_life", "max_protein")
NOT_STUDIES = {"benchmarks", "cache", "check", "data", "dimension", "mlartifacts"}


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
    published: PublishedSpec | None = None
    """The table of a publication that the arms repeat."""
    reduced: dict[str, Any] = Field(default_factory=dict)
    """What a machine without a GPU does instead: sections of this file with other values, `arms` by their name."""
    constraints: tuple[Constraint, ...] = ()
    """Rules between values, such as ``num_latents * latent_dim <= 8192``; what breaks one is not trained."""
    sampler: Literal["tpe", "gp", "random", "grid", "nsga2"] = "tpe"
    pruner: Literal["successive_halving", "hyperband", "median", "none"] = "successive_halving"
    objectives: tuple[ObjectiveSpec, ...] = Field((ObjectiveSpec(direction="maximize"),), min_length=1)
    prune_on: Literal["valid_r2", "epoch_seconds"] = "valid_r2"
    """The one objective that stops trials early."""
    warm_start: WarmStartSpec | None = None
    training: TrainingSpec = TrainingSpec()
    resources: ResourcesSpec = ResourcesSpec()
    cluster: tuple[NodeSpec, ...] | None = Field(None, min_length=1)
    """The most that the cluster may grow to, where that is more than it has now."""
    prices: PricesSpec = PricesSpec()
    budget: BudgetSpec
    finalists: int = Field(1, ge=1)
    replicates: ReplicatesSpec = ReplicatesSpec()
    protocol: Literal["sealed", "reference"] = "sealed"
    """``reference`` also computes the number of the best test epoch, as published, to show its selection bias."""
    training_sizes: tuple[float, ...] = ()
    """Shares of the training genes on which the best finalist and the baselines are trained again."""
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
        shares = self.training_sizes
        if len(set(shares)) < len(shares) or not all(0 < share < 1 for share in shares):
            raise ValueError(f"`training_sizes` are different shares between 0 and 1, but got {list(shares)}")
        names = self.baseline_names
        if len(set(names)) < len(names) or not all(NAME.fullmatch(name) for name in names):
            raise ValueError(f"each baseline needs a `name` of its own that can name a file, but got {list(names)}")
        self._configure({}, where="model")
        self._check_engine()
        self._check_search()
        self._check_arms()
        self._check_published()
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

    def _check_engine(self) -> None:
        """Sampler, objectives, constraints and budget must fit each other."""
        metrics = [objective.metric for objective in self.objectives]
        if len(set(metrics)) < len(metrics) or metrics[0] != "valid_r2":
            raise ValueError(f"`objectives` are different metrics, `valid_r2` the first of them, but got {metrics}")
        if self.prune_on not in metrics:
            raise ValueError(f"`prune_on` is one of the objectives {metrics}, but got {self.prune_on!r}")
        if self.sampler == "gp" and any(parameter.when for parameter in self.search.values()):
            raise ValueError("`sampler: gp` would guess at random where keys have a `when`; choose tpe, or remove them")
        if self.sampler in ("gp", "nsga2") and self.search and self.arms:
            raise ValueError(
                f"`sampler: {self.sampler}` would guess at random beside `arms`, which have none of the searched keys; "
                "choose tpe, or compare the arms in a study of their own"
            )
        if not self.search and (self.sampler == "grid" or self.warm_start is not None):
            what = "sampler: grid" if self.sampler == "grid" else "warm_start"
            raise ValueError(f"`{what}` is for searched values, but there is no `search`; remove it")
        if self.sampler == "grid":
            open_ended = [key for key, parameter in self.search.items() if not parameter.grid()]
            if open_ended:
                raise ValueError(f"`sampler: grid` needs `points` (how many values) for {', '.join(open_ended)}")
            if self.seeded_width or self.warm_start:
                raise ValueError("`sampler: grid` tries every value anyway; remove `seed_from` and `warm_start`")
        if self.constraints and not self.search:
            raise ValueError("`constraints` are for searched values, but there is no `search`; remove them")
        own = {**self.model.model_dump(), **self.training.model_dump(), "parameters": 0}
        values = own | {key: parameter.corners()[0] for key, parameter in self.search.items() if key in own}
        for constraint in self.constraints:
            if unknown := keys_of(constraint) - values.keys():
                hint = nearest(min(unknown), sorted(values))
                raise ValueError(f"`constraints`: unknown key `{min(unknown)}` in {constraint!r}{hint}")
            if wordy := [key for key in sorted(keys_of(constraint)) if not is_number(values[key])]:
                raise ValueError(
                    f"`constraints`: {constraint!r} needs a number for `{wordy[0]}`, but that is {values[wordy[0]]!r}"
                )
        given = {*self.training.model_fields_set, *self.search}
        if self._has_own_rate({}) and "schedule" not in self.search and (rates := RATES & given):
            raise ValueError(_no_rate("training", rates))
        if self.budget.cost is not None and self.prices.hourly(self.resources) == 0:
            raise ValueError("`budget.cost` needs `prices` (cpu_hour, gpu_hour) of what the trials use; give them")
        if self.warm_start is not None and self.warm_start.study == self.name:
            raise ValueError("`warm_start.study` is this study itself; name another one, or remove it")

    def _check_search(self) -> None:
        fields = {**ModelSpec.model_fields, **TrainingSpec.model_fields}
        conditions_first(self.search)
        for key, parameter in self.search.items():
            for other, values in parameter.when.items():
                values = values if isinstance(values, tuple) else (values,)
                if never := [value for value in values if not self.search[other].allows(value)]:
                    raise ValueError(f"`search.{key}.when`: `{other}` is never {never[0]!r}; correct it")
            if isinstance(parameter, Uniform | Log) and key in fields and _is_whole(fields[key].annotation):
                raise ValueError(
                    f"`search.{key}` is a whole number: search it as int or pow2, but got {parameter.kind}"
                )
            if isinstance(parameter, PowerOfTwo) and parameter.seed_from and key != "latent_dim":
                raise ValueError(f"`search.{key}.seed_from`: only `latent_dim` can be seeded, remove it")
            for value in parameter.corners():
                self._configure({**conditions_of(key, self.search), key: value}, where=f"search.{key}")

    def _check_arms(self) -> None:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"each arm needs a `name` of its own, but got {names}")
        for arm in self.arms:
            model = self._configure(arm.overrides, where=f"arms.{arm.name}")
            own = self.model.model_fields_set  # an arm may have to take one of these back
            if self._has_own_rate(arm.overrides) and (rates := RATES.intersection(arm.overrides)):
                raise ValueError(_no_rate(f"arms.{arm.name}", rates))
            if useless := model.unread.intersection(arm.overrides) - own:
                raise ValueError(_do_nothing(f"arms.{arm.name}", useless, model))

    def _check_published(self) -> None:
        if self.published and self.protocol != "reference":
            raise ValueError("`published` is about numbers of the best test epoch; set `protocol: reference`")
        if self.published and self.replicates.folds > 1:
            raise ValueError("`published` compares rows over seeds of one split; leave out `replicates.folds`")
        names = {arm.name for arm in self.arms}
        named = {f"arms.{arm.name}.against": arm.against for arm in self.arms if arm.against is not None}
        against = {arm.name: arm.against for arm in self.arms}
        for claim in self.published.claims if self.published else ():
            named[f"published.claims: {claim.says!r}"] = claim.arm
            if against.get(claim.arm) is None and set(claim.expect.values()) != {"highest"}:
                raise ValueError(f"the claim {claim.says!r} needs an arm with `against`, but got {claim.arm!r}")
        for one in self.arms if self.published else ():
            if unknown := one.printed.keys() - PRINTED:
                hint = nearest(min(unknown), sorted(PRINTED))
                raise ValueError(f"`arms.{one.name}.printed`: unknown key `{min(unknown)}`{hint}")
        for where, arm in named.items():
            if where == f"arms.{arm}.against":
                raise ValueError(f"`{where}`: an arm is not compared with itself; name another one")
            if arm not in names:
                raise ValueError(f"`{where}`: there is no arm {arm!r}{nearest(str(arm), sorted(names))}")

    def _has_own_rate(self, overrides: Mapping[str, Setting]) -> bool:
        """Does the schedule make the learning rate by itself?"""
        return overrides.get("schedule", self.training.schedule) == "transformer"

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
            configurations += [self.applying(dict(zip(deciding, corner, strict=True))) for corner in corners]
        found = []
        for overrides in configurations:
            with suppress(ValidationError, SpecError):  # a combination that no trial can be trained with
                found.append(self.configure(overrides)[0])
        return found

    def applying(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Chosen values without those whose condition another chosen value breaks; a key not chosen breaks none."""
        kept: dict[str, Any] = {}
        for key in conditions_first(self.search):
            conditions = self.search[key].when.keys()
            if key in chosen and (conditions - chosen.keys() or self.search[key].applies(kept)):
                kept[key] = chosen[key]
        return kept

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

    def resources_of(self, arm: str | None) -> ResourcesSpec:
        """What a trial of that arm gets; None for one that is sampled."""
        workers = next((one.workers for one in self.arms if one.name == arm), None)
        return self.resources if workers is None else self.resources.model_copy(update={"workers": workers})

    def most_finalist_workers(self, arm: str | None) -> int | None:
        """As many as the trial had where rows of a published table are timed; else as many as there is room for."""
        return self.resources_of(arm).most_workers if self.published else None

    @property
    def largest_resources(self) -> ResourcesSpec:
        """What any of its trials can be given, for a cluster to be measured by."""
        each = [self.resources_of(arm.name) for arm in self.arms] or [self.resources]
        each += [self.resources] if self.search else []
        fewest, most = (max(getattr(one, what) for one in each) for what in ("fewest_workers", "most_workers"))
        workers = fewest if fewest == most else (fewest, most)
        return self.resources.model_copy(update={"workers": workers})

    @property
    def seeded_width(self) -> PowerOfTwo | None:
        """The latent width's range where the intrinsic dimension seeds it."""
        width = self.search.get("latent_dim")
        return width if isinstance(width, PowerOfTwo) and width.seed_from else None

    @property
    def identity(self) -> dict[str, Any]:
        """What makes it this study; budget, machines, prices and tracking may change when it is taken up again."""
        changeable = ("budget", "resources", "cluster", "prices", "tracking", "published", "reduced")
        words: dict[str, Any] = {"arms": {"__all__": {"printed", "note", "against"}}}
        found = self.model_dump(mode="json", exclude={**dict.fromkeys(changeable, True), **words})
        # Which share a batch: another number of them would be another batch. (No key where it is one, as it was first.)
        return found | ({"workers": self.resources.most_workers} if self.resources.most_workers > 1 else {})

    @property
    def hash(self) -> str:
        return canonical_hash(self.identity)


def _is_whole(annotation: Any) -> bool:
    return int in (annotation, *get_args(annotation)) and tuple not in (annotation, get_origin(annotation))


def _do_nothing(where: str, keys: Collection[str], model: ModelSpec) -> str:
    named = ", ".join(f"`{key}`" for key in sorted(keys))
    who = f"`encoder: {model.encoder}`" if keys == {"embedding_dim"} else f"family `{model.family}`"
    return f"`{where}`: {named} would do nothing, {who} does not read it; remove it"


def _no_rate(where: str, keys: Collection[str]) -> str:
    return f"`{where}`: `{min(keys)}` would do nothing, `schedule: transformer` has a rate of its own; remove it"


def first_rule(error: ValidationError) -> str:
    """What is wrong with a configuration: the key, the rule and the value received."""
    problem = error.errors()[0]
    received, key = problem["input"], "".join(f"`{part}`: " for part in problem["loc"][:1])
    shown = f", but got {received!r}" if isinstance(received, str | int | float) else ""
    return key + problem["msg"].removeprefix("Value error, ") + ("" if "but got" in problem["msg"] else shown)
