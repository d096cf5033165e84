"""Annotations of every flavour, and what of them is left out."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from raystudy.data.findings import Findings
from raystudy.data.genome.annotation import Annotation, read_annotation
from raystudy.data.genome.transcripts import Transcript
from raystudy.errors import DataError
from tests.data.genome.annotation_cases import (
    BAKTA,
    ENSEMBL_GFF3,
    ENSEMBL_GTF,
    REFSEQ_EUKARYOTE,
    REFSEQ_PROKARYOTE,
    SGD,
    row,
)


def read(text: str, folder: Path, gene_id: str | None = None) -> tuple[Annotation, Findings]:
    path, findings = folder / "genes", Findings()
    path.write_text(text)
    return read_annotation(path, gene_id, findings), findings


def by_id(annotation: Annotation) -> dict[str, Transcript]:
    return {transcript.transcript_id: transcript for transcript in annotation.transcripts}


def test_ensembl_gtf_is_read_with_its_stop_codons(tmp_path: Path) -> None:
    annotation, findings = read(ENSEMBL_GTF, tmp_path)
    whole, cut, minus = annotation.transcripts

    assert (whole.gene_id, whole.symbol, whole.transcript_id, whole.chrom) == ("ENSG1", "OR4F5; so", "ENST1", "1")
    assert whole.exons == ((100, 200), (300, 400), (800, 900))
    assert whole.cds == ((150, 200), (300, 400), (800, 801)), "a stop codon that an intron cuts"
    assert (whole.protein_id, whole.complete, whole.genetic_code) == ("ENSP1", True, None)
    assert (cut.transcript_id, cut.complete) == ("ENST2", False)
    assert (minus.gene_id, minus.strand, minus.cds) == ("ENSG2", "-", ((2600, 2700),))
    assert minus.utr5 == ((2701, 2750),), "UTR lines are exons where there are none"
    assert findings == Findings()
    assert annotation.circular == frozenset()


def test_ensembl_gff3_is_read_with_all_its_transcripts(tmp_path: Path) -> None:
    annotation, findings = read(ENSEMBL_GFF3, tmp_path)
    first, second = annotation.transcripts

    assert (first.gene_id, first.symbol, first.transcript_id, first.protein_id) == ("ENSG1", "BRCA;1", "ENST1", "ENSP1")
    assert (first.exons, first.cds) == (((100, 200), (300, 400)), ((150, 200), (300, 350)))
    assert first.complete
    assert (second.exons, second.cds) == (((300, 400),), ((301, 350),)), "an exon has two parents"
    assert not second.complete, "it begins within a codon"
    assert annotation.circular == {"Chromosome"}
    assert findings.dropped == {"a pseudogene": ["ENSG6"]}, "what codes for nothing is not counted"


def test_refseq_eukaryotes_are_read(tmp_path: Path) -> None:
    annotation, findings = read(REFSEQ_EUKARYOTE, tmp_path)
    read_ids = by_id(annotation)
    tp53 = read_ids["NM_1.2"]

    assert set(read_ids) == {"NM_1.2", "X", "O", "P"}
    assert (tp53.gene_id, tp53.symbol, tp53.protein_id, tp53.genetic_code) == ("TP53", "TP53", "NP_1.1", 1)
    assert tp53.complete, "an mRNA that is partial says nothing of its CDS"
    assert {"P53", "LFS1", "7157", "NM_1.2"} <= set(tp53.aliases)
    assert not read_ids["X"].complete
    assert read_ids["O"].cds == ((2000, 2100), (2102, 2900)), "the base that is skipped stays a gap"
    assert read_ids["P"].cds == ((3000, 3200),), "another protein of the transcript"
    assert findings.dropped == {"a pseudogene": ["PS"]}
    [(reason, transcripts)] = findings.repaired.items()
    assert reason.startswith("a transcript left out of a gene that stays: its coding parts overlap")
    assert transcripts == ["P"]


def test_refseq_prokaryotes_are_read_around_the_origin(tmp_path: Path) -> None:
    annotation, findings = read(REFSEQ_PROKARYOTE, tmp_path)
    thr, past, split, tau, gamma = annotation.transcripts

    assert (thr.gene_id, thr.symbol, thr.transcript_id, thr.genetic_code) == ("b0001", "thrL", "NP_414542.1", 11)
    assert thr.exons == thr.cds == ((190, 255),)
    assert past.cds == ((4900, 5060),)
    assert (split.cds, split.strand) == (((4951, 5090),), "-")
    assert findings.repaired == {"parts on both sides of the origin of a circular chromosome joined": ["B"]}
    assert (tau.gene_id, gamma.gene_id) == ("b0470", "b0470"), "two proteins of one gene"
    assert (tau.cds, gamma.cds) == (((700, 999),), ((700, 870),))
    assert annotation.circular == {"NC_9"}


def test_sgd_is_read_up_to_its_sequences(tmp_path: Path) -> None:
    annotation, findings = read(SGD, tmp_path)
    dubious, snc1, gag_pol = annotation.transcripts

    assert (dubious.gene_id, dubious.symbol, dubious.cds) == ("YAL069W", "", ((335, 649),))
    assert (snc1.gene_id, snc1.symbol) == ("YAL030W", "SNC1")
    assert "SYB" in snc1.aliases
    assert (snc1.intron_bp, snc1.num_cds_junctions) == (113, 1)
    assert gag_pol.cds == ((3000, 3900), (3902, 5000))
    assert gag_pol.num_cds_junctions == 0
    assert findings == Findings()


def test_coding_sequences_without_genes_are_genes(tmp_path: Path) -> None:
    annotation, _ = read(BAKTA, tmp_path)

    assert [(one.gene_id, one.symbol) for one in annotation.transcripts] == [("ABC_00005", "dnaA"), ("ABC_00010", "")]


@pytest.mark.parametrize(
    ("text", "gene_id", "expected"),
    [
        (ENSEMBL_GTF, "gene_name", ["OR4F5; so"]),
        (ENSEMBL_GFF3, "symbol", ["BRCA;1"]),
        (REFSEQ_EUKARYOTE, "GeneID", ["7157"]),
        (REFSEQ_PROKARYOTE, "symbol", ["thrL", "dnaX"]),
        (SGD, "symbol", ["SNC1"]),
        (BAKTA, "ID", ["ABC_00005", "ABC_00010"]),
    ],
)
def test_a_gene_goes_by_the_attribute_asked_for_and_is_left_out_where_it_has_none(
    text: str, gene_id: str, expected: list[str], tmp_path: Path
) -> None:
    everything = {transcript.gene_id for transcript in read(text, tmp_path)[0].transcripts}

    annotation, findings = read(text, tmp_path, gene_id)

    assert list(dict.fromkeys(transcript.gene_id for transcript in annotation.transcripts)) == expected
    missing = findings.dropped.get(f"its gene has no {gene_id!r}", [])
    assert len(everything) == len(expected) + len(missing)


@pytest.mark.parametrize("text", [ENSEMBL_GTF, REFSEQ_PROKARYOTE, SGD])
def test_packing_marks_and_line_ends_change_nothing(text: str, tmp_path: Path) -> None:
    plain, _ = read(text, tmp_path)
    (tmp_path / "packed").write_bytes(gzip.compress(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()))

    assert read_annotation(tmp_path / "packed", None, Findings()) == plain


def test_the_order_of_lines_changes_nothing_but_the_order_of_transcripts(tmp_path: Path) -> None:
    upside_down = "".join(reversed(ENSEMBL_GFF3.splitlines(keepends=True)))

    assert by_id(read(upside_down, tmp_path)[0]) == by_id(read(ENSEMBL_GFF3, tmp_path)[0])


GENE = row("gene", 100, 999, "ID=g1") + row("mRNA", 100, 999, "ID=t1;Parent=g1")
GOOD = row("gene", 5000, 5999, "ID=good") + row("CDS", 5000, 5999, "ID=c;Parent=good", phase=0)
SCATTERED = "parts on several chromosomes or strands, or not in their order there (trans-splicing)"
GTF_GENE = 'gene_id "g1"; transcript_id "t1";'
LEFT_OUT: dict[str, tuple[str, str, str]] = {
    "two strands": (
        GENE + row("CDS", 100, 200, "Parent=t1") + row("CDS", 300, 400, "Parent=t1", "-"),
        SCATTERED,
        "g1",
    ),
    "an exon on the other strand": (
        GENE + row("exon", 100, 200, "Parent=t1", "-") + row("CDS", 100, 200, "Parent=t1"),
        SCATTERED,
        "g1",
    ),
    "two chromosomes": (
        GENE + row("CDS", 100, 200, "Parent=t1") + row("CDS", 300, 400, "Parent=t1", chrom="2"),
        SCATTERED,
        "g1",
    ),
    "trans-splicing": (GENE + row("CDS", 100, 200, "Parent=t1;exception=trans-splicing"), SCATTERED, "g1"),
    "no strand": (GENE + row("CDS", 100, 200, "Parent=t1", "."), "its strand is not known", "g1"),
    "an unknown strand": (GENE + row("CDS", 100, 200, "Parent=t1", "?"), "its strand is not known", "g1"),
    "slippage backwards": (
        GENE + row("CDS", 100, 200, "Parent=t1") + row("CDS", 200, 400, "Parent=t1"),
        "its coding parts overlap (as in ribosomal slippage backwards)",
        "g1",
    ),
    "a line twice": (
        GENE + 2 * row("CDS", 100, 200, "Parent=t1"),
        "its coding parts overlap (as in ribosomal slippage backwards)",
        "g1",
    ),
    "exons that overlap": (
        GENE
        + row("exon", 100, 200, "Parent=t1")
        + row("exon", 150, 400, "Parent=t1")
        + row("CDS", 100, 200, "Parent=t1"),
        "its exons overlap",
        "g1",
    ),
    "CDS past its exon": (
        GENE + row("exon", 100, 200, "Parent=t1") + row("CDS", 150, 201, "Parent=t1"),
        "CDS outside its exons",
        "g1",
    ),
    "CDS in an intron": (
        GENE
        + row("exon", 100, 200, "Parent=t1")
        + row("exon", 300, 400, "Parent=t1")
        + row("CDS", 150, 350, "Parent=t1"),
        "CDS outside its exons",
        "g1",
    ),
    "no such Parent": (
        row("CDS", 100, 200, "Parent=t9"),
        "its Parent is no gene or transcript of the file",
        "t9",
    ),
    "a transcript without its gene": (
        row("mRNA", 100, 999, "ID=t1;Parent=g9") + row("CDS", 100, 200, "Parent=t1"),
        "its Parent is no gene or transcript of the file",
        "t1",
    ),
    "Parents in a circle": (
        row("mRNA", 1, 9, "ID=a;Parent=b") + row("mRNA", 1, 9, "ID=b;Parent=a") + row("CDS", 1, 9, "Parent=a"),
        "its Parents lead in a circle",
        "a",
    ),
    "a transcript of two genes": (
        GENE + row("gene", 1, 9, "ID=g2") + row("mRNA", 1, 9, "ID=t2;Parent=g1,g2") + row("CDS", 1, 9, "Parent=t2"),
        "its transcript belongs to several genes",
        "t2",
    ),
    "a gene's ID twice": (
        GENE + row("gene", 2000, 2999, "ID=g1") + row("CDS", 100, 200, "Parent=t1"),
        "several lines have the ID of its gene or transcript",
        "t1",
    ),
    "a transcript's ID twice": (
        GENE + row("mRNA", 100, 999, "ID=t1;Parent=g1") + row("CDS", 100, 200, "Parent=t1"),
        "several lines have the ID of its gene or transcript",
        "t1",
    ),
    "a code that is no number": (
        GENE + row("CDS", 100, 200, "Parent=t1;transl_table=x"),
        "its transl_table is no number of a genetic code",
        "g1",
    ),
    "a pseudogene by its attribute": (GENE + row("CDS", 100, 200, "Parent=t1;pseudo=true"), "a pseudogene", "g1"),
    "nothing that names the gene": (
        row("CDS", 100, 200, "product=x"),
        "nothing names its gene",
        "CDS of line 3",
    ),
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_what_cannot_be_told_is_left_out_and_counted_and_the_rest_stays(what: str, tmp_path: Path) -> None:
    text, reason, label = LEFT_OUT[what]

    annotation, findings = read(GOOD + text, tmp_path)

    assert [transcript.gene_id for transcript in annotation.transcripts] == ["good"]
    assert findings.dropped == {reason: [label]}
    with pytest.raises(DataError) as alone:
        read(text, tmp_path)
    assert "no coding transcript" in str(alone.value)
    assert f"Left out: {reason} (1)" in str(alone.value)


GTF_GOOD = row("CDS", 5000, 5999, 'gene_id "good"; transcript_id "good";')
GTF_LEFT_OUT: dict[str, tuple[str, str]] = {
    "two chromosomes": (
        row("CDS", 100, 200, GTF_GENE) + row("CDS", 100, 200, GTF_GENE, chrom="Y"),
        SCATTERED,
    ),
    "a transcript's line twice": (
        2 * row("transcript", 100, 200, GTF_GENE) + row("CDS", 100, 200, GTF_GENE),
        "several lines have the ID of its gene or transcript",
    ),
    "a stop codon outside the exons": (
        row("exon", 100, 200, GTF_GENE) + row("CDS", 100, 200, GTF_GENE) + row("stop_codon", 201, 203, GTF_GENE),
        "CDS outside its exons",
    ),
    "a pseudogene by its gene's line": (
        row("gene", 100, 200, 'gene_id "g1"; gene_biotype "transcribed_pseudogene";') + row("CDS", 100, 200, GTF_GENE),
        "a pseudogene",
    ),
}


@pytest.mark.parametrize(
    ("text", "decayed"),
    [
        (row("CDS", 1, 9, 'gene_id "g"; transcript_id "t"; transcript_biotype "nonsense_mediated_decay";'), True),
        (row("CDS", 1, 9, 'gene_id "g"; transcript_id "t"; transcript_type "protein_coding_LoF";'), True),
        (row("CDS", 1, 9, 'gene_id "g"; transcript_id "t"; transcript_biotype "protein_coding";'), False),
        (
            row("gene", 1, 9, "ID=gene:g;biotype=protein_coding")
            + row("mRNA", 1, 9, "ID=transcript:t;Parent=gene:g;biotype=nonsense_mediated_decay")
            + row("CDS", 1, 9, "Parent=transcript:t"),
            True,
        ),
    ],
)
def test_a_transcript_that_is_degraded_is_known_by_its_biotype(text: str, decayed: bool, tmp_path: Path) -> None:
    [transcript] = read(text, tmp_path)[0].transcripts

    assert transcript.is_decayed == decayed
    assert transcript.complete


@pytest.mark.parametrize(
    ("partial", "complete"),
    [("00", True), ("", True), ("false", True), ("01", False), ("10", False), ("11", False), ("true", False)],
)
def test_prodigal_says_of_each_end_whether_it_is_known(partial: str, complete: bool, tmp_path: Path) -> None:
    [transcript] = read(row("CDS", 1, 9, f"ID=1_1;partial={partial};start_type=ATG", phase=0), tmp_path)[0].transcripts

    assert transcript.complete == complete


@pytest.mark.parametrize(("strand", "cds", "stop"), [("+", (100, 197), (198, 200)), ("-", (103, 200), (100, 102))])
def test_in_gff3_too_a_stop_codon_beside_its_cds_belongs_to_it(
    strand: str, cds: tuple[int, int], stop: tuple[int, int], tmp_path: Path
) -> None:
    for first, last in (cds, (100, 200)):
        text = GENE + row("CDS", first, last, "Parent=t1", strand, 0) + row("stop_codon", *stop, "Parent=t1", strand, 0)

        [transcript] = read(text, tmp_path)[0].transcripts

        assert transcript.cds == ((100, 200),)


SPLIT = (
    row("region", 1, 1000, "ID=c;Is_circular=true")
    + row("gene", 901, 1000, "ID=gene-a;locus_tag=a;part=1")
    + row("gene", 1, 50, "ID=gene-a;locus_tag=a;part=2")
    + row("CDS", 901, 1000, "ID=cds-a;Parent=gene-a", phase=0)
    + row("CDS", 1, 50, "ID=cds-a;Parent=gene-a", phase=2)
)


def test_a_gene_of_two_lines_that_the_origin_splits_is_one(tmp_path: Path) -> None:
    annotation, findings = read(SPLIT, tmp_path)

    assert [(one.gene_id, one.cds) for one in annotation.transcripts] == [("a", ((901, 1050),))]
    assert findings.dropped == {}


@pytest.mark.parametrize("second", ["ID=gene-a;locus_tag=b;part=2", "ID=gene-a;locus_tag=a", "ID=gene-a;part=2"])
def test_lines_that_differ_in_more_than_their_part_are_of_several_genes(second: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="several lines have the ID"):
        read(SPLIT.replace("ID=gene-a;locus_tag=a;part=2", second), tmp_path)


@pytest.mark.parametrize("what", GTF_LEFT_OUT)
def test_in_gtf_too(what: str, tmp_path: Path) -> None:
    text, reason = GTF_LEFT_OUT[what]

    annotation, findings = read(GTF_GOOD + text, tmp_path)

    assert [transcript.gene_id for transcript in annotation.transcripts] == ["good"]
    assert list(findings.dropped) == [reason]


def test_transcripts_without_an_id_of_their_own_are_told_apart_by_their_genes(tmp_path: Path) -> None:
    text = "".join(
        row("CDS", start, start + 99, f'gene_id "{gene}"; transcript_id "unknown_transcript_1";')
        for start, gene in ((100, "a"), (400, "b"), (700, "a"))
    )

    annotation, _ = read(text, tmp_path)

    assert [(one.gene_id, one.cds) for one in annotation.transcripts] == [
        ("a", ((100, 199), (700, 799))),
        ("b", ((400, 499),)),
    ]


def test_genes_of_one_id_in_several_places_are_handed_over_as_they_are(tmp_path: Path) -> None:
    twin = row("gene", 100, 400, "ID=gene-SHOX;gene=SHOX", chrom="X") + row(
        "CDS", 100, 400, "Parent=gene-SHOX", phase=0, chrom="X"
    )
    text = twin + twin.replace("X\t", "Y\t").replace("gene-SHOX", "gene-SHOX-2")

    assert {one.gene_id for one in read(text, tmp_path)[0].transcripts} == {"SHOX", "SHOX-2"}
    annotation, findings = read(text, tmp_path, "symbol")

    assert [(one.gene_id, one.chrom) for one in annotation.transcripts] == [("SHOX", "X"), ("SHOX", "Y")]
    assert not findings.dropped


def test_parts_of_one_coding_sequence_may_have_ids_of_their_own(tmp_path: Path) -> None:
    text = GENE + row("CDS", 100, 200, "ID=p-CDS1;Parent=t1") + row("CDS", 300, 400, "ID=p-CDS2;Parent=t1")

    [transcript] = read(text, tmp_path)[0].transcripts

    assert transcript.cds == ((100, 200), (300, 400))


def test_an_annotation_without_coding_transcripts_is_refused_with_the_types_met(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no coding transcript .* gene \(1\), mRNA \(1\)"):
        read(GENE, tmp_path)
    with pytest.raises(DataError, match="it holds no feature"):
        read("", tmp_path)
    with pytest.raises(DataError, match="`--gene-id` chooses by which attribute, here of ID, "):
        read(GOOD, tmp_path, "GeneID")
