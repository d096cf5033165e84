"""A Ray to run on: the cluster this process belongs to, or one of its own on the loopback interface."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import urlsplit

from raystudy.errors import RaystudyError
from raystudy.execution import remote_address
from raystudy.execution.capacity import Node, nodes_of

PROBE_SECONDS = 5
OBJECT_STORE_BYTES = 256 * 2**20  # genes are memory-mapped by the workers; nothing large goes through Ray
WORKER_ENVIRONMENT = {
    # Large activations are freed and taken again in every step; without this glibc gives them back to the kernel
    # each time and half the elementwise work is page faults.
    "MALLOC_ARENA_MAX": "1",  # each trial runs in a new thread, whose arena would keep the peak of the last one
    "MALLOC_TOP_PAD_": str(256 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(2**31),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}


@contextmanager
def ray_cluster() -> Iterator[tuple[Node, ...]]:
    """Connect to ``RAY_ADDRESS`` where it is set, else start a local Ray; yields its nodes."""
    import ray

    address = remote_address()
    already_connected = ray.is_initialized()
    if not already_connected:
        _connect(address)
    try:
        yield nodes_of(ray.nodes())
    finally:
        if not already_connected:
            ray.shutdown()


def check_address() -> None:
    """RaystudyError where RAY_ADDRESS names nothing that answers; Ray itself would be waiting for minutes.

    Answers within seconds and tells no more than that somebody listens there.
    """
    address = remote_address()
    if address is None or address == "auto":  # what is `auto` is found, or not, at once
        return
    if "://" in address:  # not repeated here: it may hold a password
        raise RaystudyError(
            "RAY_ADDRESS is a URL, where jobs are sent or a Ray client is served; `raystudy tune` joins a cluster from "
            "one of its own machines, by `host:port` (the head's port is 6379). Unset it and send the study as a job: "
            "ray job submit --address URL --working-dir . -- python -m raystudy.tune STUDY.yaml"
        )
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise RaystudyError(
            f"RAY_ADDRESS={address} is no address: it is `host:port` (the head's port is 6379), or `auto` on a machine "
            "of the cluster; correct it, or unset RAY_ADDRESS to run on this machine alone"
        )
    try:
        socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
    except OSError as error:
        raise RaystudyError(
            f"no Ray answers at RAY_ADDRESS={address} ({error.strerror or error}); start that cluster, correct the "
            "address, or unset RAY_ADDRESS to run on this machine alone"
        ) from None


def _connect(address: str | None) -> None:
    """A Ray started here also asks for a token, by its own default: other users of the machine could reach it."""
    import ray
    from ray.exceptions import AuthenticationError

    check_address()
    if address is None:
        _make_token()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    options, where = _options(address)
    try:
        ray.init(
            address=address or "local",
            runtime_env={"env_vars": WORKER_ENVIRONMENT | where},
            log_to_driver=False,
            logging_level=logging.ERROR,
            **options,
        )
    except (AuthenticationError, ConnectionError) as error:
        said = str(error).strip().splitlines()[0]
        if address is None:
            raise RaystudyError(
                f"Ray could not be started on this machine ({said}); its logs are in /tmp/ray/session_latest/logs"
            ) from None
        # With a wrong token, or with none, Ray gives up after 20 s with no word of it but in its own log.
        raise RaystudyError(
            f"the Ray at RAY_ADDRESS={address} does not let us in ({said}): most often "
            "the token is missing or another one. Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with the "
            "token that the cluster was started with; or correct RAY_ADDRESS, or unset it to run on this machine alone"
        ) from None
    except RuntimeError as error:
        if not str(error).startswith("Version mismatch"):
            raise
        raise RaystudyError(
            f"{' '.join(str(error).split())}. A study needs the same Ray and the same Python x.y on every machine: "
            "install constraints.txt there and here"
        ) from None
    finally:
        if callable(on_sigterm):  # Ray puts one in its place that ends the driver without a word
            signal.signal(signal.SIGTERM, on_sigterm)


def _make_token() -> None:
    """Ray would make one too, and leave it readable for everybody on the machine."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        with NamedTemporaryFile("w", dir=path.parent) as whole:  # which nobody else can read
            whole.write(secrets.token_hex(32))
            whole.flush()
            with suppress(FileExistsError):
                os.link(whole.name, path)


def _options(address: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """How to start or to join, and what workers must know to find this very Ray.

    Train asks Ray's dashboard whether a training's controller lives, and takes the training's workers away if not. Left
    to itself it asks the Ray that was last started on the machine: another one says no, one that is gone is waited for.
    """
    if address == "auto":  # the one last started it is
        return {}, {}
    if address:
        return {}, {"RAY_ADDRESS": address}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dashboard = {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": port}
    return dashboard | {"object_store_memory": OBJECT_STORE_BYTES}, {
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}"
    }
