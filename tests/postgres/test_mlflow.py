"""MLflow on PostgreSQL: through a server of its own, and without one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raystudy.tracking.mlflow import MlflowMirror
from raystudy.tracking.records import Records
from tests.postgres.server import Server
from tests.tracking.store import everything, mlflow_server


@pytest.fixture
def tracking_server(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an MLflow server that keeps its runs in PostgreSQL."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with mlflow_server(tmp_path / "studies", database) as address:
        yield address


@pytest.mark.slow
def test_two_studies_log_at_the_same_time_through_a_server_and_without_one(
    fake_study: Callable[..., Records], tmp_path: Path, database: str, tracking_server: str, caplog
) -> None:
    studies = {name: fake_study(name, num_trials=3, opened=False) for name in ("one", "two", "three")}
    where = {"one": tracking_server, "two": tracking_server, "three": database}
    start = threading.Barrier(len(studies))

    def log(name: str) -> None:
        start.wait()
        for _ in range(2):
            MlflowMirror(where[name], studies[name]).sync(studies[name].read())

    threads = [threading.Thread(target=log, args=(name,)) for name in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for name in studies:
        runs = everything(tmp_path, name, tracking_server)
        assert set(runs) == {"study", "t0000", "t0001", "t0002"}
        assert [step for step, _, _ in runs["t0001"]["metrics"]["vs_epoch/valid_r2"]] == [1, 2, 3]
    assert caplog.messages == []


def test_a_database_that_is_away_is_told_of_at_once(
    postgres: Server, fake_study: Callable[..., Records], database: str, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setenv("PGPASSWORD", "Geheimnis")
    records, began = fake_study(num_trials=1, opened=False), time.monotonic()
    MlflowMirror(database, records).sync(records.read())
    port = f":{postgres.port}/"
    MlflowMirror(database.replace(port, ":9/").replace("raystudy@", "raystudy:Geheim@"), records).sync(records.read())

    wrong, away = caplog.messages
    assert "password authentication failed" in wrong
    assert "refused" in away
    assert "Geheim" not in caplog.text
    assert time.monotonic() - began < 30, "MLflow itself would go on for minutes"
