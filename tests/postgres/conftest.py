from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from tests.postgres.server import PASSWORD, ROLE, Server, find_binaries


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server for the session; the test skips where there is none."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's server is not installed (the distribution's package `postgresql`)")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("its driver is not installed (`pip install -e '.[postgresql]'`)")
    folder = Path(tempfile.mkdtemp(prefix="raystudy-postgres-"))  # not pytest's, which only its own user may enter
    server = None
    try:
        server = Server(binaries, folder)
        server.start()
        server.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder)


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where users keep it."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)


@pytest.fixture
def database(postgres: Server, password: None) -> str:
    """The URL of an empty database."""
    return postgres.new_database()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "studies" / "fake"
    path.mkdir(parents=True)
    return path


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
