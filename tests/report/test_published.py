"""A published table beside the study that repeats it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_ind

from raystudy.printing import print_published
from raystudy.report.changes import FAILED, NOT, NOT_RUN, NOT_YET, REPRODUCED, UNDECIDED, Change
from raystudy.report.published import PublishedTable, published_markdown, published_table
from raystudy.report.table import report_json
from raystudy.tracking.records import Records, TrialRecord, TrialState, jsonable

BOTH = {"parameters": "higher", "epoch_seconds": "similar"}
CLAIMS = [
    {"says": "wide is better", "arm": "wide", "whole": False, "expect": {"pearson_r2": "higher"}},
    {"says": "wide is best", "whole": False, "arm": "wide", "expect": {"pearson_r2": "highest"}},
    {"says": "wide is larger and as fast", "whole": False, "arm": "wide", "expect": BOTH},
    {"says": "fast is faster", "whole": False, "arm": "fast", "expect": {"epoch_seconds": "lower"}},
]


def arm(name: str, against: str | None, parameters: str, epoch_seconds: float, pearson_r2: float) -> dict[str, Any]:
    printed = {"parameters": parameters, "epoch_seconds": epoch_seconds, "pearson_r2": pearson_r2}
    return {"name": name, "against": against, "note": f"of {name}", "printed": printed}


ARMS = [
    arm("plain", None, "1.04M", 4.0, 0.10),
    arm("wide", "plain", "2.5M", 4.0, 0.14),
    arm("fast", "plain", "1.04M", 2.0, 0.10),
]
R2 = {"plain": (0.30, 0.31, 0.32), "wide": (0.34, 0.35, 0.36)}
SECONDS = {"plain": (10.0, 10.1, 9.9), "wide": (10.1, 9.9, 10.0), "fast": (5.0, 5.0, 5.0)}
SIZES = {"plain": 1_042_000, "wide": 2_490_000, "fast": 1_042_000}


def table(folder: Path, r2: dict[str, Sequence[float]] = R2, reduced: dict[str, Any] | None = None) -> Records:
    """A study of the arms above; ``fast`` was refused, the others have a replicate for each of these values."""
    records = Records(folder / "table")
    section = {"title": "Table 9", "measured": "on mice", "similar": 0.01, "similar_share": 0.05, "claims": CLAIMS}
    records.folder.mkdir(parents=True)
    spec = {"arms": ARMS, "published": section, "replicates": {"folds": 1}}
    (records.folder / "spec.json").write_text(json.dumps({"spec": spec}))
    records.append("session_started")
    if reduced:
        records.append("reduced", **reduced)
    scores = {}
    for number, given in enumerate(ARMS):
        name, trial_id = given["name"], f"t{number:04d}"
        trial = TrialRecord(trial_id, {"batch_size": 8}, f"h{number}", SIZES[name], 1, "arm", arm=name)
        records.trial_started(trial)
        if name not in r2:
            records.trial_ended(trial_id, TrialState.INFEASIBLE, "attention backend", "xformers needs a GPU")
            continue
        records.trial_epoch(trial_id, epoch(1, 3.0))
        records.trial_ended(trial_id, TrialState.COMPLETE)
        for seed, value in enumerate(r2[name]):
            again = TrialRecord(f"{trial_id}-r{seed}", trial.config, trial.config_hash, SIZES[name], seed, "finalist")
            again.arm, again.replicate = name, seed
            records.trial_started(again)
            records.trial_epoch(again.id, epoch(1, 99.0))
            records.trial_epoch(again.id, epoch(2, SECONDS[name][seed]))
            records.trial_ended(again.id, TrialState.COMPLETE)
            scores[again.id] = {"test_r2": value - 0.05, "test_pearson_r2": value - 0.01}
            scores[again.id] |= {"test_pearson_r2_best_epoch": value}
    records.append("test_opened", scores=scores)
    return records


def epoch(number: int, seconds: float) -> dict[str, Any]:
    return {"epoch": number, "valid_r2": 0.3, "train_loss": 0.7, "epoch_seconds": seconds, "eval_seconds": 0.1}


def rows(records: Records) -> dict[str, dict[str, Any]]:
    found = published_table(records.read())
    assert found is not None
    return {row["arm"]: row for row in found["rows"]}


def test_a_row_has_the_printed_values_and_ours_of_the_published_kind(tmp_path: Path) -> None:
    wide = rows(table(tmp_path))["wide"]

    assert wide["pearson_r2"] == pytest.approx(0.35), "at the best test epoch, as was published"
    assert wide["test_r2"] == pytest.approx(0.30), "and the honest one beside it"
    assert wide["epoch_seconds"] == pytest.approx(10.0), "the first epoch warms up"
    assert (wide["parameters"], wide["num_replicates"], wide["note"]) == (2_490_000, 3, "of wide")


def test_an_interval_is_that_of_the_pooled_t_test(tmp_path: Path) -> None:
    """With two rows it is the textbook's two-sample interval."""
    known = PublishedTable(table(tmp_path).read())
    change = known.change("pearson_r2", known.arms["wide"], known.arms["plain"])
    textbook = ttest_ind(R2["wide"], R2["plain"]).confidence_interval(0.95)

    assert change is not None
    assert change.value == pytest.approx(0.04)
    assert change.interval == pytest.approx((textbook.low, textbook.high))


