"""Prints a Markdown table, or with ``--json`` one object: scenario -> system -> verdict and the facts."""

from __future__ import annotations

import json
import time
from importlib.metadata import version
from typing import Annotated

import optuna
import ray
import typer
from rich.console import Console
from rich.progress import track

from benchmarks.bare_tune.judging import Finding
from benchmarks.bare_tune.running import SYSTEMS, measure
from benchmarks.bare_tune.scenarios import SCENARIOS
from benchmarks.bare_tune.script import SLOTS
from raystudy.tracking.provenance import provenance

Findings = dict[str, dict[str, Finding]]
"""By scenario and system."""


def markdown(findings: Findings) -> str:
    """A row a scenario, a column a system, and the sums below."""
    lines = [f"| scenario | {' | '.join(SYSTEMS.values())} |", "|---" * (1 + len(SYSTEMS)) + "|"]
    for name, by_system in findings.items():
        lines.append(f"| {SCENARIOS[name].title} | {' | '.join(str(by_system[system]) for system in SYSTEMS)} |")
    sums = []
    for system in SYSTEMS:
        found = [by_system[system] for by_system in findings.values()]
        right, asked = sum(one.num_right for one in found), sum(len(one.facts) for one in found)
        wholly = sum(one.verdict == "right" for one in found)
        sums.append(f"{right} of {asked} answers right, {wholly} of {len(found)} scenarios wholly so")
    return "\n".join([*lines, f"| **sum** | {' | '.join(sums)} |"])


def conditions(seconds: float) -> str:
    """Versions, machine and time taken."""
    here = provenance()
    gpus = ", ".join(here["gpus"]) or "no GPU"
    return (
        f"Ray {version('ray')}, Optuna {version('optuna')}, SQLAlchemy {version('sqlalchemy')}, Python "
        f"{here['python']}; {here['num_cores']} cores of {here['processor']}, {here['memory_gib']} GiB, {gpus}; "
        f"{seconds / 60:.1f} minutes."
    )


def main(
    scenario: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(SCENARIOS)}; all by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON document on stdout.")] = False,
) -> None:
    """Run each scenario under bare Ray Tune and under raystudy, and say which of them gets it right."""
    names = scenario or list(SCENARIOS)
    if unknown := sorted(set(names) - set(SCENARIOS)):
        raise typer.BadParameter(f"{', '.join(unknown)}: known are {', '.join(SCENARIOS)}", param_hint="--scenario")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    began = time.monotonic()
    ray.init("local", num_cpus=SLOTS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    findings: Findings = {}
    for name in track(names, description="Scenarios", console=Console(stderr=True), transient=True):
        findings[name] = {system: measure(SCENARIOS[name], system) for system in SYSTEMS}
    ray.shutdown()
    if as_json:
        answer = {
            name: {system: finding.as_json() for system, finding in by_system.items()}
            for name, by_system in findings.items()
        }
        typer.echo(json.dumps(answer))
    else:
        typer.echo(f"{markdown(findings)}\n\n{conditions(time.monotonic() - began)}")


if __name__ == "__main__":
    typer.run(main)
