"""Genes without labels, in memory: what a trained network is asked about.

n genes. Files of any size are read as one `Sequences` after the other; see `streams`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from raystudy.data.encode import DNA_SYMBOLS, FEATURES, codon_tokens, tokenize_dna, tokenize_protein
from raystudy.data.genes import METADATA_KEY, Genes
from raystudy.data.tables import GENE_ID
from raystudy.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {"dna": ("window",), "protein": ("protein",), "codon": ("cds",), "half_life": FEATURES}
"""Input -> the columns of a table that give it."""
KNOWN_BASES = "known_bases"
"""What a network that reads each base, or 3-mer, of the DNA window needs besides the window: one that is known."""
_WINDOW = "the column `window` (on the command line also with --dna FASTA)"
_WORDS = {
    "dna": ("DNA window", _WINDOW),
    KNOWN_BASES: ("known bases of the DNA window (one, or a 3-mer of them, at least)", _WINDOW),
    "protein": ("protein", "the column `protein` (on the command line also with --protein FASTA)"),
    "codon": ("coding sequence", "the column `cds` (on the command line also with --cds FASTA)"),
    "half_life": (
        "half-life features",
        f"the columns {', '.join(FEATURES)} (on the command line also with --features TABLE)",
    ),
}


class Ragged(NamedTuple):
    """Sequences end to end: number i is ``tokens[offsets[i]:offsets[i+1]]``."""

    tokens: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, parts: Iterable[NDArray[np.uint8]]) -> Self:
        given = list(parts)
        return cls(np.concatenate([np.empty(0, np.uint8), *given]), np.cumsum([0, *map(len, given)], dtype=np.int64))

    def part(self, row: int) -> NDArray[np.uint8]:
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    def take(self, rows: Iterable[int]) -> Ragged:
        return Ragged.of(self.part(row) for row in rows)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)


class Readable(Protocol):
    """What is read of genes before a network sees them; `Genes` and `Sequences` have it."""

    @property
    def origin(self) -> str: ...
    @property
    def num_genes(self) -> int: ...
    @property
    def gene_ids(self) -> NDArray[np.str_]: ...
    @property
    def features(self) -> NDArray[np.float32]: ...
    @property
    def protein_tokens(self) -> NDArray[np.uint8]: ...
    @property
    def protein_offsets(self) -> NDArray[np.int64]: ...
    @property
    def codons(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]: ...
    def windows(self, window_bp: tuple[int, int]) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class Sequences:
    """Some genes in memory, without labels; what is not known of a gene is an empty sequence."""

    gene_ids: NDArray[np.str_]
    dna: Ragged
    """Around the TSS or CDS start, in the gene's own direction, of any lengths."""
    protein: Ragged
    codons: Ragged
    features: NDArray[np.float32]
    """The half-life features, raw, [n, 8]; NaN where missing."""
    has_features: NDArray[np.bool_]
    """Which genes have them, be it as missing values, which are read as the mean of the training genes; [n]."""
    anchor: int | None
    """Index of the TSS or CDS start in the DNA; None where the DNA is just the window of the network."""
    origin: str
    """Where they are from, as messages call it."""

    @classmethod
    def of_table(
        cls,
        table: pa.Table | pd.DataFrame,
        inputs: Collection[str] = tuple(COLUMNS),
        anchor: int | None = None,
        origin: str = "the table",
    ) -> Self:
        """From columns named as in ``genes.parquet``; of them only ``gene_id`` and what gives ``inputs`` are read.

        ``window`` holds texts or lists of tokens, in the gene's own direction; ``protein`` and ``cds`` hold texts.
        Texts may be in either case, IUPAC codes are read as unknown, ``*`` that end a protein are left out. A column
        that is not there, and an empty sequence, is an input not known; the eight features' columns come together, and
        where they are there, an empty value is read as the mean of the training genes.
        ``anchor`` is the index of the TSS or CDS start in the windows, where the table does not say it itself.

        Raises DataError, naming the gene, on a symbol that is none, an empty or repeated id, a token out of range; and
        where some of the features' columns, or another ``anchor``, contradict the table.
        """
        table = columns_read(table, inputs, origin)
        try:
            ids = table.column(GENE_ID).cast(pa.string()).to_pylist()
        except pa.ArrowException:
            raise DataError(
                f"{origin}: the column `{GENE_ID}` must hold texts, but holds {table.column(GENE_ID).type}"
            ) from None
        _check_ids(ids, origin)

        def read(name: str, tokenise: Callable[[str, str], NDArray[np.uint8]]) -> Ragged:
            [column] = COLUMNS[name]
            if name not in inputs or column not in table.column_names:
                return Ragged.of([np.empty(0, np.uint8)] * len(ids))
            values = table.column(column)
            if types.is_dictionary(values.type):  # a Categorical of pandas
                values = values.cast(values.type.value_type)
            if name == "dna" and not _is_text(values.type):
                return _tokens(values, ids, origin)
            if not _is_text(values.type):
                raise DataError(f"{origin}: the column `{column}` must hold texts, but holds {values.type}")
            texts = values.to_pylist()
            return Ragged.of(
                tokenise(text or "", f"the {column} of {gene}") for gene, text in zip(ids, texts, strict=True)
            )

        features = _features(table, origin) if "half_life" in inputs else None
        has_features = features is not None
        if features is None:
            features = np.full((len(ids), len(FEATURES)), np.nan, np.float32)
        return cls(
            np.array(ids, dtype=np.str_),
            read("dna", tokenize_dna),
            read("protein", lambda text, gene: tokenize_protein(text.rstrip("*"), gene)),
            read("codon", lambda text, gene: codon_tokens(text, gene)),
            features,
            np.full(len(ids), has_features),
            _anchor(table, anchor, origin),
            origin,
        )

    @classmethod
    def of_genes(cls, genes: Genes, rows: range, inputs: Collection[str]) -> Self:
        """Some genes of a prepared folder, with what gives ``inputs`` alone.

        Codons are those of the whole folder, tokenised once and kept: memory grows with the number of its genes.
        """
        nothing = Ragged.of([np.empty(0, np.uint8)] * len(rows))
        windows = genes.windows((genes.anchor, genes.window_length - genes.anchor))
        protein, codons = Ragged(genes.protein_tokens, genes.protein_offsets), nothing
        if "codon" in inputs:
            codons = Ragged(*genes.codons).take(rows)
        return cls(
            genes.gene_ids[rows.start : rows.stop],
            Ragged.of(windows[row] for row in rows) if "dna" in inputs else nothing,
            protein.take(rows) if "protein" in inputs else nothing,
            codons,
            genes.features[rows.start : rows.stop],
            np.ones(len(rows), bool),
            genes.anchor,
            genes.origin,
        )

    @property
    def num_genes(self) -> int:
        return len(self.gene_ids)

    @property
    def protein_tokens(self) -> NDArray[np.uint8]:
        return self.protein.tokens

    @property
    def protein_offsets(self) -> NDArray[np.int64]:
        return self.protein.offsets

    def windows(self, window_bp: tuple[int, int]) -> NDArray[np.uint8]:
        """DNA tokens of [-up, +down) around the anchor, uint8 [n, up + down].

        Raises DataError, naming the gene, where its DNA does not reach so far, or is longer and has no anchor.
        """
        up, down = window_bp
        anchor = up if self.anchor is None else self.anchor
        for gene, length in zip(self.gene_ids, self.dna.lengths.tolist(), strict=True):
            if self.anchor is None and length != up + down:
                raise DataError(
                    f"{self.origin}: {gene} has {length} bp of DNA, and where in it the TSS or CDS start is, is not "
                    f"said. The network reads [{up}, {down}] bp (upstream, downstream) of that: give its index "
                    f"(--anchor N; in Python `Sequences.of_table(table, anchor=N)`), or exactly these {up + down} bp"
                )
            if anchor < up or anchor + down > length:
                raise DataError(
                    f"{self.origin}: {gene} has {length} bp of DNA, {min(anchor, length)} bp of it upstream of the TSS "
                    f"or CDS start and {max(length - anchor, 0)} from there; the network reads [{up}, {down}] bp "
                    f"(upstream, downstream), {up + down} bp in all. Give more, with N beyond a chromosome's end"
                )
        starts = self.dna.offsets[:-1] + anchor - up
        return np.array([self.dna.tokens[start : start + up + down] for start in starts], np.uint8).reshape(
            -1, up + down
        )

    def take(self, rows: NDArray[np.int64]) -> Sequences:
        """Some of these genes."""
        return replace(
            self,
            gene_ids=self.gene_ids[rows],
            dna=self.dna.take(rows),
            protein=self.protein.take(rows),
            codons=self.codons.take(rows),
            features=self.features[rows],
            has_features=self.has_features[rows],
        )

    def lacking(self, input: str) -> NDArray[np.bool_]:
        """Which genes do not have this input, [n]."""
        if input == "half_life":
            return ~self.has_features
        return {"dna": self.dna, "protein": self.protein, "codon": self.codons}[input].lengths == 0


