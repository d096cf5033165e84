"""Who is killed, how the benchmark's runs are summed up; real kills are in tests/execution/test_chaos.py."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import chaos, victims
from raystudy.tracking.records import StudyRecord


def test_only_processes_below_the_root_are_victims_and_a_whole_session_ends() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)', 'victim'])"
    ours = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "victim"], start_new_session=True)
    try:
        while not (found := victims.below(ours.pid, ("time.sleep(60) victim",))):
            assert ours.poll() is None
        assert len(found) == 1
        assert other.pid not in found
        victims.end_session(ours.pid)
        assert ours.wait(10) == -signal.SIGKILL
        assert victims.below(ours.pid, ("victim",)) == []
        assert other.poll() is None
    finally:
        other.kill()
        ours.kill()
    other.wait()
    assert not victims.kill(other.pid)


def command(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(chaos.main)
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Runs that take no time; run 1 loses something. Seeds that were run."""
    ran: list[int] = []

    def once(folder: Path, seed: int, num_kills: int, unkilled: dict[str, StudyRecord]) -> chaos.Outcome:
        ran.append(seed)
        kills = [chaos.Kill("driver", number, 1.0, "trials") for number in range(num_kills)]
        return chaos.Outcome(seed, "none", False, kills, ["t0003 is lost"] * (seed == 1), num_kills + 1, 10, 12, 2.0)

    monkeypatch.setattr(chaos, "once", once)
    monkeypatch.setattr(chaos, "without_kills", lambda folder: {})
    monkeypatch.setattr(chaos, "prepare_data", lambda folder: folder)
    return ran


@pytest.mark.usefixtures("simulated")
def test_a_benchmark_without_losses_passes_and_its_figures_are_numbers() -> None:
    found = command("--runs", "1", "--kills", "3", "--json")

    assert found.exit_code == 0, found.output
    measured = json.loads(found.stdout)
    assert (measured["runs"], measured["kills"], measured["kills_of_driver"], measured["losses"]) == (1, 3, 3, 0)
    assert all(isinstance(value, int | float) for value in measured.values())


def test_a_loss_fails_the_benchmark_and_what_was_run_is_not_run_again(simulated: list[int], tmp_path: Path) -> None:
    out = tmp_path / "chaos.jsonl"
    found = command("--runs", "2", "--kills", "3", "--out", str(out))
    assert found.exit_code == 1
    assert "t0003 is lost" in found.stderr

    again = command("--runs", "3", "--kills", "3", "--json", "--out", str(out))

    assert again.exit_code == 1
    assert json.loads(again.stdout)["runs"] == 3
    assert sorted(simulated) == [0, 1, 2]
    assert [json.loads(line)["seed"] for line in out.read_text().splitlines()] == [0, 1, 2]
    assert {"kills", "losses", "pruner", "seconds"} <= set(json.loads(out.read_text().splitlines()[0]))


def test_runs_take_turns_through_every_variant() -> None:
    variants = {chaos.VARIANTS[seed % len(chaos.VARIANTS)] for seed in range(20)}

    assert variants == {(pruner, shared) for pruner in ("none", "successive_halving") for shared in (False, True)}
    assert np.isclose(sum(chaos.KINDS.values()), 1)
