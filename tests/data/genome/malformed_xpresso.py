"""What users may have done to the published HDF5 files, and to archives, and what must come of each."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.data.genome.malformed_cases import (
    Case,
    Change,
    after,
    counted,
    every,
    holds,
    packed,
    refused,
    same,
    sub,
    without,
)
from tests.data.xpresso_cases import GENES, published

H5, PROTEINS, TSV = "xpresso/valid.h5", "joined/proteins.fa", "joined/levels.tsv"
GENE = GENES["valid"][3]
CONTENT = published()["valid"]


def put(name: str, values: Any, **options: Any) -> Change:
    """A set of the file is another one."""

    def act(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file[name]
            file.create_dataset(name, data=values, **options)

    return act


def at(name: str, place: Any, value: Any) -> Change:
    def act(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file[name][place] = value

    return act


def no(name: str) -> Change:
    def act(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file[name]

    return act


def linked(path: Path) -> None:
    no("label")(path)
    with h5py.File(path, "r+") as file:
        file["label"] = h5py.ExternalLink("test.h5", "/label")


IN_XPRESSO: dict[str, Case] = {
    **{f"no {name}": refused(H5, no(name), f"valid.h5 has no `{name}`") for name in CONTENT},
    "no sets": refused(H5, every(*map(no, CONTENT)), "valid.h5 has no `.*but nothing"),
    "a set in another file": refused(H5, linked, "has a ExternalLink as `label`"),
    "half a file": refused(H5, packed(bytes, cut=4000), "valid.h5 cannot be read as HDF5"),
    "packed with gzip": refused(H5, packed(gzip.compress), "valid.h5 cannot be read as HDF5"),
    "texts": refused(H5, holds("ENSG1\t0.5\n"), "valid.h5 cannot be read as HDF5"),
    "empty": refused(H5, holds(""), "valid.h5 cannot be read as HDF5"),
    "no file": refused(H5, lambda path: path.unlink(), "valid.h5 is not there"),
    "a folder": refused(H5, lambda path: (path.unlink(), path.mkdir())[1], "valid.h5 is not there"),
    "the file in place of the folder": refused(H5, lambda path: {"files": path}, "valid.h5/train.h5 is not there"),
    "windows turned": refused(H5, put("promoter", CONTENT["promoter"].swapaxes(1, 2)), r"shape \(10, 4, 20000\)"),
    "a label less": refused(H5, put("label", np.zeros(9)), "9 of `label`"),
    "an infinite label": refused(H5, at("label", 3, np.inf), f"infinite numbers in `label`, the first for {GENE}"),
    "labels as texts": refused(H5, put("label", np.array([b"0.5"] * 10)), "`label` of the type"),
    "two bases at once": refused(H5, at("promoter", (3, 77), True), f"at position 77 of {GENE}"),
    "a gene of another file": refused(
        H5, at("geneName", 3, GENES["test"][0].encode()), "valid.h5 and again in .*test.h5"
    ),
    "a file twice": refused(
        H5, lambda path: path.write_bytes(path.with_name("train.h5").read_bytes()) and None, "and again in .*valid.h5"
    ),
    "a name with a space": refused(H5, at("geneName", 3, b"BRCA 2"), "names gene 3 of `geneName` 'BRCA 2'"),
    "names with versions": same(H5, put("geneName", np.array([f"{gene}.7" for gene in GENES["valid"]], "S20"))),
    "windows as whole numbers": same(H5, put("promoter", CONTENT["promoter"].astype(np.int16), compression="gzip")),
    "a label that is NaN": counted(H5, at("label", 3, np.nan), {"^label NaN": [GENE]}, lost=(GENE,)),
    "a feature that is NaN": counted(H5, at("data", (3, 2), np.nan), {"^half-life features NaN": [GENE]}, lost=(GENE,)),
    "a window without a base": counted(H5, at("promoter", 3, False), {"no known base": [GENE]}),
    "a base that is none": counted(H5, at("promoter", (3, 77), False), {}, lost=(GENE,)),
    "a protein missing": counted(PROTEINS, without(rf"{GENE}\n.*"), {"no protein in": [GENE]}),
    "a protein with a stop": counted(
        PROTEINS, sub(rf"(?<={GENE}\nM)", "*"), {"a stop inside": [f"{GENE} {GENE}"], "no protein in": [GENE]}
    ),
    "a shorter protein as well": same(PROTEINS, after(f">ENSP1 pep gene:{GENE}.2\nMKL\n")),
    "proteins of another organism": refused(PROTEINS, sub("ENSG", "ENSMUSG"), "proteins.fa has 0 of the 32 genes"),
    "a residue that is none": refused(
        PROTEINS, sub(rf"(?<={GENE}\nM)", "1"), f"proteins.fa.*{GENE}.*not a protein symbol"
    ),
    "a level missing": counted(TSV, sub(rf"(?<={GENE}\t).*", "NA"), {"no level in": [GENE]}),
    "an infinite level": refused(TSV, sub(rf"(?<={GENE}\t).*", "inf"), f"levels.tsv.*'inf'.*{GENE}"),
    "levels of others": refused(TSV, sub("ENSG0", "ENSG1"), "levels.tsv.* has 0 of the 32 genes"),
}


def tar(*members: tuple[str, bytes, str], cut: int | None = None) -> Callable[[Path], object]:
    """Of (name, type, what it links to)."""

    def make(path: Path) -> None:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            for name, kind, target in members:
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, target
                member.size = 9 * (kind == tarfile.REGTYPE)
                archive.addfile(member, io.BytesIO(b"gene\t1.5\n"))
        path.write_bytes(out.getvalue()[:cut])

    return make


def zipped(*names: str, cut: int | None = None) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name in names:
                archive.writestr(zipfile.ZipInfo(name), b"gene\t1.5\n")
        path.write_bytes(out.getvalue()[:cut])

    return make


A = ("a", tarfile.REGTYPE, "")
ESCAPING = ("../b", "/etc/b", "pkg/../../b", "..\\b", "C:\\b", "\\\\host\\share\\b", "pkg/..")
ARCHIVES: dict[str, tuple[Callable[[Path], object], str]] = {
    **{f"a tar with {name}": (tar(A, (name, tarfile.REGTYPE, "")), "leads out of the archive") for name in ESCAPING},
    **{f"a zip with {name}": (zipped("a", name), "leads out of the archive") for name in ESCAPING},
    "a link out of it": (tar(("a", tarfile.SYMTYPE, "/etc/passwd")), "'a' is no plain file"),
    "a hard link": (tar(("b", tarfile.REGTYPE, ""), ("a", tarfile.LNKTYPE, "b")), "'a' is no plain file"),
    "a device": (tar(("a", tarfile.CHRTYPE, "")), "'a' is no plain file"),
    "a member twice": (tar(A, A), "'a' is in it twice"),
    "another member": (tar(("b", tarfile.REGTYPE, "")), "has no member 'a'"),
    "a tar cut short": (tar(A, cut=40), "cannot be used"),
    "a zip cut short": (zipped("a", cut=-5), "cannot be used"),
    "an empty file": (lambda path: path.write_bytes(b""), "neither a zip nor a gzipped tar"),
    "a name that a terminal takes for a command": (zipped("a", "\x1b[2J/../b"), "leads out of the archive"),
    "no file": (lambda path: None, "No such file"),
}
