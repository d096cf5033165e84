"""What tests of MLflow share: reading all of a store, and a real server of one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raystudy.tracking.mlflow import ui_command


def client(studies: Path, uri: str | None = None):
    import mlflow

    return mlflow.MlflowClient(uri or f"sqlite:///{studies / 'mlflow.db'}")


def everything(studies: Path, name: str = "fake", uri: str | None = None) -> dict:
    """All that the store holds about the study: parameters, tags, status and each metric's history, by run."""
    store = client(studies, uri)
    experiment = store.get_experiment_by_name(name).experiment_id
    return {
        run.data.tags["raystudy.trial_id"]: {
            "id": run.info.run_id,
            "status": run.info.status,
            "params": run.data.params,
            "tags": run.data.tags,
            "artifacts": sorted(one.path for one in store.list_artifacts(run.info.run_id)),
            "metrics": {
                key: [(one.step, one.timestamp, one.value) for one in store.get_metric_history(run.info.run_id, key)]
                for key in run.data.metrics
            },
        }
        for run in store.search_runs([experiment])
    }


@contextmanager
def mlflow_server(studies: Path, uri: str | None = None) -> Iterator[str]:
    """The address of a server of the store, as `raystudy ui` starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ui_command(studies, port, uri)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        answer(f"http://127.0.0.1:{port}/health", seconds=180)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def answer(url: str, seconds: float) -> bytes:
    """What the server says, as soon as it says anything."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + seconds
    while True:
        try:
            with opener.open(url, timeout=5) as said:
                return said.read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
