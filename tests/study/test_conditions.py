"""Keys that are searched only where others have certain values."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from raystudy.study.reading import parse_spec
from raystudy.study.space import conditions_first, conditions_of
from raystudy.study.spec import StudySpec
from tests.study.conftest import STUDY, refusal

ENCODER = {"kind": "categorical", "choices": ["onehot", "embedding"]}
WIDTH = {"kind": "pow2", "low": 8, "high": 32}
HALF_LIFE = {"kind": "categorical", "choices": ["concat", "mlp", "none"]}
NESTED: dict[str, Any] = {
    "dropout": {"kind": "float", "low": 0.1, "high": 0.4, "when": {"embedding_dim": [16, 32], "half_life": "mlp"}},
    "embedding_dim": {**WIDTH, "when": {"encoder": "embedding"}},
    "encoder": ENCODER,
    "half_life": HALF_LIFE,
}


def study(search: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**{key: STUDY[key] for key in ("name", "data", "budget")}, "search": search, **changes}


def spec_of(search: dict[str, Any]) -> StudySpec:
    return parse_spec(study(search))


@pytest.mark.parametrize("order", list(permutations(NESTED)), ids=",".join)
def test_a_key_comes_after_those_that_it_waits_for_however_the_file_is_ordered(order: tuple[str, ...]) -> None:
    ordered = conditions_first(spec_of({key: NESTED[key] for key in order}).search)

    assert sorted(ordered) == sorted(NESTED)
    assert ordered.index("encoder") < ordered.index("embedding_dim") < ordered.index("dropout")
    assert ordered.index("half_life") < ordered.index("dropout")


@pytest.mark.parametrize(
    ("chosen", "kept"),
    [
        ({"encoder": "embedding", "embedding_dim": 16, "half_life": "mlp", "dropout": 0.2}, None),
        ({"encoder": "embedding", "embedding_dim": 32, "half_life": "mlp", "dropout": 0.2}, None),
        ({"encoder": "embedding", "embedding_dim": 8, "half_life": "mlp", "dropout": 0.2}, {"dropout"}),
        ({"encoder": "embedding", "embedding_dim": 16, "half_life": "none", "dropout": 0.2}, {"dropout"}),
        ({"encoder": "onehot", "embedding_dim": 16, "half_life": "mlp", "dropout": 0.2}, {"embedding_dim", "dropout"}),
        ({"embedding_dim": 16}, None),
        ({}, None),
    ],
)
def test_values_whose_condition_is_broken_are_left_out_and_so_is_what_waits_for_them(
    chosen: dict[str, Any], kept: set[str] | None
) -> None:
    left_out = kept or set()

    assert spec_of(NESTED).applying(chosen) == {key: chosen[key] for key in chosen if key not in left_out}


def test_a_key_is_searched_where_every_condition_holds_and_one_that_was_not_chosen_does_not() -> None:
    dropout = spec_of(NESTED).search["dropout"]

    assert dropout.applies({"embedding_dim": 16, "half_life": "mlp"})
    assert dropout.applies({"embedding_dim": 32, "half_life": "mlp"})
    assert not dropout.applies({"embedding_dim": 8, "half_life": "mlp"})
    assert not dropout.applies({"embedding_dim": 16, "half_life": "none"})
    assert not dropout.applies({"half_life": "mlp"})


def test_the_values_with_which_a_key_is_searched_meet_the_conditions_of_its_conditions() -> None:
    met = conditions_of("dropout", spec_of(NESTED).search)

    assert met == {"encoder": "embedding", "embedding_dim": 16, "half_life": "mlp"}


def test_a_conditional_key_keeps_the_rules_where_it_applies_and_need_not_elsewhere() -> None:
    # With one-hot bases there is no embedding_dim at all, and the key alone would do nothing.
    assert spec_of({"encoder": ENCODER, "embedding_dim": {**WIDTH, "when": {"encoder": "embedding"}}}).search

    wrong = {"kind": "int", "low": 7, "high": 9, "when": {"encoder": "embedding"}}
    assert "`search.latent_dim`" in refusal(study({"encoder": ENCODER, "latent_dim": wrong}))


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ({"encodr": "embedding"}, "`search.embedding_dim.when` asks about `encodr`, which is not searched"),
        ({"half_life": "mlp"}, "`search.embedding_dim.when` asks about `half_life`, which is not searched"),
        ({"encoder": "dense"}, "`search.embedding_dim.when`: `encoder` is never 'dense'"),
        ({"encoder": ["embedding", "dense"]}, "`search.embedding_dim.when`: `encoder` is never 'dense'"),
        ({"embedding_dim": 8}, "`search.embedding_dim.when`: embedding_dim -> embedding_dim is a circle"),
        ({"encoder": {"is": "embedding"}}, "`search.embedding_dim.when"),
        ("embedding", "`search.embedding_dim.when`"),
    ],
)
def test_a_condition_that_cannot_be_met_is_refused(when: Any, told: str) -> None:
    assert told in refusal(study({"encoder": ENCODER, "embedding_dim": {**WIDTH, "when": when}}))


@pytest.mark.parametrize("values", [[], ()])
def test_a_condition_with_no_value_at_all_is_refused(values: Any) -> None:
    told = refusal(study({"encoder": ENCODER, "embedding_dim": {**WIDTH, "when": {"encoder": values}}}))

    assert "`search.embedding_dim.when" in told


def test_conditions_in_a_circle_are_refused_with_the_circle() -> None:
    search = {
        "encoder": {**ENCODER, "when": {"half_life": "mlp"}},
        "half_life": {**HALF_LIFE, "when": {"depth": 1}},
        "depth": {"kind": "int", "low": 1, "high": 2, "when": {"encoder": "onehot"}},
    }

    assert "encoder -> half_life -> depth -> encoder is a circle; remove one condition" in refusal(study(search))


@pytest.mark.parametrize(("value", "never"), [(12, True), (64, True), (16, False)])
def test_a_condition_on_a_number_is_checked_against_its_range(value: int, never: bool) -> None:
    search = {"latent_dim": WIDTH, "encoder": {**ENCODER, "when": {"latent_dim": value}}}

    if never:
        assert f"`search.encoder.when`: `latent_dim` is never {value}" in refusal(study(search))
    else:
        assert spec_of(search)


def test_gp_refuses_keys_with_conditions() -> None:
    told = refusal(study(NESTED, sampler="gp"))

    assert "`sampler: gp` would guess at random where keys have a `when`" in told
