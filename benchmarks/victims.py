"""The processes that a chaos run starts and may kill: drivers, each in a process session of its own, and a Ray."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NUM_CPUS = 2
RAY_SECONDS = 120.0
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # 127.0.0.1 as its address alone is not enough


def processes() -> dict[int, tuple[int, int, str]]:
    """Parent, session and command line of every process, by its pid."""
    command = ["ps", "-wweo", "pid=,ppid=,sess=,stat=,args="]  # unless told twice, it cuts lines at COLUMNS
    listing = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    rows = (line.split(None, 4) for line in listing.stdout.splitlines())
    return {int(row[0]): (int(row[1]), int(row[2]), row[4]) for row in rows if len(row) == 5 and row[3][0] != "Z"}


def below(root: int, titles: Sequence[str]) -> list[int]:
    """Pids of the processes that descend from ``root`` and have one of these in their command line."""
    known = processes()

    def descends(pid: int) -> bool:
        while pid in known and pid != root:
            pid = known[pid][0]
        return pid == root

    return [pid for pid, (_, _, args) in known.items() if any(one in args for one in titles) and descends(pid)]


def end_session(leader: int) -> None:
    """Kill what is left of a process session of ours: agents of a Ray whose driver was killed linger for a while."""
    for pid, (_, session, _) in processes().items():
        if session == leader:
            kill(pid)


def kill(pid: int) -> bool:
    """SIGKILL; False where that process has ended already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _free_ports(num: int) -> list[int]:
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(num)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


@dataclass
class Ray:
    """A Ray on the loopback interface that outlives the drivers of one run."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    started: list[int] = field(default_factory=list)

    def start(self, environment: dict[str, str]) -> dict[str, str]:
        """Start it anew; what a driver's environment needs to find it."""
        token = self.folder / "token"
        token.write_text(secrets.token_hex(32))
        own = environment | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)} | ON_LOOPBACK
        port, client_port = _free_ports(2)
        ports = {
            "port": port,
            "ray-client-server-port": client_port,
            "dashboard-port": 0,
            "dashboard-agent-listen-port": 0,
        }
        options = ports | {"node-ip-address": "127.0.0.1", "num-cpus": NUM_CPUS, "object-store-memory": 256 * 2**20}
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        command = [*ray, *(f"--{name}={value}" for name, value in options.items())]
        with (self.folder / "ray.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=own, stdout=log, stderr=log, start_new_session=True)  # noqa: S603
        self.started.append(self.process.pid)
        deadline = time.time() + RAY_SECONDS
        while not below(self.process.pid, ("raylet/raylet",)):
            if self.process.poll() is not None or time.time() > deadline:
                raise RuntimeError(f"Ray did not start, see {self.folder / 'ray.log'}")
            time.sleep(0.2)
        return own | {"RAY_ADDRESS": f"127.0.0.1:{port}"}

    def stop(self) -> None:
        for leader in self.started:
            end_session(leader)
        if self.process is not None:
            self.process.wait()


class Driver:
    """One session of the study: the command, and everything that it starts, in a process session of its own."""

    def __init__(self, study_file: Path, answer: Path, environment: dict[str, str], progress_before: int) -> None:
        self.started = time.time()
        self.answer, self.progress = answer, progress_before
        command = [sys.executable, "-m", "raystudy.tune", str(study_file), "--json"]
        with answer.open("wb") as out, answer.with_suffix(".err").open("wb") as err:
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=err, start_new_session=True)  # noqa: S603

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self.process.poll()

    @property
    def report(self) -> dict[str, Any] | None:
        documents = [line for line in self.answer.read_text().splitlines() if line.startswith("{")]
        return json.loads(documents[-1]) if documents else None
