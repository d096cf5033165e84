"""The data report as a page, in a real browser too, and on a narrow terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from raystudy.data.check import check_table
from raystudy.data.genes import GeneTable, Target
from raystudy.data.sources import synthetic
from raystudy.printing import print_check
from raystudy.report.check import write_check_page
from tests.report.browser import CHROMIUM, MEASURE, WIDTHS, chromium, look

LONG = "A_very_long_gene_name_without_any_place_to_break_it_" * 2


@pytest.fixture(scope="module")
def table() -> GeneTable:
    return synthetic.build(num_genes=60)


@pytest.fixture(scope="module")
def found(table: GeneTable) -> dict[str, Any]:
    return check_table(table)


@pytest.fixture(scope="module")
def poor(table: GeneTable) -> dict[str, Any]:
    """Of a source that knows neither places nor CDS, and whose names are hostile."""
    nothing = [""] * 60
    drop = {"count": 4_000, "examples": [LONG, "<script>alert(1)</script>"]}
    return check_table(
        replace(
            table,
            source="<b>poor</b>",
            chroms=nothing,
            strands=nothing,
            cds=nothing,
            proteins=nothing,
            targets={"mrna": Target(np.full(60, np.nan), "log10(TPM)")},
            features=np.full((60, 8), np.nan, dtype=np.float32),
            notes={
                "anchor": "TSS",
                "families": False,
                "nested": {"one": [1, 2]},
                "findings": {"dropped": {LONG: drop}},
            },
        )
    )


@pytest.fixture(scope="module")
def crowded(table: GeneTable) -> dict[str, Any]:
    """On more contigs, with longer names, than a figure has room for; all that can be said of a gene."""
    chroms = [f"NODE_{number // 2}_length_29301_cov_31.7" for number in range(60)]
    drop = {"count": 3, "examples": ["A", "B", "C"]}
    notes = {"findings": {"dropped": {"no start codon": drop}, "repaired": {"lower case": drop}}}
    return check_table(replace(table, chroms=chroms, notes=notes))


@pytest.fixture(scope="module")
def page(found: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(found, tmp_path_factory.mktemp("page"))


def page_of(found: dict[str, Any], folder: Path) -> str:
    return write_check_page(found, folder / "check.html").read_text()


def figures(page: str) -> dict[str, list[str]]:
    """Texts of each figure by its label; it must be well-formed XML."""
    drawn = {}
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        root = ElementTree.fromstring(svg)  # noqa: S314  (drawn here)
        texts = ["".join(one.itertext()).strip() for one in root.iter("{http://www.w3.org/2000/svg}text")]
        drawn[root.attrib["aria-label"]] = texts
    return drawn


def test_the_page_says_all_that_was_found(found: dict[str, Any], page: str) -> None:
    assert found["headline"] in page
    for row in found["checks"]:
        assert row["check"].replace("'", "&#39;") in page
    for name in (*found["features"], *found["targets"], "log10 of an arbitrary unit", "noise ceiling r2: mrna"):
        assert name in page
    assert page.count("<li>") == len(found["warnings"]) > 0
    assert "<code>split: {by: block}</code>" in page
    assert "http" not in page.replace("http://www.w3.org/", "")
    assert len(figures(page)) == 6


def test_figures_show_the_numbers(found: dict[str, Any], page: str) -> None:
    drawn = figures(page)
    assert {"first ATG", "at anchor ATG", "last TAA", "100 %"} <= set(drawn["First and last codons"])
    assert {"chr1", "chr6", "10"} <= set(drawn["Genes on each chromosome"])
    assert set(found["features"]) <= set(drawn["Distributions of the half-life features"])
    median = f"median {found['targets']['protein']['median']:.3g}"
    assert median in drawn["Distribution of the protein levels of 60 genes"]


def test_what_is_not_known_is_not_drawn_and_names_are_text(poor: dict[str, Any], tmp_path: Path) -> None:
    page = page_of(poor, tmp_path)
    assert list(figures(page)) == ["First and last codons"]  # of the windows, which are there
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;poor" in page
    assert "<script" not in page
    assert "<b>" not in page
    assert "whose places are not known" in page
    assert "first codon at its anchor" not in page
    assert "nested: one" in page


def test_contigs_beyond_the_largest_are_drawn_together(crowded: dict[str, Any], tmp_path: Path) -> None:
    page = page_of(crowded, tmp_path)
    texts = figures(page)["Genes on each chromosome"]
    assert "NODE_0_length_2..." in texts
    assert "6 others" in texts
    assert "12" in texts
    assert "Repairs" in page
    assert "A, B, C" in page


def test_a_table_without_genes_has_a_page(table: GeneTable, tmp_path: Path) -> None:
    texts = dict.fromkeys(("gene_ids", "symbols", "chroms", "strands", "proteins", "cds"), ())
    arrays = {name: getattr(table, name)[:0] for name in ("starts", "ends", "windows", "features", "family_ids")}
    notes = {"findings": {"dropped": {"no level": {"count": 9, "examples": ["A"]}}, "repaired": {}}}
    page = page_of(check_table(replace(table, **texts, **arrays, targets={}, notes=notes)), tmp_path)
    assert "No gene is left; the most frequent reason is: no level." in page


@pytest.mark.parametrize("columns", [44, 100])
def test_a_terminal_of_any_width_shows_every_check_and_warning(
    crowded: dict[str, Any], columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    print_check(crowded)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if not line.startswith("warning: ")) <= columns
    assert [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")] == crowded["warnings"]
    text = " ".join(" ".join(lines).split())
    for said in ("A, B, C", "no start codon", "lower case", "mrna and protein", "junction_density"):
        assert said in text
    assert len(re.findall(r"100 %|0 %|\d+\.\d+ %", text)) >= len(crowded["checks"])


def test_the_terminal_shows_texts_as_they_are(poor: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    print_check({**poor, "source": "[bold]x[/nothing]", "warnings": []})
    out = capsys.readouterr().out
    assert "[bold]x[/nothing]" in out
    assert "warning: none" in out


@pytest.fixture(scope="module")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with chromium(tmp_path_factory.mktemp("profile")) as address:
        yield address


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("kind", "num_figures"), [("found", 6), ("poor", 1), ("crowded", 6)])
def test_the_page_fits_its_window_asks_for_nothing_and_prints(
    request: pytest.FixtureRequest, devtools: str, tmp_path: Path, kind: str, num_figures: int, width: int
) -> None:
    path = write_check_page(request.getfixturevalue(kind), tmp_path / "check.html")
    seen = look(devtools, path, width, MEASURE)
    assert seen.logged == []
    assert seen.requested == []
    assert seen.measured["excess"] == 0
    assert seen.measured["beyond"] == []
    assert len(seen.measured["figures"]) == num_figures
    for shown_width, shown_height, drawn_width, label in seen.measured["figures"]:
        assert shown_width > 300, label
        assert shown_height > 100, label
        assert drawn_width > 0, label
    assert seen.measured["small"] > 7
    assert seen.pdf.startswith(b"%PDF")
