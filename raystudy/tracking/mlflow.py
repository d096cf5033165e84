"""The mirror of a study in MLflow, for comparing runs side by side; the records are the truth.

A study is an experiment with one parent run, a child for each trial, and under a trial a grandchild for each
finalist replicate. Whatever is logged carries the time that the record gives it, and a tracking store drops
a value that it already holds under the same time and step: so logging again changes nothing, after a resume too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from raystudy.errors import SpecError
from raystudy.study.urls import has_password, redacted
from raystudy.study.urls import without_password as without_password  # for who tells where the runs are
from raystudy.tracking.predictions import predictions_path
from raystudy.tracking.records import JsonObject, Records, StudyRecord, TrialRecord, TrialState

log = logging.getLogger(__name__)

EPOCH_METRICS = (
    "train_loss",
    "valid_r2",
    "valid_pearson_r2",
    "epoch_seconds",
    "eval_seconds",
    "samples_per_second",
)
TEST_METRICS = ("test_r2", "test_pearson_r2", "test_spearman", "selection_bias_pearson_r2")
STATUS = {
    TrialState.RUNNING: "RUNNING",
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "FINISHED",
    TrialState.FAILED: "FAILED",
    TrialState.INFEASIBLE: "FAILED",
}
STUDY_RUN = "study"
RETRY_SECONDS = 60.0
_DATABASES = ("postgresql", "mysql", "mssql")
METRICS_A_BATCH = 1000


class Metric(NamedTuple):
    """One value to log; ``time`` in seconds since the epoch of the clock, as in the records."""

    key: str
    value: float | None
    time: float
    step: int = 0


class MlflowMirror:
    """Copies one study's records to MLflow; a tracking failure is told once and never raised.

    uri: a tracking server or database; None takes MLFLOW_TRACKING_URI, else SQLite beside the studies.
    """

    def __init__(self, uri: str | None, records: Records) -> None:
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or local_uri(records.folder.parent)
        self._records = records
        self._client: Any = None
        self._warned = False
        self._retry_at = 0.0

    def sync(self, record: StudyRecord) -> None:
        """Copy everything that is missing, the files of the finalists too. Safe to repeat at any time."""
        with self._tolerant():
            if not self._connect(record):
                return
            self._sync_study(record)
            for trial in [*record.trials, *record.finalists]:
                self._sync_trial(trial)
            for replicate in record.finalists:
                self._sync_finalist(record, replicate)

    def sync_trial(self, trial: TrialRecord) -> None:
        """Copy what is new about one trial or replicate; after a failure nothing is tried for a minute."""
        if time.monotonic() < self._retry_at:
            return
        with self._tolerant():
            if self._client is not None or self._connect(self._records.read()):
                self._sync_trial(trial)

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a store or a network may raise
            self._client = None
            self._retry_at = time.monotonic() + RETRY_SECONDS
            if not self._warned:
                self._warned = True
                log.warning(_failure_message(self.uri, self._records.folder.name, error))

    def _connect(self, record: StudyRecord) -> bool:
        """Find or make the study's runs; False where the study has not begun."""
        session = next(iter(record.every("session_started")), None)
        if session is None:
            return False
        record.folder.parent.mkdir(parents=True, exist_ok=True)
        self._client = _client(self.uri)
        self._experiment = self._find_experiment(record)
        # A study deleted and begun anew under its name must not write into the runs of the old one.
        self._study = f"{record.name}@{session['time']:.3f}"
        self._runs = self._find_runs()
        self._logged: dict[str, set[float]] = {}
        if STUDY_RUN not in self._runs:
            self._create_run(STUDY_RUN, session["time"], {"mlflow.runName": record.name})
        return True

    def _find_experiment(self, record: StudyRecord) -> str:
        found = self._client.get_experiment_by_name(record.name)
        if found is not None:
            return str(found.experiment_id)
        # Without a server, artifacts would land in whatever folder the command was called from.
        folder = record.folder.parent.resolve() / "mlartifacts" / record.name
        location = None if _is_server(self.uri) else folder.as_uri()
        return str(self._client.create_experiment(record.name, artifact_location=location))

    def _find_runs(self) -> dict[str, str]:
        """Run ids by trial id. The store is asked, not remembered: a resumed study finds what it made before."""
        runs: dict[str, str] = {}
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment], f"tags.`raystudy.study` = '{self._study}'", page_token=token
            )
            runs |= {run.data.tags["raystudy.trial_id"]: run.info.run_id for run in page}
            token = page.token
            if not token:
                return runs

    def _create_run(self, trial_id: str, started: float, tags: dict[str, str]) -> None:
        identity = {"raystudy.trial_id": trial_id, "raystudy.study": self._study}
        run = self._client.create_run(self._experiment, start_time=_milliseconds(started), tags=identity | tags)
        self._runs[trial_id] = run.info.run_id

    def _sync_study(self, record: StudyRecord) -> None:
        run_id = self._runs[STUDY_RUN]
        session = record.every("session_started")[-1]
        self._log(
            run_id,
            _study_metrics(record),
            params=flat({key: session.get(key) for key in ("spec_hash", "data", "split")}),
            tags=_study_tags(record.name, session) | _dimension_tags(record.last("dimension") or {}),
        )
        self._upload(run_id, [record.folder / "report.html", record.folder / "spec.json"])
        finished = record.last("study_finished")
        self._set_status(run_id, "FINISHED" if finished else "RUNNING", finished["time"] if finished else None)

    def _sync_trial(self, trial: TrialRecord) -> None:
        attempt = trial.attempts[-1]
        if trial.id not in self._runs:
            parent = self._runs.get(trial.id.rpartition("-r")[0], self._runs[STUDY_RUN])
            tags = {"mlflow.runName": trial.id, "mlflow.parentRunId": parent}
            self._create_run(trial.id, trial.attempts[0].started, tags)
        run_id = self._runs[trial.id]
        fresh = trial.id not in self._logged
        logged = self._logged.setdefault(trial.id, set())
        new = [epoch for epoch in trial.epochs if epoch["time"] not in logged]
        metrics = [Metric(key, epoch.get(key), epoch["time"], epoch["epoch"]) for epoch in new for key in EPOCH_METRICS]
        if attempt.ended is not None and trial.state is not TrialState.RUNNING:
            metrics += _summary_metrics(trial, attempt.ended)
        params = flat(trial.config) | {"seed": str(trial.seed)} if fresh else {}
        self._log(run_id, metrics, params, _trial_tags(trial))
        self._set_status(run_id, STATUS[trial.state], None if trial.state is TrialState.RUNNING else attempt.ended)
        logged |= {epoch["time"] for epoch in new}

    def _sync_finalist(self, record: StudyRecord, replicate: TrialRecord) -> None:
        run_id = self._runs[replicate.id]
        opened = next(iter(record.every("test_opened")), None)
        if opened is not None:
            scores = opened["scores"].get(replicate.id, {})
            self._log(run_id, [Metric(key, scores.get(key), opened["time"]) for key in TEST_METRICS])
        checkpoint = self._records.trial_folder(replicate.id) / "best.safetensors"
        page = record.folder / "report.html"
        self._upload(run_id, [predictions_path(record.folder, replicate.id), checkpoint, page])

    def _log(
        self,
        run_id: str,
        metrics: list[Metric],
        params: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Metric as Logged
        from mlflow.entities import Param, RunTag

        values = [
            Logged(key, value, _milliseconds(time), step) for key, value, time, step in metrics if value is not None
        ]
        self._client.log_batch(
            run_id,
            values[:METRICS_A_BATCH],
            [Param(key, value) for key, value in (params or {}).items()],
            [RunTag(key, value) for key, value in (tags or {}).items()],
        )
        for start in range(METRICS_A_BATCH, len(values), METRICS_A_BATCH):
            self._client.log_batch(run_id, values[start : start + METRICS_A_BATCH])

    def _set_status(self, run_id: str, status: str, ended: float | None) -> None:
        if ended is None:
            self._client.update_run(run_id, status=status)
        else:
            self._client.set_terminated(run_id, status=status, end_time=_milliseconds(ended))

    def _upload(self, run_id: str, files: list[Path]) -> None:
        """Store the files that exist, unless the run holds just these already."""
        present = [path for path in files if path.is_file()]
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in present]
        fingerprint = hashlib.sha256(repr(stats).encode()).hexdigest()[:12]
        if self._client.get_run(run_id).data.tags.get("raystudy.artifacts") == fingerprint:
            return
        for path in present:
            self._client.log_artifact(run_id, str(path))
        self._client.set_tag(run_id, "raystudy.artifacts", fingerprint)


