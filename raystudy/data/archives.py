"""Members of an archive (zip, or tar within gzip) read by their names: into memory, never onto the disk.

Nothing is extracted, so a name that leads elsewhere can do no harm; an archive that has one is refused all the same,
because nobody makes such a name by honest means.
"""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Generator
from contextlib import closing
from pathlib import Path, PurePosixPath, PureWindowsPath

from raystudy.errors import DataError

MEMBER_LIMIT = 256 * 2**20
"""Bytes of a member that is read, unpacked."""
UNPACKED_LIMIT = 1024 * 2**20
"""Bytes of a gzipped tar, unpacked, which is read from its beginning to its end."""

_GZIP, _ZIP = b"\x1f\x8b", b"PK"
_DAMAGED = (
    *(OSError, EOFError, ValueError, NotImplementedError, RuntimeError),  # the last two: packed or encrypted oddly
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error),
)


def read_members(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """What the members called ``names`` hold, all of them; other members are only looked at by their names.

    Raises DataError where the file is no such archive or is damaged, where a member is missing, there twice, no plain
    file or larger than MEMBER_LIMIT, where a name leads out of the archive, and where a tar is above UNPACKED_LIMIT.
    """
    found: dict[str, bytes] = {}
    try:
        with path.open("rb") as file:
            magic = file.read(2)
        if magic not in (_GZIP, _ZIP):
            raise ValueError("it is neither a zip nor a gzipped tar")
        with closing(_tar_members(path, names) if magic == _GZIP else _zip_members(path, names)) as members:
            for name, content in members:
                if name in found:
                    raise ValueError(f"the member {name!r} is in it twice")
                found[name] = content
        if missing := sorted(set(names) - set(found)):
            raise ValueError(f"it has no member {', '.join(map(repr, missing))}")
    except _DAMAGED as error:
        raise DataError(
            f"The archive {str(path)!r} cannot be used: {str(error) or type(error).__name__}. Every member that is "
            f"asked for must be there once, as a plain file. Delete the archive, so that it is fetched again, or put "
            f"the right one in its place."
        ) from error
    return found


class _Bounded(gzip.GzipFile):
    """Unpacks no more than UNPACKED_LIMIT, whatever sizes the tar within claims."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > UNPACKED_LIMIT:
            raise ValueError(f"it unpacks to more than {UNPACKED_LIMIT:,} bytes")
        return super().read(size)


def _tar_members(path: Path, names: Collection[str]) -> Generator[tuple[str, bytes], None, None]:
    with _Bounded(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as archive:
        for member in archive:
            _check_name(member.name)
            if member.name in names:
                _check_member(member.name, member.isreg() and not member.issparse(), member.size)
                if (file := archive.extractfile(member)) is not None:
                    yield member.name, file.read()


def _zip_members(path: Path, names: Collection[str]) -> Generator[tuple[str, bytes], None, None]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.orig_filename  # `filename` ends at a null byte
            _check_name(name)
            if name in names:
                _check_member(name, not member.is_dir(), member.file_size)
                yield name, archive.read(member)


def _check_name(name: str) -> None:
    windows = PureWindowsPath(name)
    if windows.drive or windows.root or ".." in windows.parts or ".." in PurePosixPath(name).parts or "\0" in name:
        raise ValueError(f"it has a member {name!r}, a name that leads out of the archive")


def _check_member(name: str, is_plain: bool, size: int) -> None:
    if not is_plain:
        raise ValueError(f"the member {name!r} is no plain file")
    if size > MEMBER_LIMIT:
        raise ValueError(f"the member {name!r} has {size:,} bytes; the most is {MEMBER_LIMIT:,}")
