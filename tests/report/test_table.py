from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from raystudy.report.table import WIDE, markdown_table, report_json, result_rows, result_table, status_json
from raystudy.tracking.records import Records, TrialState


def printed(records: Records, width: int) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(result_table(records.read(), width))
    return console.export_text()


def test_the_report_has_the_shape_of_the_contract_and_is_strict_json(fake_study):
    records = fake_study()
    report = report_json(records.read(), Path("report.html"))
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    contract = {"name", "data", "split", "trials", "finalists", "best", "baselines", "page"}
    assert contract <= report.keys()
    assert {"hash", "num_genes"} <= report["data"].keys()
    assert {"hash", "train", "valid", "test", "dropped"} <= report["split"].keys()
    trial = {"id", "state", "config", "parameters", "valid_r2", "best_epoch", "epoch_seconds", "attempts"}
    assert trial <= report["trials"][0].keys()
    assert {"trial", "valid_r2", "test_r2", "test_pearson_r2", "seeds"} <= report["finalists"][0].keys()
    best = {"trial", "config", "parameters", "valid_r2", "search_valid_r2", "test_r2", "epoch_seconds"}
    assert best <= report["best"].keys()
    assert {"name", "valid_r2", "test_r2"} == report["baselines"][0].keys()
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
    records.trial_ended("t0004", TrialState.FAILED, "again")
    trials = report_json(records.read(), None)["trials"]
    assert [trial["id"] for trial in trials] == [f"t{number:04d}" for number in range(5)]
    assert [attempt["reason"] for attempt in trials[4]["attempts"]] == ["non-finite loss <nan>", "again"]


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


def test_the_table_lists_finalists_then_trials_with_the_best_first_then_baselines(fake_study):
    rows = result_rows(fake_study().read())
    assert [row.cells[0] for row in rows] == ["t0001-r0", "t0003", "t0002", "t0001", "t0000", "t0004", "ridge"]
    assert [row.kind for row in rows] == ["finalist", *["trial"] * 5, "baseline"]


@pytest.mark.parametrize("width", [80, WIDE])
def test_the_table_fits_a_terminal_without_cutting_a_value(fake_study, width):
    text = printed(fake_study(), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert "t0001-r0" in text
    assert "0.450" in text


def test_only_a_wide_terminal_shows_the_origin(fake_study):
    records = fake_study()
    assert "seeded" not in printed(records, WIDE - 1)
    assert "seeded" in printed(records, WIDE)


def test_the_markdown_table_has_a_line_for_each_row_and_the_same_number_of_cells_in_each(fake_study):
    lines = markdown_table(fake_study().read()).splitlines()
    assert len(lines) == 2 + 7
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| t0001-r0 | 0.450 | 0.708 | finalist | complete | 16 |")


def test_columns_that_nothing_fills_are_left_out(tmp_path):
    records = Records(tmp_path / "arms")
    from raystudy.tracking.records import TrialRecord

    records.trial_started(TrialRecord("t0000", {"preset": "table1"}, "h", 10, 1, "arm", arm="dense"))
    heading = markdown_table(records.read()).splitlines()[0]
    assert "latent dim" not in heading
    assert "valid R2" in heading
    assert "dense" in markdown_table(records.read())
