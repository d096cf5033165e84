"""A head of Ray behind a token, as the README starts it, machines that join it, and studies on them."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 240
OUR_PYTHON = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
RAY = shutil.which("ray", path=OUR_PYTHON) or "ray"
SMALL = ("--object-store-memory=100000000", "--disable-usage-stats")


class Head(NamedTuple):
    url: str
    address: str
    environment: dict[str, str]
    """Of a client that has the token."""
    home: Path


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def running_head(cpus: int = 2, joined: bool = False) -> Iterator[Head]:
    """The README's own commands, with other ports and a short folder: sockets have no room for a long one.

    On loopback alone, or at all of this machine's addresses where other nodes are to be ``joined`` to it.
    """
    folder = Path(tempfile.mkdtemp(prefix="rj", dir="/tmp"))
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    gcs, dashboard, agent, client = free_ports(4)
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RAYSTUDY_"))}
    environment = ours | {
        "PATH": OUR_PYTHON,
        "HOME": str(folder),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
    }
    if not joined:
        environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    head = Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", environment, folder)
    ports = f"--port={gcs} --dashboard-port={dashboard} --dashboard-agent-listen-port={agent}"
    options = f"--head --node-ip-address=127.0.0.1 --dashboard-host=127.0.0.1 {ports} --ray-client-server-port={client}"
    try:
        with running_node(head, cpus, *options.split(), f"--temp-dir={folder}/r"):
            yield head
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_node(head: Head, cpus: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A machine of the cluster: the head itself by its ``options``, else one that joins it."""
    command = [RAY, "start", "--block", f"--num-cpus={cpus}", *SMALL, *(options or ("--address", head.address))]
    log = head.home / f"node-{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        environment = head.environment | {"RAY_JOB_STOP_WAIT_TIME_S": "60"}
        node = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.time() + PATIENCE_SECONDS
        while "Ray runtime started" not in log.read_text():
            assert node.poll() is None, log.read_text()
            assert time.time() < deadline, log.read_text()
            time.sleep(0.2)
        yield node
    finally:
        if node.poll() is None:
            os.killpg(node.pid, signal.SIGKILL)  # it takes its time over an end in good order
            node.wait()


def job(head: Head, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """``ray job`` with the head's address, from the project's root."""
    verb, *rest = arguments
    command = [RAY, "job", verb, "--address", head.url, *rest]
    return subprocess.run(
        command,
        env=environment or head.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_SECONDS,
    )


@contextmanager
def tuning(head: Head, study_file: Path, studies: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``raystudy tune`` on a machine of the cluster, ended with the block."""
    environment = head.environment | {"RAY_ADDRESS": head.address, "RAYSTUDY_HOME": str(studies)}
    with log.open("ab") as output:
        command = [sys.executable, "-m", "raystudy.tune", str(study_file)]
        driver = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield driver
    finally:
        driver.kill()
        driver.wait()
