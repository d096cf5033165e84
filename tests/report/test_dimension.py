from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from raystudy.report.dimension import (
    correlation_figure,
    dimension_view,
    estimators_figure,
    finding,
    representations_figure,
)
from raystudy.report.page import write_dimension_page

NAMES = ["correlation_integral", "CorrInt", "TwoNN", "MLE", "MOM", "GRIDE", "MiND_ML", "lPCA", "TLE", "MADA", "FisherS"]
NAMES += ["ESS", "DANCo", "PH"]
ORANGE, BLUE = "#d55e00", "#0072b2"


@pytest.fixture
def found(fake_study):
    return fake_study(num_trials=0, opened=False).read().last("dimension")


def words(svg: str) -> list[str]:
    """The texts of a figure, which must be well-formed XML."""
    root = ElementTree.fromstring(svg)  # noqa: S314  (drawn here)
    return ["".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")]


def drawn_colours(svg: str) -> set[str]:
    return {colour.lower() for colour in re.findall(r"stroke: (#[0-9a-fA-F]{6})", svg)}


def test_the_correlation_integral_shows_its_region_its_line_and_the_consensus(found):
    svg = correlation_figure(found)
    assert {"C(r)", "local slope", "distance r", "scaling region", "fitted slope 13.0", "consensus 13.0"} <= set(
        words(svg)
    )
    assert {ORANGE, BLUE} <= drawn_colours(svg)
    assert "10⁻³" in words(svg)


def test_a_refused_fit_is_drawn_without_a_line_or_a_consensus(found):
    found["curve"]["fitted_slope"], found["consensus"] = None, None
    svg = correlation_figure(found)
    assert ORANGE not in drawn_colours(svg)
    assert not [text for text in words(svg) if text.startswith(("fitted", "consensus"))]
    assert "scaling region" in words(svg)


def test_pairs_far_from_the_region_do_not_press_it_together(found):
    found["curve"]["radius"] = [1.0, 1.2, 1.44, 1.728, 5000.0]
    texts = words(correlation_figure(found))
    assert "1.2" in texts
    assert not {"100", "1000", "5000"} & set(texts)


def test_a_region_at_one_radius_shows_the_whole_curve(found):
    found["curve"]["region_radius"] = [1.2, 1.2]
    assert "2" in words(correlation_figure(found))


@pytest.mark.parametrize("radius", [[0.0] * 5, [2.0] * 5])
def test_a_curve_at_a_single_radius_is_not_drawn(found, radius):
    found["curve"]["radius"] = radius
    assert correlation_figure(found) is None


def test_no_curve_gives_no_figure(found):
    found["curve"] = None
    assert correlation_figure(found) is None
    assert [len(column) for column in dimension_view(found)["columns"]] == [2]


def test_every_estimator_has_a_line_from_the_smallest_up_and_a_bar_where_it_was_resampled(found):
    svg = estimators_figure(found)
    order = [text for text in words(svg) if text in found["estimates"]]
    assert order == ["TwoNN", "correlation_integral", "MLE"]
    assert svg.count("stroke-width: 2.5") == len(found["spread"]) == 2
    assert {"interval", "median", "seeded width", "seeded"} <= set(words(svg))


def test_fourteen_estimators_get_fourteen_lines_in_a_taller_figure(found):
    few = estimators_figure(found)
    found["estimates"] = {name: 5.0 + number for number, name in enumerate(NAMES)}
    found["spread"] = {name: [value - 1, value + 1] for name, value in found["estimates"].items()}
    svg = estimators_figure(found)
    assert [text for text in words(svg) if text in NAMES] == list(NAMES)
    heights = [float(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', one).group(1)) for one in (few, svg)]
    assert heights[1] - heights[0] >= 11 * 15  # points, a line of text each


def test_without_seeded_widths_there_is_no_word_of_them(found):
    del found["seeded"]
    assert not [text for text in words(estimators_figure(found)) if "seeded" in text]


def test_nothing_estimated_gives_no_figure_of_estimators(found):
    found["estimates"], found["consensus"], found["interval"] = {}, None, None
    assert estimators_figure(found) is None


def test_the_representations_stand_beside_each_other_with_their_consensus(found):
    found["others"]["onehot of protein"] = found["others"]["composition"] | {"consensus": 318.4, "interval": None}
    texts = words(representations_figure(found))
    assert [text for text in texts if "." in text] == ["3.1", "13.0", "318.4"]
    assert {"composition", "kmer3 (chosen)", "onehot of protein", "512"} <= set(texts)


@pytest.mark.parametrize("missing", ["chosen", "other"])
def test_fewer_than_two_answers_are_not_compared(found, missing):
    (found if missing == "chosen" else found["others"]["composition"])["consensus"] = None
    assert representations_figure(found) is None
    assert "Fewer than two" in finding(found)


def test_the_finding_names_the_smallest_and_the_largest_answer(found):
    found["others"]["onehot"] = found["others"]["composition"] | {"consensus": 318.44}
    assert finding(found).endswith("from 3.1 (composition) to 318.4 (onehot).")


def test_estimators_refused_for_one_reason_share_a_line(found):
    found["refused"] = {"lPCA": "a lattice", "TLE": "slow", "MADA": "a lattice"}
    cloud = dimension_view(found)["clouds"][0]
    assert cloud["refused"] == {"a lattice": ["lPCA", "MADA"], "slow": ["TLE"]}
    assert [row["name"] for row in cloud["rows"]] == ["TwoNN", "correlation_integral", "MLE"]
    assert cloud["rows"][1] == {
        "name": "correlation_integral", "estimate": 13.0, "spread": None, "points": 64, "seconds": 0.01,
    }  # fmt: skip
    assert "3 copies were dropped" in cloud["summary"]


def test_a_hostile_name_stays_text_in_a_figure(found):
    found["representation"] = 'a"><script>$x'
    found["estimates"]["<b>"] = 20.0
    for draw in (correlation_figure, estimators_figure, representations_figure):
        assert "<script" not in draw(found)
        words(draw(found))
    assert "<b>" in words(estimators_figure(found))


def test_what_a_reader_should_know_of_the_points_is_on_the_page(found, tmp_path):
    found["flags"] = ["5 of 60 genes miss a value of the <embedding> and are left out"]
    text = write_dimension_page(found, tmp_path / "page.html").read_text()
    assert "5 of 60 genes miss a value of the &lt;embedding&gt; and are left out." in text
