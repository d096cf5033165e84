"""Tables of levels as users have them: what is read, what is counted, what is refused and with which words."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import feather
from pyarrow import parquet as pq

from raystudy.data.findings import Findings
from raystudy.data.genome.expression import Expression, Formula, parse_formulas, read_expression
from raystudy.errors import DataError, SpecError

PLAIN = "gene_id\tTPM\nG1\t1\nG2\t10\n007\t100\n"


def read(path: Path, *targets: str, id_column: str | None = None, findings: Findings | None = None) -> Expression:
    formulas = parse_formulas(targets or ["mrna=TPM"])
    return read_expression(path, formulas, id_column, Findings() if findings is None else findings)


def table(tmp_path: Path, content: str | bytes, name: str = "levels.tsv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("mrna=log10(TPM + 0.1)", Formula("mrna", "TPM", "log10", 0.1)),
        ("mrna=log2(x+1)", Formula("mrna", "x", "log2", 1)),
        ("mrna = ln( x +1e-3 )", Formula("mrna", "x", "ln", 0.001)),
        ("protein=log10(abundance) in ppm", Formula("protein", "abundance", "log10", 0, "ppm")),
        ("protein=value", Formula("protein", "value")),
        ("mrna_half_life=half life (min) in min", None),
        ('mrna_half_life="half life (min)" in min', Formula("mrna_half_life", "half life (min)", "", 0, "min")),
        ("mrna=log10(M9 Glucose minus AAs + .5)", Formula("mrna", "M9 Glucose minus AAs", "log10", 0.5)),
        ('mrna=log2("a+b" + 1)', Formula("mrna", "a+b", "log2", 1)),
        ("mRNA=TPM", None),
        ("level=TPM", None),
        ("mrna", None),
        ("mrna=", None),
        ("mrna=log10(TPM", None),
        ("mrna=log10()", None),
        ("mrna=log(TPM)", None),
        ("mrna=log10(TPM + x(1))", None),
        ("mrna=log10(TPM) + 1", None),
    ],
)
def test_a_formula_is_read_or_refused_with_the_grammar(text: str, formula: Formula | None) -> None:
    if formula is None:
        with pytest.raises(SpecError, match=r"NAME=log10\(COLUMN \+ PSEUDO_COUNT\)"):
            Formula.parse(text)
    else:
        assert Formula.parse(text) == formula


def test_units_state_logarithm_pseudo_count_and_unit() -> None:
    assert str(Formula.parse("mrna=log10(TPM+0.1)")) == "log10(TPM + 0.1)"
    assert str(Formula.parse("protein=log10(abundance) in ppm")) == "log10(abundance), in ppm"
    assert str(Formula.parse("mrna=value")) == "value, as in its table (no logarithm)"


@pytest.mark.parametrize("texts", [[], ["mrna=a", "mrna=b"]])
def test_targets_are_one_of_a_name_and_one_at_least(texts: list[str]) -> None:
    with pytest.raises(SpecError, match="once, one at least"):
        parse_formulas(texts)


def test_a_near_name_of_a_target_is_hinted_at() -> None:
    with pytest.raises(SpecError, match="Did you mean 'mrna_half_life'"):
        Formula.parse("mrna_halflife=x")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("levels.tsv", PLAIN),
        ("levels.csv", PLAIN.replace("\t", ",")),
        ("levels.txt", PLAIN.replace("\n", "\r\n")),
        ("levels.tsv", "\ufeff" + PLAIN),
        ("levels.tsv", PLAIN.replace("\n", "\r\n", 2)),
        ("levels.tsv.gz", gzip.compress(PLAIN.encode())),
        ("levels.tsv", gzip.compress(PLAIN[:20].encode()) + gzip.compress(PLAIN[20:].encode())),
    ],
)
def test_text_tables_are_read_in_all_their_guises(tmp_path: Path, name: str, content: str | bytes) -> None:
    levels = read(table(tmp_path, content, name), "mrna=log10(TPM)", "protein=TPM in ppm")

    assert levels.ids == ("G1", "G2", "007")
    assert levels.targets["mrna"].values.tolist() == [0, 1, 2]
    assert levels.targets["protein"].values.tolist() == [1, 10, 100]


def test_parquet_and_feather_are_known_by_content(tmp_path: Path) -> None:
    columns = pa.table({"gene": pa.array(["G1", "G2"]).dictionary_encode(), "n": [1, None], "x": [0.5, math.nan]})
    pq.write_table(columns, tmp_path / "levels.any")
    feather.write_feather(columns, tmp_path / "levels.other")

    for name in ("levels.any", "levels.other"):
        levels = read(tmp_path / name, "mrna=x", "protein=n")
        assert levels.ids == ("G1", "G2")
        np.testing.assert_array_equal(levels.targets["mrna"].values, [0.5, math.nan])
        assert levels.has_any.tolist() == [True, False]


def test_what_is_empty_or_na_is_no_level(tmp_path: Path) -> None:
    levels = read(table(tmp_path, "gene_id\tTPM\na\t\nb\tNA\nc\tNaN\nd\tnull\ne\t 3 \n"))

    np.testing.assert_array_equal(levels.targets["mrna"].values, [math.nan] * 4 + [3])


def test_zero_under_a_logarithm_is_not_detected_and_counted(tmp_path: Path) -> None:
    path, findings = table(tmp_path, PLAIN + "G0\t0\n"), Findings()

    assert math.isnan(read(path, "mrna=log10(TPM)", findings=findings).targets["mrna"].values[-1])
    assert list(findings.repaired.values()) == [["G0"]]
    assert read(path, "mrna=log10(TPM + 0.1)").targets["mrna"].values[-1] == -1


def test_rows_without_an_id_and_spaces_around_ids_are_counted(tmp_path: Path) -> None:
    path, findings = table(tmp_path, PLAIN.replace("G2", " G2 ") + "\t\n"), Findings()

    assert read(path, findings=findings).ids == ("G1", "G2", "007")
    assert list(findings.unmatched.values()) == [["row 4"]]
    assert not findings.dropped
    assert list(findings.repaired.values()) == [["G2"]]


def test_the_only_column_of_texts_names_the_genes(tmp_path: Path) -> None:
    path = table(tmp_path, PLAIN.replace("gene_id", "Systematic name"))

    assert read(path).ids[0] == "G1"
    assert read(path, id_column="TPM").ids == ("1", "10", "100")


def test_a_quote_that_does_not_end_moves_no_level_to_another_gene(tmp_path: Path) -> None:
    path = table(tmp_path, 'gene_id\tnote\tTPM\nCRLF2\t"open\t1\nCRLF2_1\tx"\t2\n')
    levels = read(path, id_column="gene_id")

    assert dict(zip(levels.ids, levels.targets["mrna"].values, strict=True)) == {"CRLF2": 1, "CRLF2_1": 2}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("quant.tsv", '"gene_id"\t"TPM"\n"G1"\t1\n"G2"\t"10"\n"007"\t100\n'),
        ("quant.csv", 'gene_id,note,TPM\nG1,"a, ""b""",1\nG2,,10\n007,x,100\n'),
        ("col_names_na.tsv", '""\t"TPM"\n"G1"\t1\n"G2"\t10\n"007"\t100\n'),
        ("quant.sf", "Name\tLength\tTPM\nG1\t900\t1\nG2\t900\t10\n007\t900\t100\n"),
        ("levels", PLAIN),
        ("levels.gct", "#1.2\n3\t1\nName\tTPM\nG1\t1\nG2\t10\n007\t100\n"),
        (
            "counts.txt",
            '# Program:featureCounts v2.0.1; Command:"featureCounts" "-a" "a.gtf"\n'
            "Geneid\tStart\tTPM\nG1\t1;2\t1\nG2\t9\t10\n007\t9\t100\n",
        ),
        ("paxdb.txt", "#name: W\n#score: 9\n#\n#number\tid\tTPM\n7\tG1\t1\n8\tG2\t10\n9\t007\t100\n"),
        ("levels.tsv", "#gene_id\tTPM\nG1\t1\nG2\t10\n007\t100\n"),
        ("levels.tsv", "#made\ton Monday\n" + PLAIN),
    ],
)
def test_tables_are_read_as_common_tools_write_them(tmp_path: Path, name: str, content: str) -> None:
    id_column = "Geneid" if "Geneid" in content else None
    levels = read(table(tmp_path, content, name), id_column=id_column)

    assert levels.ids == ("G1", "G2", "007")
    assert levels.targets["mrna"].values.tolist() == [1, 10, 100]