def how_to_give(input: str) -> str:
    """An input's name, and the option that gives it: the end of a message."""
    word, how = _WORDS[input]
    return f"the {word}; give it in {how}"


def lacking_error(origin: str, input: str, gene: str, num_lacking: int, num_genes: int) -> DataError:
    """What is said where genes lack an input that a network reads: the first of them, and how many there are."""
    return DataError(
        f"{origin}: {num_lacking} of {num_genes} genes, the first is {gene}, lack what the network reads: "
        + how_to_give(input)
        + (", or leave these genes out (on the command line with --skip-missing)" if num_lacking < num_genes else "")
    )


def columns_read(table: pa.Table | pd.DataFrame, inputs: Collection[str], origin: str = "the table") -> pa.Table:
    """The columns of a table that give ``inputs``, as far as it has them; a data frame's ids may be its index.

    Raises DataError where there are no ids, a column is there twice, or a data frame's holds values of several types.
    """
    wanted = [GENE_ID, *chain(*(COLUMNS[name] for name in inputs))]
    if isinstance(table, pa.Table):
        return table.select(present(table.column_names, wanted, origin))
    if GENE_ID in table.index.names and GENE_ID not in table.columns:
        table = table.assign(**{GENE_ID: table.index.get_level_values(GENE_ID)})
    frame = table[present(list(table.columns), wanted, origin)]
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{origin} cannot be read ({reason}). Let each column hold values of one type") from error


