"""`raystudy prepare` and `raystudy split` as a user types them: from files of one's own to parted genes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from raystudy import cli
from raystudy.data.genes import Genes
from tests.data.genome.cases import make_genome


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSTUDY_HOME", str(tmp_path / "studies"))


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The options that name a small genome's files."""
    options = make_genome().write(tmp_path / "mine", "gff3")
    genome, target = options["genome"], options["target"]
    assert isinstance(genome, list)
    assert isinstance(target, list)
    given = {"--genome": genome[0], "--annotation": options["annotation"], "--expression": options["expression"]}
    words = [str(word) for option in given.items() for word in option]
    return [*words, "--target", target[0], "--window-bp", "90", "60", "--homology", "kmer"]


class Shell:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def run(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """What the command printed on stdout and on stderr."""
        self._monkeypatch.setattr(sys, "argv", ["raystudy", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        shown = self._capsys.readouterr()
        assert exit_.value.code in ([0, None] if code == 0 else [code]), shown.err
        return shown.out, shown.err

    def answer(self, *arguments: str) -> Any:
        out, _ = self.run(*arguments, "--json")
        return json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))

    def refused(self, *arguments: str) -> str:
        out, err = self.run(*arguments, code=2)
        assert out == ""
        assert len(err.strip().splitlines()) == 1
        return err


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


def test_own_files_become_a_table_with_a_report_beside_it(shell: Shell, files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "data"
    found = shell.answer("prepare", "genome", *files, "--out", str(out), "--check", "--name", "mine")
    genes = Genes.open(out)
    assert (found["hash"], found["num_genes"], found["targets"]) == (genes.hash, genes.num_genes, genes.units)
    assert genes.source == "mine"
    assert found["check"]["num_genes"] == genes.num_genes
    assert found["page"] == str(out / "check.html")
    assert "mine" in (out / "check.html").read_text()


def test_a_check_alone_writes_a_page_and_no_table(shell: Shell, files: list[str], tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    out, _ = shell.run("prepare", "genome", *files, "--check")
    page = tmp_path / "studies/check/genome.html"
    assert set(tmp_path.rglob("*")) - before == {page, page.parent, page.parents[1]}
    assert "translates to its protein" in " ".join(out.split())
    assert out.splitlines()[-1] == f"page: {page}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("prepare", "synthetic"), "give `--out FOLDER`"),
        (("prepare", "genome", "--out", "x"), "needs 'expression', 'target' as well"),
        (("prepare", "synthetic", "--out", "x", "--anchor", "tss"), "'synthetic' has no option 'anchor'"),
        (("prepare", "ecolli", "--out", "x"), "Did you mean 'ecoli'?"),
        (("prepare", "genome", "--expression", "x.tsv", "--target", "mrna", "--out", "x"), "got neither"),
        (("split", "nowhere"), "raystudy prepare"),
    ],
)
def test_a_mistake_is_one_paragraph(
    shell: Shell, arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in shell.refused(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_study_of_a_source_that_needs_files_says_how_to_give_them(shell: Shell, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("name: mine\ndata: {source: genome}\nbudget: {trials: 1, minutes: 1}\narms: [{name: a}]\n")
    said = shell.refused("tune", str(study))
    assert "`raystudy prepare genome --out FOLDER`" in said
    assert "`--data FOLDER`" in said


def test_ways_of_parting_are_compared_and_audited(shell: Shell, synthetic_dir: Path) -> None:
    window = ("--window-bp", "200", "100")
    found = shell.answer("split", str(synthetic_dir), "--by", "block", "--by", "random", "--audit", "--valid", "0.15")
    block, random = (found["ways"][way]["pairs"]["train-test"] for way in ("block", "random"))
    assert (block["window_overlaps"], block["family_members"]) == (0, 0)
    assert random["window_overlaps"] > 0
    assert random["family_members"] > 0
    sizes = shell.answer("split", str(synthetic_dir), *window)["ways"]
    assert set(sizes) == {"block", "chromosome", "family", "random", "published"}
    assert "pairs" not in sizes["block"]
    assert "published" in sizes["published"]["refused"]
    out, _ = shell.run("split", str(synthetic_dir), *window, "--by", "family", "--audit")
    assert "train-test" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--valid", "0.6", "--test", "0.5"), "valid + test < 1"),
        (("--by", "chromosom"), "'chromosom'"),
        (("--target", "metabolite"), "no 'metabolite' level"),
        (("--window-bp", "9000", "10"), "does not lie inside the stored window"),
    ],
)
def test_a_split_that_cannot_be_is_refused(
    shell: Shell, synthetic_dir: Path, options: tuple[str, ...], said: str
) -> None:
    assert said in shell.refused("split", str(synthetic_dir), *options)
