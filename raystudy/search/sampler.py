"""Samplers, pruners and parameters by their names in a study file, as Optuna knows them."""

from __future__ import annotations

import warnings
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, GridSampler, NSGAIISampler, RandomSampler, TPESampler

from raystudy.study.space import Categorical, Integer, Log, Parameter, PowerOfTwo, Uniform, Value
from raystudy.study.spec import StudySpec

STARTUP_TRIALS = 5
POPULATION = 20
"""Trials in a generation of NSGA-II; Optuna's 50 are more than most studies have."""
REDUCTION = 2


def make_sampler(spec: StudySpec, seed: int) -> BaseSampler:
    """The sampler; a resumed study goes on with another stream of random numbers, so give it another seed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        match spec.sampler:
            case "random":
                return RandomSampler(seed=seed)
            case "gp":
                return GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
            case "nsga2":
                return NSGAIISampler(seed=seed, population_size=POPULATION)
            case "grid":
                values = {
                    optuna_name(name, parameter): [optuna_value(value, parameter) for value in parameter.grid()]
                    for name, parameter in spec.search.items()
                }
                # Its order is shuffled by the seed, so that must not change when a study is taken up again.
                return _Grid(values, seed=0)
            case "tpe":
                # Arms have no parameters in Optuna's eyes; without groups all trials would share none, and each
                # parameter would be sampled by itself.
                return TPESampler(
                    seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=STARTUP_TRIALS
                )


def make_pruner(spec: StudySpec) -> BasePruner:
    """The pruner; its rungs live in Optuna's storage, so they outlive the driver."""
    match spec.pruner:
        case "none":
            return NopPruner()
        case "median":
            return MedianPruner(n_startup_trials=STARTUP_TRIALS)
        case "hyperband":
            longest = spec.search["epochs"].corners()[-1] if "epochs" in spec.search else spec.training.epochs
            return _Hyperband(min_resource=1, max_resource=int(longest), reduction_factor=REDUCTION)
        case "successive_halving":
            return SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)


class _Grid(GridSampler):
    """The grid without its way of ending `Study.optimize`, which is not used here and breaks on what is enqueued."""

    def after_trial(self, *_: Any) -> None:
        """Nothing: the policy asks by itself whether the grid is exhausted."""


class _Hyperband(HyperbandPruner):
    """Hyperband (Li et al. 2018) whose brackets judge by the metric that the whole study prunes on.

    To Optuna a bracket is a study of its own, of a class that is made anew each time.
    """

    def _create_bracket_study(self, study: optuna.Study, bracket_id: int) -> optuna.Study:
        bracket = super()._create_bracket_study(study, bracket_id)
        type(bracket).direction = property(lambda _: study.direction)  # type: ignore[assignment, method-assign]
        return bracket


def distribution(parameter: Parameter) -> BaseDistribution:
    """What Optuna draws from: of a power of two the exponent, under the name ``log2_<name>``."""
    match parameter:
        case Categorical(choices=choices):
            return CategoricalDistribution(choices)
        case Integer(low=low, high=high) | PowerOfTwo(exponents=(low, high)):
            return IntDistribution(low, high)
        case Uniform(low=low, high=high):
            return FloatDistribution(low, high)
        case Log(low=low, high=high):
            return FloatDistribution(low, high, log=True)


def suggest(trial: optuna.Trial, name: str, parameter: Parameter) -> Value:
    """Ask Optuna for one value."""
    match distribution(parameter):
        case CategoricalDistribution(choices=choices):
            chosen: Value = trial.suggest_categorical(name, choices)  # type: ignore[assignment]  # Optuna allows None
            return chosen
        case IntDistribution(low=low, high=high):
            drawn = trial.suggest_int(optuna_name(name, parameter), low, high)
            return 2**drawn if isinstance(parameter, PowerOfTwo) else drawn
        case FloatDistribution(low=low, high=high, log=log):
            return trial.suggest_float(name, low, high, log=log)
    raise AssertionError(parameter)


def optuna_name(name: str, parameter: Parameter) -> str:
    return f"log2_{name}" if isinstance(parameter, PowerOfTwo) else name


def optuna_value(value: Value, parameter: Parameter) -> Value:
    """A value as Optuna stores it under `optuna_name`."""
    return int(value).bit_length() - 1 if isinstance(parameter, PowerOfTwo) else value
