from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from raystudy.report.rows import CONFIG_HEADINGS, result_columns, result_rows
from raystudy.report.table import markdown_table, report_json, result_table, status_json
from raystudy.search.policy import Origin, SearchPolicy
from raystudy.study.model import ModelSpec, TrainingSpec
from raystudy.study.reading import load_spec
from raystudy.tracking.records import Records, TrialRecord, TrialState

SEARCH_SPACES = Path(__file__).parents[2] / "search_spaces"


def printed(records: Records, width: int) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(result_table(records.read(), width))
    return console.export_text()


def test_the_report_has_the_shape_of_the_contract_and_is_strict_json(fake_study):
    records = fake_study()
    report = report_json(records.read(), Path("report.html"))
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    contract = {"name", "data", "split", "trials", "finalists", "best", "baselines", "page"}
    contract |= {"comparisons", "pareto", "importances", "duplicates", "search"}
    assert contract <= report.keys()
    assert {"hash", "num_genes"} <= report["data"].keys()
    assert {"hash", "train", "valid", "test", "dropped"} <= report["split"].keys()
    trial = {"id", "state", "config", "parameters", "valid_r2", "best_epoch", "epoch_seconds", "attempts"}
    assert trial <= report["trials"][0].keys()
    assert {"trial", "valid_r2", "test_r2", "test_pearson_r2", "seeds"} <= report["finalists"][0].keys()
    best = {"trial", "config", "parameters", "valid_r2", "search_valid_r2", "test_r2", "epoch_seconds"}
    assert best <= report["best"].keys()
    assert {"name", "valid_r2", "test_r2"} <= report["baselines"][0].keys()
    for one in (report["finalists"][0], report["baselines"][0]):
        for metric in ("valid_r2", "test_r2"):
            low, high = one[f"{metric}_interval"]
            assert low < high
    assert report["page"] == "report.html"


def test_the_best_tells_what_the_search_saw_apart_from_its_own_value(fake_study):
    best = report_json(fake_study(finalist_r2=0.45).read(), None)["best"]
    assert (best["trial"], best["replicate"]) == ("t0001", "t0001-r0")
    assert best["valid_r2"] == pytest.approx(0.45)
    assert best["search_valid_r2"] == pytest.approx(0.31)


def test_no_test_number_stands_in_the_report_of_a_sealed_study(fake_study):
    report = report_json(fake_study(opened=False).read(), None)
    assert report["best"] is None
    assert report["finalists"] == []
    assert [line["test_r2"] for line in report["baselines"]] == [None]
    assert report["test_openings"] == 0


def test_a_retried_trial_stands_once_with_its_attempts_inside(fake_study):
    records = fake_study()
    records.trial_started(records.read().trials[4])
    records.trial_ended("t0004", TrialState.FAILED, "crash", "again")
    trials = report_json(records.read(), None)["trials"]
    assert [trial["id"] for trial in trials] == [f"t{number:04d}" for number in range(5)]
    assert [attempt["detail"] for attempt in trials[4]["attempts"]] == ["non-finite loss <nan>", "again"]
    assert (trials[4]["reason"], trials[4]["detail"]) == ("crash", "again")


def test_a_study_that_has_not_begun_still_reports(tmp_path):
    study = Records(tmp_path / "new").read()
    report = report_json(study, None)
    assert report["trials"] == []
    assert report["data"] == {"hash": None, "num_genes": None}
    assert status_json(study)["best_valid_r2"] is None


def test_the_status_counts_trials_by_state(fake_study):
    status = status_json(fake_study().read())
    assert status["trials"] == {"complete": 3, "pruned": 1, "failed": 1, "infeasible": 0, "running": 0}
    assert status["best_valid_r2"] == pytest.approx(0.33)
    assert status["seconds"] >= 0


def test_an_interrupted_trial_counts_as_running(fake_study):
    records = fake_study(opened=False)
    records.trial_started(records.read().trials[0])
    records.trial_ended("t0000", TrialState.INTERRUPTED, "preempted")
    assert status_json(records.read())["trials"]["running"] == 1
    assert report_json(records.read(), None)["trials"][0]["state"] == "running"


