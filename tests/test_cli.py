"""The command line as a user meets it: answers on stdout, mistakes as one paragraph on stderr with exit code 2."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from raystudy import cli

STUDY: dict[str, Any] = {
    "name": "mistaken",
    "data": {"source": "synthetic", "window_bp": [300, 150], "max_protein": 200},
    "search": {"latent_dim": {"kind": "pow2", "low": 8, "high": 32}},
    "budget": {"trials": 2, "minutes": 1},
}


@pytest.fixture(autouse=True)
def _studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSTUDY_HOME", str(tmp_path / "studies"))


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["raystudy", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


def study_file(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}))
    return str(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trails": 3}, "unknown key `trails`"),
        ({"model": {"latentdim": 16}}, "did you mean `latent_dim`?"),
        ({"search": {"latent_dim": {"kind": "pow2", "low": 64, "high": 8}}}, "`low <= high` must hold"),
        ({"budget": {"trials": -1, "minutes": 1}}, "budget.trials"),
        ({"budget": {"trials": 1, "minutes": -5}}, "budget.minutes"),
        ({"data": {"path": "/nowhere/at/all"}}, "/nowhere/at/all"),
        ({"data": {"source": "yeats"}}, "yeast"),
        ({"data": {"source": "synthetic", "window_bp": [9000, 9000]}}, "9000"),
        ({"resources": {"gpus_per_worker": 512}}, "512 GPU"),
    ],
)
def test_a_mistake_in_the_study_is_one_paragraph_before_the_first_trial(
    changes: dict[str, Any],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, "tune", study_file(tmp_path, **changes)) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert len(shown.err.strip().splitlines()) == 1
    assert not list((tmp_path / "studies").glob("*/trials"))


def test_a_study_that_is_not_there_is_said_with_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "studies/other").mkdir(parents=True)
    (tmp_path / "studies/other/study.jsonl").write_text("")
    assert call(monkeypatch, "status", "yaest") == 2
    assert "there is other" in capsys.readouterr().err


def test_each_verb_that_answers_gives_exactly_one_strict_json_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(*arguments: str) -> Any:
        assert call(monkeypatch, *arguments, "--json") == 0
        return json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))

    out = tmp_path / "genes"
    prepared = answer("prepare", "synthetic", "--out", str(out))
    assert (prepared["num_genes"], prepared["folder"]) == (400, str(out))
    found = answer("dimension", str(out))
    assert found["representation"] == "kmer3"
    assert set(found["others"]) == {"kmer4", "composition"}
    planned = answer("plan", study_file(tmp_path))
    assert planned["feasible"] is True
    assert planned["search"]["parameters"]["min"] < planned["search"]["parameters"]["max"]


def test_the_shipped_study_is_valid_and_its_module_says_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = Path(__file__).parents[1] / "search_spaces/yeast.yaml"
    assert call(monkeypatch, "plan", str(shipped)) == 0
    monkeypatch.setattr(sys, "argv", ["raystudy.tune", "--help"])
    with pytest.raises(SystemExit):
        cli.tune_module()
    assert "--smoke" in capsys.readouterr().out
