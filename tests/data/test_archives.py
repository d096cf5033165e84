"""Members of archives: read by name into memory, or refused with one message; nothing is ever written."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from raystudy.data import archives
from raystudy.data.archives import read_members
from raystudy.errors import DataError

CONTENT = b"gene\tlevel\n" * 50


def plain(name: str, content: bytes = CONTENT) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, content


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return path


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, CONTENT)
    return path


def test_members_of_a_gzipped_tar_are_read_by_name(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz", special("pkg", tarfile.DIRTYPE), plain("pkg/a"), plain("pkg/b", b""), plain("c"))
    assert read_members(path, ["pkg/b", "pkg/a"]) == {"pkg/a": CONTENT, "pkg/b": b""}
    assert [file.name for file in tmp_path.iterdir()] == ["a.tar.gz"]


def test_members_of_a_zip_are_read_by_name_whatever_the_file_is_called(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.tar.gz", "pkg/", "pkg/a", "b")
    assert read_members(path, ["pkg/a"]) == {"pkg/a": CONTENT}


def test_links_that_nobody_asks_for_do_not_matter(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz", special("link", tarfile.SYMTYPE, "/etc/passwd"), plain("a"))
    assert read_members(path, ["a"]) == {"a": CONTENT}


ESCAPING = ["../a", "/a", "pkg/../../a", "..\\a", "C:\\a", "\\\\host\\share\\a"]
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no archive": (lambda path: path.write_bytes(CONTENT), "neither a zip nor a gzipped tar"),
    "empty file": (lambda path: path.write_bytes(b""), "neither a zip nor a gzipped tar"),
    "no file": (lambda path: None, "No such file"),
    "folder": (lambda path: path.mkdir(), "directory"),
    "gzip that is no tar": (
        lambda path: path.write_bytes(gzip.compress(CONTENT)),
        "header",
    ),
    "truncated tar": (
        lambda path: path.write_bytes(tar(path, plain("b"), plain("a")).read_bytes()[:100]),
        "ended before the end-of-stream marker",
    ),
    "damaged tar": (
        lambda path: path.write_bytes(tar(path, plain("a")).read_bytes().replace(b"\x1f\x8b\x08", b"\x1f\x8b\x09")),
        "compression method",
    ),
    "truncated zip": (lambda path: path.write_bytes(zipped(path, "a").read_bytes()[:-9]), "not a zip file"),
    "damaged zip": (
        lambda path: path.write_bytes(zipped(path, "a").read_bytes().replace(b"\x00\x00\x00a", b"\x00\x00\x00b", 1)),
        "differ",
    ),
    "missing member": (lambda path: tar(path, plain("pkg/a")), "it has no member 'a'"),
    "missing member of a zip": (lambda path: zipped(path, "pkg/a"), "it has no member 'a'"),
    "member twice": (lambda path: tar(path, plain("a"), plain("a", b"other")), "'a' is in it twice"),
    "symbolic link": (lambda path: tar(path, special("a", tarfile.SYMTYPE, "/etc/passwd")), "'a' is no plain file"),
    "hard link": (lambda path: tar(path, plain("b"), special("a", tarfile.LNKTYPE, "b")), "'a' is no plain file"),
    "device": (lambda path: tar(path, special("a", tarfile.CHRTYPE)), "'a' is no plain file"),
    "folder as a member": (lambda path: tar(path, special("a", tarfile.DIRTYPE)), "'a' is no plain file"),
    "large member": (lambda path: tar(path, plain("a", bytes(3000))), "3,000 bytes; the most is 2,000"),
    "large tar": (lambda path: tar(path, plain("a"), plain("b", bytes(200_000))), "more than 50,000 bytes"),
    **{f"tar, {name}": (lambda path, name=name: tar(path, plain("a"), plain(name)), "leads out") for name in ESCAPING},
    **{f"zip, {name}": (lambda path, name=name: zipped(path, "a", name), "leads out") for name in ESCAPING},
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_archive_is_an_error_of_one_paragraph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(archives, "MEMBER_LIMIT", 2_000)
    monkeypatch.setattr(archives, "UNPACKED_LIMIT", 50_000)
    make, what = BROKEN[name]
    make(tmp_path / "archive")
    with pytest.raises(DataError, match=what) as error:
        read_members(tmp_path / "archive", ["a"])
    assert str(error.value).startswith(f"The archive {str(tmp_path / 'archive')!r} cannot be used: ")
    assert "\n" not in str(error.value)


def test_a_zip_whose_member_is_larger_than_it_claims_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", "a")
    claimed = path.read_bytes().replace(len(CONTENT).to_bytes(4, "little"), (7).to_bytes(4, "little"))
    path.write_bytes(claimed)
    with pytest.raises(DataError, match="Bad CRC-32"):
        read_members(path, ["a"])


def test_a_member_twice_in_a_zip_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zipped(tmp_path / "a.zip", "a", "a")
    with pytest.raises(DataError, match="'a' is in it twice"):
        read_members(path, ["a"])


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", "a")
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag in the member's own header
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and in the directory at the end
    path.write_bytes(content)
    with pytest.raises(DataError, match="encrypted"):
        read_members(path, ["a"])
