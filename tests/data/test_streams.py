"""Tables read a chunk at a time, from every kind of file."""

from __future__ import annotations

import gzip
import tracemalloc
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


def test_a_quote_that_does_not_end_in_a_column_that_is_not_read_takes_no_gene_away(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text('gene_id\tnote\twindow\nA\t"open\tAC\nB\t\tGG\nC\tx"\tGT\n')

    [chunk] = chunks_of(path, {"dna"})

    assert chunk.gene_ids.tolist() == ["A", "B", "C"]


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.tsv.gz"])
def test_a_text_is_read_a_chunk_at_a_time_in_as_much_memory_as_one_takes(tmp_path: Path, name: str) -> None:
    delimiter, num_genes, window = "," if name == "t.csv" else "\t", 2_000, "ACGT" * 1_000
    rows = "".join(f'G{number}{delimiter}"{window}"\n' for number in range(num_genes))
    content = f"gene_id{delimiter}window\n{rows}torn".encode()
    (tmp_path / name).write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    chunks, num_read = chunks_of(tmp_path / name, {"dna"}, 50), list[int]()
    next(chunks)  # what is imported and made once

    tracemalloc.start()
    with pytest.raises(DataError, match=f"has 1 values in line {num_genes + 2}"):
        num_read.extend(chunk.num_genes for chunk in chunks)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert sum(num_read) == num_genes - 50
    assert peak < num_genes * len(window) / 2


@pytest.mark.parametrize("missing", csv.ConvertOptions().null_values)
def test_a_feature_without_a_value_is_missing_however_that_is_written(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("\t".join(["gene_id", *FEATURES]) + "\n" + "\t".join(["G", missing, *["0.5"] * 7]) + "\n")

    [chunk] = chunks_of(path, {"half_life"})

    np.testing.assert_array_equal(chunk.features, [[np.nan, *[0.5] * 7]])


@pytest.mark.parametrize("word", ["low", "1,5", "True", "1_0"])
def test_a_feature_that_is_no_number_is_refused_with_its_line(tmp_path: Path, word: str) -> None:
    path = tmp_path / "t.tsv"
    rows = [["gene_id", *FEATURES], ["G", *["0.5"] * 8], ["H", word, *["0.5"] * 7]]
    path.write_text("".join("\t".join(row) + "\n" for row in rows))

    with pytest.raises(DataError, match=f"has '{word}' in its column '{FEATURES[0]}', line 3"):
        list(chunks_of(path, {"half_life"}))


def test_a_quoted_window_may_be_longer_than_any_limit_of_a_csv_reader(tmp_path: Path) -> None:
    path, window = tmp_path / "t.csv", "ACGT" * 50_000
    path.write_text(f'"gene_id","note","window"\n"A","one, ""two""","{window}"\n"B",,"AC"\n')

    [chunk] = chunks_of(path, {"dna"})

    assert chunk.dna.lengths.tolist() == [len(window), 2]


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
    "an empty file": ("t.tsv", lambda path: path.touch(), "is empty"),
    "no rows": ("t.csv", lambda path: path.write_text("gene_id,window\n"), "has no genes"),
    "a line too short": (
        "t.tsv",
        lambda path: path.write_text("gene_id\twindow\nA\tAC\nB\n"),
        "has 1 values in line 3, but 2 columns",
    ),
    "a quote between tabs that does not end": (
        "t.tsv",
        lambda path: path.write_text('gene_id\twindow\nA\tAC\nB\t"AC\nC\tGT\nD\tGT"\n'),
        "a quote that does not end in its column 'window', line 3",
    ),
    "a quote between commas that does not end": (
        "t.csv",
        lambda path: path.write_text('gene_id,window,note\nA,AC,\nB,AC,"x\nC,GT,\nD,GT,y"\n'),
        "a quote in line 3 that does not end there",
    ),
    "bytes that are no text": (
        "t.tsv",
        lambda path: path.write_bytes(b"gene_id\twindow\nA\tAC\nB\xe4\tAC\n"),
        "no UTF-8 in its column 'gene_id', line 3",
    ),
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
