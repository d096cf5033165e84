from __future__ import annotations

import re
import shutil
import subprocess
import time
from html import escape
from html.parser import HTMLParser

import pytest

from raystudy.report import figures
from raystudy.report.page import write_page
from raystudy.tracking.records import Records, TrialRecord, TrialState

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def page_of(records: Records) -> str:
    return write_page(records.read()).read_text()


def test_nothing_on_the_page_asks_for_anything_outside_it(fake_study):
    html = page_of(fake_study())
    for tag, attributes in Elements(html).found:
        assert tag not in {"script", "iframe", "img", "object", "embed", "base"}
        for name in ("src", "href", "xlink:href", "action", "srcset", "poster", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert re.findall(r"url\(\s*['\"]?(?!#)", html) == []
    assert "@import" not in html


def test_a_finished_study_has_every_part(fake_study):
    html = page_of(fake_study())
    assert html.count("<svg") == 5
    for part in (
        "favours the network",
        "Results",
        "Search history",
        "Learning curves",
        "Predicted against measured",
        "Baselines",
        "Intrinsic dimension",
        "needs more windows than dimensions",
        "Data and split",
        "max identity",
        "What failed",
        "git checkout abc",
        "raystudy tune fake.yaml",
        "target: protein",
    ):
        assert part in html


def test_text_from_the_records_cannot_become_markup(fake_study):
    html = page_of(fake_study())
    assert "non-finite loss &lt;nan&gt;" in html
    assert "<nan>" not in html


@pytest.mark.parametrize("num_trials", [0, 5])
def test_an_unfinished_study_gets_a_page(fake_study, num_trials):
    html = page_of(fake_study(num_trials=num_trials, opened=False))
    assert "the study has not finished" in html
    assert "best finalist" not in html.lower().replace("the best finalist is", "")


def test_a_folder_without_any_record_gets_a_page(tmp_path):
    records = Records(tmp_path / "empty")
    records.folder.mkdir()
    html = page_of(records)
    assert "No trial has started" in html
    assert "<svg" not in html


def test_a_study_in_which_every_trial_failed_gets_a_page_with_the_reasons(fake_study):
    records = fake_study(num_trials=0, opened=False)
    trial = fake_study(name="other").read().trials[0]
    records.trial_started(trial)
    records.trial_ended("t0000", TrialState.FAILED, "out of memory")
    html = page_of(records)
    assert "out of memory" in html
    assert "none of 1 trials has a validation R2" in html


def test_an_interrupted_attempt_is_listed_even_where_the_next_one_completed(fake_study):
    records = fake_study(num_trials=0, opened=False)
    trial = fake_study(name="other").read().trials[0]
    records.trial_started(trial)
    records.trial_started(trial)
    records.trial_ended("t0000", TrialState.COMPLETE)
    assert "interrupted" in page_of(records)


def test_opening_the_test_twice_is_said(fake_study):
    records = fake_study()
    assert "were opened" not in page_of(records)
    records.append("test_opened", scores={})
    assert "The test genes were opened 2 times" in page_of(records)


def test_the_same_records_give_the_same_page(fake_study):
    records = fake_study()
    assert page_of(records) == page_of(records)


def test_a_figure_scales_with_the_page_and_says_what_it_shows(fake_study):
    svg = figures.search_history(fake_study().read())
    head = svg[: svg.index(">")]
    assert "viewBox" in head
    assert " width=" not in head
    assert 'aria-label="Search history' in head
    assert "seeded" in svg


def test_one_bad_start_does_not_flatten_the_learning_curves(fake_study):
    records = fake_study()
    records.trial_epoch("t0000", {"epoch": 4, "valid_r2": -50.0, "epoch_seconds": 1.0})
    assert "50" not in re.sub(r"<(?!text)[^>]*>", "", figures.learning_curves(records.read()))


def test_the_winner_says_which_precision_and_attention_ran(fake_study):
    html = page_of(fake_study())
    assert "<dt>precision that ran</dt><dd>fp32</dd>" in html
    assert "<dt>attention that ran</dt><dd>sdpa in every layer</dd>" in html
    assert "<dt>window bp</dt><dd>1000, 500</dd>" in html


def test_layers_of_different_attention_are_named(fake_study):
    records = fake_study()
    chosen = {"perceiver.cross": "xformers", "perceiver.latents": "xformers", "head": "math"}
    again = {"epoch": 3, "valid_r2": 0.5, "epoch_seconds": 1.0, "precision": "bf16", "attention": chosen}
    records.trial_epoch("t0001-r0", again)
    html = page_of(records)
    assert "<dd>xformers in perceiver.cross, perceiver.latents; math in head</dd>" in html
    assert "<dt>precision that ran</dt><dd>bf16</dd>" in html


def test_a_winner_without_a_record_of_attention_and_without_a_preset_says_nothing_of_them(fake_study):
    records = fake_study(opened=False)
    config = {"family": "xpresso", "preset": None, "dropout": 0.0, "latent_summary": False}
    records.trial_started(TrialRecord("t0003-r0", config, "h", 10, 1, "finalist"))
    records.trial_epoch("t0003-r0", {"epoch": 1, "valid_r2": 0.3, "epoch_seconds": 1.0, "attention": {}})
    records.trial_ended("t0003-r0", TrialState.COMPLETE)
    html = page_of(records)
    assert "<dt>dropout</dt><dd>0</dd>" in html
    assert "<dt>latent summary</dt><dd>False</dd>" in html
    for absent in ("<dt>preset</dt>", "precision that ran", "attention that ran"):
        assert absent not in html


def test_a_study_of_two_targets_gets_both_in_one_figure(fake_study):
    study = fake_study(targets=("mrna", "protein")).read()
    svg = figures.predicted_measured(study)
    assert ">mrna<" in svg
    assert ">protein<" in svg
    assert "20 test genes" in svg, "a gene counts once"
    alone = figures.predicted_measured(fake_study(name="one").read())
    assert ">protein<" not in alone, "one target needs no legend"
    points = svg.count("<use ")
    assert points - alone.count("<use ") >= 20
    assert write_page(study).exists()


def test_predictions_with_sealed_test_genes_are_drawn_on_validation(fake_study):
    records = fake_study()
    study = records.read()
    study.events = [line for line in study.events if line["event"] != "test_opened"]
    assert "20 valid genes" in figures.predicted_measured(study)


def test_a_dimension_that_every_estimator_refused_gets_its_reasons_and_no_figure(fake_study):
    records = fake_study(num_trials=1, opened=False)
    refused = {"two_nn": "all windows are alike"}
    nothing = {"estimates": {}, "consensus": None, "mean": None, "interval": None, "seconds": {}, "others": {}}
    records.append("dimension", representation="kmers", refused=refused, **nothing)
    assert figures.dimension_evidence(records.read()) is None
    assert "all windows are alike" in page_of(records)


def test_a_page_of_many_trials_is_made_within_seconds(fake_study):
    study = fake_study(num_trials=60).read()
    begun = time.perf_counter()
    assert write_page(study).stat().st_size < 1_000_000
    assert time.perf_counter() - begun < 10


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_is_no_wider_than_a_phone_or_a_desktop_window(fake_study, tmp_path):
    page = escape(page_of(fake_study()))
    widths = (390, 1200)
    frames = "".join(f'<iframe srcdoc="{page}" style="width:{width}px;border:0"></iframe>' for width in widths)
    excess = "({contentDocument: {documentElement: root}}) => root.scrollWidth - root.clientWidth"
    measure = f"[...document.querySelectorAll('iframe')].map({excess}).join()"
    around = tmp_path / "around.html"
    around.write_text(f"{frames}<script>onload = () => document.title = {measure}</script>")
    command = [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", around.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "<title>0,0</title>" in shown