REFUSED = [
    ("", "levels.tsv", "is empty"),
    ("# nothing\n# else\n", "levels.tsv", "is empty: it has no line of column names"),
    (PLAIN.replace("\t", ";").replace("1", "1,5"), "levels.csv", "parted by ';' and not by ','"),
    ("# from a sequencer\n" + PLAIN.replace("\t", ","), "levels.tsv", "parted by ','"),
    (PLAIN, "levels.csv", "parted by '.t' and not by ','"),
    (PLAIN.replace("\t", ";"), "levels.csv", "parted by ';'"),
    (PLAIN.replace("\t", ","), "levels.tsv", "parted by ','"),
    (PLAIN.replace("\t", ","), "levels.sf", "no suffix that says.*no tabs in its header"),
    (b"PK\3\4" + bytes(99), "levels.xlsx", "a workbook is .*Export its sheet as TSV or CSV"),
    (b"PK\3\4" + bytes(99), "levels.tsv", "zip archive.*Export its sheet"),
    (b"\xd0\xcf\x11\xe0\xa1" + bytes(99), "levels.xls", "a workbook .*Export its sheet"),
    (gzip.compress(b"PAR1" + bytes(99)), "levels.parquet.gz", "is Parquet within gzip. Unpack it"),
    (gzip.compress(b"ARROW1" + bytes(99)), "levels.feather.gz", "is Feather within gzip. Unpack it"),
    (
        PLAIN.replace("gene_id\t", ""),
        "levels.tsv",
        "2 values in line 2, but 1 columns.*Row names without",
    ),
    ('"TPM" "n"\n"G1" 1 2\n', "levels.txt", "parted by ' '"),
    ('gene_id,note,TPM\nG1,"open,1\nG2,x",2\n', "levels.csv", "quote in line 2 that does not end there"),
    ('gene_id,note,TPM\nG1,"a\nb",2\n', "levels.csv", "quote in line 2 that does not end there"),
    ('gene_id,note,TPM\nG1,"a" b,2\n', "levels.csv", "quote in line 2 .*misplaced"),
    ('gene_id\tTPM\n"G1\t1\n', "levels.tsv", "a quote that does not end in its column 'gene_id', line 2"),
    (b"gene_id\tTPM\nG\xe4\t1\n", "levels.tsv", "no UTF-8 in its column 'gene_id', line 2"),
    (PLAIN.replace("TPM", "TMP"), "levels.tsv", "no column 'TPM'.*Did you mean 'TMP'"),
    (PLAIN.replace("gene_id", "TPM"), "levels.tsv", "columns"),
    ("a\tb\tTPM\nx\ty\t1\n", "levels.tsv", "2 of its columns.*`--id-column`"),
    (PLAIN.replace("\t10\n", "\thigh\n"), "levels.tsv", "'high' in its column 'TPM' for 'G2' .row 2"),
    (PLAIN.replace("\t10\n", "\t1,5\n"), "levels.tsv", "'1,5'"),
    (PLAIN.replace("\t10\n", "\t1_0\n"), "levels.tsv", "'1_0'"),
    (PLAIN.replace("\t10\n", "\tinf\n"), "levels.tsv", "'inf'"),
    (PLAIN.replace("\t10\n", "\t1e999\n"), "levels.tsv", "'1e999'"),
    (PLAIN.replace("\t10\n", "\t-10\n"), "levels.tsv", "-10 .* logarithm .*Is it a logarithm already"),
    (PLAIN.replace("G2", "G1"), "levels.tsv", "the id 'G1' twice"),
    ("gene_id\tTPM\nG1\t\nG2\tNA\n", "levels.tsv", "no level for 'mrna'"),
    ("gene_id\tTPM\n\t1\n\t2\n", "levels.tsv", "no id in its column"),
    ("gene_id\tTPM\n", "levels.tsv", "0 rows"),
    (PLAIN + "G9\t1\t2\n", "levels.tsv", "3 values in line 5, but 2 columns in its header .line 1"),
    (PLAIN + "G9\n", "levels.tsv", "1 values in line 5, but 2 columns"),
    (gzip.compress(PLAIN.encode() * 50)[:-20], "levels.tsv.gz", "cannot be read"),
    (PLAIN.encode("utf-16"), "levels.tsv", "cannot be read"),
    (b"PAR1 and nothing else", "levels.parquet", "cannot be read"),
    (b"ARROW1\0\0", "levels.feather", "cannot be read"),
]


@pytest.mark.parametrize(("content", "name", "message"), REFUSED, ids=range(len(REFUSED)))
def test_a_bad_table_is_refused_in_one_paragraph(tmp_path: Path, content: str | bytes, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as refusal:
        read(table(tmp_path, content, name), "mrna=log10(TPM)")

    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_and_numbers_as_ids_with_a_point_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "none.tsv")
    pq.write_table(pa.table({"gene_id": [1.5], "TPM": [1]}), tmp_path / "levels.parquet")
    with pytest.raises(DataError, match="Ids are texts or whole numbers"):
        read(tmp_path / "levels.parquet")
