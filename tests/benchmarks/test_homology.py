"""The benchmark of homology: it plants what it says and counts each pair once, and its command answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import homology
from raystudy.data import mmseqs
from raystudy.data.genes import Genes
from raystudy.data.homology import families

RULES = ("kmer30", "kmer5", "mmseqs2")


def answer(*options: str) -> dict[str, Any]:
    app = typer.Typer()
    app.command()(homology.main)
    found = CliRunner().invoke(app, [*options, "--json"])
    assert found.exit_code == 0, found.output
    figures: dict[str, Any] = json.loads(found.stdout)
    return figures


@pytest.mark.parametrize("how", homology.IDENTITIES)
@pytest.mark.parametrize("num_residues", homology.LENGTHS)
def test_a_planted_relative_is_as_identical_as_it_is_said_to_be(how: str, num_residues: int) -> None:
    random = np.random.default_rng(0)
    for identity in homology.IDENTITIES[how]:
        original = homology.protein(random, num_residues)
        kept = homology.relative(random, original, identity, how) == original
        assert kept.sum() == round(identity * num_residues)
        stretches = np.arange(num_residues) // homology.STRETCH % 2 == 1
        assert kept[stretches].all() == (how == "stretches")


def test_some_simulated_proteins_have_relatives_and_the_first_are_the_same_of_any_number() -> None:
    proteins = homology.simulated(300)
    assert len(proteins) == 300
    assert all(np.array_equal(one, other) for one, other in zip(homology.simulated(40), proteins[:40], strict=True))
    family_ids = families(*homology.packed(proteins))
    assert 0 < np.count_nonzero(homology.relatives_of_each(family_ids)) < 300


def test_a_pair_is_counted_once_by_its_larger_identity_and_linked_where_the_6mers_link_it(
    synthetic_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genes = Genes.open(synthetic_dir)
    close = families(genes.protein_tokens, genes.protein_offsets)
    alone = np.flatnonzero(homology.relatives_of_each(close) == 0)
    pair = next(rows for family in np.unique(close) if len(rows := np.flatnonzero(close == family)) == 2)
    left = np.array([pair[1], pair[0], alone[0], alone[1], alone[2]])
    right = np.array([pair[0], pair[1], alone[0], alone[2], alone[1]])
    identity = np.array([0.55, 0.49, 1.0, 1.0, 0.91])
    monkeypatch.setattr(mmseqs, "installed", lambda: True)
    monkeypatch.setattr(mmseqs, "alignments", lambda *_: (left, right, identity))

    figures = homology.natural(genes)

    counted = {name: figures[f"yeast_pairs_identity{name}"] for name in (*homology.BANDS, "50_kmer30", "90_kmer5")}
    assert counted == {30: 0, 40: 0, 50: 1, 60: 0, 70: 0, 80: 0, 90: 1, "50_kmer30": 1, "90_kmer5": 0}
    related = [figures[f"yeast_with_relatives_{rule}"] for rule in RULES]
    assert related[0] == np.count_nonzero(homology.relatives_of_each(close))
    assert related[2] == related[1] + 2
    assert figures["yeast_test_genes_with_training_relatives_kmer30"] == 0, "a block split keeps these apart"


def test_a_test_gene_with_a_close_relative_in_training_is_counted(
    synthetic_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genes = Genes.open(synthetic_dir)
    everyone = np.arange(genes.num_genes)
    monkeypatch.setattr(mmseqs, "installed", lambda: True)

    for identity, num_close in ((0.59, 0), (0.60, 1)):
        monkeypatch.setattr(
            mmseqs,
            "alignments",
            lambda *_, identity=identity: (everyone, np.zeros_like(everyone), np.full(len(everyone), identity)),
        )
        figures = homology.natural(genes)
        found = figures["yeast_test_genes_with_training_relatives_identity60"]
        assert found == num_close * figures["yeast_test_genes_with_training_relatives_mmseqs2"]
        assert figures["yeast_test_genes_with_training_relatives_mmseqs2"] == figures["yeast_test_genes"] > 0


def test_without_mmseqs2_the_command_gives_what_the_6mers_find(
    synthetic_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    planted = answer("--part", "planted", "--small")
    yeast = answer("--part", "yeast", "--data", str(synthetic_dir))

    assert not [name for name in (planted | yeast) if "mmseqs2" in name]
    for num_residues in homology.LENGTHS:
        found = [planted[f"planted_stretches_identity50_residues{num_residues}_{rule}"] for rule in RULES[:2]]
        assert found == [0, planted["planted_pairs_of_each"]]
    assert planted["planted_unrelated_kmer5"] == 0
    assert 0 < yeast["yeast_with_relatives_kmer30"] <= yeast["yeast_with_relatives_kmer5"] < yeast["yeast_proteins"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mmseqs") is None, reason="MMseqs2 is not installed (apt: mmseqs2)")
def test_the_whole_command_answers(synthetic_dir: Path) -> None:
    figures = answer("--small", "--data", str(synthetic_dir))

    for rule in RULES[1:]:
        assert figures[f"cost_{rule}_proteins"] == 200
        assert 0 < figures[f"cost_{rule}_cpu_seconds"] < 60
        assert 0.05 < figures[f"cost_{rule}_peak_gb"] < 4
    assert figures["cost_kmer5_with_relatives"] < figures["cost_mmseqs2_with_relatives"]
    assert figures["planted_single_identity40_residues300_mmseqs2"] == figures["planted_pairs_of_each"] == 2
    assert figures["yeast_with_relatives_mmseqs2"] > 0
