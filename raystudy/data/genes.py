"""The gene table: one row a gene, written once, identified by its content, read through memory maps.

A prepared folder holds ``genes.parquet`` (everything, for any tool), and two uncompressed Feather files that
workers map into memory: ``windows.feather`` (DNA tokens) and ``proteins.feather`` (protein tokens).

The identity of the data is its content hash: sha256 over the digests of the columns' values. Each column has
a digest of its own so that it can be checked when it is read; labels in particular are read, and checked, by
``Genes.target`` only, because the test part of a split must stay sealed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raystudy.data.encode import DNA_SYMBOLS, PROTEIN_AMBIGUOUS, codon_tokens, tokenize_protein
from raystudy.data.encode import FEATURES as FEATURES  # the columns' names belong to the table's interface
from raystudy.errors import DataError

TABLE, WINDOWS, PROTEINS = "genes.parquet", "windows.feather", "proteins.feather"

_SCHEMA_VERSION = 1
METADATA_KEY = b"raystudy"
_PROTEIN_TOKENS = "protein_tokens"
_ROW_GROUP = 512  # genes; Parquet's writer holds several bytes for each token of a group
_TEXTS = ("gene_id", "symbol", "chrom", "strand", "protein", "cds")


@dataclass(frozen=True)
class Target:
    """One label for each gene: ``values`` float64 [n], NaN where there is none, in ``unit``."""

    values: NDArray[np.float64]
    unit: str


@dataclass(frozen=True)
class GeneTable:
    """What a source hands over, n genes in genome order.

    ``starts`` and ``ends`` are 1-based and inclusive; ``windows`` uint8 [n, length] are DNA tokens in the
    gene's own direction, with the TSS or CDS start at index ``anchor``; ``cds`` is spliced and ends with the
    stop codon; ``features`` float32 [n, 8] are in the order of ``FEATURES``, NaN where missing;
    ``source_digests`` is file name -> sha256; ``notes`` is what else is worth knowing (what was left out, a
    noise ceiling), as JSON values.
    """

    source: str
    source_digests: Mapping[str, str]
    anchor: int
    gene_ids: Sequence[str]
    symbols: Sequence[str]
    chroms: Sequence[str]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    strands: Sequence[str]
    windows: NDArray[np.uint8]
    proteins: Sequence[str]
    cds: Sequence[str]
    features: NDArray[np.float32]
    targets: Mapping[str, Target]
    family_ids: NDArray[np.int64]
    notes: Mapping[str, Any] = field(default_factory=dict)


def write_genes(table: GeneTable, out: Path) -> Path:
    """Write the prepared folder ``out`` and return it; on any failure ``out`` is as it was before.

    Files appear whole or not at all: they are written into a temporary folder beside ``out`` and renamed, and
    ``genes.parquet``, without which nothing opens the folder, comes last. Other files in ``out`` stay.
    Raises DataError when the table's parts do not fit together, a sequence holds an unknown symbol, or the
    folder cannot be written.
    """
    tokens, offsets = _checked_protein_tokens(table)
    columns = _columns(table)
    metadata = _metadata(table, columns, _digest(tokens, offsets))
    home = out.resolve()
    staging = home.parent / f".{home.name}-{uuid.uuid4().hex}"
    try:
        staging.mkdir(parents=True)
        windows = _fixed_size_lists(table.windows)
        proteins = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(tokens))
        _write_feather(pa.table({"window": windows}), staging / WINDOWS)
        _write_feather(pa.table({"protein": proteins}), staging / PROTEINS)
        arrow = pa.table({name: _arrow(values) for name, values in columns.items()} | {"window": windows})
        arrow = arrow.replace_schema_metadata({METADATA_KEY: json.dumps(metadata)})
        pq.write_table(arrow, staging / TABLE, compression="zstd", row_group_size=_ROW_GROUP)
        _move_into(staging, home)
    except OSError as error:
        raise DataError(
            f"The gene table could not be written to {str(out)!r}: {error}. "
            f"Make room there, or choose another folder; nothing half-written was left."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return out


class Genes:
    """A prepared folder, read through memory maps; make one with ``Genes.open``.

    ``starts``, ``ends`` (1-based inclusive) and ``family_ids`` are int64 [n]; ``gene_ids``, ``chroms`` and
    ``strands`` text [n]; ``features`` float32 [n, 8], raw, NaN where missing. Protein i is
    ``protein_tokens[protein_offsets[i]:protein_offsets[i+1]]``. ``units`` and ``notes`` are the source's own.
    """

    def __init__(self, folder: Path, metadata: Mapping[str, Any]) -> None:
        self.folder = folder
        self.origin = str(folder)
        self.hash = str(metadata["content_hash"])
        self.source = str(metadata["source"])
        self.source_digests: dict[str, str] = dict(metadata["source_digests"])
        self.anchor = int(metadata["anchor"])
        self.window_length = int(metadata["window_length"])
        self.units: dict[str, str] = dict(metadata["units"])
        self.targets: tuple[str, ...] = tuple(self.units)
        self.notes: dict[str, Any] = dict(metadata["notes"])
        self._digests: dict[str, str] = dict(metadata["digests"])

        self.gene_ids = self._text_array("gene_id")
        self.chroms = self._text_array("chrom")
        self.strands = self._text_array("strand")
        self.starts: NDArray[np.int64] = self._column("start")
        self.ends: NDArray[np.int64] = self._column("end")
        self.family_ids: NDArray[np.int64] = self._column("family_id")
        self.features: NDArray[np.float32] = np.stack([self._column(name) for name in FEATURES], axis=1)
        self.num_genes = len(self.gene_ids)

        windows = _map_feather(folder / WINDOWS).column("window").combine_chunks()
        self._windows: NDArray[np.uint8] = windows.flatten().to_numpy().reshape(self.num_genes, self.window_length)
        self._verify("window", self._windows)
        proteins = _map_feather(folder / PROTEINS).column("protein").combine_chunks()
        self.protein_tokens: NDArray[np.uint8] = proteins.values.to_numpy()
        self.protein_offsets: NDArray[np.int64] = proteins.offsets.to_numpy()
        self._verify(_PROTEIN_TOKENS, self.protein_tokens, self.protein_offsets)

    @classmethod
    def open(cls, folder: Path) -> Genes:
        """Open a folder that ``write_genes`` wrote, checking every value it reads against the content hash.

        Raises DataError when a file is missing, damaged or altered. Labels are not read.
        """
        folder = Path(folder)
        if not (folder / TABLE).is_file():
            raise DataError(
                f"There is no prepared data in {str(folder)!r}: {TABLE} is missing there. "
                f"Write it with `raystudy prepare SOURCE --out {folder}`, or point to the folder that has it."
            )
        try:
            metadata = json.loads(pq.read_schema(folder / TABLE).metadata[METADATA_KEY])
            if metadata["schema_version"] != _SCHEMA_VERSION:
                raise DataError(
                    f"The gene table in {str(folder)!r} has schema version {metadata['schema_version']!r}; "
                    f"this raystudy reads version {_SCHEMA_VERSION}. Prepare the data again with this one."
                )
            if _content_hash(metadata["digests"], metadata["anchor"]) != metadata["content_hash"]:
                raise _damaged(folder, "its content hash does not match its column digests")
            return cls(folder, metadata)
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise _damaged(folder, f"{type(error).__name__}: {error}") from error

    def windows(self, window_bp: tuple[int, int]) -> NDArray[np.uint8]:
        """DNA tokens of [-up, +down) around the anchor, uint8 [n, up + down]: a read-only view, no copy.

        Raises DataError when the window does not lie inside the stored one.
        """
        up, down = window_bp
        stored_down = self.window_length - self.anchor
        if up < 0 or down < 0 or up + down == 0 or up > self.anchor or down > stored_down:
            raise DataError(
                f"The window [{up}, {down}] bp (upstream, downstream) does not lie inside the stored window "
                f"[{self.anchor}, {stored_down}] of {str(self.folder)!r}. "
                f"Choose a smaller `window_bp`, or prepare the data again with a longer window."
            )
        return self._windows[:, self.anchor - up : self.anchor + down]

    def target(self, name: str) -> NDArray[np.float64]:
        """The label ``name`` of every gene, float64 [n], NaN where there is none, in ``units[name]``.

        This is the only place where labels are read. Raises DataError when the data has no such label.
        """
        if name not in self.targets:
            raise DataError(
                f"The data in {str(self.folder)!r} has no {name!r} level; "
                f"it has {', '.join(self.targets) or 'none'}. "
                f"Choose one of these as `target`, or prepare a source that measures {name!r}."
            )
        return self._column(_label(name))

    @cached_property
    def codons(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Codon tokens of all genes end to end, and the offsets between which each gene's stand."""
        named = zip(self.texts("cds"), self.gene_ids, strict=True)
        parts = [codon_tokens(text, f"the CDS of {gene}") for text, gene in named]
        return np.concatenate(parts), np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)

    def texts(self, column: Literal["symbol", "protein", "cds"]) -> list[str]:
        """A text column, read from the Parquet file each time it is asked for."""
        values: list[str] = self._column(column)
        return values

    def _text_array(self, name: str) -> NDArray[np.str_]:
        return np.array(self._column(name), dtype=np.str_)

    def _column(self, name: str) -> Any:
        column = pq.read_table(self.folder / TABLE, columns=[name]).column(name)
        values = column.to_pylist() if name in _TEXTS else column.to_numpy().copy()
        self._verify(name, values)
        return values

    def _verify(self, name: str, *values: NDArray[Any] | Sequence[str]) -> None:
        if _digest(*values) != self._digests[name]:
            raise _damaged(self.folder, f"the values of {name!r} do not match the content hash")


