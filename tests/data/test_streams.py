"""Tables read a chunk at a time, from every kind of file."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv, feather

from raystudy.data import streams
from raystudy.data.encode import DNA_SYMBOLS
from raystudy.data.genes import FEATURES, TABLE, Genes
from raystudy.data.sequences import COLUMNS, Sequences
from raystudy.data.streams import chunks_of
from raystudy.errors import DataError, SpecError


def as_text(genes: Genes) -> pa.Table:
    """The prepared table with windows as text, and without its metadata."""
    whole = pq.read_table(genes.folder / TABLE)
    windows = ["".join(DNA_SYMBOLS[token] for token in row) for row in whole.column("window").to_pylist()]
    return whole.drop_columns("window").append_column("window", pa.array(windows)).replace_schema_metadata(None)


def write_text(table: pa.Table, path: Path, delimiter: str) -> None:
    with pa.output_stream(path, "gzip" if path.suffix == ".gz" else None) as file:
        csv.write_csv(table, file, csv.WriteOptions(delimiter=delimiter))


WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    "t.parquet": lambda table, path: pq.write_table(table, path, row_group_size=50),
    "t.feather": lambda table, path: feather.write_feather(table, path, chunksize=50),
    "t.csv": lambda table, path: write_text(table, path, ","),
    "t.tsv": lambda table, path: write_text(table, path, "\t"),
    "t.tsv.gz": lambda table, path: write_text(table, path, "\t"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_genes_of_the_folder_in_its_order(few: Genes, name: str, tmp_path: Path) -> None:
    WRITERS[name](as_text(few), tmp_path / name)

    chunks = list(chunks_of(tmp_path / name, set(COLUMNS), 32, anchor=few.anchor))

    whole = Sequences.of_genes(few, range(few.num_genes), set(COLUMNS))
    assert max(chunk.num_genes for chunk in chunks) <= 32
    assert [gene for chunk in chunks for gene in chunk.gene_ids] == whole.gene_ids.tolist()
    assert np.array_equal(np.concatenate([chunk.windows((50, 30)) for chunk in chunks]), whole.windows((50, 30)))
    for part in ("protein", "codons"):
        assert np.array_equal(
            np.concatenate([getattr(chunk, part).tokens for chunk in chunks]), getattr(whole, part)[0]
        )
    features = np.concatenate([chunk.features for chunk in chunks])
    np.testing.assert_allclose(features, whole.features, rtol=1e-6)


def test_everything_that_is_a_table_gives_the_same_chunks(few: Genes) -> None:
    table = pq.read_table(few.folder / TABLE)
    whole = Sequences.of_table(table)

    for one in (few, str(few.folder), few.folder, few.folder / TABLE, table, whole):
        chunks = list(chunks_of(one, {"dna"}, 50))
        assert [chunk.num_genes for chunk in chunks] == [50, 50, 20]
        assert np.array_equal(chunks[1].dna.tokens, whole.take(np.arange(50, 100)).dna.tokens)
    [frame] = chunks_of(table.to_pandas(), {"protein"})
    assert np.array_equal(frame.protein.tokens, whole.protein.tokens)


def test_chunks_are_read_as_they_are_asked_for(few: Genes, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    of_table = Sequences.of_table

    def spy(table: pa.Table, *arguments: object) -> Sequences:
        read.append(table.num_rows)
        return of_table(table, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(streams.Sequences, "of_table", spy)
    chunks = chunks_of(few.folder / TABLE, {"dna"}, 40)
    assert read == []
    next(chunks)
    assert read == [40]


def test_an_id_that_is_a_number_keeps_its_zeros(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("gene_id,window\n007,ACGT\n008,ACGA\n")

    [chunk] = chunks_of(path, {"dna"})

    assert chunk.gene_ids.tolist() == ["007", "008"]


def test_a_gene_in_two_chunks_is_refused() -> None:
    table = pa.table({"gene_id": ["A", "B", "A"], "window": ["AC", "GT", "TT"]})

    with pytest.raises(DataError, match="'A' occurs more than once"):
        list(chunks_of(table, {"dna"}, 2))


def cut_short(path: Path) -> None:
    rows = "".join(f"G{number}\tACGT{number:b}\n".replace("1", "A").replace("0", "C") for number in range(9))
    path.write_bytes(gzip.compress(b"gene_id\twindow\n" + rows.encode())[:-12])


REFUSED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "nowhere": ("no-such.parquet", lambda path: None, "there is no table"),
    "unknown suffix": ("t.xlsx", lambda path: path.touch(), "unknown suffix"),
    "not what its suffix says": ("t.parquet", lambda path: path.write_text("gene_id\n"), "cannot be read"),
    "an empty file": ("t.tsv", lambda path: path.touch(), "cannot be read"),
    "no rows": ("t.csv", lambda path: path.write_text("gene_id,window\n"), "has no genes"),
    "a line too short": ("t.tsv", lambda path: path.write_text("gene_id\twindow\nA\tAC\nB\n"), "cannot be read"),
    "no Feather": ("t.feather", lambda path: path.write_bytes(b"ARROW1"), "cannot be read"),
    "gzip cut short": ("t.tsv.gz", cut_short, "cannot be read"),
    "no ids": ("t.tsv", lambda path: path.write_text("locus\twindow\tx\nA\tAC\t1\n"), "it has locus, window, x"),
    "a column twice": (
        "t.csv",
        lambda path: path.write_text("gene_id,window,window\nA,AC,GT\n"),
        "more than one column `window`",
    ),
    "a folder of something else": ("folder", lambda path: path.mkdir(), "no prepared data"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_is_no_table_is_refused_by_name(what: str, tmp_path: Path) -> None:
    name, make, message = REFUSED[what]
    make(tmp_path / name)

    with pytest.raises(DataError, match=message) as caught:
        list(chunks_of(tmp_path / name, {"dna"}))

    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_iterable_of_sequences_passes_as_it_is() -> None:
    def stream() -> Iterator[Sequences]:
        for number in range(3):
            yield Sequences.of_table(pa.table({"gene_id": [f"G{number}"], FEATURES[0]: [1.0]}), {"dna"})

    assert [chunk.gene_ids.tolist() for chunk in chunks_of(stream(), {"dna"})] == [["G0"], ["G1"], ["G2"]]


@pytest.mark.parametrize("table", [{"gene_id": ["A"]}, 7, None, ["genes.parquet"], pd.Series(["A"])], ids=type)
def test_what_is_no_table_is_refused_with_what_one_is(table: Any) -> None:
    with pytest.raises(DataError, match=f"pandas.DataFrame.* but got a {type(table).__name__}"):
        list(chunks_of(table, {"dna"}))


def test_chunks_of_no_genes_are_refused(few: Genes) -> None:
    with pytest.raises(SpecError, match=r"`chunk_genes` .* but got 0"):
        next(chunks_of(few, {"dna"}, 0))


def test_a_prepared_folder_knows_its_anchor_better(few: Genes) -> None:
    with pytest.raises(DataError, match=f"its anchor is {few.anchor}, but 7 was given"):
        next(chunks_of(few, {"dna"}, anchor=7))
