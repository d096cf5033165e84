from __future__ import annotations

import optuna
import pytest

from raystudy.search.sampler import make_pruner, make_sampler, optuna_name, optuna_value, suggest
from raystudy.study.space import Categorical, Integer, Log, Parameter, PowerOfTwo, Uniform
from tests.search.cases import make_spec

SPACE: dict[str, Parameter] = {
    "latent_dim": PowerOfTwo(kind="pow2", low=8, high=64),
    "encoder": Categorical(kind="categorical", choices=("onehot", "embedding")),
    "num_latents": Integer(kind="int", low=3, high=9),
    "dropout": Uniform(kind="float", low=0.1, high=0.4),
    "learning_rate": Log(kind="log", low=1e-4, high=1e-2),
}


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_every_kind_is_sampled_within_its_range(sampler: str) -> None:
    study = optuna.create_study(sampler=make_sampler(make_spec(sampler=sampler), 0))
    seen = []
    for _ in range(40):
        trial = study.ask()
        seen.append({name: suggest(trial, name, parameter) for name, parameter in SPACE.items()})
        study.tell(trial, 0.0)

    assert {values["latent_dim"] for values in seen} == {8, 16, 32, 64}
    assert {values["encoder"] for values in seen} == {"onehot", "embedding"}
    assert {values["num_latents"] for values in seen} <= set(range(3, 10))
    assert all(0.1 <= values["dropout"] <= 0.4 for values in seen)
    rates = sorted(values["learning_rate"] for values in seen)
    assert 1e-4 <= rates[0] < 3e-4
    assert 3e-3 < rates[-1] <= 1e-2


def test_a_power_of_two_is_kept_by_its_exponent() -> None:
    width = SPACE["latent_dim"]

    assert (optuna_name("latent_dim", width), optuna_value(16, width)) == ("log2_latent_dim", 4)
    assert (optuna_name("dropout", SPACE["dropout"]), optuna_value(0.2, SPACE["dropout"])) == ("dropout", 0.2)


def test_the_same_seed_proposes_the_same_values_and_another_seed_others() -> None:
    def proposals(seed: int) -> list[object]:
        study = optuna.create_study(sampler=make_sampler(make_spec(), seed))
        return [suggest(study.ask(), "learning_rate", SPACE["learning_rate"]) for _ in range(3)]

    assert proposals(1) == proposals(1)
    assert proposals(1) != proposals(2)


def test_successive_halving_prunes_the_worst_and_none_prunes_nobody() -> None:
    def num_pruned(name: str) -> int:
        study = optuna.create_study(pruner=make_pruner(make_spec(pruner=name)), direction="maximize")
        pruned = 0
        for quality in (0.9, 0.8, 0.7, 0.6, 0.1, 0.05):
            trial = study.ask()
            trial.report(quality, 1)
            pruned += trial.should_prune()
            study.tell(trial, quality)
        return pruned

    assert num_pruned("successive_halving") >= 2
    assert num_pruned("none") == 0
