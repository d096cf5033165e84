"""Where a study's numbers came from, session by session, and the commands that make them again."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

from raystudy.report.compare import study_file
from raystudy.tracking.records import JsonObject, StudyRecord


def session_lines(record: StudyRecord) -> list[str]:
    """A line for each session where their code or machines differ, else one sentence; empty before the first one."""
    sessions = record.every("session_started")
    ran = [_ran(session.get("provenance") or {}) for session in sessions]
    if len(set(ran)) < 2:
        whole = "The only session" if len(ran) == 1 else f"Each of the {len(ran)} sessions"
        return [f"{whole} ran {one}." for one in ran[:1]]
    return [
        f"Session {number}, {datetime.fromtimestamp(session['time'], UTC):%Y-%m-%d %H:%M} UTC: {one}."
        for number, (session, one) in enumerate(zip(sessions, ran, strict=True), 1)
    ]


def commands(record: StudyRecord, called: str | None = None) -> str:
    """From a clone of raystudy to this report; what the record does not know is said beside the command.

    ``called`` is what to call the data's folder, by default as the study file does.
    """
    session = record.last("session_started") or {}
    data, made = session.get("data") or {}, session.get("provenance") or {}
    git = made.get("git") or {}
    lines = ["# in a clone of raystudy" + (f", with Python {made['python']}" if "python" in made else "")]
    if git.get("commit"):
        if git.get("dirty"):
            lines.append("# there were changes that were not committed: this may not be the code that ran")
        lines.append(f"git checkout {git['commit']}")
    lines.append("python -m pip install -c constraints.txt -e .")
    path = (study_file(record).get("data") or {}).get("path")
    folder = called or path or f"data/{data.get('source') or 'prepared'}"
    if data.get("hash"):
        lines.append(f"# the hash of {folder} must be {data['hash']}")
    if data.get("source") and not path:
        lines.append(f"raystudy prepare {shlex.quote(data['source'])} --out {shlex.quote(folder)}")
    file = f"{record.name}.yaml"
    return "\n".join([*lines, f"raystudy tune {file} --data {shlex.quote(folder)}", f"raystudy report {record.name}"])


def _ran(made: JsonObject) -> str:
    """Code and machine of a session in words; what was not recorded is left out."""
    git = made.get("git") or {}
    commit = f"commit {str(git['commit'])[:12]}" if git.get("commit") else "code of no known commit"
    gpus = made.get("gpus") or []
    machine = [
        f"{made['num_cores']} cores" if made.get("num_cores") else "",
        str(made.get("processor") or ""),
        f"{made['memory_gib']:.0f} GiB" if made.get("memory_gib") else "",
        ", ".join(f"{gpus.count(gpu)} x {gpu}" for gpu in dict.fromkeys(gpus)) or "no GPU",
    ]
    code = f"{commit} with changes" if git.get("dirty") else commit
    versions = made.get("packages") or {}
    packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "ray", "optuna") if versions.get(name))
    return f"{code} on {', '.join(filter(None, machine))}" + (f" ({packages})" if packages else "")
