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


@contextmanager
def ray_cluster() -> Iterator[dict[str, float]]:
    """Connect to ``RAY_ADDRESS`` where it is set, else start a local Ray; yields what it has (CPU, GPU, ...)."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    import ray

    already_connected = ray.is_initialized()
    if not already_connected:
        _connect()
    try:
        yield ray.cluster_resources()
    finally:
        if not already_connected:
            ray.shutdown()


def _connect() -> None:
    import ray

    address = os.environ.get("RAY_ADDRESS")
    if address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # even on loopback: other users of the machine reach it too
    try:
        ray.init(
            runtime_env={"env_vars": WORKER_ENVIRONMENT},
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(_local_options() if address is None else {}),
        )
    except ConnectionError as error:
        raise RaystudyError(
            f"no Ray answers at RAY_ADDRESS={address} ({str(error).splitlines()[0]}); start that cluster, correct the "
            "address, or unset RAY_ADDRESS to run on this machine alone"
        ) from None


def _local_options() -> dict[str, object]:
    """The dashboard stays on: Train frees the placement group of a stopped trial through it."""
    return {
        "include_dashboard": True,
        "dashboard_host": "127.0.0.1",
        "_node_ip_address": "127.0.0.1",
        "object_store_memory": OBJECT_STORE_BYTES,
    }
