"""Where packages are: as pip says it is configured, and in no message by its address."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raystudy.data.sources.places import Place, Unavailable, pip_settings, places_of

Say = Callable[[str, int, str], list[list[str]]]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Say:
    """A Python that prints and says what it is told; which commands it was given."""

    def set_to(stdout: str, returncode: int = 0, stderr: str = "") -> list[list[str]]:
        commands: list[list[str]] = []

        def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
            commands.append(command)
            return subprocess.CompletedProcess(command, returncode, stdout, stderr)

        monkeypatch.setattr(subprocess, "run", run)
        return commands

    return set_to


def test_pip_is_asked_and_its_files_and_variables_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is above the file's section for downloads, and that above the one for everything."""
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://a.example/simple\ntimeout = 7\ncert = /one\nquiet = 2\n"
        "[download]\ntimeout = 8\ncert = /two\n[install]\nproxy = http://never.example\n"
        "extra-index-url =\n  file:///b\n[freeze]\ntimeout = 10\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://b.example/simple https://c.example/simple")
    monkeypatch.setenv("PIP_TIMEOUT", "9")
    monkeypatch.delenv("PIP_CERT", raising=False)
    settings = pip_settings()
    assert settings["index-url"] == "https://a.example/simple"
    assert settings["extra-index-url"].split() == ["https://b.example/simple", "https://c.example/simple"]
    assert settings["timeout"] == "9"
    assert settings["cert"] == "/two"
    assert "proxy" not in settings


def test_a_folder_called_pip_in_the_working_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__main__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "pip" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    pip_settings()
    assert not (tmp_path / "ran").exists()


def test_places_come_in_order_with_the_name_of_their_setting(say: Say) -> None:
    commands = say("", 1, "no process is needed")
    settings = {
        "find-links": "/links file:///more",
        "index-url": "https://a.example/simple",
        "extra-index-url": "https://b.example/simple\nhttp://c.example",
    }
    places = [(place.setting, place.url, place.is_index, place.is_local) for place in places_of(settings)]
    assert places == [
        ("`find-links` 1", "file:///links", False, True),
        ("`find-links` 2", "file:///more", False, True),
        ("`index-url` 1", "https://a.example/simple", True, False),
        ("`extra-index-url` 1", "https://b.example/simple", True, False),
        ("`extra-index-url` 2", "http://c.example", True, False),
    ]
    assert commands == []


def test_no_index_leaves_links_only() -> None:
    settings = {"no-index": "1", "find-links": "/links", "index-url": "https://a", "extra-index-url": "https://b"}
    assert [place.url for place in places_of(settings)] == ["file:///links"]


def test_where_no_index_is_named_pip_is_asked_for_its_own(say: Say) -> None:
    commands = say("https://own.example/simple\n", 0, "")
    assert [place.url for place in places_of({})] == ["https://own.example/simple"]
    assert commands[0][:3] == [sys.executable, "-P", "-c"]
    say("", 1, "Traceback\nModuleNotFoundError: No module named 'pip._internal.models'")
    with pytest.raises(Unavailable, match="exit code 1 and said: ModuleNotFoundError"):
        places_of({})


def test_this_pip_names_its_own_index() -> None:
    (place,) = places_of({})
    assert place.url.startswith("https://")
    assert place.is_index


def test_a_password_is_taken_from_the_address_and_not_shown() -> None:
    place = Place.of("`index-url` 1", "https://me%40work:s%3Acret@host.example/simple#part")
    assert place.auth == ("me@work", "s:cret")
    assert place.url == "https://host.example/simple"
    assert Place.of("`index-url` 1", "https://token@host.example/").auth == ("token", "")
    assert Place.of("`index-url` 1", "https://host.example/").auth is None
    assert repr(place) == "Place(setting='`index-url` 1')"


def test_paths_are_places_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Place.of("`find-links` 1", "a b").url == (tmp_path / "a b").as_uri()
    assert Place.of("`find-links` 1", "~/links").url == (tmp_path / "home" / "links").as_uri()


@pytest.mark.parametrize("location", ["http://[::1/simple", "~nobody-of-this-name/links"])
def test_what_is_no_place_is_named_by_its_setting(location: str) -> None:
    with pytest.raises(Unavailable, match="pip's `index-url` 1 is neither an address nor a path") as error:
        Place.of("`index-url` 1", location)
    assert location not in str(error.value)


@pytest.mark.parametrize(
    "line",
    [
        "ERROR: Could not fetch https://user:secret@host.example/simple/x/",
        "ERROR: HTTPSConnectionPool(host='host.example', port=443): failed to resolve 'host.example'",
        'ERROR: no answer from "host.example"',
        "ERROR: no route to host.example:8080",
    ],
)
def test_addresses_are_stripped_from_what_pip_said(say: Say, line: str) -> None:
    say("", 1, f"WARNING: first\n{line}\n")
    with pytest.raises(Unavailable, match="exit code 1 and said: ERROR") as error:
        pip_settings()
    assert "host.example" not in str(error.value)
    assert "secret" not in str(error.value)


def test_lines_that_are_no_settings_are_passed_over(say: Say) -> None:
    say("WARNING: x\nglobal.index-url=broken'\n:env:.no-color=''\nglobal.timeout='5'\n", 0, "")
    assert pip_settings() == {"timeout": "5"}
