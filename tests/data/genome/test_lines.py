"""Lines of GTF and GFF3 that cannot be read."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from raystudy.data import files
from raystudy.data.findings import Findings
from raystudy.data.genome.annotation import read_annotation
from raystudy.errors import DataError
from tests.data.genome.annotation_cases import ENSEMBL_GFF3, ENSEMBL_GTF, row

NAMED = "ID=c1"
GTF = 'gene_id "g"; transcript_id "t";'
REFUSED: dict[str, tuple[str, str]] = {
    "FASTA": (">chr1\nACGT\n", "1 tab-separated column rather than 9; this looks like FASTA"),
    "GenBank": ("LOCUS       U00096  4641652 bp  DNA\n", "this looks like GenBank"),
    "spaces for tabs": (row("CDS", 1, 9, NAMED).replace("\t", "  "), "it has spaces in place of tabs"),
    "a table with commas": ("gene_id,tpm\na,1\n", "1 tab-separated column rather than 9"),
    "BED": ("chr1\t0\t9\tgene\t0\t+\n", "6 tab-separated columns rather than 9"),
    "a column too few": (row("CDS", 1, 9, NAMED).replace("\t.\t+", "\t+"), "8 tab-separated columns rather than 9"),
    "a column too many": (row("CDS", 1, 9, NAMED + "\textra"), "10 tab-separated columns rather than 9"),
    "a torn last line": (row("CDS", 1, 9, NAMED)[:14], "4 tab-separated columns rather than 9"),
    "junk": ("\x07\x1b[2Jjunk\n", "1 tab-separated column rather than 9"),
    "a start that is no number": (row("CDS", "x", 9, NAMED), "start 'x' and end '9'"),
    "an end that is no number": (row("CDS", 1, "9.0", NAMED), "start '1' and end '9.0'"),
    "no start": (row("CDS", "", 9, NAMED), "start '' and end '9'"),
    "a number with underscores": (row("CDS", "1_0", 99, NAMED), "start '1_0'"),
    "a negative start": (row("CDS", -5, 9, NAMED), "start '-5'"),
    "an end beyond 64 bits": (row("CDS", 1, "9" * 30, NAMED), "whole numbers of at most 12 digits"),
    "a number of 5,000 digits": (row("CDS", "1" * 5000, "9" * 5000, NAMED), "whole numbers of at most 12 digits"),
    "a start of 0": (row("CDS", 0, 9, NAMED), "`1 <= start <= end` must hold, but got start 0 and end 9"),
    "start and end swapped": (row("CDS", 9, 1, NAMED), "`1 <= start <= end` must hold, but got start 9 and end 1"),
    "a strand of another format": (row("CDS", 1, 9, NAMED, "-1"), "the strand is '-1'"),
    "no strand": (row("CDS", 1, 9, NAMED, ""), "the strand is ''"),
    "a phase of 3": (row("CDS", 1, 9, NAMED, phase=3), "the phase of a CDS is '3'"),
    "no sequence id": (row("CDS", 1, 9, NAMED, chrom=""), "the sequence id .* is empty"),
    "no attributes": (row("CDS", 1, 9, ""), "names no gene as GFF3 does"),
    "attributes left away": (row("CDS", 1, 9, "."), "names no gene as GFF3 does"),
    "GTF that names no transcript": (row("CDS", 1, 9, 'gene_id "g";'), "this CDS has no `transcript_id"),
    "GTF with an open quote": (row("CDS", 1, 9, 'gene_id "g"; transcript_id "t'), "this CDS has no `transcript_id"),
    "another key that ends alike": (row("CDS", 1, 9, 'orig_transcript_id "t";'), "this CDS has no `transcript_id"),
}


def refusal(content: bytes, folder: Path) -> str:
    path = folder / "genes.gff"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_annotation(path, None, Findings())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    return str(caught.value)


@pytest.mark.parametrize("what", REFUSED)
def test_a_line_that_cannot_be_read_is_refused_with_its_number(what: str, tmp_path: Path) -> None:
    text, reason = REFUSED[what]

    message = refusal(b"# a comment\n\n" + text.encode(), tmp_path)

    assert message.startswith(f"{tmp_path / 'genes.gff'}, line 3: ")
    assert re.search(reason, message), message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ENSEMBL_GTF + row("CDS", 1, 9, "ID=c;Parent=g"), "this CDS has no `transcript_id"),
        (ENSEMBL_GFF3 + row("CDS", 1, 9, GTF), "names no gene as GFF3 does"),
    ],
)
def test_the_two_formats_in_one_file_are_refused(text: str, reason: str, tmp_path: Path) -> None:
    message = refusal(text.encode(), tmp_path)

    assert f"line {len(text.splitlines())}: " in message
    assert reason in message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(ENSEMBL_GTF.encode())[:-20], "end-of-stream"),
        (bytes(range(256)), "it is binary"),
        (ENSEMBL_GTF.encode("utf-16"), "UTF-16"),
    ],
)
def test_a_damaged_file_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    assert reason in refusal(content, tmp_path)


def test_a_line_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LINE_LIMIT", 100)

    assert "line 1 has more than 100 characters" in refusal(row("CDS", 1, 9, "ID=" + 100 * "x").encode(), tmp_path)


def test_lines_that_are_not_used_need_only_their_columns(tmp_path: Path) -> None:
    path = tmp_path / "genes.gtf"
    path.write_text(
        "#a\tcomment\tof\tnine\tcolumns\t.\t.\t.\t.\n"
        'browser position chr1\ntrack name="genes"\n   \n'
        + row("repeat_region", 9, 1, "", "x", 7)
        + row("CDS", 1, 9, GTF)
    )

    assert len(read_annotation(path, None, Findings()).transcripts) == 1
