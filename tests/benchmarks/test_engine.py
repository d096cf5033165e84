"""What the engine's benchmark counts, a small run of it, and what fails it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import engine
from benchmarks.engine import COUNTED, Stopwatch, measure
from raystudy.tracking.records import Records


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(engine.time, "perf_counter", made.perf_counter)
    return made


def test_a_call_counts_without_what_the_counted_calls_in_it_take(clock: Clock) -> None:
    watch = Stopwatch()
    store = watch.taking("storage", lambda: clock.work(2))
    prune = watch.taking("pruner", lambda: (clock.work(1), store(), clock.work(3), store()))

    prune()
    store()
    clock.work(50)  # not counted: in no call

    assert watch.seconds == {"pruner": 4, "storage": 6}


def test_the_same_purpose_within_itself_is_counted_once(clock: Clock) -> None:
    watch = Stopwatch()
    inner = watch.taking("records", lambda: clock.work(2))
    watch.taking("records", lambda: (clock.work(1), inner()))()

    assert watch.seconds == {"records": 3}


def test_three_deep_each_has_its_own(clock: Clock) -> None:
    watch = Stopwatch()
    deepest = watch.taking("c", lambda: clock.work(4))
    middle = watch.taking("b", lambda: (clock.work(2), deepest()))
    watch.taking("a", lambda: (clock.work(1), middle(), deepest()))()

    assert watch.seconds == {"a": 1, "b": 2, "c": 8}


def test_a_call_that_raises_is_counted_and_leaves_the_watch_in_order(clock: Clock) -> None:
    watch = Stopwatch()

    def fail() -> None:
        clock.work(5)
        raise KeyError("on purpose")

    def survive() -> str:
        clock.work(1)
        with pytest.raises(KeyError):
            watch.taking("inner", fail)()
        return "answer"

    assert watch.taking("outer", survive)() == "answer"
    assert watch.seconds == {"outer": 1, "inner": 5}


def test_arguments_pass_through_and_everything_is_put_back_whatever_happens() -> None:
    before = [getattr(where, name) for calls in COUNTED.values() for where, name in calls]
    watch = Stopwatch()

    def run() -> None:
        with watch.running():
            during = [getattr(where, name) for calls in COUNTED.values() for where, name in calls]
            assert all(one is not other for one, other in zip(before, during, strict=True))
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        run()

    assert [getattr(where, name) for calls in COUNTED.values() for where, name in calls] == before
    assert watch.taking("sum", lambda one, *, other: one + other)(1, other=2) == 3


def test_a_study_in_memory_is_measured() -> None:
    found, watch = measure(num_trials=12, gpus=8, folder=None)

    assert found["trials"] == 12
    assert watch.seconds["sampler"] > 0
    assert watch.seconds["storage"] == 0, "Optuna's database is not touched"
    check(found, watch)


def test_a_study_on_disk_is_measured_and_is_there(tmp_path: Path) -> None:
    found, watch = measure(num_trials=12, gpus=8, folder=tmp_path)

    assert found["trials"] == 12
    assert all(watch.seconds[purpose] > 0 for purpose in COUNTED)
    check(found, watch)
    (study,) = optuna.get_all_study_summaries(f"sqlite:///{tmp_path / 'optuna.db'}")
    record = Records(tmp_path).read()
    assert study.n_trials >= len(record.trials) == found["unique_configurations"]
    last = max(attempt.ended for trial in record.trials for attempt in trial.attempts)
    assert last <= 3600 * found["simulated_hours"] < 24 * 3600, "the records go by the simulation's clock"


def check(found: dict[str, Any], watch: Stopwatch) -> None:
    assert sum(watch.seconds.values()) < found["seconds"], "each second is counted once"
    assert found["epochs_on_record_twice"] == 0
    assert 0 < found["utilisation_whole"] <= found["utilisation"] <= 1
    assert math.isfinite(found["megabytes_first_half"])
    assert math.isfinite(found["megabytes_second_half"])


def command(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(engine.main)
    return CliRunner().invoke(app, arguments)


def measured(seconds_per_trial: float = 0.05, utilisation: float = 0.97) -> Callable[..., Any]:
    """Measures nothing: what was found is given."""

    def measure(num_trials: int, gpus: int, folder: Path | None) -> tuple[dict[str, Any], Stopwatch]:
        watch = Stopwatch()
        watch.seconds["sampler"] = 0.5 * seconds_per_trial * num_trials
        found = {
            "trials": num_trials,
            "driver_seconds_per_trial": seconds_per_trial if folder else 0.001,
            "utilisation": utilisation,
            "utilisation_whole": utilisation / 2,
            "megabytes_first_half": 1.0,
            "megabytes_second_half": 2.0,
            "attempts": num_trials + 3,
            "lost_attempts": {"preempted": 2, "driver lost": 1},
            "epochs_on_record_twice": 0,
            "seconds": seconds_per_trial * num_trials,
        }
        return found, watch

    return measure


def test_the_figures_are_finite_and_the_parts_of_a_trial_add_up_to_it(tmp_path: Path) -> None:
    ran = command("--trials", "12", "--gpus", "4", "--json", "--folder", str(tmp_path))

    assert ran.exit_code in (0, 1), ran.output  # on a busy machine a trial may cost more than is allowed
    figures = json.loads(ran.stdout)
    assert all(math.isfinite(value) for value in figures.values())
    for where in ("memory", "disk"):
        parts = [figures[f"{where}_{purpose.replace(' ', '_')}_ms"] for purpose in (*COUNTED, "other")]
        assert min(parts) >= 0
        assert sum(parts) == pytest.approx(figures[f"{where}_ms_per_trial"])
        assert figures[f"{where}_ms_per_trial"] == pytest.approx(1000 * figures[f"{where}_seconds"] / 12)
        assert figures[f"{where}_epochs_on_record_twice"] == 0
    assert list(tmp_path.iterdir()) == [], "the study on disk was a temporary one"


@pytest.mark.parametrize(
    ("found", "exit_code"),
    [({}, 0), ({"seconds_per_trial": 0.11}, 1), ({"utilisation": 0.94}, 1), ({"utilisation": 0.95}, 0)],
)
def test_a_dear_trial_or_idle_gpus_fail_the_benchmark(
    found: dict[str, float], exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "measure", measured(**found))

    assert command("--json").exit_code == exit_code


def test_the_limits_are_those_of_the_module_and_the_table_says_what_was_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "measure", measured())
    monkeypatch.setattr(engine, "LARGEST_SECONDS_PER_TRIAL", 0.049)
    ran = command("--trials", "10")

    assert ran.exit_code == 1
    assert "ms per trial" in ran.stdout
    assert "50.0" in ran.stdout