def _damaged(folder: Path, what: str) -> DataError:
    return DataError(
        f"The prepared data in {str(folder)!r} is damaged or was altered: {what}. "
        f"Nothing can be trusted in it; delete the folder and write it again with `raystudy prepare`."
    )


def _label(target: str) -> str:
    """The column of a target: the plain word ``protein`` is taken by the sequence."""
    return f"{target}_level"


def _columns(table: GeneTable) -> dict[str, NDArray[Any] | list[str]]:
    """Every column but the window (its Arrow type is its own), in the table's order."""
    columns: dict[str, NDArray[Any] | list[str]] = {
        "gene_id": list(table.gene_ids),
        "symbol": list(table.symbols),
        "chrom": list(table.chroms),
        "start": np.asarray(table.starts, dtype=np.int64),
        "end": np.asarray(table.ends, dtype=np.int64),
        "strand": list(table.strands),
        "family_id": np.asarray(table.family_ids, dtype=np.int64),
        "protein": list(table.proteins),
        "cds": list(table.cds),
    }
    for index, name in enumerate(FEATURES):
        columns[name] = np.asarray(table.features[:, index], dtype=np.float32)
    for name, target in table.targets.items():
        columns[_label(name)] = np.asarray(target.values, dtype=np.float64)
    return columns