def local_uri(studies: Path) -> str:
    """The SQLite store beside the studies."""
    return f"sqlite:///{studies.resolve() / 'mlflow.db'}"


def ui_command(studies: Path, port: int, uri: str | None = None) -> list[str]:
    """The command that serves the store on this machine only, without MLflow's background workers.

    A uri that is a tracking server raises SpecError: it has its own pages.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or local_uri(studies)
    if _is_server(uri):
        raise SpecError(
            f"`raystudy ui` serves a database, but tracking goes to {without_password(uri)}, which is a server "
            "with pages of its own: open that address in a browser."
        )
    if has_password(uri):
        raise SpecError(
            f"`raystudy ui` would show the password of {without_password(uri)} to everybody on this machine, in the "
            "list of processes; take it out of MLFLOW_TRACKING_URI: PostgreSQL's is read from PGPASSWORD or ~/.pgpass"
        )
    quiet = ["env", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "MLFLOW_DISABLE_TELEMETRY=true"]
    artifacts = str(studies.resolve() / "mlartifacts")
    store = ["--backend-store-uri", uri, "--artifacts-destination", artifacts]
    address = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [*quiet, sys.executable, "-m", "mlflow", "server", *store, *address]


def flat(nested: JsonObject, prefix: str = "") -> dict[str, str]:
    """Nested JSON as MLflow's flat text: ``{"a": {"b": 1}}`` -> ``{"a.b": "1"}``; nulls are left out."""
    texts: dict[str, str] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            texts |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            texts[f"{prefix}{key}"] = str(value)
    return texts


