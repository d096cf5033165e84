"""Archives from where pip is configured to look for packages: fetched as files, digest-pinned, cached.

An archive is only ever read; it is never installed, built, executed or extracted. pip is asked how it is configured,
but does not fetch: `pip download` of a source archive runs what is in it.
"""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from raystudy.data.files import sha256_of
from raystudy.data.sources.offers import Shop, limited
from raystudy.data.sources.places import Place, Unavailable, pip_settings, places_of
from raystudy.errors import DataError

ARCHIVE_LIMIT = 512 * 2**20
"""Bytes of an archive; the largest that is used has 33 MB."""

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
    """The archive's path in the cache: downloaded when it is not there, without network or process when it is.

    Raises DataError when it cannot be had, or when what came has another digest; nothing is kept then.
    """
    cached = cache_folder() / archive.filename
    if cached.is_file():
        if sha256_of(cached) == archive.sha256:
            return cached
        _log.warning("%s in the cache is damaged or was altered (wrong sha256); fetching it again", cached)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=cached.parent) as folder:
            downloaded = Path(folder) / archive.filename
            _download(archive, downloaded)
            downloaded.replace(cached)
    except OSError as error:
        raise DataError(
            f"{archive.filename} could not be written to the cache folder {str(cached.parent)!r}: {error}. "
            f"Make room there, or set RAYSTUDY_CACHE to a folder that can be written."
        ) from error
    return cached


def _download(archive: Archive, path: Path) -> None:
    """The archive as ``path``, from the first place that has it; an altered one does not hide the right one."""
    _log.info("downloading %s==%s", archive.name, archive.version)
    problems: list[str] = []
    try:
        settings = pip_settings()
        with Shop(settings) as shop:
            for place in places_of(settings):
                try:
                    return _download_from(place, shop, archive, path)
                except Unavailable as problem:
                    problems.append(f"{place.setting}: {problem}")
    except Unavailable as problem:
        problems.append(str(problem))
    raise DataError(
        f"{archive.filename} could not be downloaded from where pip looks for packages: "
        f"{'; '.join(problems) or 'no place is configured'}. Nothing was kept. Check the network and pip's "
        f"configuration (`pip config list`), or put a file {archive.filename} with sha256 {archive.sha256} into "
        f"{str(cache_folder())!r} by hand."
    )


def _download_from(place: Place, shop: Shop, archive: Archive, path: Path) -> None:
    offer = shop.find(place, archive.name, archive.filename)
    digest = offer.sha256
    if digest in (None, archive.sha256):
        with shop.open(offer.url, place) as (_, _, chunks), path.open("wb") as file:
            for chunk in limited(chunks, ARCHIVE_LIMIT):
                file.write(chunk)
        digest = sha256_of(path)
    if digest != archive.sha256:
        raise Unavailable(f"that file was altered, its sha256 is {digest}")
