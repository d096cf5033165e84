"""Tables of features that a user brings: every format read the same, everything that does not fit refused by name."""

from __future__ import annotations

import gzip
import hashlib
import pickle
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv, feather

from raystudy.data.tables import GeneFeatures, read_features
from raystudy.errors import DataError

GENES = np.array(["G1", "G2", "G3", "G4"])
COLUMNS: dict[str, list[Any]] = {
    "length": [30, None, 10],
    "gene_id": ["G3", "G1", "elsewhere"],
    "gc": [0.5, 0.25, 0.75],
    "essential": [True, False, None],
}
EXPECTED = [[np.nan, 0.25, 0], [np.nan] * 3, [30, 0.5, 1], [np.nan] * 3]


def text(delimiter: str) -> bytes:
    rows = zip(*COLUMNS.values(), strict=True)
    lines = [list(COLUMNS), *[["" if value is None else str(value) for value in row] for row in rows]]
    return "".join(delimiter.join(line) + "\n" for line in lines).encode()


def write(path: Path, columns: dict[str, Any] | pa.Table = COLUMNS) -> Path:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        feather.write_feather(table, str(path))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as error:
        read_features(path, GENES)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "name", ["t.parquet", "t.feather", "t.arrow", "t.csv", "t.tsv", "t.txt", "t.csv.gz", "T.TSV.GZ", "t.v2.txt.gz"]
)
def test_every_format_gives_the_features_in_the_order_of_the_data(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.split(".")[1] in ("parquet", "feather", "arrow"):
        write(path)
    else:
        content = text("," if ".csv" in name else "\t")
        path.write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)

    features = read_features(path, GENES)

    assert features.names == ("length", "gc", "essential")
    assert features.values.dtype == np.float32
    np.testing.assert_array_equal(features.values, EXPECTED)
    assert features.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (features.num_missing, features.num_unknown) == (2, 1)


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        (".parquet", pa.list_(pa.float32())),
        (".parquet", pa.large_list(pa.float64())),
        (".feather", pa.large_list(pa.int8())),
        (".arrow", pa.list_(pa.float16(), 2)),
    ],
)
def test_a_column_of_lists_becomes_one_column_a_number(tmp_path: Path, suffix: str, kind: pa.DataType) -> None:
    values = [[1, 2], None, [3, None], [5, 6]]
    lists = pa.chunked_array([values[:2], values[2:]], kind)
    path = write(tmp_path / f"t{suffix}", pa.table({"gene_id": ["G4", "G3", "G2", "G1"], "emb": lists, "x": [9] * 4}))

    features = read_features(path, GENES)

    assert features.names == ("emb_0", "emb_1", "x")
    np.testing.assert_array_equal(features.values, [[5, 6, 9], [3, np.nan, 9], [np.nan, np.nan, 9], [1, 2, 9]])


def test_lists_of_a_fixed_size_are_read_from_parquet(tmp_path: Path) -> None:  # where none is missing, pyarrow's limit
    lists = pa.array([[1, 2], [3, 4]], pa.list_(pa.float32(), 2))
    path = write(tmp_path / "t.parquet", pa.table({"gene_id": ["G2", "G1"], "emb": lists}))
    assert read_features(path, GENES).values[:2].tolist() == [[3, 4], [1, 2]]


def test_lists_of_another_length_name_the_gene(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"gene_id": ["G3", "G1", "G2"], "emb": [None, [1.0, 2.0], [1.0]]})
    message = refusal(path)
    assert "lists of 2 (G1) and of other lengths (G2) in its column 'emb'" in message
    assert "must have one length" in message


def test_numbers_are_found_out_from_the_whole_text_and_not_from_its_beginning(tmp_path: Path) -> None:
    lines = [f"other{row},{row}" for row in range(150_000)]  # more than the block from which types are guessed
    (tmp_path / "t.csv").write_text("\n".join(["gene_id,x", *lines, "G1,0.5"]))
    assert read_features(tmp_path / "t.csv", GENES).values[0] == 0.5


def test_ids_that_look_like_numbers_or_missing_values_stay_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\ufeffgene_id,x\n007,1\nNA,2\n1e3,3\n", encoding="utf-8")
    features = read_features(tmp_path / "t.csv", np.array(["7", "NA", "007", "1e3"]))
    np.testing.assert_array_equal(features.values[:, 0], [np.nan, 2, 1, 3])


@pytest.mark.parametrize("ids", [pa.array([7, 8]), pa.array(["7", "8"]).dictionary_encode(), pa.array([b"7", b"8"])])
def test_ids_are_read_from_whole_numbers_categories_and_bytes(tmp_path: Path, ids: pa.Array) -> None:
    path = write(tmp_path / "t.feather", pa.table({"gene_id": ids, "x": [1, 2]}))
    assert read_features(path, np.array(["8", "9"])).values[0] == 2


