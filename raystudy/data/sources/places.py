"""Where pip is configured to look for packages.

pip itself says how it is configured, so that every file and variable that it reads counts. No message names an
address: it may be private, or hold a password.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from requests.utils import urldefragauth

_SECTIONS = ("global", "download", ":env:")  # of pip's configuration; a later one counts more
_SETTING = re.compile(r"(:env:|[^.:]+)\.([^=]+)=(.*)")
_DEFAULT_INDEX = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"


class Unavailable(Exception):
    """Why a place does not give what was asked of it, without its address."""


@dataclass(frozen=True)
class Place:
    """A package index, or a folder or page of files; ``setting`` is what a message calls it."""

    setting: str
    url: str = field(repr=False)
    auth: tuple[str, str] | None = field(repr=False)

    @classmethod
    def of(cls, setting: str, location: str) -> Self:
        """``location`` as pip takes it: an address, with or without user:password@, or a path."""
        try:
            url = location if "://" in location else Path(location).expanduser().absolute().as_uri()
            user, password = (unquote(part or "") for part in (urlsplit(url).username, urlsplit(url).password))
            return cls(setting, urldefragauth(url), (user, password) if user or password else None)
        except (ValueError, RuntimeError) as error:  # the latter: `~somebody` whom there is not
            raise Unavailable(f"pip's {setting} is neither an address nor a path") from error

    @property
    def is_index(self) -> bool:
        """Whether each project has a page of its own here."""
        return "index" in self.setting

    @property
    def is_local(self) -> bool:
        return self.url.startswith("file:")


def pip_settings() -> dict[str, str]:
    """pip's own options by their long names, from all its configuration files and the environment.

    Raises Unavailable when pip cannot be asked.
    """
    settings: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in _ask("-m", "pip", "config", "list").splitlines():
        if (match := _SETTING.fullmatch(line)) and match[1] in settings and (value := _literal(match[3])):
            settings[match[1]][match[2]] = value
    return {key: value for section in _SECTIONS for key, value in settings[section].items()}


def places_of(settings: Mapping[str, str]) -> list[Place]:
    """Every place that pip would look at, in the order: find-links, index-url, extra-index-url.

    Where no index is named this is pip's default, which pip is asked for; raises Unavailable when it does not say.
    """
    asked = {"find-links": settings.get("find-links", "")}
    if settings.get("no-index", "").lower() not in ("y", "yes", "t", "true", "on", "1"):
        asked["index-url"] = settings.get("index-url") or _ask("-c", _DEFAULT_INDEX)
        asked["extra-index-url"] = settings.get("extra-index-url", "")
    return [
        Place.of(f"`{name}` {number}", location)
        for name, locations in asked.items()
        for number, location in enumerate(locations.split(), start=1)
    ]


def _literal(text: str) -> str:
    try:
        return str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return ""


def _ask(*words: str) -> str:
    """What this Python prints; ``-P``, so that a folder called pip here is not taken for pip."""
    # The words are fixed ones; nothing that was read anywhere is executed.
    environment = {**os.environ, "PIP_QUIET": "0"}
    command = [sys.executable, "-P", *words]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)  # noqa: S603
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise Unavailable(
            f"pip could not be asked where packages are: exit code {done.returncode}"
            f"{' and said: ' + _without_hosts(lines[-1].strip()) if lines else ''}"
        )
    return done.stdout


def _without_hosts(line: str) -> str:
    """The line without addresses, which may name a private index or carry a password."""
    line = re.sub(r"\S*://\S+", "<address>", line)
    line = re.sub(r"'[^']*\.[^']*'|\"[^\"]*\.[^\"]*\"", "<address>", line)
    return re.sub(r"\b[\w.-]+:\d+\b", "<address>", line)
