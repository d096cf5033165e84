"""What the benchmark of studies reads from records and refuses; one tiny comparison of this checkout with itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from benchmarks.study import (
    ROOT,
    Incomparable,
    Run,
    check_import,
    check_same,
    compared,
    differences,
    environment,
    figures_of,
    fixed,
    main,
)
from raystudy.data.genes import write_genes
from raystudy.data.sources import synthetic
from raystudy.study.reading import load_spec, parse_spec
from raystudy.tracking.records import Attempt, StudyRecord, TrialRecord, TrialState
from raystudy.tune import DEFAULT_STUDY

BEGAN = 1_790_000_000.0
WINDOW = [300, 150]


def attempt(started: float, epochs: list[tuple[float, float, float]], ended: float) -> Attempt:
    """In seconds since the beginning; each epoch is when it was reported, its training and its evaluation."""
    lines = [
        {
            "epoch": number,
            "time": BEGAN + at,
            "epoch_seconds": training,
            "eval_seconds": evaluation,
            "valid_r2": 0.1 * number,
            "precision": "fp32",
        }
        for number, (at, training, evaluation) in enumerate(epochs, start=1)
    ]
    return Attempt(1, BEGAN + started, lines, TrialState.COMPLETE, ended=BEGAN + ended)


def trial(identity: str, width: int, one: Attempt) -> TrialRecord:
    config = {"latent_dim": width, "batch_size": 32}
    origin = "finalist" if "-r" in identity else "sampled"
    return TrialRecord(identity, config, f"hash{width}", 1, 7 + width, origin, attempts=[one])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two trials at once from 5 s on, each in a new process, a third in one of theirs, a finalist, the end at 60 s."""
    trials = [
        trial("t0000", 8, attempt(5, [(12, 4, 1), (17, 4, 1)], 18)),
        trial("t0001", 16, attempt(5, [(14, 4, 1), (24, 8, 1)], 26)),
        trial("t0002", 32, attempt(19, [(24, 4, 0.5), (29, 4, 0.5)], 30)),
    ]
    finalist = trial("t0002-r0", 32, attempt(32, [(50, 6, 1), (50, 6, 1)], 50))
    events: list[dict[str, Any]] = [
        {"event": "search_finished", "time": BEGAN + 31},
        {"event": "test_opened", "time": BEGAN + 52, "scores": {"t0002-r0": {"test_r2": 0.25}}},
    ]
    (tmp_path / "spec.json").write_text(json.dumps({"spec": {"target": "protein"}}))
    return Run(StudyRecord("measured", tmp_path, events, trials, [finalist]), BEGAN, BEGAN + 60)


def changed(run: Run, number: int, **others: Any) -> Run:
    trials = list(run.record.trials)
    trials[number] = replace(trials[number], **others)
    return replace(run, record=replace(run.record, trials=trials))


def test_seconds_come_from_the_record(run: Run) -> None:
    found = figures_of(run)

    assert found == {
        "wall_seconds": 60,
        "opening_seconds": 5,
        "search_seconds": 26,
        "finalists_seconds": 21,
        "ending_seconds": 8,
        "epoch_seconds": 28,
        "evaluation_seconds": 5,
        "finalist_epoch_seconds": 12,
        "first_trial_start_seconds": 3,  # 2 and 4
        "trial_start_seconds": 0.5,
        "trial_end_seconds": 1,  # 1, 2, 1
        "driver_seconds": 17,  # to 5, from 30 to 32, from 50 to 60
        "best_valid_r2": 0.2,
        "test_r2": 0.25,
    }
    parts = ("opening", "search", "finalists", "ending")
    assert sum(found[f"{part}_seconds"] for part in parts) == found["wall_seconds"]


def test_ratios_are_of_the_medians_of_the_rounds(run: Run) -> None:
    slower = [replace(run, ended=BEGAN + seconds) for seconds in (150, 120, 90)]

    found = compared(slower, [run] * 3)

    assert (found["wall_seconds_before"], found["wall_seconds_after"]) == (120, 60)
    assert (found["study_ratio"], found["search_ratio"], found["training_ratio"]) == (2, 1, 1)
    assert (found["same_finalist"], found["rounds"], found["trials"], found["epochs"]) == (True, 3, 3, 2)


def test_one_epoch_on_a_busy_machine_moves_the_sum_and_not_the_median(run: Run) -> None:
    disturbed = changed(run, 0, attempts=[attempt(5, [(40, 32, 1), (45, 4, 1)], 46)])

    found = compared([run], [disturbed])

    assert (found["training_ratio"], found["epoch_ratio"]) == (0.5, 1)


def test_another_finalist_is_told(run: Run) -> None:
    (finalist,) = run.record.finalists
    other = replace(run.record, finalists=[replace(finalist, config_hash="hash8")])

    assert compared([run], [replace(run, record=other)])["same_finalist"] is False


