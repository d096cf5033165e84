"""The benchmark of preparing data: its genome is one that `prepare genome` reads whole, and its command answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import prepare
from raystudy.data.findings import Findings
from raystudy.data.sources import build

NUM_GENES, ISOFORMS = 48, 2


def test_every_simulated_gene_is_read_as_it_was_planted(tmp_path: Path) -> None:
    lines = prepare.write_genome(tmp_path, 10_000_000, NUM_GENES, ISOFORMS)

    files = {"genome": [tmp_path / "genome.fa"], "annotation": tmp_path / "genes.gtf"}
    levels, formulas = tmp_path / "levels.tsv", ["mrna=log10(TPM + 0.1)"]
    table = build("genome", **files, expression=levels, target=formulas, window_bp=(300, 200), homology="kmer")

    assert len((tmp_path / "genes.gtf").read_text().splitlines()) == lines
    assert (len(table.gene_ids), set(table.strands)) == (NUM_GENES, {"+", "-"})
    assert table.notes["translation"]["not compared"] == NUM_GENES  # none was given: all are translated
    assert all(
        cds.startswith("ATG") and len(cds) == 3 * len(protein) + 3
        for cds, protein in zip(table.cds, table.proteins, strict=True)
    )
    assert 10 ** table.features[:, 0] == pytest.approx(prepare.UTR5_BP + 0.1, rel=1e-4)
    assert 10 ** table.features[:, 2] == pytest.approx(prepare.UTR3_BP + 0.1, rel=1e-4)
    assert table.notes["findings"] == Findings().as_json()


@pytest.mark.slow
def test_the_command_measures_a_process_of_its_own() -> None:
    app = typer.Typer()
    app.command()(prepare.main)
    found = CliRunner().invoke(app, ["--part", "genome", "--bases", "10000000", "--genes", "48", "--json"])

    assert found.exit_code == 0, found.output
    figures = json.loads(found.stdout)
    assert figures["genome_genes"] == 48
    assert 0.05 < figures["genome_peak_gb"] < 4
    assert 0 < figures["genome_seconds"] < 120
