"""Which MLflow store a study's runs and models are in, and how it is opened without waiting or talking."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from raystudy.study.urls import redacted, without_password

_DATABASES = ("postgresql", "mysql", "mssql")


def store_uri(uri: str | None, studies: Path) -> str:
    """The one given, else MLFLOW_TRACKING_URI, else the SQLite file beside the studies."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or local_uri(studies)


def local_uri(studies: Path) -> str:
    """The SQLite store beside the studies."""
    return f"sqlite:///{studies.resolve() / 'mlflow.db'}"


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://", "databricks"))


def first_line(error: Exception, uri: str) -> str:
    """What an error says, without the password of the store, in one line of at most 300 characters."""
    return (redacted(str(error), uri).strip().splitlines() or [""])[0][:300]


def failure_message(uri: str, name: str, error: Exception) -> str:
    return (
        f"MLflow at {without_password(uri)} does not take the runs of study {name} ({type(error).__name__}: "
        f"{first_line(error, uri)}). The study goes on and loses nothing, its own records are complete. Check "
        "`tracking.uri` or MLFLOW_TRACKING_URI; the copy is tried again now and then, and the same command run again "
        "makes it whole."
    )


def open_client(uri: str) -> Any:
    """MLflow's client of the store, quiet and impatient. Raises whatever a store that is not there raises."""
    # MLflow reads these while it is imported. Its own patience is minutes, in which the driver would stand still,
    # and with a server it prints the address of each run, which would spoil `--json`.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if uri.startswith(_DATABASES):
        _probe(uri)
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def _probe(uri: str) -> None:
    """Raise at once where a database does not answer: MLflow would go on trying, and complaining, for minutes."""
    os.environ.setdefault("PGCONNECT_TIMEOUT", "10")  # seconds, and of MLflow's own connections as well
    # What is logged twice the database refuses, as MLflow expects; psycopg would tell of each time.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    engine = create_engine(uri, poolclass=NullPool)
    with engine.connect():
        pass
