"""A Ray to run on: the cluster this process belongs to, or one of its own on the loopback interface."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from raystudy.errors import RaystudyError

OBJECT_STORE_BYTES = 256 * 2**20  # genes are memory-mapped by the workers; nothing large goes through Ray
WORKER_ENVIRONMENT = {
    # Large activations are freed and taken again in every step; without this glibc gives them back to the kernel
    # each time and half the elementwise work is page faults.
    "MALLOC_ARENA_MAX": "1",  # each trial runs in a new thread, whose arena would keep the peak of the last one
    "MALLOC_TOP_PAD_": str(256 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(2**31),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}
DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # reports wait for a poll: 1 s of it each epoch by default
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: it must exit 130 and say how to go on
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


LOCAL_DEFAULTS = {
    # By its name for other systems, but here too it makes Ray live on 127.0.0.1 and listen nowhere else; asked for
    # `_node_ip_address="127.0.0.1"`, Ray 2.60 takes the machine's outward address instead.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


@contextmanager
def ray_cluster() -> Iterator[dict[str, float]]:
    """Connect to ``RAY_ADDRESS`` where it is set, else start a local Ray; yields what it has (CPU, GPU, ...)."""
    address = remote_address()
    for name, value in (DEFAULTS | ({} if address else LOCAL_DEFAULTS)).items():
        os.environ.setdefault(name, value)  # Ray reads them while it is imported
    import ray

    already_connected = ray.is_initialized()
    if not already_connected:
        _connect(address)
    try:
        yield ray.cluster_resources()
    finally:
        if not already_connected:
            ray.shutdown()


def remote_address() -> str | None:
    """The cluster that RAY_ADDRESS names; None where a study is to start a Ray of its own."""
    address = os.environ.get("RAY_ADDRESS", "")
    return None if address in ("", "local") else address


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