def test_what_the_engine_wrote_about_the_search_is_in_the_report(fake_study):
    records = fake_study()
    report = report_json(records.read(), None)
    assert (report["importances"], report["duplicates"], report["training_sizes"]) == (None, [], [])
    search = {"finished": True, "reason": "trials", "trials": 5, "cost": 1.25, "currency": "EUR", "duplicates": 0}
    assert report["search"] == search | {"warm_start": None}
    for of in ("t0001", "t0001", "t0002"):
        records.append("duplicate", number=7 if of == "t0001" else 9, of=of)
    importances = {"fanova": {"latent_dim": 1.0}, "ped_anova": None, "num_trials": 5, "basis": "all", "refused": None}
    records.append("importances", **importances | {"num_trials": 4})
    records.append("importances", **importances)
    warm_start = {"study": "earlier", "points": [], "skipped": []}
    records.append("warm_start", **warm_start)
    report = report_json(records.read(), None)
    assert report["duplicates"] == [{"number": 7, "of": "t0001"}, {"number": 9, "of": "t0002"}]
    assert report["importances"] == importances
    assert report["search"]["warm_start"] == warm_start


def test_a_search_under_way_says_so(tmp_path):
    search = report_json(Records(tmp_path / "new").read(), None)["search"]
    unknown = dict.fromkeys(("reason", "trials", "cost", "currency", "warm_start"))
    assert search == {"finished": False} | unknown


def test_a_trial_says_into_how_many_parts_its_batches_were_cut(fake_study):
    records = fake_study(num_trials=1, opened=False)
    records.trial_ended("t0000", TrialState.INTERRUPTED, "out of memory")
    records.trial_started(records.read().trials[0], micro_batches=2)
    trial = report_json(records.read(), None)["trials"][0]
    assert trial["micro_batches"] == 2
    assert [attempt["micro_batches"] for attempt in trial["attempts"]] == [1, 2]