def _client(uri: str) -> Any:
    # MLflow reads these while it is imported. Its own patience is minutes, in which the driver would stand still,
    # and with a server it prints the address of each run, which would spoil `--json`.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    import mlflow

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if uri.startswith(_DATABASES):
        _probe(uri)
    return mlflow.MlflowClient(tracking_uri=uri)


def _probe(uri: str) -> None:
    """Raise at once where a database does not answer: MLflow would go on trying, and complaining, for minutes."""
    os.environ.setdefault("PGCONNECT_TIMEOUT", "10")  # seconds, and of MLflow's own connections as well
    # What is logged twice the database refuses, as MLflow expects; psycopg would tell of each time.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    engine = create_engine(uri, poolclass=NullPool)
    with engine.connect():
        pass


def _study_metrics(record: StudyRecord) -> list[Metric]:
    metrics = [Metric("num_trials", len(record.trials), trial.attempts[0].started) for trial in record.trials[-1:]]
    best = max(
        (trial for trial in record.trials if trial.best),
        key=lambda trial: trial.valid_r2 or 0.0,
        default=None,
    )
    if best is not None and best.best is not None:
        metrics.append(Metric("best_valid_r2", best.valid_r2, best.best["time"]))
    opened = next(iter(record.every("test_opened")), None)
    for line in record.baselines:
        metrics.append(Metric(f"{line['name']}_valid_r2", line["valid_r2"], line["time"]))
        if opened is not None:
            score = opened["scores"].get(line["name"], {}).get("test_r2")
            metrics.append(Metric(f"{line['name']}_test_r2", score, opened["time"]))
    finished = record.last("study_finished")
    if finished is not None:
        metrics.append(Metric("study_seconds", record.seconds, finished["time"]))
    return metrics


def _study_tags(name: str, session: JsonObject) -> dict[str, str]:
    provenance = session.get("provenance") or {}
    commit = (provenance.get("git") or {}).get("commit")
    source = {"mlflow.source.name": f"raystudy tune {name}", "mlflow.source.git.commit": commit}
    return flat(source | {"provenance": provenance})


def _dimension_tags(found: JsonObject) -> dict[str, str]:
    """What the search was seeded from; lists and estimates as JSON, so that a script can read them back."""
    seeded = found.get("seeded") or {}
    known = {key: found.get(key) for key in ("representation", "input", "consensus", "interval", "estimates")}
    known |= {"seeded_widths": seeded.get("widths"), "note": seeded.get("provenance", {}).get("note")}
    return {
        f"raystudy.dimension.{key}": value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        for key, value in known.items()
        if value is not None
    }


def _trial_tags(trial: TrialRecord) -> dict[str, str]:
    known = {
        "state": trial.state.value,
        "reason": trial.reason or "none",
        "origin": trial.origin,
        "arm": trial.arm,
        "config_hash": trial.config_hash,
        "global_batch": trial.global_batch,
        "attempts": len(trial.attempts),
        "detail": trial.detail or "none",
        "micro_batches": trial.micro_batches,
    }
    if trial.origin == "finalist":
        known |= {"fold": trial.fold, "replicate": trial.replicate}
    return flat({"raystudy": known})


def _summary_metrics(trial: TrialRecord, ended: float) -> list[Metric]:
    return [
        Metric("parameters", trial.parameters, ended),
        Metric("best_valid_r2", trial.valid_r2, ended),
        Metric("best_epoch", trial.best_epoch, ended),
        Metric("median_epoch_seconds", trial.epoch_seconds, ended),
    ]


def _failure_message(uri: str, name: str, error: Exception) -> str:
    shown = without_password(uri)
    reason = (redacted(str(error), uri).strip().splitlines() or [""])[0][:300]
    return (
        f"MLflow at {shown} does not take the runs of study {name} ({type(error).__name__}: {reason}). The "
        "study goes on and loses nothing, its own records are complete. Check `tracking.uri` or "
        "MLFLOW_TRACKING_URI; the copy is tried again now and then, and the same command run again makes it whole."
    )


def _is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://", "databricks"))


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