def test_row_numbers_that_pandas_wrote_are_no_features(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(",gene_id,Unnamed: 0,x\n0,G1,3,5\n")
    assert read_features(tmp_path / "t.csv", GENES).names == ("x",)
    path = write(tmp_path / "t.parquet", {"gene_id": ["G1"], "x": [1], "__index_level_0__": [4]})
    assert read_features(path, GENES).names == ("x",)


def test_a_folders_name_is_no_column(tmp_path: Path) -> None:
    (tmp_path / "run=3").mkdir()
    assert read_features(write(tmp_path / "run=3" / "t.parquet"), GENES).names == ("length", "gc", "essential")


def test_a_column_without_any_value_is_missing_everywhere(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("gene_id,x,y\nG1,,1\nG2,,2\n")
    features = read_features(tmp_path / "t.csv", GENES)
    assert np.isnan(features.values[:, 0]).all()
    assert features.values[:2, 1].tolist() == [1, 2]


def test_a_table_of_few_of_the_genes_is_taken_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"gene_id": ["G2"], "x": [1.5]})
    features = read_features(path, np.array([f"G{number}" for number in range(100)]))
    assert (features.num_missing, features.num_unknown) == (99, 0)
    assert np.isfinite(features.values).sum() == 1


@pytest.mark.parametrize("name", ["t.parquet", "t.feather", "t.csv.gz", "t.csv"])
def test_a_missing_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    assert "cannot be read (FileNotFoundError" in refusal(tmp_path / name)


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").mkdir()
    assert "cannot be read (IsADirectoryError" in refusal(tmp_path / "t.parquet")


