"""Runs a scenario under one of the two systems; drivers are processes of their own, so that they can be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from benchmarks.bare_tune import our_sessions, tune_sessions
from benchmarks.bare_tune.judging import Finding, judge
from benchmarks.bare_tune.scenarios import Scenario
from benchmarks.bare_tune.script import ENDED, Run
from benchmarks.bare_tune.traces import Traces

SYSTEMS = {"bare_tune": "bare Ray Tune + OptunaSearch", "raystudy": "raystudy"}
PATIENCE_SECONDS = 300


def measure(scenario: Scenario, system: str) -> Finding:
    """Run a scenario's sessions under one of `SYSTEMS`, and judge what they left behind."""
    with tempfile.TemporaryDirectory() as folder:
        for given in scenario.sessions:
            run = replace(given, folder=Path(folder))
            if system == "bare_tune":
                _in_process(run, tune_sessions.session, run, ray.get_runtime_context().gcs_address)
            elif run.end_driver is not None:
                _in_process(run, our_sessions.session, run)
            else:
                our_sessions.session(run)
        return judge(scenario.truth, scenario.ask(Traces.read(Path(folder), scenario.sessions[0].epochs)))


def _in_process(run: Run, session: Callable[..., None], *args: Any) -> None:
    driver = multiprocessing.get_context("spawn").Process(target=_drive, args=(run.folder, session, *args))
    driver.start()
    driver.join(PATIENCE_SECONDS)
    if driver.is_alive():
        driver.kill()
        driver.join()
    if driver.exitcode and (run.folder / "error").exists():
        return
    expected = -signal.SIGKILL if run.end_driver and run.end_driver[1] == signal.SIGKILL else 0
    if driver.exitcode != expected:
        log = (run.folder / "driver.log").read_text()[-2000:]
        raise RuntimeError(f"the driver was to leave with {expected} but left with {driver.exitcode}: {log}")


def _drive(folder: Path, session: Callable[..., None], *args: Any) -> None:
    with (folder / "driver.log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        session(*args)
    except Exception as error:
        if (folder / ENDED).exists():  # what a killed driver left behind cannot be taken up again: a finding
            (folder / "error").write_text(f"{type(error).__name__}: {error}".strip().splitlines()[-1])
        raise
