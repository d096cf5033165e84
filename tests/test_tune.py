"""What a study checks before it starts anything, and what a mistake leaves behind. Ray is not needed for that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from raystudy import tune
from raystudy.data.genes import Genes, write_genes
from raystudy.data.sources import synthetic
from raystudy.errors import DataError, SpecError
from raystudy.progress import Progress
from raystudy.study.spec import parse_spec

Begin = Callable[..., Any]


@pytest.fixture
def begin(tmp_path: Path, synthetic_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Does what a study does before its first event; ``changes`` replace keys of its file."""
    folder = tmp_path / "studies" / "checked"
    folder.mkdir(parents=True)
    monkeypatch.setenv("RAYSTUDY_HOME", str(folder.parent))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tune, "MlflowMirror", lambda uri, records: None)

    def begin_with(data: Path = synthetic_dir, **changes: Any) -> Any:
        document = {
            "name": "checked",
            "data": {"path": str(data), "window_bp": [300, 150], "max_protein": 200},
            "split": {"by": "random", "valid": 0.2, "test": 0.2},
            "arms": [{"name": "only"}],
            "budget": {"trials": 1, "minutes": 1},
            **changes,
        }
        return tune._Study(parse_spec(document), folder, Progress(Console(stderr=True)), None)

    return begin_with


def table(path: Path, gene_ids: list[str], values: list[str]) -> str:
    path.write_text(
        "\n".join(["gene_id,x", *(f"{gene},{value}" for gene, value in zip(gene_ids, values, strict=True))])
    )
    return str(path)


def test_a_start_that_failed_leaves_neither_the_name_claimed_nor_a_split_to_go_by(begin: Begin, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.csv"):
        begin(baselines=[{"features": str(tmp_path / "missing.csv")}])

    study = begin(split={"by": "random", "valid": 0.3, "test": 0.3})
    assert len(study.split.valid) > 0.25 * study.genes.num_genes

    again = begin(split={"by": "random", "valid": 0.3, "test": 0.3})
    assert again.split.valid.tolist() == study.split.valid.tolist()
    with pytest.raises(SpecError, match=r"`split\.valid` was 0\.3 and is 0\.2"):
        begin()


def test_a_table_that_says_nothing_of_the_training_genes_is_refused_at_the_start(
    begin: Begin, tmp_path: Path, synthetic_dir: Path
) -> None:
    genes = Genes.open(synthetic_dir).gene_ids.tolist()
    empty = table(tmp_path / "empty.csv", genes, [""] * len(genes))

    with pytest.raises(DataError, match=r"empty\.csv has no value for any of the \d+ training genes"):
        begin(baselines=[{"features": empty}])


def test_a_level_that_hardly_any_gene_of_a_part_has_is_refused_at_the_start(begin: Begin, tmp_path: Path) -> None:
    made = synthetic.build(seed=0, num_genes=120, num_chromosomes=4)
    few = made.targets["mrna"].values.copy()
    few[7:] = np.nan
    targets = {**made.targets, "mrna": replace(made.targets["mrna"], values=few)}
    folder = write_genes(replace(made, targets=targets), tmp_path / "few")

    with pytest.raises(DataError, match=r"genes have a mrna level.*leave mrna out"):
        begin(data=folder, target=["mrna", "protein"])