@pytest.mark.parametrize("name", ["t.parquet", "t.feather", "t.arrow", "t.csv.gz", "t.csv"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfenot a table\x00", pickle.dumps({"gene_id": ["G1"]})])
def test_a_file_that_is_not_what_its_suffix_says_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert any(words in message for words in ("cannot be read", "needs one column `gene_id`", "is empty"))


@pytest.mark.parametrize("name", ["t.parquet", "t.csv.gz"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    whole = write(tmp_path / name).read_bytes() if name == "t.parquet" else gzip.compress(text(","))
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in refusal(tmp_path / name)


def test_rows_of_another_number_of_cells_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("gene_id,x\nG1,1\nG2,1,2\n")
    assert "has 3 values in line 3, but 2 columns in its header (line 1)" in refusal(tmp_path / "t.csv")


@pytest.mark.parametrize("name", ["t.tsv", "t.csv"])
def test_a_quote_that_does_not_end_is_refused_and_takes_no_gene_away(tmp_path: Path, name: str) -> None:
    rows = [["gene_id", "x"], ["G1", "1"], ['"G2', "2"], ["G3", "3"], ['G4"', "4"]]
    delimiter = "," if name == "t.csv" else "\t"
    (tmp_path / name).write_text("".join(delimiter.join(row) + "\n" for row in rows))
    message = refusal(tmp_path / name)
    assert "quote" in message
    assert "line 3" in message


def test_a_quote_in_a_value_of_tabs_is_a_letter_and_a_pair_around_it_none(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('"gene_id"\t"x"\n"G1"\t"1"\nG"2\t2\n"G""3"\t3\n')
    features = read_features(tmp_path / "t.tsv", np.array(["G1", 'G"2', 'G"3']))
    assert features.values.tolist() == [[1], [2], [3]]


def test_two_features_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("gene_id,x,y,x\nG1,1,2,3\n")
    assert "has 2 columns 'x' (line 1)" in refusal(tmp_path / "t.csv")


@pytest.mark.parametrize("missing", csv.ConvertOptions().null_values)
def test_what_pandas_and_pyarrow_write_or_read_for_no_value_is_none(tmp_path: Path, missing: str) -> None:
    (tmp_path / "t.csv").write_text(f"gene_id,x\nG1,{missing}\nG2, 2 \n")
    np.testing.assert_array_equal(read_features(tmp_path / "t.csv", GENES[:2]).values[:, 0], [np.nan, 2])


def test_truths_are_one_and_zero_however_they_are_written(tmp_path: Path) -> None:
    rows = ["gene_id,x", "G1,True", "G2,FALSE", "G3,", "G4,true"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    np.testing.assert_array_equal(read_features(tmp_path / "t.csv", GENES).values[:, 0], [1, 0, np.nan, 1])


def test_text_that_is_no_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"gene_id,x\nG1,1\nG\xe4,2\n")
    assert "bytes that are no UTF-8 in its column 'gene_id', line 3" in refusal(tmp_path / "t.csv")


@pytest.mark.parametrize("name", ["t.pkl", "t.npy", "t", "t.gz", "t.parquet.gz", "t.xlsx", ".csv"])
def test_an_unknown_suffix_is_refused_naming_the_known_ones(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps([1]))
    message = refusal(tmp_path / name)
    assert "unknown suffix" in message
    assert ".parquet, .feather, .arrow, .csv, .tsv (tabs), .txt (tabs)" in message


@pytest.mark.parametrize("names", [["id", "x"], ["Gene_ID", "x"], ["gene_id;x"]])
def test_a_table_without_gene_ids_names_the_columns_it_has(tmp_path: Path, names: list[str]) -> None:
    message = refusal(write(tmp_path / "t.parquet", {name: ["G1"] for name in names}))
    assert f"needs one column `gene_id` to be joined by, but has 0 among {', '.join(map(repr, names))}." in message


def test_a_table_with_two_columns_of_gene_ids_or_very_many_others_is_told_in_short(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("gene_id,gene_id,x\nG1,G2,1\n")
    assert "but has 2 among 'gene_id', 'gene_id', 'x'" in refusal(tmp_path / "t.csv")
    many = refusal(write(tmp_path / "t.parquet", {f"x{number}": [1] for number in range(500)}))
    assert "'x7' and 492 more" in many


@pytest.mark.parametrize("times", [2, 3])
def test_a_gene_given_more_than_once_is_named_with_how_often(tmp_path: Path, times: int) -> None:
    ids = ["G1", *["G2"] * times, "G3"]
    assert f"has 'G2' {times} times" in refusal(write(tmp_path / "t.parquet", {"gene_id": ids, "x": [1] * len(ids)}))


def test_ids_that_are_no_texts_are_refused_with_what_they_are(tmp_path: Path) -> None:
    told = refusal(write(tmp_path / "t.parquet", {"gene_id": [["G1"], ["G2"]], "x": [1, 2]}))

    assert "holds list<" in told
    assert "Gene ids are texts or whole numbers" in told


@pytest.mark.parametrize(("ids", "told"), [([], "0 rows, 0 with"), (["G1", None], "2 rows, 1 with"), ([""], "1 rows")])
def test_rows_that_name_no_gene_are_refused(tmp_path: Path, ids: list[str | None], told: str) -> None:
    table = pa.table({"gene_id": pa.array(ids, pa.string()), "x": pa.array([1.0] * len(ids))})
    assert told in refusal(write(tmp_path / "t.parquet", table))


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ([None, "kinase"], "string in its column 'kind', such as 'kinase'"),
        (["1.5", "2"], "string in its column 'kind', such as '1.5'"),
        ([date(2024, 1, 2), None], "in its column 'kind', such as datetime.date(2024, 1, 2)"),
        ([[["a"]], None], "in its column 'kind', such as [['a']]"),
        ([[[1.0]], None], "in its column 'kind', such as [[1.0]]"),
        ([{"a": 1}, None], "in its column 'kind', such as {'a': 1}"),
    ],
)
def test_a_column_that_holds_no_numbers_is_named_with_an_example(tmp_path: Path, column: list[Any], told: str) -> None:
    message = refusal(write(tmp_path / "t.parquet", {"gene_id": ["G1", "G2"], "x": [1, 2], "kind": column}))
    assert told in message
    assert "All but `gene_id` must be numbers or lists of them" in message


def test_a_word_among_the_numbers_of_a_text_is_shown(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("gene_id,x\nG1,low\nG2,2\n")
    assert "has 'low' in its column 'x', line 2" in refusal(tmp_path / "t.csv")


@pytest.mark.parametrize("columns", [{}, {"emb": pa.array([None], pa.list_(pa.float32()))}, {"": [1]}])
def test_a_table_without_features_is_refused(tmp_path: Path, columns: dict[str, Any]) -> None:
    assert "has no features" in refusal(write(tmp_path / "t.parquet", {"gene_id": ["G1"], **columns}))


@pytest.mark.parametrize(("value", "shown"), [(float("inf"), "inf"), (float("-inf"), "-inf"), (1e300, "inf")])
def test_an_infinite_value_is_named_with_its_gene_and_column(tmp_path: Path, value: float, shown: str) -> None:
    path = write(tmp_path / "t.parquet", {"gene_id": ["G2", "G3"], "a": [1, 2], "b": [0.0, value]})
    assert f"has {shown} (as a 32-bit number) for G3 in its column 'b'" in refusal(path)


def test_an_infinite_value_of_a_gene_that_is_not_asked_for_does_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"gene_id": ["G2", "elsewhere"], "a": [1.0, float("inf")]})
    assert read_features(path, GENES).num_unknown == 1


def test_genes_that_are_all_unknown_show_an_id_of_each_side_and_a_likely_cause(tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "t.parquet", {"gene_id": ["G1.1", "G2.1"], "x": [1, 2]}))
    assert "none of the data's 4 genes: its ids are like 'G1.1', the data's 'G1'" in message
    assert "version suffixes" in message
    assert "symbols" in message


def test_the_result_cannot_be_altered_by_name() -> None:
    features = GeneFeatures(np.zeros((1, 1), np.float32), ("x",), "", 0, 0)
    with pytest.raises(AttributeError):
        features.names = ()  # type: ignore[misc]
