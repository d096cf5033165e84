from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser

import pytest

from raystudy.report import figures
from raystudy.report.fronts import hypervolume_figure, pareto_figure
from raystudy.report.page import write_dimension_page, write_page
from raystudy.report.pareto import pareto
from raystudy.report.residuals import predicted_measured
from raystudy.tracking.records import Records, TrialRecord, TrialState
from tests.report.cases import rich_study


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
    assert html.count("<svg") == 9
    for part in (
        "favours the network",
        "Results",
        "The search",
        "Learning curves",
        "Predicted against measured",
        "Baselines",
        "Intrinsic dimension",
        "needs more windows than dimensions",
        "Largest residuals by gene",
        "Pareto front",
        "Data and split",
        "max identity",
        "What failed",
        "git checkout abc",
        "raystudy tune fake.yaml --data data/synthetic",
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
    records.trial_ended("t0000", TrialState.FAILED, "out of memory", "8 GB <asked>")
    html = page_of(records)
    assert "out of memory" in html
    assert "8 GB &lt;asked&gt;" in html
    assert "none of 1 trials has a validation R2" in html


def test_an_interrupted_attempt_is_counted_even_where_the_next_one_completed(fake_study):
    records = fake_study(num_trials=0, opened=False)
    trial = fake_study(name="other").read().trials[0]
    records.trial_started(trial)
    records.trial_started(trial)
    records.trial_ended("t0000", TrialState.COMPLETE)
    html = page_of(records)
    assert "1 attempt was lost with the driver and taken up again." in html
    assert "Nothing failed." in html


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
    ticks = re.findall(r"<text[^>]*>([^<]*)</text>", figures.learning_curves(records.read()))
    assert "0.0" in ticks
    assert not [tick for tick in ticks if tick.startswith("\N{MINUS SIGN}") and float(tick[1:]) > 0.3]


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
    svg = predicted_measured(study)
    assert ">mrna<" in svg
    assert ">protein<" in svg
    assert "20 test genes" in svg, "a gene counts once"
    alone = predicted_measured(fake_study(name="one").read())
    assert ">protein<" not in alone, "one target needs no legend"
    points = svg.count("<use ")
    assert points - alone.count("<use ") >= 20
    assert write_page(study).exists()


def test_predictions_with_sealed_test_genes_are_drawn_on_validation(fake_study):
    records = fake_study()
    study = records.read()
    study.events = [line for line in study.events if line["event"] != "test_opened"]
    assert "20 validation genes" in predicted_measured(study)


def test_a_dimension_that_every_estimator_refused_gets_its_reasons_and_no_figure(fake_study):
    records = fake_study(num_trials=0, opened=False)
    reason = "all <b>windows</b> are alike"
    records.append("dimension", **{**refused(records.read().last("dimension"), reason), "others": {}})
    html = page_of(records)
    assert "lPCA, TwoNN refused: all &lt;b&gt;windows&lt;/b&gt; are alike" in html
    assert "Every estimator refused." in html
    assert html.count("<svg") == 1, "the comparison with the baseline only"


def refused(found: dict, reason: str) -> dict:
    """The event as it is where no estimator answers."""
    nothing = {"estimates": {}, "spread": {}, "consensus": None, "mean": None, "interval": None, "curve": None}
    kept = {key: value for key, value in found.items() if key not in ("event", "time")}
    return kept | nothing | {"refused": {"lPCA": reason, "TwoNN": reason}, "seconds": {}, "points": {}}


def test_a_record_of_an_earlier_version_gets_a_page(fake_study):
    records = fake_study(num_trials=0, opened=False)
    newer = ("event", "time", "input", "spread", "points", "curve", "others")
    old = {key: value for key, value in records.read().last("dimension").items() if key not in newer}
    records.append("dimension", **old, others={})
    html = page_of(records)
    assert html.count("<svg") == 2, "the baseline, the estimators"
    assert '<td class="word">TwoNN</td><td>12.0</td>' in html


def test_the_page_says_what_was_seeded_and_where_it_stood(fake_study):
    html = page_of(fake_study())
    assert "latent widths 16, 8: powers of two around the consensus 13.0." in html
    assert "2 of the 4 trials with a validation R2 were seeded" in html


def test_a_clamp_is_said(fake_study):
    records = fake_study(num_trials=0, opened=False)
    found = {key: value for key, value in records.read().last("dimension").items() if key not in ("event", "time")}
    found["seeded"]["clamped"] = True
    records.append("dimension", **found)
    assert "latent widths 16, 8 (clamped)" in page_of(records)


def test_the_benchmark_of_seeding_is_quoted_as_text(fake_study):
    records = fake_study(num_trials=0, opened=False)
    folder = records.folder.parent / "benchmarks"
    folder.mkdir()
    words = {"verdict": "No <i>gain</i>.", "command": "python -m b", "machine": "2 cores", "date": "2026-01-02"}
    (folder / "seeding.json").write_text(json.dumps({"figures": {"trials": 3.0}, **words}))
    html = page_of(records)
    assert "No &lt;i&gt;gain&lt;/i&gt;." in html
    for key in ("command", "machine", "date"):
        assert words[key] in html


def test_the_page_of_a_dimension_stands_alone_and_shows_its_evidence(fake_study, tmp_path):
    found = fake_study().read().last("dimension")
    found["others"]["<i>odd</i>"] = refused(found, "tied <script>")
    path = write_dimension_page(found, tmp_path / "new" / "dimension.html")
    html = path.read_text()
    assert html.count("<svg") == 3
    assert "from 3.1 (composition) to 13.0 (kmer3)" in html
    assert "<td>10.0 to 15.0</td>" in html
    assert "lPCA refused: needs more windows than dimensions" in html
    assert "tied &lt;script&gt;" in html
    assert "<h3>&lt;i&gt;odd&lt;/i&gt;</h3>" in html
    assert "distances 1.5 s, resamples 2.5 s" in html
    assert not {"script", "i", "img", "iframe"} & {tag for tag, _ in Elements(html).found}
    assert [path] == list(path.parent.iterdir())


def test_a_study_with_everything_has_every_section(fake_study):
    html = page_of(rich_study(fake_study))
    assert html.count("<svg") == 11
    for part in (
        "<h2>Comparisons</h2>",
        "With 3 folds, a true difference of about",
        "<td>3 folds</td>",
        "<h2>Selection bias</h2>",
        "<td>+0.012</td>",
        "<h2>Pareto front</h2>",
        "Hypervolume over time",
        "<h2>Training-set size</h2>",
        "which came from an earlier study",
        "<h3>Importances</h3>",
        '<td class="word">latent_dim</td><td>0.700</td><td>\N{EN DASH}</td>',
        "From 5 trials: complete trials.",
        "1 attempt was lost to preemption and taken up again.",
        "1 proposal was a configuration tried before",
        "t0005: needs &lt;much&gt;",
        "<dt>cost of the search</dt>",
        "t0001 is better than ridge",
    ):
        assert part in html, part


def test_sections_that_a_study_has_nothing_for_are_left_out(fake_study):
    html = page_of(fake_study(num_trials=1, opened=False))
    for part in (
        "Comparisons",
        "Selection bias",
        "Training-set size",
        "Importances",
        "Infeasible",
        "The best finalist",
    ):
        assert f">{part}<" not in html


def test_refused_importances_say_why(fake_study):
    records = fake_study(opened=False)
    refused = {"fanova": None, "ped_anova": None, "num_trials": 1, "basis": "", "refused": "fewer than two trials."}
    records.append("importances", **refused)
    html = page_of(records)
    assert "fewer than two trials." in html
    assert "fANOVA" not in html


def test_seeds_of_one_fold_say_what_their_interval_leaves_out(fake_study):
    assert "not the choice of genes" in page_of(fake_study(seeds=2))


def test_replicates_share_a_line_of_the_figures(fake_study):
    study = fake_study(folds=2, seeds=3).read()
    assert "t0001 (6 replicates)" in figures.learning_curves(study)
    assert "t0001 (6)" in figures.comparison(study, {})
    assert "t0001-r1" not in figures.comparison(study, {}) + figures.learning_curves(study)


def test_the_front_is_drawn_with_and_without_trials_behind_it(fake_study):
    front = pareto(fake_study(num_trials=8, objectives=("valid_r2", "parameters"), opened=False).read())
    for cost in ("epoch_seconds", "parameters"):
        assert ">Pareto front<" in pareto_figure(front, cost)
    assert ">hypervolume<" in hypervolume_figure(front)
    alone = pareto(fake_study(name="alone", objectives=("valid_r2", "parameters"), num_trials=1, opened=False).read())
    assert ">other trials<" not in pareto_figure(alone, "parameters")


def test_a_search_after_one_objective_has_a_front_and_no_hypervolume(fake_study):
    front = pareto(fake_study().read())
    assert ">Pareto front<" in pareto_figure(front, "epoch_seconds")
    assert hypervolume_figure(front) is None


def test_the_history_tells_trials_of_every_origin_apart(fake_study):
    records = rich_study(fake_study)
    svg = figures.search_history(records.read())
    for origin in ("seeded", "warm", "sampled", "arm"):
        assert f">{origin}<" in svg
    records.trial_started(TrialRecord("t0099", {}, "h99", 10, 1, "guessed"))
    records.trial_epoch("t0099", {"epoch": 1, "valid_r2": 0.2, "epoch_seconds": 1.0})
    assert ">guessed<" in figures.search_history(records.read()), "a new word must not lose its trials"


def test_the_table_says_which_interval_is_which(fake_study):
    plain, several = page_of(fake_study()), page_of(fake_study(name="several", seeds=3))
    assert re.search(r"0\.450<br><small>\[-?\d\.\d{3}, 0\.\d{3}\]</small>", plain)
    assert "±0." not in plain
    assert re.search(r"0\.440 ±0\.025<br><small>\[", several)
    for html in (plain, several):
        assert "95 % interval over the choice of genes" in html


def test_a_page_of_many_trials_is_made_within_seconds(fake_study):
    study = fake_study(num_trials=60, objectives=("valid_r2", "parameters")).read()
    begun = time.perf_counter()
    assert write_page(study).stat().st_size < 1_000_000
    assert time.perf_counter() - begun < 10
