"""Samplers, pruners and parameters by their names in a study file, as Optuna knows them."""

from __future__ import annotations

import warnings

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from raystudy.study.space import Categorical, Integer, Log, Parameter, PowerOfTwo, Uniform, Value

STARTUP_TRIALS = 5


def make_sampler(name: str, seed: int) -> BaseSampler:
    """The sampler; a resumed study goes on with another stream of random numbers, so give it another seed."""
    if name == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # Arms have no parameters in Optuna's eyes; without groups all trials would share none, and each parameter
        # would be sampled by itself.
        return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=STARTUP_TRIALS)


def make_pruner(name: str) -> BasePruner:
    """The pruner; its rungs live in Optuna's storage, so they outlive the driver."""
    if name == "none":
        return NopPruner()
    return SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)


def suggest(trial: optuna.Trial, name: str, parameter: Parameter) -> Value:
    """Ask Optuna for one value. A power of two is searched by its exponent, under the name ``log2_<name>``."""
    match parameter:
        case Categorical(choices=choices):
            chosen: Value = trial.suggest_categorical(name, choices)  # type: ignore[assignment]  # Optuna allows None
            return chosen
        case Integer(low=low, high=high):
            return trial.suggest_int(name, low, high)
        case Uniform(low=low, high=high):
            return trial.suggest_float(name, low, high)
        case Log(low=low, high=high):
            return trial.suggest_float(name, low, high, log=True)
        case PowerOfTwo(exponents=(low, high)):
            return 2 ** trial.suggest_int(optuna_name(name, parameter), low, high)


def optuna_name(name: str, parameter: Parameter) -> str:
    return f"log2_{name}" if isinstance(parameter, PowerOfTwo) else name


def optuna_value(value: Value, parameter: Parameter) -> Value:
    """A value as Optuna stores it under `optuna_name`."""
    return int(value).bit_length() - 1 if isinstance(parameter, PowerOfTwo) else value