def _checked_protein_tokens(table: GeneTable) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    num_genes = len(table.gene_ids)
    if num_genes == 0:
        raise DataError(f"The source {table.source!r} has no genes left to write. Check what it was made from.")
    for name, values in _columns(table).items():
        if len(values) != num_genes:
            raise DataError(f"{table.source!r}: the column {name!r} has {len(values)} values for {num_genes} genes.")
    if len(set(table.gene_ids)) < num_genes:
        twice = next(gene for gene in table.gene_ids if list(table.gene_ids).count(gene) > 1)
        raise DataError(f"{table.source!r}: the gene id {twice!r} occurs more than once. Gene ids must be unique.")
    if table.windows.shape[0] != num_genes or table.windows.dtype != np.uint8:
        raise DataError(
            f"{table.source!r}: windows must be uint8 [{num_genes}, length], "
            f"but got {table.windows.dtype} {list(table.windows.shape)}."
        )
    if table.windows.max(initial=0) >= len(DNA_SYMBOLS) or not 0 <= table.anchor < table.windows.shape[1]:
        raise DataError(
            f"{table.source!r}: window tokens must be below {len(DNA_SYMBOLS)} "
            f"(largest: {table.windows.max()}) and the anchor inside the {table.windows.shape[1]} bp window "
            f"(got {table.anchor})."
        )
    parts = [tokenize_protein(text, gene) for gene, text in zip(table.gene_ids, table.proteins, strict=True)]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return np.concatenate(parts), offsets