@pytest.mark.parametrize(
    ("others", "named"),
    [
        ({"config": {"latent_dim": 64, "batch_size": 32}}, "trial 2: latent_dim 16 before, 64 after"),
        ({"config": {"latent_dim": 16}}, "trial 2: batch_size 32 before, None after"),
        ({"seed": 1}, "trial 2: seed 23 before, 1 after"),
        ({"attempts": [attempt(5, [(14, 4, 1)], 26)]}, "trial 2: 2 epochs before, 1 after"),
    ],
)
def test_trials_that_differ_are_refused_by_name(run: Run, others: dict[str, Any], named: str) -> None:
    other = changed(run, 1, **others)

    assert differences(run.record, run.record) == []
    assert differences(run.record, other.record) == [named]
    with pytest.raises(Incomparable, match=named):
        compared([run], [other])


def test_the_order_counts_and_so_does_every_round(run: Run) -> None:
    first, second, _ = run.record.trials
    swapped = changed(changed(run, 0, config=second.config), 1, config=first.config)

    named = "trial 1: latent_dim 8 before, 16 after"
    with pytest.raises(Incomparable, match=named):
        compared([run, run], [run, swapped])
    with pytest.raises(Incomparable, match="latent_dim"):
        compared([run, swapped], [run, run])


def test_a_trial_too_few_or_that_did_not_end_well_is_refused(run: Run) -> None:
    fewer = replace(run.record, trials=run.record.trials[:2])
    lost = Attempt(1, BEGAN, [], TrialState.INTERRUPTED, "worker lost", ended=BEGAN + 5)
    _, second, third = run.record.trials
    again = changed(run, 1, attempts=[lost, *second.attempts])
    failed = changed(run, 2, attempts=[replace(third.attempts[0], state=TrialState.FAILED, reason="nan")])

    assert differences(run.record, fewer) == ["3 trials before, 2 after"]
    assert "t0001 took 2 attempts before" in differences(again.record, run.record)
    with pytest.raises(Incomparable, match=r"t0002 is failed after \(nan\)"):
        check_same(run.record, failed.record)


def test_the_study_is_yeasts_with_nothing_left_to_chance() -> None:
    document = yaml.safe_load((ROOT / DEFAULT_STUDY).read_text())
    whole = load_spec(ROOT / DEFAULT_STUDY)

    spec = parse_spec(fixed(document, trials=5, epochs=2, precision="fp32"))

    assert (spec.sampler, spec.pruner, spec.budget.trials, spec.finalists) == ("random", "none", 5, 1)
    assert (spec.training.epochs, spec.training.precision) == (2, "fp32")
    assert whole.seeded_width is not None
    assert (spec.seeded_width, spec.training_sizes) == (None, ())
    assert spec.search.keys() == whole.search.keys()
    assert spec.networks == whole.networks
    assert (spec.data, spec.split, spec.baselines) == (whole.data, whole.split, whole.baselines)
    assert parse_spec(fixed(document, 5, 2, None)).training.precision == "auto"


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="root of a checkout"):
        check_import(tmp_path, tmp_path)


def test_a_child_that_imports_another_raystudy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    (other / "raystudy").mkdir(parents=True)
    (other / "raystudy" / "__init__.py").touch()

    check_import(other, tmp_path)  # which wins over this checkout, from which the test runs

    monkeypatch.setattr("benchmarks.study.environment", lambda checkout, home: environment(ROOT, home))
    with pytest.raises(typer.BadParameter, match="another installation wins"):
        check_import(other, tmp_path)


@pytest.mark.slow
@pytest.mark.ray
def test_a_checkout_is_compared_with_itself(tmp_path: Path) -> None:
    data = write_genes(synthetic.build(seed=3, num_genes=300, num_chromosomes=10), tmp_path / "synthetic")
    study = {
        "name": "tiny",
        "data": {"source": "synthetic", "window_bp": WINDOW, "max_protein": 200},
        "model": {"num_latents": 8, "queries_dim": 16},
        "search": {"latent_dim": {"kind": "pow2", "low": 8, "high": 64, "seed_from": "intrinsic_dimension"}},
        "training": {"batch_size": 32, "attention": "sdpa"},
        "baselines": ["ridge"],
        "budget": {"trials": 50, "minutes": 1},
    }
    path, kept = tmp_path / "tiny.yaml", tmp_path / "kept"
    path.write_text(yaml.safe_dump(study))
    app = typer.Typer()
    app.command()(main)
    options = {"--before": ROOT, "--study": path, "--data": data, "--trials": 3, "--epochs": 1, "--keep": kept}
    words = [str(word) for pair in options.items() for word in pair]
    done = CliRunner().invoke(app, [*words, "--json"])

    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["trials"], found["epochs"], found["same_finalist"]) == (3, 1, True)
    assert found["best_valid_r2_before"] == found["best_valid_r2_after"]
    assert 0.3 < found["study_ratio"] < 3
    assert found["study_ratio"] == pytest.approx(found["wall_seconds_before"] / found["wall_seconds_after"])
    assert 0 < found["trial_start_seconds_after"] < found["first_trial_start_seconds_after"]
    assert (kept / "after-0" / "measured" / "report.html").exists()
