"""The mirror of a study in MLflow, for comparing runs side by side; the records are the truth.

A study is an experiment with one parent run, a child for each trial, and under a trial a grandchild for each
finalist replicate. Whatever is logged carries the time that the record gives it, and a tracking store drops
a value that it already holds under the same time and step: so logging again changes nothing, after a resume too.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raystudy.errors import SpecError
from raystudy.study.urls import has_password
from raystudy.study.urls import without_password as without_password  # for who tells where the runs are
from raystudy.tracking import runs
from raystudy.tracking.predictions import predictions_path
from raystudy.tracking.records import JsonObject, Records, StudyRecord, TrialRecord, TrialState
from raystudy.tracking.registry import register
from raystudy.tracking.runs import Metric
from raystudy.tracking.store import failure_message, is_server, open_client, store_uri

log = logging.getLogger(__name__)

STUDY_RUN = "study"
RETRY_SECONDS = 60.0
METRICS_A_BATCH = 1000


class MlflowMirror:
    """Copies one study's records to MLflow; a tracking failure is told once and never raised.

    uri: a tracking server or database; None takes MLFLOW_TRACKING_URI, else SQLite beside the studies.
    """

    def __init__(self, uri: str | None, records: Records) -> None:
        self.uri = store_uri(uri, records.folder.parent)
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

    def register(self, export: Path, replicate_id: str, numbers: JsonObject) -> None:
        """Put an export, which that replicate's training made, into the registry under the study's name.

        The alias ``best`` then points to it, and ``numbers`` (valid_r2, test_r2, ...) are its tags. The same export
        again makes no second version.
        """
        with self._tolerant():
            record = self._records.read()
            if self._client is None and not self._connect(record):
                return
            trial_id = replicate_id.rpartition("-r")[0]
            for one in [*record.trials, *record.finalists]:
                if one.id in (trial_id, replicate_id):
                    self._sync_trial(one)
            register(self._client, record.name, self._runs[replicate_id], export, numbers)

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a store or a network may raise
            self._client = None
            self._retry_at = time.monotonic() + RETRY_SECONDS
            if not self._warned:
                self._warned = True
                log.warning(failure_message(self.uri, self._records.folder.name, error))

    def _connect(self, record: StudyRecord) -> bool:
        """Find or make the study's runs; False where the study has not begun."""
        session = next(iter(record.every("session_started")), None)
        if session is None:
            return False
        record.folder.parent.mkdir(parents=True, exist_ok=True)
        self._client = open_client(self.uri)
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
        location = None if is_server(self.uri) else folder.as_uri()
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
            runs.study_metrics(record),
            runs.study_params(session),
            runs.study_tags(record.name, session) | runs.dimension_tags(record.last("dimension") or {}),
        )
        self._upload(run_id, [record.folder / name for name in ("report.html", "report.md", "spec.json")])
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
        metrics = [metric for epoch in new for metric in runs.epoch_metrics(epoch)] + runs.end_metrics(trial)
        params: dict[str, str] = {}
        if fresh:
            metrics, params = runs.start_metrics(trial) + metrics, runs.trial_params(trial)
        self._log(run_id, metrics, params, runs.trial_tags(trial))
        self._set_status(run_id, runs.STATUS[trial.state], None if trial.state is TrialState.RUNNING else attempt.ended)
        logged |= {epoch["time"] for epoch in new}

    def _sync_finalist(self, record: StudyRecord, replicate: TrialRecord) -> None:
        run_id = self._runs[replicate.id]
        if scores := runs.opened_metrics(record, replicate.id):
            self._log(run_id, scores)
        checkpoint = self._records.trial_folder(replicate.id) / "best.safetensors"
        self._upload(run_id, [predictions_path(record.folder, replicate.id), checkpoint])

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


def ui_command(studies: Path, port: int, uri: str | None = None) -> list[str]:
    """The command that serves the store on this machine only, without MLflow's background workers.

    A uri that is a tracking server raises SpecError: it has its own pages.
    """
    uri = store_uri(uri, studies)
    if is_server(uri):
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


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
