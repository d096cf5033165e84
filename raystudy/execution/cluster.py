"""A Ray to run on: the cluster this process belongs to, or one of its own on the loopback interface."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from raystudy.errors import RaystudyError
from raystudy.execution import remote_address
from raystudy.execution.capacity import Node, nodes_of

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


def _connect(address: str | None) -> None:
    """A Ray started here also asks for a token, by its own default: other users of the machine could reach it."""
    import ray

    try:
        ray.init(
            address=address or "local",
            runtime_env={"env_vars": WORKER_ENVIRONMENT},
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else _local_options()),
        )
    except ConnectionError as error:
        raise RaystudyError(
            f"no Ray answers at RAY_ADDRESS={address} ({str(error).splitlines()[0]}); start that cluster, correct the "
            "address, or unset RAY_ADDRESS to run on this machine alone"
        ) from None


def _local_options() -> dict[str, object]:
    """The dashboard stays on: Train frees the placement group of a stopped trial through it."""
    return {"include_dashboard": True, "dashboard_host": "127.0.0.1", "object_store_memory": OBJECT_STORE_BYTES}