def present(names: Sequence[Any], wanted: Collection[str], origin: str) -> list[str]:
    """Those of the columns that a table has. DataError where it has no ids, or one of these columns twice."""
    if GENE_ID not in names:
        raise DataError(
            f"{origin} has no column `{GENE_ID}`; it has {', '.join(map(str, names[:12])) or 'none'}"
            f"{', ...' if len(names) > 12 else ''}. Rename the one that holds the genes' ids"
        )
    if twice := [one for one in wanted if names.count(one) > 1]:
        raise DataError(f"{origin} has more than one column `{twice[0]}`. Rename or remove all but one")
    return [one for one in wanted if one in names]


def _check_ids(ids: list[str | None], origin: str) -> None:
    if not all(ids):
        row = next(row for row, gene in enumerate(ids) if not gene)
        raise DataError(
            f"{origin}: row {row + 1} has no `{GENE_ID}`. Give each gene an id, which its prediction carries"
        )
    [(gene, count)] = Counter(ids).most_common(1) or [("", 0)]
    if count > 1:
        raise DataError(
            f"{origin}: the gene id {gene!r} occurs {count} times. Ids must be unique: rename or remove one"
        )


def _is_text(kind: pa.DataType) -> bool:
    texts = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    return any(test(kind) for test in texts)


def _tokens(values: pa.ChunkedArray, ids: list[str], origin: str) -> Ragged:
    """Lists of DNA tokens as they are."""
    try:
        tokens = pc.list_flatten(values).cast(pa.uint8()).to_numpy()
        lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy()
    except (pa.ArrowException, TypeError, ValueError):
        raise DataError(
            f"{origin}: the column `window` must hold texts of bases, or lists of tokens below {len(DNA_SYMBOLS)} "
            f"({DNA_SYMBOLS} from 0), but holds {values.type} that are neither"
        ) from None
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    wrong = np.flatnonzero(~(tokens < len(DNA_SYMBOLS)))
    if len(wrong):
        gene = ids[int(np.searchsorted(offsets, wrong[0], side="right")) - 1]
        raise DataError(
            f"{origin}: the window of {gene} holds the token {tokens[wrong[0]]}; tokens are below {len(DNA_SYMBOLS)} "
            f"({DNA_SYMBOLS} from 0). Write tokens so, or bases as text"
        )
    return Ragged(tokens.astype(np.uint8), offsets)


def _features(table: pa.Table, origin: str) -> NDArray[np.float32] | None:
    """[n, 8]; None where the table has none of these columns."""
    given = [name for name in FEATURES if name in table.column_names]
    if not given:
        return None
    if missing := [name for name in FEATURES if name not in given]:
        raise DataError(
            f"{origin} has the half-life features {', '.join(given)} but not {', '.join(missing)}. They come together: "
            "add these columns, and leave empty what is not known, which is read as the mean of the training genes"
        )
    columns = list[Any]()
    for name in FEATURES:
        try:
            column = table.column(name).cast(pa.float32(), safe=False).to_numpy()
        except pa.ArrowException:
            raise DataError(
                f"{origin}: the column `{name}` must hold numbers, but is {table.column(name).type}"
            ) from None
        if np.isinf(column).any():
            raise DataError(f"{origin}: the column `{name}` holds an infinite value. Correct it, or leave it empty")
        columns.append(column)
    return np.stack(columns, axis=1)


def _anchor(table: pa.Table, given: int | None, origin: str) -> int | None:
    """The index of the TSS or CDS start that the table's own metadata says, else the one given."""
    metadata = (table.schema.metadata or {}).get(METADATA_KEY)
    try:
        own = None if metadata is None else int(json.loads(metadata)["anchor"])
    except (ValueError, KeyError, TypeError):
        own = None
    if own is not None and given not in (None, own):
        raise DataError(f"{origin} says that its anchor is {own}, but {given} was given. Leave it out")
    return given if own is None else own
