from __future__ import annotations

import pytest

from raystudy.report.sizes import size_figure, training_sizes
from tests.report.cases import add_sizes


def test_a_study_that_tried_no_part_has_no_sizes(fake_study):
    study = fake_study().read()
    assert training_sizes(study) == []
    assert size_figure(study) is None


def test_the_parts_and_the_whole_stand_in_order_of_size_for_each_model(fake_study):
    records = fake_study()
    add_sizes(records)
    points = training_sizes(records.read())
    assert [(one["model"], one["num_train"], one["fraction"]) for one in points] == [
        ("ridge", 5, 0.25), ("ridge", 10, 0.5), ("ridge", 20, 1.0),
        ("t0001", 5, 0.25), ("t0001", 10, 0.5), ("t0001", 20, 1.0),
    ]  # fmt: skip
    assert [one["valid_r2"] for one in points] == pytest.approx([0.12, 0.2, 0.3, 0.1, 0.3, 0.45])
    assert [one["epochs"] for one in points] == [None, None, None, 3, 3, 3]
    assert [one["name"] for one in points][3:] == ["t0001-s25", "t0001-s50", "t0001-r0"]


def test_a_part_that_was_trained_again_counts_once(fake_study):
    records = fake_study()
    add_sizes(records)
    told = {"kind": "baseline", "fraction": 0.25, "num_train": 5, "valid_r2": 0.99, "epochs": None}
    records.append("training_size", name="ridge-s25", model="ridge", **told)
    points = training_sizes(records.read())
    assert len(points) == 6
    assert points[0]["valid_r2"] == 0.99


def test_the_figure_has_a_line_for_each_model_and_the_sizes_on_its_axis(fake_study):
    records = fake_study()
    add_sizes(records)
    svg = size_figure(records.read())
    for text in (">t0001 (network)<", ">ridge<", ">5<", ">10<", ">20<"):
        assert text in svg


def test_a_part_without_a_value_is_not_drawn(fake_study):
    records = fake_study()
    told = {"kind": "network", "fraction": 0.5, "num_train": 10, "valid_r2": float("nan"), "epochs": 3}
    records.append("training_size", name="t0001-s50", model="t0001", **told)
    study = records.read()
    assert [one["valid_r2"] for one in training_sizes(study)] == [None, pytest.approx(0.45)]
    assert size_figure(study) is not None
