"""What every machine is asked before a trial runs there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayTaskError, WorkerCrashedError

from raystudy.data.genes import Genes
from raystudy.errors import RaystudyError
from raystudy.execution import preflight as preflight_module
from raystudy.execution.capacity import Node
from raystudy.execution.preflight import MOST_LOST, PATIENCE_SECONDS, Preflight, look_around, versions
from raystudy.study.reading import parse_spec


@pytest.fixture
def preflight(tiny_study: Callable[..., dict[str, Any]], data_folder: Path, tmp_path: Path) -> Preflight:
    return Preflight(parse_spec(tiny_study("looked", data_folder)), tmp_path / "looked", data_folder)


def test_a_machine_says_what_it_finds(preflight: Preflight, data_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "looked" / "preflight"
    found = look_around("0123456789abcdef", str(folder), str(data_folder), None)

    assert found["sign"] == (folder / "sign").read_text()
    assert (folder / found["mark"]).read_text() == found["sign"]
    assert found["gene_hash"] == Genes.open(data_folder).hash
    assert found["versions"] == versions()
    assert found["refused"] == []


def test_a_machine_without_the_folders_says_so_and_does_not_fail(preflight: Preflight, tmp_path: Path) -> None:
    found = look_around("0123456789abcdef", str(tmp_path / "elsewhere"), str(tmp_path / "nothing"), None)

    assert "No such file" in found["sign"]
    assert found["gene_hash"] is None


def test_versions_are_compared_without_the_suffix_of_a_build() -> None:
    found = versions()

    assert found.keys() == {"python", "raystudy", "torch", "numpy"}
    assert all(value and "+" not in value for value in found.values())


def heard(preflight: Preflight, error: Exception, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is told of a node whose answer is an error."""

    def fail(_: Any) -> None:
        raise error

    monkeypatch.setattr(preflight_module.ray, "get", fail)
    preflight._asked.add("node")
    return preflight._hear("answer", "node", "host")


def test_a_look_that_is_lost_is_tried_again_and_told_when_it_goes_on(
    preflight: Preflight, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(MOST_LOST - 1):
        assert heard(preflight, WorkerCrashedError(), monkeypatch) == []
        assert "node" not in preflight._asked
    (told,) = heard(preflight, WorkerCrashedError(), monkeypatch)
    assert told.startswith("host loses every process that looks at it")


def test_a_machine_that_lacks_a_package_is_told_at_once(preflight: Preflight, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = RayTaskError("look_around", "No module named 'raystudy'", ModuleNotFoundError("raystudy"))
    (told,) = heard(preflight, missing, monkeypatch)
    assert told.startswith("host cannot run raystudy")


@pytest.mark.ray
def test_a_cluster_in_order_passes_and_each_difference_is_named_with_the_machine(
    preflight: Preflight, ray: tuple[Node, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preflight.look(PATIENCE_SECONDS)
    assert len(list((tmp_path / "looked" / "preflight").iterdir())) == 2, "the driver's sign and the machine's mark"
    preflight.look(PATIENCE_SECONDS)  # asks nobody twice

    monkeypatch.setattr(preflight, "_asked", set())
    monkeypatch.setattr(preflight, "_versions", {**versions(), "torch": "1.0.0"})
    monkeypatch.setattr(preflight, "_gene_hash", "another")
    monkeypatch.setattr(preflight, "_sign", "another")
    with pytest.raises(RaystudyError) as caught:
        preflight.look(PATIENCE_SECONDS)
    said = str(caught.value)
    assert "the cluster is not ready: " in said
    assert f"has torch {versions()['torch']}, the driver 1.0.0" in said
    assert "does not see the study's folder" in said
    assert "the driver another; prepare the data" in said
