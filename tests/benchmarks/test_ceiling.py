"""The command with tiny sizes; what it measures at full size is in its own table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import ceiling
from raystudy.data.batches import StudyData
from raystudy.data.encode import tokenize_dna
from raystudy.training.loop import Job, train
from raystudy.training.session import Session

FIGURES = ("r2", "ceiling", "gap", "seconds")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A level that a few hundred genes suffice to learn."""
    task = replace(ceiling.TASKS["xpresso"], decided_by=("half_life",), num_genes=600, epochs=12, learning_rate=0.005)
    model = ceiling.ModelSpec(**{**ceiling.SIZES, "family": "dna", "queries_dim": 8, "latent_dim": 8, "num_latents": 4})
    monkeypatch.setattr(ceiling, "TASKS", {"dna": replace(task, model=model)})
    return iter(())


def command(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(ceiling.main)
    return CliRunner().invoke(app, arguments)


@pytest.mark.usefixtures("tiny")
def test_a_network_that_comes_near_the_ceiling_passes_and_every_figure_is_a_number() -> None:
    found = command("--json")

    assert found.exit_code == 0, found.output
    figures = json.loads(found.stdout)
    assert set(figures) == {f"dna_{figure}" for figure in FIGURES}
    assert all(isinstance(value, float) for value in figures.values())
    assert figures["dna_gap"] == pytest.approx(figures["dna_ceiling"] - figures["dna_r2"])
    assert figures["dna_ceiling"] == pytest.approx(0.8, abs=0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_with_shuffled_labels_the_command_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def train_on_shuffled(job: Job, data: StudyData, session: Session) -> None:
        labels = data.labels.copy()
        for rows in (data.split.train, data.split.valid):
            labels[rows] = np.random.default_rng(1).permutation(labels[rows])
        train(job, replace(data, labels=labels), session)

    monkeypatch.setattr(ceiling, "train", train_on_shuffled)

    found = command("--family", "dna")

    assert found.exit_code == 1
    assert "dna" in found.stdout


def test_an_unknown_family_is_refused_with_those_that_are_known() -> None:
    found = command("--family", "rna")

    assert found.exit_code == 2
    assert "xpresso" in found.output


@pytest.mark.parametrize("name", ceiling.TASKS)
def test_what_is_planted_is_the_share_of_the_variance_that_it_says_and_from_what_the_network_reads(name: str) -> None:
    task = ceiling.TASKS[name]
    table, signal = ceiling.make_genes(800, task.decided_by, seed=3)

    explained = np.corrcoef(signal, table.targets["protein"].values)[0, 1] ** 2
    assert explained == pytest.approx(ceiling.SIGNAL_SHARE, abs=0.05)
    read_from = {"motif": "dna", "gc": "dna", "half_life": "half_life", "residues": "protein", "codons": "codon"}
    known = {*task.model.inputs, *({"protein"} if "codon" in task.model.inputs else ())}
    assert {read_from[signal] for signal in task.decided_by} <= known


def test_pooling_drops_nothing_of_what_is_planted() -> None:
    for task in ceiling.TASKS.values():
        assert task.model.convolution_length % task.model.smallest_length == 0


def test_a_motif_is_counted_wherever_it_stands() -> None:
    rng = np.random.default_rng(0)
    windows = np.tile(tokenize_dna("ATTGC" * 60), (50, 1))
    for row in range(50):
        for copy in range(row % 4):
            windows[row, 40 * copy + row : 40 * copy + row + 6] = tokenize_dna(ceiling.MOTIF)
    windows[::2, 250:260] = tokenize_dna("A" * 10)
    cds = [rng.choice(list(ceiling.CODONS), 60).tolist() for _ in range(50)]

    found = ceiling.signals(windows, cds, rng.normal(size=(50, 8)).astype(np.float32))

    assert np.corrcoef(found["motif"], np.arange(50) % 4)[0, 1] == pytest.approx(1)
    for values in found.values():
        assert (values.mean(), values.std()) == pytest.approx((0, 1), abs=1e-9)


def test_codon_preference_tells_nothing_of_the_residues() -> None:
    effects = ceiling._within_residue(np.random.default_rng(0).normal(size=len(ceiling.CODONS)))

    assert effects.keys() == ceiling.CODONS.keys()
    for residue in set(ceiling.CODONS.values()):
        assert np.mean([effects[codon] for codon, one in ceiling.CODONS.items() if one == residue]) == pytest.approx(0)
    assert np.std(list(effects.values())) > 0.5
