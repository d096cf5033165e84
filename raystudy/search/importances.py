"""Which searched values mattered: what Optuna makes of a study's own trials."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from optuna.samplers import RandomSampler

from raystudy.search.sampler import distribution, optuna_name, optuna_value
from raystudy.study.spec import StudySpec
from raystudy.tracking.records import TrialRecord

FEWEST_TRIALS = 8
BASIS = "the best validation R2 that each trial reached; pruned ones were stopped early"


def importances(spec: StudySpec, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """Importance of each searched key, summing to 1: fANOVA (Hutter et al. 2014) and PED-ANOVA (Watanabe et al. 2023).

    Of trials with a validation R2 that came from the search space; keys that only some trials have (``when``) are left
    out. Null, with the reason in ``refused``, where there are too few trials or they are all alike.
    """
    scored = [trial for trial in trials if trial.valid_r2 is not None and trial.arm is None]
    found: dict[str, Any] = {"fanova": None, "ped_anova": None, "num_trials": len(scored), "basis": BASIS}
    if len(scored) < FEWEST_TRIALS:
        return found | {"refused": f"{len(scored)} trials are too few, at least {FEWEST_TRIALS} are needed"}
    if len({trial.valid_r2 for trial in scored}) == 1:
        return found | {"refused": "every trial reached the same validation R2"}
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(seed=0))
    for trial in scored:
        values = spec.applying({name: trial.config[name] for name in spec.search if name in trial.config})
        params = {
            optuna_name(name, spec.search[name]): optuna_value(values[name], spec.search[name]) for name in values
        }
        kinds = {optuna_name(name, spec.search[name]): distribution(spec.search[name]) for name in values}
        study.add_trial(optuna.create_trial(params=params, distributions=kinds, value=trial.valid_r2))
    names = {optuna_name(name, parameter): name for name, parameter in spec.search.items()}
    common = [name for name in names if all(name in trial.params for trial in study.trials)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        asked = {"fanova": FanovaImportanceEvaluator(seed=0), "ped_anova": PedAnovaImportanceEvaluator()}
    for key, evaluator in asked.items():
        told = get_param_importances(study, evaluator=evaluator, params=common)
        found[key] = {names[name]: float(value) for name, value in told.items()} or None
    return found | {"refused": None}