def test_a_replicate_says_its_fold_and_seed_and_keeps_the_published_numbers_apart(fake_study):
    plain = report_json(fake_study().read(), None)["finalists"][0]
    assert (plain["selection_bias"], plain["seeds"][0]["reference"]) == (None, None)
    finalist = report_json(fake_study(name="reference", folds=2, seeds=2, reference=True).read(), None)["finalists"][0]
    assert [(seed["fold"], seed["replicate"]) for seed in finalist["seeds"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert finalist["seeds"][0]["reference"] == {
        "test_r2_best_epoch": 0.71,
        "test_pearson_r2_best_epoch": 0.73,
        "epoch": 1,
        "epoch_by_r2": 2,
        "selection_bias_r2": 0.002,
        "selection_bias_pearson_r2": 0.012,
    }
    assert not {"test_r2_best_epoch", "selection_bias_r2"} & finalist["seeds"][0].keys()
    assert finalist["selection_bias"] == pytest.approx({"r2": 0.002, "pearson_r2": 0.012})


def test_only_the_reference_protocol_has_a_column_of_selection_bias(fake_study):
    assert "selection bias" not in markdown_table(fake_study().read())
    records = fake_study(name="reference", reference=True)
    assert "0.730 (+0.012)" in markdown_table(records.read())
    assert "0.730 (+0.012)" in printed(records, 80)
    assert "mean over" not in report_json(records.read(), None)["verdict"], "its keys are no targets"


@pytest.mark.parametrize("options", [{"folds": 5, "seeds": 3}, {"seeds": 3}])
def test_a_finalist_of_several_replicates_is_one_row_with_intervals(fake_study, options):
    records = fake_study(num_finalists=2, reference=True, **options)
    rows = [row for row in result_rows(records.read()) if row.kind == "finalist"]
    last = options.get("folds", 1) * options["seeds"] - 1
    assert [row.cells["id"] for row in rows] == [f"t0001-r0..r{last}", f"t0002-r0..r{last}"]
    for row in rows:
        assert all(re.fullmatch(r"-?0\.\d{3} ±0\.\d{3}", row.cells[key]) for key in ("valid_r2", "test_r2"))
    text = printed(records, 80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for row in rows:
        assert all(row.cells[key] in text for key in ("valid_r2", "test_r2", "selection_bias"))


def test_a_finalist_says_how_many_of_its_replicates_are_done(fake_study):
    records = fake_study(seeds=2)
    records.trial_ended("t0001-r1", TrialState.FAILED, "crash")
    row = result_rows(records.read())[0]
    assert (row.cells["id"], row.cells["state"]) == ("t0001-r0..r1", "1 of 2")
    assert row.cells["valid_r2"] == "0.450", "one replicate has no interval"


def test_the_table_lists_finalists_then_trials_with_the_best_first_then_baselines(fake_study):
    rows = result_rows(fake_study().read())
    assert [row.cells["id"] for row in rows] == ["t0001-r0", "t0003", "t0002", "t0001", "t0000", "t0004", "ridge"]
    assert [row.kind for row in rows] == ["finalist", *["trial"] * 5, "baseline"]


@pytest.mark.parametrize("width", [60, 80, 104])
def test_the_table_fits_a_terminal_without_cutting_a_value(fake_study, width):
    text = printed(fake_study(), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert "t0001-r0" in text
    assert "0.450" in text


def test_only_a_wide_terminal_shows_the_origin(fake_study):
    records = fake_study()
    assert "seeded" not in printed(records, 70)
    assert "seeded" in printed(records, 104)


def test_the_markdown_table_has_a_line_for_each_row_and_the_same_number_of_cells_in_each(fake_study):
    lines = markdown_table(fake_study().read()).splitlines()
    assert len(lines) == 2 + 7
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| t0001-r0 | 0.450 | 0.708 | finalist | complete | 16 | embedding |")


def test_a_study_of_two_targets_is_strict_json_with_the_numbers_of_each(fake_study):
    records = fake_study(targets=("mrna", "protein"))
    report = report_json(records.read(), None)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    seed = report["finalists"][0]["seeds"][0]
    assert seed["test_r2"] == pytest.approx((seed["test_r2_mrna"] + seed["test_r2_protein"]) / 2)
    assert seed["test_r2_mrna"] != seed["test_r2_protein"]


def test_a_trial_says_which_precision_and_attention_ran_in_its_last_epoch(fake_study):
    records = fake_study(num_trials=1, opened=False)
    chosen = {"perceiver.cross": "math", "head": "sdpa"}
    ran = {"epoch": 4, "valid_r2": 0.1, "epoch_seconds": 1.0, "precision": "bf16", "attention": chosen}
    records.trial_epoch("t0000", ran)
    records.trial_started(TrialRecord("t0001", {}, "h", 10, 1, "sampled"))
    started, waiting = report_json(records.read(), None)["trials"]
    assert (started["precision"], started["attention"]) == ("bf16", chosen)
    assert (waiting["precision"], waiting["attention"]) == (None, None)


def add_trial(records: Records, config: dict[str, Any], arm: str | None = None, valid_r2: float = 0.1) -> None:
    trial_id = f"t{len(records.read().trials):04d}"
    origin = "arm" if arm else "sampled"
    records.trial_started(TrialRecord(trial_id, config, trial_id, 1_042_821, 1, origin, arm=arm))
    records.trial_epoch(trial_id, {"epoch": 1, "valid_r2": valid_r2, "epoch_seconds": 1.0})
    records.trial_ended(trial_id, TrialState.COMPLETE)


def headings(records: Records) -> list[str]:
    return [column.heading for column in result_columns(records.read())]


@pytest.fixture
def records(tmp_path) -> Records:
    return Records(tmp_path / "study")


def test_a_key_has_a_column_where_trials_differ_in_it(records):
    same = {"latent_dim": 8, "encoder": "onehot", "depth": 1}
    add_trial(records, same | {"perceiver_input": "dna", "learning_rate": 0.0010, "window_bp": [1000, 500]})
    add_trial(records, same | {"perceiver_input": "protein", "learning_rate": 0.0011, "window_bp": [500, 500]})
    shown = headings(records)
    assert shown[5:8] == ["Perceiver reads", "lr", "window bp"]
    assert not {"latent dim", "encoder", "depth"} & set(shown)
    assert "1000+500" in markdown_table(records.read())


def test_values_that_differ_in_digits_not_shown_are_still_different(records):
    for rate in (0.00101, 0.00102):
        add_trial(records, {"latent_dim": 8, "learning_rate": rate})
    assert "lr" in headings(records)


def test_a_key_that_only_some_trials_have_varies_only_among_those(records):
    add_trial(records, {"family": "xpresso"})
    add_trial(records, {"family": "dna", "latent_dim": 8})
    add_trial(records, {"family": "dna_protein", "latent_dim": 8})
    assert headings(records)[5] == "family"
    assert "latent dim" not in headings(records)


@pytest.mark.parametrize("num_trials", [1, 2])
def test_the_latent_width_stays_where_nothing_varies(records, num_trials):
    for _ in range(num_trials):
        add_trial(records, {"latent_dim": 24, "family": "dna"})
    assert "latent dim" in headings(records)
    assert "family" not in headings(records)
    assert "| 24 |" in markdown_table(records.read())


def test_what_workers_make_of_a_finalists_batch_is_no_reason_for_a_column(records):
    add_trial(records, {"latent_dim": 24, "batch_size": 64})
    finalist = TrialRecord("t0000-r0", {"latent_dim": 24, "batch_size": 32}, "h", 10, 1, "finalist")
    records.trial_started(finalist)
    assert "batch" not in headings(records)


def test_every_key_of_a_configuration_has_a_column_it_could_get():
    keys = {*ModelSpec.model_fields, *TrainingSpec.model_fields}
    assert set(CONFIG_HEADINGS) == keys - {"epochs"}, "the epochs that ran have a column of their own"


def test_the_origin_is_headed_arm_only_where_all_trials_are_arms(records):
    assert "origin" not in headings(records)
    add_trial(records, {"latent_dim": 8}, arm="narrow")
    assert "arm" in headings(records)
    add_trial(records, {"latent_dim": 16})
    assert "arm" not in headings(records)
    assert "narrow" in printed(records, 60), "an arm's name is what a reader looks for"


def test_columns_go_from_the_right_end_of_the_configuration_where_the_terminal_is_narrow(records):
    for number in (1, 2):
        config = {"family": f"family{number}", "latent_dim": 8 * number, "dropout": number / 10, "warmup": number / 10}
        add_trial(records, config, arm=f"arm{number}")
    keys = ("family", "latent", "dropout", "warmup")
    shown = [[key for key in keys if key in printed(records, width)] for width in range(90, 40, -1)]
    assert shown[0] == list(keys)
    assert shown[-1] == []
    for wider, narrower in pairwise(shown):
        assert narrower in (wider, wider[:-1])
    assert "epochs" in printed(records, 90)
    assert "epochs" not in printed(records, 70)


def test_a_name_longer_than_the_terminal_is_cut_and_no_number_is(records):
    add_trial(records, {"latent_dim": 8}, arm="a-very-long-name-" * 6)
    records.append("baseline", name="ridge-" + "embeddings" * 5, valid_r2=0.3, seconds=1.0)
    text = printed(records, 60)
    assert max(map(len, text.splitlines())) <= 60
    for whole in ("0.100", "0.300", "1,042,821", "complete"):
        assert whole in text


def test_a_trial_that_cannot_be_trained_claims_no_parameters(records):
    add_trial(records, {"latent_dim": 8})
    records.trial_started(TrialRecord("t0001", {"family": "protein", "half_life": "concat"}, "h", 0, 1, "sampled"))
    records.trial_ended("t0001", TrialState.INFEASIBLE, "rule", "reads no half-life features")
    row = next(line for line in markdown_table(records.read()).splitlines() if "t0001" in line)
    assert "infeasible" in row
    assert " 0 |" not in row.replace("| 0 |  |", "")  # the zero epochs aside


def searched(path: Path, folder: Path) -> Records:
    """A study of search_spaces/ as its driver would leave it, by a trainer that only knows a formula."""
    spec = load_spec(path)
    records = Records(folder / spec.name)
    records.folder.mkdir()
    policy = SearchPolicy(spec, records, time.time() + 3600)
    for arm in spec.arms:
        policy.enqueue({}, Origin("arm", arm=arm.name))
    while (trial := policy.ask()) is not None:
        metrics = {"valid_r2": -0.1234, "epoch_seconds": 123.4, "eval_seconds": 1.0}
        policy.report(trial.id, {"epoch": 1, **metrics})
        policy.end(trial.id, TrialState.COMPLETE)
    records.trial_started(replace(records.read().trials[-1], id="t0009-r0", origin="finalist", attempts=[]))
    for name in spec.baseline_names:
        records.append("baseline", name=name, valid_r2=0.25, seconds=1.0)
    scores = {name: {"test_r2": -0.1234} for name in ("t0009-r0", *spec.baseline_names)}
    records.append("test_opened", scores=scores)
    return records


@pytest.mark.parametrize("path", sorted(SEARCH_SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_studies_that_come_with_raystudy_fit_a_terminal_of_80_characters(path, tmp_path):
    records = searched(path, tmp_path)
    study = records.read()
    text = printed(records, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    lines = text.splitlines()
    for row in result_rows(study):
        line = next(line.split() for line in lines if line.split()[:1] == [row.cells["id"]])
        whole = [row.cells[key] for key in ("id", "valid_r2", "test_r2", "parameters") if row.cells.get(key)]
        assert set(whole) <= set(line)
    for trial in study.trials:
        if trial.arm:
            assert trial.arm in text
    assert ("arm" in text.split()) is all(trial.arm for trial in study.trials)


def test_columns_that_nothing_fills_are_left_out(records):
    add_trial(records, {"preset": "table1"}, arm="dense")
    shown = headings(records)
    assert "latent dim" not in shown
    assert "valid R2" in shown
    assert "dense" in markdown_table(records.read())