def test_the_variance_is_pooled_over_all_rows(tmp_path: Path) -> None:
    r2 = {**R2, "fast": (0.2, 0.4, 0.3)}
    known = PublishedTable(table(tmp_path, r2).read())
    change = known.change("pearson_r2", known.arms["wide"], known.arms["plain"])
    assert change is not None
    assert change.interval is not None
    half = (change.interval[1] - change.interval[0]) / 2
    pooled = sum(sum((value - sum(group) / 3) ** 2 for value in group) for group in r2.values()) / 6
    assert half == pytest.approx(2.446912 * (pooled * 2 / 3) ** 0.5), "t of 6 degrees of freedom, from a table"


def test_a_printed_change_is_ours_where_our_interval_is_narrow_and_holds_it() -> None:
    narrow = Change(0.03, (0.025, 0.035))

    assert narrow.holds(0.034, similar=0.01) == REPRODUCED
    assert narrow.holds(0.04, similar=0.01) == UNDECIDED, "outside, but not by much"
    assert narrow.holds(0.06, similar=0.01) == NOT
    assert Change(0.03, (-0.1, 0.2)).holds(0.04, similar=0.01) == UNDECIDED, "wide enough to hold anything"
    assert Change(0.03, None).holds(0.03, similar=0.01) == UNDECIDED


@pytest.mark.parametrize(
    ("expected", "interval", "verdict"),
    [
        ("lower", (-0.2, -0.1), REPRODUCED),
        ("lower", (0.1, 0.2), NOT),
        ("lower", (-0.1, 0.1), UNDECIDED),
        ("higher", (0.1, 0.2), REPRODUCED),
        ("higher", (-0.2, -0.1), NOT),
        ("similar", (-0.005, 0.005), REPRODUCED),
        ("similar", (0.02, 0.03), NOT),
        ("similar", (-0.005, 0.02), UNDECIDED),
        ("not higher", (-0.2, 0.005), REPRODUCED),
        ("not higher", (0.001, 0.2), NOT),
        ("not higher", (-0.1, 0.2), UNDECIDED),
        ("highest", (0.1, 0.2), REPRODUCED),
    ],
)
def test_a_claim_is_judged_by_where_the_whole_interval_lies(
    expected: str, interval: tuple[float, float], verdict: str
) -> None:
    assert Change(sum(interval) / 2, interval).verdict(expected, similar=0.01) == verdict


def test_claims_are_judged_and_those_of_rows_that_could_not_be_run_are_not(tmp_path: Path) -> None:
    found = published_table(table(tmp_path).read())
    assert found is not None
    verdicts = {claim["says"]: claim["verdict"] for claim in found["claims"]}

    assert verdicts == {
        "wide is better": REPRODUCED,
        "wide is best": UNDECIDED,  # against a row that could not be run, too
        "wide is larger and as fast": REPRODUCED,
        "fast is faster": NOT_RUN,
    }
    fast = found["rows"][2]
    assert (fast["verdict"], fast["said"]) == (NOT_RUN, "attention backend: xformers needs a GPU")
    assert found["rows"][0]["verdict"] == "what others are compared with"
    assert found["first_line"] == "Table 9 was measured on mice."


def test_the_best_is_not_best_where_another_is_surely_better(tmp_path: Path) -> None:
    found = published_table(table(tmp_path, {"plain": (0.40, 0.41, 0.42), "wide": R2["wide"]}).read())

    assert found is not None
    assert [claim["verdict"] for claim in found["claims"][:2]] == [NOT, NOT]


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    found = published_table(table(tmp_path, {"plain": (0.3,), "wide": (0.4,)}).read())

    assert found is not None
    assert found["claims"][0]["verdict"] == UNDECIDED
    assert found["rows"][1]["verdict"] == "Pearson r2 undecided, time undecided"


def test_a_reduced_study_says_so_first_and_keeps_the_parameters_and_comparators_of_the_whole(tmp_path: Path) -> None:
    reduced = {
        "changes": ["epochs: 2 instead of 400"],
        "whole_parameters": {"plain": 1_042_821, "wide": 2_500_000},
        "whole_against": {"plain": None, "wide": "fast", "fast": "plain"},
    }
    found = published_table(table(tmp_path, reduced=reduced).read())

    assert found is not None
    assert found["first_line"].startswith("Ours is a reduced study (epochs: 2 instead of 400)")
    wide = found["rows"][1]
    assert wide["parameters"] == 2_500_000
    assert wide["changes"]["pearson_r2"]["printed"] == pytest.approx(0.14 - 0.10)
    assert wide["changes"]["epoch_seconds"]["printed"] == pytest.approx(1.0), "4 s against the 2 s of fast"
    assert "against plain (printed: against fast)" in wide["said"]


