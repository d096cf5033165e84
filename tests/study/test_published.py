"""Arms of a published table: their workers, what they are compared with, and the claims made of them."""

from __future__ import annotations

from typing import Any

import pytest

from raystudy.errors import SpecError
from raystudy.study.reading import parse_spec
from raystudy.study.spec import StudySpec

CLAIM = {"says": "more is better", "arm": "wide", "expect": {"pearson_r2": "higher"}}
STUDY: dict[str, Any] = {
    "name": "table",
    "data": {"source": "synthetic", "window_bp": [300, 300], "max_protein": 300},
    "arms": [
        {"name": "plain", "workers": 2},
        {"name": "wide", "latent_dim": 256, "workers": [1, 8], "against": "plain"},
    ],
    "published": {"title": "Table 1", "measured": "elsewhere", "claims": [CLAIM]},
    "protocol": "reference",
    "budget": {"trials": 2, "minutes": 10},
}


def study(**changes: Any) -> StudySpec:
    return parse_spec({**STUDY, **changes})


def test_an_arm_has_workers_of_its_own_and_a_cluster_is_measured_by_the_most() -> None:
    spec = study(resources={"workers": 1, "cpus_per_worker": 3})

    assert spec.resources_of("plain").workers == 2
    assert spec.resources_of("wide").workers == (1, 8)
    assert spec.resources_of(None).workers == 1
    assert spec.resources_of("wide").cpus_per_worker == 3
    assert spec.largest_resources.workers == (2, 8)
    assert spec.largest_resources.nested
    assert spec.most_finalist_workers("wide") == 8
    assert study(published=None).most_finalist_workers("wide") is None


def test_without_workers_of_their_own_all_have_the_studys() -> None:
    spec = study(arms=[{"name": "plain"}, {"name": "wide", "against": "plain"}], resources={"workers": 3})

    assert spec.largest_resources == spec.resources_of("wide") == spec.resources


def test_what_was_printed_and_claimed_is_no_part_of_a_studys_identity() -> None:
    arms = [STUDY["arms"][0], {**STUDY["arms"][1], "against": None, "printed": {"parameters": "1M"}}]

    assert study(arms=arms, published=None).hash == study().hash


def test_an_arms_workers_are_for_they_share_its_batch() -> None:
    assert study(arms=[{"name": "plain", "workers": 3}, STUDY["arms"][1]]).hash != study().hash


def test_printed_keys_of_a_published_table_are_known_ones() -> None:
    arms = [STUDY["arms"][0], {**STUDY["arms"][1], "printed": {"pearsonr2": 0.1}}]
    with pytest.raises(SpecError, match="unknown key `pearsonr2`, did you mean `pearson_r2`"):
        study(arms=arms)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"arms": [{"name": "wide", "against": "plan"}]}, "there is no arm 'plan'"),
        ({"published": {**STUDY["published"], "claims": [{**CLAIM, "arm": "plain"}]}}, "needs an arm with `against`"),
        ({"published": {**STUDY["published"], "claims": [{**CLAIM, "arm": "none"}]}}, "needs an arm with `against`"),
        ({"published": {**STUDY["published"], "claims": [{**CLAIM, "expect": {}}]}}, "at least 1"),
        (
            {"published": {**STUDY["published"], "claims": [{**CLAIM, "expect": {"epoch_seconds": "highest"}}]}},
            "`highest` is for pearson_r2",
        ),
        ({"arms": [{"name": "wide", "workers": 0}]}, "greater than 0"),
        ({"training_sizes": [0.5, 1.0]}, "different shares between 0 and 1, but got [0.5, 1.0]"),
        ({"training_sizes": [0.5, 0.5]}, "different shares"),
        ({"protocol": "sealed"}, "set `protocol: reference`"),
        ({"replicates": {"folds": 3}}, "leave out `replicates.folds`"),
        ({"arms": [{"name": "wide", "against": "wide"}]}, "an arm is not compared with itself"),
        ({"arms": [{"name": "a", "schedule": "transformer", "warmup": 0.1}]}, "`arms.a`: `warmup` would do nothing"),
        ({"training": {"schedule": "transformer", "warmup": 0.1}}, "`warmup` would do nothing"),
    ],
)
def test_mistakes_are_told_with_what_was_received(changes: dict[str, Any], told: str) -> None:
    changes = changes if "arms" not in changes else {"published": None, **changes}
    with pytest.raises(SpecError) as refused:
        study(**changes)
    assert told in str(refused.value)
