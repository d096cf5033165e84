"""Genes of a genome with few chromosomes, and of one with many."""

from __future__ import annotations

from pathlib import Path

import pytest

from raystudy.data.genes import Genes
from raystudy.data.sources import prepare


@pytest.fixture(scope="session")
def few(synthetic_dir: Path) -> Genes:
    """120 genes on 4 chromosomes: blocks are stretches."""
    return Genes.open(synthetic_dir)


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Genes:
    """300 genes on 10 chromosomes: blocks are chromosomes."""
    return prepare("synthetic", tmp_path_factory.mktemp("many") / "data", num_genes=300, num_chromosomes=10, seed=3)
