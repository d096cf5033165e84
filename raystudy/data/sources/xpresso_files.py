"""HDF5 files of Xpresso, read as what a stranger made: nothing but these files, a bounded part of them at a time.

n genes of one file, L bases of a window.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from raystudy.data.encode import DNA_SYMBOLS, HALF_LIFE_FEATURES, Tokens
from raystudy.data.genome.joining import without_version
from raystudy.errors import DataError

WINDOW_BP = 20_000
TSS = 10_000
"""Index of the TSS in a window; as the published windows were cut, it is one less for some genes, by their strand."""

_BASES = "ACGT"
_SHAPES = {
    "data": (HALF_LIFE_FEATURES,),
    "promoter": (WINDOW_BP, len(_BASES)),
    "label": (),
    "geneName": (),
}
_KINDS = {"data": "fiu", "promoter": "biu", "label": "fiu", "geneName": "S"}
"""As NumPy calls them. No texts of any length: for these HDF5 follows pointers, in a damaged file without an end."""
_MOST_GENES = 200_000
_MOST_BYTES = 256  # of an id
_MOST_CHUNK_BYTES = 256 * 2**20  # of a file: HDF5 unpacks a chunk whole, whatever part of it is asked for
_GENES_AT_ONCE = 256


@dataclass(frozen=True)
class Part:
    """All of one file but its windows: ids without version, labels [n] and features [n, 8] as they stand in it."""

    path: Path
    gene_ids: list[str]
    labels: NDArray[np.float64]
    features: NDArray[np.float32]


def read_part(path: Path) -> Part:
    """Raises DataError where the file cannot be read, is not laid out as published, or takes data from elsewhere."""
    with _opened(path) as file:
        found = {name: _dataset(path, file, name) for name in _SHAPES}
        lengths = {name: dataset.shape[0] for name, dataset in found.items()}
        if len(set(lengths.values())) > 1 or not 0 < lengths["label"] <= _MOST_GENES:
            what = ", ".join(f"{num} of `{name}`" for name, num in lengths.items())
            raise _refusal(path, f"has {what}. Each gene has one of each, and there are 1 to {_MOST_GENES:,}")
        labels = np.asarray(found["label"][:], dtype=np.float64)
        with np.errstate(over="ignore"):  # what is too large for 32 bits is infinite, and refused as that
            features = np.asarray(found["data"][:], dtype=np.float32)
        part = Part(path, _ids(path, found["geneName"]), labels, features)
    for name, values in (("label", labels), ("data", features)):
        if infinite := np.argwhere(np.isinf(values)).tolist():
            gene = part.gene_ids[infinite[0][0]]
            raise _refusal(
                path, f"has {len(infinite)} infinite numbers in `{name}`, the first for {gene}. Correct them"
            )
    return part


def read_windows(part: Part, rows: NDArray[np.int64], out: Tokens) -> None:
    """Tokens of the windows of these genes, ascending, into ``out`` [len(rows), L]; no base, all zeros, is N.

    Raises DataError where a position has a value besides 0 and 1, or more than one base, or the file cannot be read.
    """
    with _opened(part.path) as file:
        windows = _dataset(part.path, file, "promoter")
        for first in range(0, len(part.gene_ids), _GENES_AT_ONCE):
            here = slice(*np.searchsorted(rows, [first, first + _GENES_AT_ONCE]))
            if here.start < here.stop:
                one_hot = windows[first : first + _GENES_AT_ONCE][rows[here] - first]
                out[here] = _tokens(part, rows[here], one_hot)


def _tokens(part: Part, rows: NDArray[np.int64], one_hot: NDArray[Any]) -> Tokens:
    if one_hot.dtype == np.bool_:
        one_hot = one_hot.view(np.uint8)  # a file's byte may be neither 0 nor 1
    wrong = (one_hot < 0) | (one_hot > 1)
    if not wrong.any():
        bases = one_hot.astype(np.uint8, copy=False)
        wrong = (
            bases[..., 0] + bases[..., 1] + bases[..., 2] + bases[..., 3] > 1
        )  # as a sum over axis 2, but 5 x as fast
    if wrong.any():
        row, position = np.argwhere(wrong)[0][:2].tolist()
        gene, what = part.gene_ids[rows[row]], one_hot[row, position].tolist()
        raise _refusal(
            part.path,
            f"has {what} at position {position} of {gene}'s `promoter`. One of {', '.join(_BASES)} is 1 and the "
            "others are 0, or all are 0 where the base is unknown",
        )
    tokens = np.zeros(bases.shape[:2], np.uint8)
    for column, base in enumerate(_BASES):
        tokens += bases[..., column] * np.uint8(DNA_SYMBOLS.index(base))
    return tokens


def _refusal(path: Path, what: str) -> DataError:
    return DataError(
        f"{path} {what}; as published, it holds `data` [n, 8], `promoter` [n, 20000, 4], `label`, `geneName`."
    )


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """DataError where the file cannot be opened, and for whatever HDF5 meets while it is read within the ``with``."""
    if not path.is_file():
        raise DataError(
            f"{path} is not there. The data published with Xpresso is a folder with train.h5, valid.h5 and test.h5: "
            "give that one, with the files unpacked"
        )
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path} cannot be read as HDF5 ({type(error).__name__}: {reason:.200}). Check that it is whole, and "
            "download it again where it is not"
        ) from error


def _dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset that is all in this file, of the shape and kind that it should have."""
    link = file.get(name, getlink=True)
    if link is None:
        names = ", ".join(sorted(map(str, file))[:8])
        raise _refusal(path, f"has no `{name}`, but {names or 'nothing'}")
    if not isinstance(link, h5py.HardLink):  # soft and external ones, which may name any file of this machine
        raise _refusal(path, f"has a {type(link).__name__} as `{name}`. Data is read from this file only: copy it in")
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise _refusal(path, f"has a {type(found).__name__} as `{name}`, not a dataset")
    if found.is_virtual or found.external:
        raise _refusal(path, f"takes `{name}` from other files. Data is read from this file only: copy it in")
    _check_layout(path, name, found)
    return found


def _check_layout(path: Path, name: str, found: h5py.Dataset) -> None:
    if found.shape is None or not found.shape or found.shape[1:] != _SHAPES[name]:
        raise _refusal(path, f"has `{name}` of the shape {found.shape}")
    if found.dtype.kind not in _KINDS[name] or found.dtype.itemsize > _MOST_BYTES:
        what = "texts of one fixed length" if name == "geneName" else "plain numbers"
        raise _refusal(path, f"has `{name}` of the type {found.dtype}. Write it as {what}")
    if found.chunks and math.prod(found.chunks) * found.dtype.itemsize > _MOST_CHUNK_BYTES:
        raise _refusal(
            path, f"has `{name}` in chunks of {found.chunks}, too large to read piece by piece. Cut it finer"
        )


def _ids(path: Path, names: h5py.Dataset) -> list[str]:
    ids = [without_version(text.strip()) for text in names.asstr("utf-8", "strict")[:]]
    for row, gene in enumerate(ids):
        if not re.fullmatch(r"[!-~]{1,256}", gene):
            raise _refusal(path, f"names gene {row} of `geneName` {gene[:40]!r}. An id is one word of ASCII characters")
    return ids
