"""Genes without labels: what of a table is read, what is refused, and where a window is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raystudy.data.encode import codon_tokens, tokenize_dna, tokenize_protein
from raystudy.data.genes import FEATURES, TABLE, Genes
from raystudy.data.sequences import COLUMNS, Ragged, Sequences, lacking_error
from raystudy.errors import DataError

WINDOWS = ["ACGTAC", "nnryTT", "GGGGGG"]
PROTEINS = ["MKV**", "mkbU", "M"]
CDS = ["ATGAAAGTTTAA", "ATGAAANNNTGT", "ATG"]


def table(**changes: Any) -> pa.Table:
    columns = {"gene_id": ["G0", "G1", "G2"], "window": WINDOWS, "protein": PROTEINS, "cds": CDS}
    columns |= {name: [0.5, None, 2.0] for name in FEATURES}
    return pa.table({name: values for name, values in (columns | changes).items() if values is not None})


def parts(ragged: Ragged) -> list[list[int]]:
    return [ragged.part(row).tolist() for row in range(len(ragged.lengths))]


def same(one: Sequences, other: Sequences) -> bool:
    ragged = [(one.dna, other.dna), (one.protein, other.protein), (one.codons, other.codons)]
    return (
        one.gene_ids.tolist() == other.gene_ids.tolist()
        and all(np.array_equal(a, b) for pair in ragged for a, b in zip(*pair, strict=True))
        and np.array_equal(one.features, other.features, equal_nan=True)
        and one.anchor == other.anchor
    )


def test_texts_in_either_case_become_tokens_and_iupac_codes_the_unknown() -> None:
    read = Sequences.of_table(table())

    assert parts(read.dna) == [tokenize_dna(text).tolist() for text in ("ACGTAC", "NNNNTT", "GGGGGG")]
    assert parts(read.protein) == [tokenize_protein(text).tolist() for text in ("MKV", "MKXU", "M")]
    assert parts(read.codons) == [codon_tokens(text).tolist() for text in CDS]
    np.testing.assert_array_equal(read.features[:, 3], np.array([0.5, np.nan, 2.0], np.float32))
    assert read.has_features.all(), "where the columns are, what is empty is read as the mean"


@pytest.mark.parametrize("kind", [pa.list_(pa.uint8(), 6), pa.list_(pa.int64()), pa.large_list(pa.uint8())], ids=str)
def test_lists_of_tokens_are_read_as_they_are(kind: pa.DataType) -> None:
    tokens = [tokenize_dna(text).tolist() for text in WINDOWS]
    whole = table(window=pa.array([tokens[0], None, tokens[2]], kind))

    assert parts(Sequences.of_table(whole).dna) == [tokens[0], [], tokens[2]]
    assert parts(Sequences.of_table(whole.slice(1)).dna) == [[], tokens[2]], "also of a part of a table"


TEXT_TYPES = (pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()))


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_texts_of_every_kind_of_arrow_are_read(kind: pa.DataType) -> None:
    texts = {name: pa.array(values).cast(kind) for name, values in (("window", WINDOWS), ("cds", CDS))}

    assert same(Sequences.of_table(table(**texts)), Sequences.of_table(table()))


def test_columns_that_nobody_reads_may_hold_anything_also_twice() -> None:
    frame = table().to_pandas().astype({"protein": "category"}).assign(sequence=[1, "a", None], more=[{1}, object(), 2])
    more = frame[["sequence", "more"]]

    assert same(Sequences.of_table(pd.concat([frame, more], axis=1)), Sequences.of_table(table()))


@pytest.mark.parametrize("indexed", [False, True])
def test_a_data_frame_is_a_table_also_where_the_ids_are_its_index(indexed: bool) -> None:
    frame = table().to_pandas()

    read = Sequences.of_table(frame.set_index("gene_id") if indexed else frame)

    assert same(read, Sequences.of_table(table()))


def test_only_what_is_asked_for_is_read() -> None:
    read = Sequences.of_table(table(protein=["?", "!", ""], cds=None), {"dna"})

    assert parts(read.protein) == parts(read.codons) == [[], [], []]
    assert not read.lacking("dna").any()


def test_a_gene_lacks_what_is_empty_null_or_in_no_column() -> None:
    read = Sequences.of_table(table(window=["", None, "AC"], protein=["*", "M", "M"], cds=None))

    found = {name: read.lacking(name).tolist() for name in COLUMNS}
    assert found == {
        "dna": [True, True, False],
        "protein": [True, False, False],
        "codon": [True, True, True],
        "half_life": [False, False, False],
    }
    assert Sequences.of_table(table(**dict.fromkeys(FEATURES))).lacking("half_life").all()


def test_what_is_lacking_is_said_with_the_gene_the_number_and_what_to_give() -> None:
    message = str(lacking_error("x.parquet", "protein", "G7", 3, 9))

    assert all(word in message for word in ("x.parquet", "3 of 9", "G7", "`protein`", "--protein", "--skip-missing"))
    assert "--skip-missing" not in str(lacking_error("x", "dna", "G0", 9, 9)), "nothing would be left"


def test_a_table_without_ids_is_refused_with_the_columns_that_it_really_has() -> None:
    with pytest.raises(DataError, match="no column `gene_id`; it has locus, notes"):
        Sequences.of_table(pd.DataFrame({"locus": ["G0"], "notes": ["x"], "window": ["AC"]}))


@pytest.mark.parametrize("frame", [True, False])
def test_a_column_that_is_there_twice_is_refused(frame: bool) -> None:
    whole = table()
    twice = pa.Table.from_arrays([*whole.columns, whole.column("window")], [*whole.column_names, "window"])
    given = pd.concat([whole.to_pandas(), whole.to_pandas()[["window"]]], axis=1) if frame else twice

    with pytest.raises(DataError, match="more than one column `window`"):
        Sequences.of_table(given)


@pytest.mark.parametrize("ids", [[1, "a", 2.5], [["G0"], ["G1"], ["G2"]], [2**70, 1, 2]], ids=str)
def test_ids_that_are_no_texts_are_refused(ids: list[Any]) -> None:
    with pytest.raises(DataError, match=r"cannot be read \(.*one type|`gene_id` must hold texts") as caught:
        Sequences.of_table(table().to_pandas().assign(gene_id=pd.Series(ids, dtype=object)))

    assert "\n" not in str(caught.value)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no ids": ({"gene_id": None}, "no column `gene_id`"),
    "an empty id": ({"gene_id": ["G0", "", "G2"]}, "row 2"),
    "an id that is missing": ({"gene_id": ["G0", None, "G2"]}, "row 2"),
    "an id twice": ({"gene_id": ["G0", "G1", "G0"]}, "'G0' occurs 2 times"),
    "no base": ({"window": ["ACGT", "AC-T", "A"]}, "window of G1: '-' at position 3"),
    "no residue": ({"protein": ["M", "M", "MK*V"]}, r"protein of G2: '\*' at position 3"),
    "no base in a CDS": ({"cds": ["ATG", "AT!", "ATG"]}, "cds of G1"),
    "a token that is none": ({"window": [[0, 1], [2, 5], [3]]}, "window of G1 holds the token 5"),
    "a token below 0": ({"window": [[0, 1], [2, -1], [3]]}, "`window` must hold"),
    "windows of numbers": ({"window": [1.5, 2.5, 3.5]}, "`window` must hold"),
    "proteins of numbers": ({"protein": [1, 2, 3]}, "`protein` must hold texts"),
    "some of the features": ({FEATURES[3]: None, FEATURES[5]: None}, f"but not {FEATURES[3]}, {FEATURES[5]}"),
    "a feature of texts": ({FEATURES[1]: ["a", "b", "c"]}, f"`{FEATURES[1]}` must hold numbers"),
    "an infinite feature": ({FEATURES[1]: [1.0, np.inf, 2.0]}, "infinite"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_paragraph(what: str) -> None:
    changes, message = REFUSED[what]

    with pytest.raises(DataError, match=message) as caught:
        Sequences.of_table(table(**changes))

    assert "\n" not in str(caught.value)


def test_windows_are_cut_around_the_anchor_also_from_dna_of_different_lengths() -> None:
    read = Sequences.of_table(table(window=["ACGTAC", "TTTGGGCCC", "AACCG"]), anchor=2)

    expected = [tokenize_dna(text).tolist() for text in ("CGTA", "TTGG", "ACCG")]
    assert read.windows((1, 3)).tolist() == expected
    assert read.take(np.array([2, 0])).windows((1, 3)).tolist() == [expected[2], expected[0]]


def test_dna_that_is_just_the_window_needs_no_anchor() -> None:
    assert Sequences.of_table(table()).windows((4, 2)).tolist()[0] == tokenize_dna("ACGTAC").tolist()


@pytest.mark.parametrize(
    ("anchor", "window_bp", "message"),
    [
        (None, (2, 2), r"G0 has 6 bp .* \[2, 2\] bp .*--anchor"),
        (1, (2, 2), r"G0 has 6 bp of DNA, 1 bp of it upstream .* 5 from there; .* \[2, 2\] bp"),
        (4, (2, 3), r"G0 has 6 bp of DNA, 4 bp of it upstream .* 2 from there"),
        (9, (2, 3), r"6 bp of it upstream .* 0 from there"),
    ],
)
def test_a_window_that_cannot_be_cut_is_refused_with_the_gene_and_both_lengths(
    anchor: int | None, window_bp: tuple[int, int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Sequences.of_table(table(), anchor=anchor).windows(window_bp)


def test_a_prepared_table_knows_its_anchor_and_is_the_same_from_its_folder_and_its_parquet_file(few: Genes) -> None:
    from_table = Sequences.of_table(pq.read_table(few.folder / TABLE))
    from_folder = Sequences.of_genes(few, range(few.num_genes), set(COLUMNS))

    assert from_table.anchor == few.anchor
    assert same(from_table, from_folder)
    assert np.array_equal(from_folder.windows((30, 20)), few.windows((30, 20)))
    assert same(Sequences.of_genes(few, range(5, 9), set(COLUMNS)), from_folder.take(np.arange(5, 9)))
    with pytest.raises(DataError, match=f"its anchor is {few.anchor}, but 7 was given"):
        Sequences.of_table(pq.read_table(few.folder / TABLE), anchor=7)