def _metadata(
    table: GeneTable, columns: Mapping[str, NDArray[Any] | list[str]], protein_tokens_digest: str
) -> dict[str, Any]:
    digests = {name: _digest(values) for name, values in columns.items()}
    digests |= {"window": _digest(table.windows), _PROTEIN_TOKENS: protein_tokens_digest}
    return {
        "schema_version": _SCHEMA_VERSION,
        "source": table.source,
        "source_digests": dict(table.source_digests),
        "anchor": table.anchor,
        "window_length": table.windows.shape[1],
        "units": {name: target.unit for name, target in table.targets.items()},
        "notes": {**table.notes, "unknown": _count_unknown(table)},
        "digests": digests,
        "content_hash": _content_hash(digests, table.anchor),
    }


def _count_unknown(table: GeneTable) -> dict[str, Any]:
    """What the networks cannot tell apart: N (ambiguous bases, and beyond a chromosome's end), X, and what became X;
    and coding sequences that have not as many codons as their protein has residues."""
    proteins = "".join(table.proteins).upper()
    return {
        "bases_n": int((table.windows == 0).sum()),
        "windows_with_n": int((table.windows == 0).any(axis=1).sum()),
        "residues_x": proteins.count("X"),
        "residues_read_as_x": sum(proteins.count(symbol) for symbol in PROTEIN_AMBIGUOUS),
        "cds_of_another_length": sum(
            bool(cds) and len(cds) - 3 * len(protein) not in (0, 3)  # with or without its stop
            for protein, cds in zip(table.proteins, table.cds, strict=True)
        ),
    }


def _content_hash(digests: Mapping[str, str], anchor: int) -> str:
    """The identity of the data: what every column holds, and where in the window the anchor is."""
    canonical = json.dumps({"anchor": anchor, "digests": digests}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _digest(*parts: NDArray[Any] | Sequence[str]) -> str:
    """sha256 of values, whatever file format holds them: little-endian, one NaN, texts with their lengths."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            array = np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("<"))
            if array.dtype.kind == "f":
                array = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
            sha.update(f"{array.dtype.str}{array.shape}".encode())
            sha.update(array.data)
        else:
            texts = [text.encode() for text in part]
            sha.update(np.array([len(text) for text in texts], dtype="<i8").tobytes())
            sha.update(b"".join(texts))
    return sha.hexdigest()


def _arrow(values: NDArray[Any] | list[str]) -> pa.Array:
    # from_pandas: a missing number is null on disk, which every tool understands, and NaN again when read.
    return pa.array(values, type=pa.large_string()) if isinstance(values, list) else pa.array(values, from_pandas=True)


def _fixed_size_lists(windows: NDArray[np.uint8]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(windows.reshape(-1)), windows.shape[1])


def _write_feather(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _map_feather(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def _move_into(staging: Path, out: Path) -> None:
    if not out.exists():
        staging.rename(out)
        return
    (out / TABLE).unlink(missing_ok=True)
    for name in (WINDOWS, PROTEINS, TABLE):
        (staging / name).replace(out / name)