def test_a_study_under_way_has_rows_not_measured_yet_and_one_that_failed_says_so(tmp_path: Path) -> None:
    records = table(tmp_path, {"plain": R2["plain"]})
    records.trial_started(TrialRecord("t0001", {}, "h1", 1, 1, "arm", arm="wide"))
    found = published_table(records.read())
    assert found is not None
    assert [row["verdict"] for row in found["rows"]][1:] == [NOT_YET, NOT_RUN]
    assert found["claims"][0]["verdict"] == NOT_YET

    records.trial_ended("t0001", TrialState.FAILED, "nan", "epoch 3")
    found = published_table(records.read())
    assert found is not None
    assert (found["rows"][1]["verdict"], found["rows"][1]["said"]) == (FAILED, "t0001: nan: epoch 3")
    json.dumps(jsonable(found), allow_nan=False)


def test_what_is_counted_must_differ_by_more_than_what_is_alike() -> None:
    assert Change(0.0001, (0.0001, 0.0001)).verdict("higher", similar=0.05) == NOT
    assert Change(0.3, (0.3, 0.3)).verdict("higher", similar=0.05) == REPRODUCED
    assert Change(-0.3, (-0.3, -0.3)).verdict("lower", similar=0.05) == REPRODUCED


def test_times_of_other_workers_than_printed_are_not_judged(tmp_path: Path) -> None:
    def verdict(gpus: tuple[int, int], workers: int) -> str:
        for given, number in zip(ARMS, gpus, strict=False):
            given["printed"]["gpus"] = number
        records = table(tmp_path / f"{gpus}{workers}")
        again = records.read().finalists[3]
        records.trial_started(again)
        records.trial_epoch(again.id, epoch(2, 10.0) | {"workers": workers})
        records.trial_ended(again.id, TrialState.COMPLETE)
        told: str = rows(records)["wide"]["changes"]["epoch_seconds"]["verdict"]
        for given in ARMS:
            given["printed"].pop("gpus", None)
        return told

    assert verdict((4, 4), workers=1) == REPRODUCED, "as many as each other, as was printed"
    assert verdict((4, 32), workers=1) == "not runnable here (other workers)"
    assert verdict((1, 32), workers=1) == "not runnable here (other workers)"


def test_losses_are_compared_after_as_many_epochs(tmp_path: Path) -> None:
    records = table(tmp_path)
    longer = records.read().finalists[0]
    records.trial_started(longer)
    records.trial_epoch(longer.id, {**epoch(3, 9.0), "train_loss": 0.1})
    records.trial_ended(longer.id, TrialState.COMPLETE)
    known = PublishedTable(records.read())
    change = known.change("train_loss", known.arms["wide"], known.arms["plain"])

    assert change is not None
    assert change.value == pytest.approx(0.0), "not with the third epoch of one"


def test_what_is_said_of_a_whole_training_is_not_judged_by_a_reduced_one(tmp_path: Path) -> None:
    CLAIMS[0]["whole"] = True
    verdicts = [
        published_table(table(tmp_path / str(number), reduced=reduced).read())["claims"][0]["verdict"]  # type: ignore[index]
        for number, reduced in enumerate((None, {"changes": ["epochs: 2 instead of 400"]}))
    ]
    CLAIMS[0]["whole"] = False

    assert verdicts == [REPRODUCED, "not judged: it takes a whole training"]


def test_nothing_that_was_written_breaks_out_of_the_markdown_or_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(ARMS[1], "note", "# a [/b] <script>\nwide | open")
    found = published_table(table(tmp_path).read())
    assert found is not None
    shown = published_markdown(found)
    print_published(found)

    assert "wide: # a [/b] &lt;script&gt; wide \\| open" in shown
    assert "<script>" not in shown
    assert "[/b] <script>" in capsys.readouterr().out


def test_the_terminal_shows_rows_claims_and_reasons_within_its_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = published_table(table(tmp_path).read())
    assert found is not None
    print_published(found)
    shown = capsys.readouterr().out

    assert "2.5M | 2.49M" in shown
    assert "0.1400 | 0.3500" in shown
    assert "wide is better: REPRODUCED (Pearson r2 +0.0400 (+0.0173 to +0.0627) against plain)" in shown
    assert "fast: attention backend: xformers needs a GPU" in shown
    assert max(len(line) for line in shown.split("wide: against")[0].splitlines()) <= 80


def test_the_reports_document_has_it_and_other_studies_have_none(tmp_path: Path, fake_study: Any) -> None:
    assert report_json(table(tmp_path).read(), None)["published"]["title"] == "Table 9"
    assert report_json(fake_study().read(), None)["published"] is None
