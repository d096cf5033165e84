from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from raystudy.search import policy


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture(autouse=True)
def _soon_exhausted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The spaces here are small: they need no 200 proposals to be known by heart."""
    monkeypatch.setattr(policy, "MOST_FRUITLESS", 40)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "studies" / "fake"
    path.mkdir(parents=True)
    return path
