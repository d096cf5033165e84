from __future__ import annotations

import re

import pytest

from raystudy.report.page import write_page
from raystudy.tracking.records import Records, TrialState
from tests.report.cases import rich_study


def markdown_of(records: Records) -> str:
    return write_page(records.read()).with_suffix(".md").read_text()


def tables(markdown: str) -> list[list[str]]:
    """Runs of lines that begin with a bar."""
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE)]


def test_the_markdown_has_every_section_and_whole_tables(fake_study):
    markdown = markdown_of(rich_study(fake_study))
    headings = re.findall(r"^## (.*)$", markdown, re.MULTILINE)
    assert headings == [
        "Results", "Pareto front", "Importances", "The best finalist", "Comparisons", "Baselines", "Training-set size",
        "Intrinsic dimension", "Selection bias", "Data and split", "Cost", "What failed",
        "Provenance, and how to do it again",
    ]  # fmt: skip
    found = tables(markdown)
    assert len(found) == 10
    for table in found:
        assert re.fullmatch(r"\|( (---|--:) \|)+", table[1])
        assert len({line.replace(r"\|", "").count("|") for line in table}) == 1
        assert len(table) > 2
    assert "\n\n\n" not in markdown


def test_the_markdown_says_what_the_page_says(fake_study):
    records = fake_study(seeds=3)
    markdown = markdown_of(records)
    page = (records.folder / "report.html").read_text()
    for said in (
        r"\*\*The best network, t0001, reaches",
        r"\| 0\.440 ±0\.025 \[-?\d\.\d{3}, 0\.\d{3}\] \|",
        r"```sh\n# in a clone of raystudy\ngit checkout abc\n",
        r"\nraystudy tune fake\.yaml --data data/synthetic\n",
        r"```yaml\nname: fake\n",
    ):
        assert re.search(said, markdown), said
    residual = re.search(r"^\| (Y\d{3}W) \| protein \| test \| .* \| ([+-]\d\.\d\d) \|$", markdown, re.MULTILINE)
    assert residual[1] in page
    assert residual[2] in page


def test_text_from_the_records_stays_in_its_cell(fake_study):
    records = fake_study(num_trials=1)
    records.trial_started(records.read().trials[0])
    records.trial_ended("t0000", TrialState.FAILED, "crash", "a | b\n\n# <script>no heading</script>")
    line = next(line for line in markdown_of(records).splitlines() if "no heading" in line)
    assert line.endswith(r"| crash | a \| b # &lt;script&gt;no heading&lt;/script&gt; |")


@pytest.mark.parametrize("num_trials", [0, 3])
def test_an_unfinished_study_has_markdown_too(fake_study, num_trials):
    markdown = markdown_of(fake_study(num_trials=num_trials, opened=False))
    assert "(the study has not finished)" in markdown
    assert "## The best finalist" not in markdown


def test_a_folder_without_any_record_has_markdown(tmp_path):
    records = Records(tmp_path / "empty")
    assert "No trial has started." in markdown_of(records)
