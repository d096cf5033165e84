from __future__ import annotations

from pathlib import Path

import optuna
import pytest


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "studies" / "fake"
    path.mkdir(parents=True)
    return path
