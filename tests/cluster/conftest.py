"""What is in cluster/, loaded once and handed out in copies, so that a test may spoil its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def cluster() -> Path:
    return PROJECT / "cluster"


@pytest.fixture
def texts(cluster: Path) -> dict[str, str]:
    """Every file of cluster/ by its name."""
    return {path.name: path.read_text() for path in sorted(cluster.iterdir()) if path.is_file()}


@pytest.fixture
def load(cluster: Path) -> Callable[[str], dict[str, Any]]:
    return lambda name: yaml.safe_load((cluster / name).read_text())


@pytest.fixture
def rayjob(load: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return load("kuberay-rayjob.yaml")


@pytest.fixture
def raycluster(load: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return load("kuberay-raycluster.yaml")


@pytest.fixture
def aws(load: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return load("aws-a100.yaml")
