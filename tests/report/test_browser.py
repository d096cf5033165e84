"""The pages in a real browser, in a telephone's window and in a desktop's, and printed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from raystudy.report.page import write_dimension_page, write_page
from raystudy.tracking.records import Records
from tests.report.browser import CHROMIUM, MEASURE, WIDTHS, chromium, look
from tests.report.cases import rich_study

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]


@pytest.fixture(scope="module")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with chromium(tmp_path_factory.mktemp("profile")) as address:
        yield address


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["plain", "rich", "dimension"])
def test_a_page_fits_its_window_says_nothing_asks_for_nothing_and_prints(
    fake_study: Callable[..., Records], devtools: str, kind: str, width: int
) -> None:
    records = rich_study(fake_study) if kind == "rich" else fake_study()
    num_figures = {"plain": 9, "rich": 11, "dimension": 3}[kind]
    if kind == "dimension":
        path = write_dimension_page(records.read().last("dimension"), records.folder / "dimension.html")
    else:
        path = write_page(records.read())
    seen = look(devtools, path, width, MEASURE)
    assert seen.logged == []
    assert seen.requested == []
    assert seen.measured["excess"] == 0
    assert seen.measured["beyond"] == []
    figures = seen.measured["figures"]
    assert len(figures) == num_figures
    for shown_width, shown_height, drawn_width, label in figures:
        assert shown_width > 300, label
        assert shown_height > 100, label
        assert drawn_width > 0, label
    assert seen.measured["small"] > 7, "text of a figure that nobody can read"
    assert seen.pdf.startswith(b"%PDF")


def test_the_printed_page_has_its_text_on_a_few_sheets(
    fake_study: Callable[..., Records], devtools: str, tmp_path
) -> None:
    seen = look(devtools, write_page(rich_study(fake_study).read()), 1200, MEASURE)
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", seen.pdf)) <= 15
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext would say what is on the sheets")
    (tmp_path / "page.pdf").write_bytes(seen.pdf)
    text = subprocess.run(["pdftotext", "-layout", tmp_path / "page.pdf", "-"], capture_output=True, text=True).stdout
    for said in ("Study rich", "Selection bias", "raystudy tune rich.yaml", "validation R²"):
        assert said in text


def test_a_page_that_misbehaves_is_noticed(devtools: str, tmp_path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><title>bad</title><img src='http://127.0.0.1:9/x.png'><div style='width:5000px'>wide</div>"
        "<script>console.warn('careful'); setTimeout(() => { throw new Error('broken') })</script>"
    )
    seen = look(devtools, bad, 390, MEASURE)
    assert "http://127.0.0.1:9/x.png" in seen.requested
    assert "careful" in seen.logged
    assert any("Uncaught" in line for line in seen.logged)
    assert seen.measured["excess"] > 1000
    assert seen.measured["beyond"]
