"""A study for a machine without a GPU, made from the study's own `reduced` section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from raystudy.errors import SpecError
from raystudy.study.reading import load_spec, parse_spec
from raystudy.study.reduced import changed, reduced
from raystudy.study.spec import StudySpec

TABLE_1 = Path(__file__).parents[2] / "search_spaces" / "table1.yaml"
STUDY: dict[str, Any] = {
    "name": "whole",
    "data": {"source": "synthetic", "window_bp": [600, 300], "max_protein": 400},
    "arms": [{"name": "plain", "latent_dim": 16}, {"name": "fast", "attention": "xformers", "workers": 4}],
    "training": {"epochs": 40, "batch_size": 32},
    "resources": {"gpus_per_worker": 1},
    "budget": {"trials": 2, "minutes": 600},
}
REDUCED: dict[str, Any] = {
    "data": {"window_bp": [300, 300]},
    "training": {"epochs": 2},
    "resources": {"gpus_per_worker": 0},
    "arms": {"fast": {"attention": "sdpa", "workers": 1}},
}


def study(**reduced_section: Any) -> StudySpec:
    return parse_spec({**STUDY, "reduced": reduced_section})


def test_sections_are_put_over_those_of_the_whole_study_key_by_key() -> None:
    whole = study(**REDUCED)
    small = reduced(whole)

    assert (small.data.window_bp, small.data.max_protein) == ((300, 300), 400)
    assert (small.training.epochs, small.training.batch_size) == (2, 32)
    assert small.arms[0] == whole.arms[0]
    assert (small.arms[1].overrides, small.arms[1].workers) == ({"attention": "sdpa"}, 1)
    assert (small.name, small.reduced) == ("whole", {})
    assert changed(whole, small) == ["window_bp: 300+300 instead of 600+300", "epochs: 2 instead of 40"]


def test_a_study_that_says_nothing_is_its_own_reduction() -> None:
    whole = parse_spec(STUDY)

    assert reduced(whole) is whole
    assert changed(whole, whole) == []


def test_what_is_reduced_is_no_part_of_the_whole_studys_identity() -> None:
    assert study(**REDUCED).hash == parse_spec(STUDY).hash != reduced(study(**REDUCED)).hash


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"arms": {"fats": {"workers": 1}}}, "there is no arm 'fats', did you mean `fast`?"),
        ({"arms": [{"name": "fast"}]}, "gives each arm's changed keys under its name"),
        ({"arms": {"fast": 3}}, "gives each arm's changed keys under its name"),
        ({"training": {"epoch": 2}}, "unknown key `training.epoch`, did you mean `epochs`?"),
        ({"trainin": {"epochs": 2}}, "unknown key `trainin`, did you mean `training`?"),
        ({"training": {"epochs": 0}}, "`training.epochs`"),
        ({"data": {"window_bp": [1, 1]}}, "shorter than"),
    ],
)
def test_mistakes_are_found_when_the_study_file_is_read_on_any_machine(
    section: dict[str, Any], told: str, tmp_path: Path
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({**STUDY, "reduced": section}))
    with pytest.raises(SpecError, match="reduced") as refused:
        load_spec(file)
    assert told in str(refused.value)


def test_table_1_without_a_gpu_has_the_same_rows_and_asks_for_none() -> None:
    whole = load_spec(TABLE_1)
    small = reduced(whole)

    assert [arm.name for arm in small.arms] == [arm.name for arm in whole.arms]
    assert (small.resources.gpus_per_worker, small.largest_resources.most_workers) == (0, 1)
    assert {arm.name for arm in small.arms if small.configure(arm.overrides)[1].attention == "xformers"} == {
        "xformers",
        "multinode",
    }, "these two cannot be had without a GPU"
    runs = {arm.name for arm in small.arms} - {"xformers", "multinode"}
    assert {arm.against for arm in small.arms if arm.name in runs} <= {None, *runs}
