from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import raystudy
from raystudy.tracking.provenance import provenance


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_it_says_which_code_packages_and_hardware():
    found = provenance()
    assert found["raystudy"] == raystudy.__version__
    assert found["num_cores"] >= 1
    assert found["memory_gib"] > 0
    assert found["processor"]
    assert found["packages"]["torch"]
    assert found["packages"]["scikit-dimension"]


def test_it_is_strict_json_and_does_not_name_the_host():
    text = json.dumps(provenance(), allow_nan=False)
    assert socket.gethostname() not in text


def test_a_checkout_gives_its_commit_and_whether_files_differ_from_it(tmp_path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / "code.py").write_text("one = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert provenance(tmp_path)["git"] == {"commit": commit, "dirty": False}
    (tmp_path / "code.py").write_text("one = 2\n")
    assert provenance(tmp_path)["git"] == {"commit": commit, "dirty": True}


def test_a_package_installed_inside_somebody_elses_checkout_is_not_that_checkout(tmp_path):
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "first")
    inside = tmp_path / "site-packages"
    inside.mkdir()
    assert provenance(inside)["git"] is None


def test_a_checkout_without_a_commit_has_none(tmp_path):
    git(tmp_path, "init", "--quiet")
    assert provenance(tmp_path)["git"] is None


def test_a_machine_without_git_or_a_driver_for_gpus_still_answers(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    found = provenance(tmp_path)
    assert found["git"] is None
    assert found["gpus"] == []
