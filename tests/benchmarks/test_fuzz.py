"""The fuzzer's own parts: its files are valid, what it allows and what it calls a finding, and that it runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import fuzz
from benchmarks.fuzz import FASTA, FORMULAS, GFF3, LEVELS, SEEDS, UP_BP, harness
from raystudy.data import files
from raystudy.data.genes import GeneTable
from raystudy.data.sources import build


@pytest.fixture
def table(tmp_path: Path) -> GeneTable:
    for name, text in {"genome.fa": FASTA, "genes.gff3": GFF3, "levels.tsv": LEVELS}.items():
        (tmp_path / name).write_text(text)
    given = {"genome": [tmp_path / "genome.fa"], "annotation": tmp_path / "genes.gff3"}
    levels = tmp_path / "levels.tsv"
    window = (UP_BP, 10)
    return build("genome", **given, expression=levels, target=FORMULAS[:1], window_bp=window, homology="kmer")


@pytest.mark.parametrize("part", list(SEEDS))
def test_the_files_that_it_begins_with_are_read_and_broken_ones_are_refused(part: str, tmp_path: Path) -> None:
    one = harness(part, tmp_path)
    for seed in (*SEEDS[part], "", "\x00\xff", ">", "1\tx"):
        one(seed.encode("latin-1"))
    assert (tmp_path / ("given.csv" if part == "csv" else "given.tsv")).read_bytes() == b"1\tx"


def test_its_genome_gives_genes_that_hold_together(table: GeneTable) -> None:
    assert list(table.gene_ids) == ["G1", "G2"]
    assert list(table.proteins) == ["MAKVG", "MAKVG"]
    assert list(fuzz._wrong(table)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"starts": [92, 115]}, "G1: its coding sequence does not begin at its place"),
        ({"strands": ["+", "-"]}, "G2: its coding sequence does not begin at its place"),
        ({"cds": ["ATGGCTAAAGTTGGGTAA" * 2, "ATGGCTAAAGTTGGGTAA"]}, "G1: a coding sequence of 36 bases in 18"),
        ({"proteins": ["MA*VG", ""]}, "G1: a protein with a stop, or none"),
    ],
)
def test_genes_that_do_not_hold_together_are_a_finding(table: GeneTable, changes: dict[str, object], said: str) -> None:
    assert said in list(fuzz._wrong(replace(table, **changes)))  # type: ignore[arg-type]


def test_any_other_exception_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = harness("fasta", tmp_path)
    monkeypatch.setattr(files, "open_text", lambda *_: 1 / 0)
    monkeypatch.setattr("raystudy.data.fasta.open_text", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        one(b">a\nACGT\n")


@pytest.mark.slow
def test_the_command_runs_guided_by_coverage(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="the fuzzer is not installed: pip install -e '.[fuzz]'")
    app = typer.Typer()
    app.command()(fuzz.main)
    options = ["--minutes", "0.1", "--part", "formula", "--out", str(tmp_path), "--json"]
    found = CliRunner().invoke(app, options)

    assert found.exit_code == 0, found.output
    figures = json.loads(found.stdout)
    assert figures["formula_runs"] > 100
    assert figures["formula_branches"] > 10
    assert figures["formula_findings"] == 0
