"""GenBank files: what is read of a record, what is left out and why, what is refused."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqFeature import AfterPosition, BeforePosition, CompoundLocation, SeqFeature, SimpleLocation
from Bio.SeqRecord import SeqRecord

from raystudy.data.findings import Findings
from raystudy.data.genome.genbank import read_genbank
from raystudy.data.genome.loci import Chromosome
from raystudy.data.genome.transcripts import Transcript
from raystudy.errors import DataError

BASES = "ACGT" * 100


def feature(kind: str, parts: Sequence[tuple[int, int]], strand: int = 1, **qualifiers: str | list[str]) -> SeqFeature:
    """``parts`` are 1-based and inclusive, in the order of the chromosome."""
    spans = [SimpleLocation(first - 1, last, strand) for first, last in parts]
    place = spans[0] if len(spans) == 1 else CompoundLocation(spans[::strand])
    lists = {name: [value] if isinstance(value, str) else value for name, value in qualifiers.items()}
    return SeqFeature(place, type=kind, qualifiers=lists)


def text(*features: SeqFeature, name: str = "X1", topology: str = "linear", bases: str = BASES) -> str:
    annotations = {"molecule_type": "DNA", "topology": topology}
    record = SeqRecord(Seq(bases), id=f"{name}.1", name=name, annotations=annotations, features=list(features))
    handle = io.StringIO()
    SeqIO.write(record, handle, "genbank")
    return handle.getvalue()


def read(
    tmp_path: Path, content: str, gene_id: str | None = None, findings: Findings | None = None
) -> list[Chromosome]:
    path = tmp_path / "made.gb"
    path.write_text(content)
    return list(read_genbank([path], gene_id, Findings() if findings is None else findings))


def only(tmp_path: Path, *features: SeqFeature, gene_id: str | None = None, topology: str = "linear") -> Transcript:
    [chromosome] = read(tmp_path, text(*features, topology=topology), gene_id)
    [transcript] = chromosome.transcripts
    return transcript


def test_names_and_numbers_of_a_coding_sequence_are_read(tmp_path: Path) -> None:
    cds = feature(
        "CDS",
        [(11, 20), (61, 80)],
        -1,
        locus_tag="L1",
        gene="abc",
        gene_synonym="xyz; uvw",
        old_locus_tag="O1",
        protein_id="NP_1.1",
        transl_table="11",
        codon_start="1",
        translation="MKVACDEFG",
        db_xref=["GeneID:77", "UniProt:P1"],
    )
    found = only(tmp_path, cds)

    assert (found.gene_id, found.symbol, found.protein_id, found.chrom) == ("L1", "abc", "NP_1.1", "X1.1")
    assert (found.strand, found.cds, found.exons) == ("-", ((11, 20), (61, 80)), ((11, 20), (61, 80)))
    assert (found.protein, found.genetic_code, found.complete) == ("MKVACDEFG", 11, True)
    assert set(found.aliases) == {"xyz", "uvw", "O1", "77", "P1"}
    assert (found.utr5, found.utr3) == ((), ())


@pytest.mark.parametrize(
    ("gene_id", "name"),
    [(None, "L1"), ("symbol", "abc"), ("gene", "abc"), ("GeneID", "77"), ("old_locus_tag", "O1"), ("protein_id", "P9")],
)
def test_the_attribute_that_names_genes_is_chosen(tmp_path: Path, gene_id: str | None, name: str) -> None:
    names = {"locus_tag": "L1", "gene": "abc", "old_locus_tag": "O1", "protein_id": "P9", "db_xref": "GeneID:77"}

    assert only(tmp_path, feature("CDS", [(1, 9)], **names), gene_id=gene_id).gene_id == name


def test_the_symbol_names_a_gene_without_a_locus_tag(tmp_path: Path) -> None:
    assert only(tmp_path, feature("CDS", [(1, 9)], gene="abc")).gene_id == "abc"


def test_exons_come_from_the_mrna_that_can_hold_the_coding_sequence(tmp_path: Path) -> None:
    tag = {"locus_tag": "L1"}
    features = [
        feature("mRNA", [(1, 30), (71, 90)], **tag, transcript_id="T1"),
        feature("mRNA", [(5, 20), (61, 100)], **tag, transcript_id="T2"),
        feature("mRNA", [(1, 300)], locus_tag="L2", transcript_id="T3"),
        feature("CDS", [(11, 20), (61, 80)], **tag),
        feature("CDS", [(11, 30), (71, 80)], **tag),
        feature("CDS", [(11, 25), (61, 80)], **tag),
    ]
    [chromosome] = read(tmp_path, text(*features))

    second, first, none = chromosome.transcripts
    assert (first.transcript_id, first.exons, first.utr5) == ("T1", ((1, 30), (71, 90)), ((1, 10),))
    assert (second.transcript_id, second.utr5, second.utr3) == ("T2", ((5, 10),), ((81, 100),))
    assert (none.transcript_id, none.exons) == ("", none.cds)


def test_an_mrna_without_a_name_is_no_genes(tmp_path: Path) -> None:
    cds = feature("CDS", [(11, 40)], protein_id="P1")

    found = only(tmp_path, feature("mRNA", [(1, 100)]), cds, gene_id="protein_id")

    assert (found.gene_id, found.exons) == ("P1", ((11, 40),))


def test_a_frameshift_in_the_coding_sequence_is_no_intron_of_the_mrna(tmp_path: Path) -> None:
    found = only(
        tmp_path,
        feature("mRNA", [(1, 100)], locus_tag="L1"),
        feature("CDS", [(11, 40), (42, 80)], locus_tag="L1"),
    )

    assert (found.cds, found.exons) == (((11, 40), (42, 80)), ((1, 100),))
    assert (found.intron_bp, found.num_cds_junctions) == (0, 0)


@pytest.mark.parametrize("strand", [1, -1])
def test_a_gene_across_the_origin_of_a_circular_record_goes_on_past_its_end(tmp_path: Path, strand: int) -> None:
    cds = feature("CDS", [(381, 400), (1, 40)], strand, locus_tag="L1")

    assert only(tmp_path, cds, topology="circular").cds == ((381, 440),)


def test_parts_that_touch_are_one(tmp_path: Path) -> None:
    assert only(tmp_path, feature("CDS", [(11, 20), (21, 40)], locus_tag="L1")).cds == ((11, 40),)


def test_an_end_that_is_not_known_makes_it_incomplete(tmp_path: Path) -> None:
    for place in (SimpleLocation(BeforePosition(10), 40, 1), SimpleLocation(10, AfterPosition(40), -1)):
        assert not only(tmp_path, SeqFeature(place, type="CDS", qualifiers={"locus_tag": ["L1"]})).complete
    assert not only(tmp_path, feature("CDS", [(11, 40)], locus_tag="L1", codon_start="2")).complete


def left_out() -> list[tuple[SeqFeature, str]]:
    mixed = CompoundLocation([SimpleLocation(10, 40, 1), SimpleLocation(50, 80, -1)])
    elsewhere = CompoundLocation([SimpleLocation(10, 40, 1), SimpleLocation(50, 80, 1, ref="OTHER.1")])
    return [
        (feature("CDS", [(11, 40)], locus_tag="L1", pseudo=""), "a pseudogene"),
        (feature("CDS", [(11, 40)], locus_tag="L1", pseudogene="unitary"), "a pseudogene"),
        (feature("CDS", [(11, 40)], product="unnamed"), "no locus_tag and no gene to call the gene by"),
        (feature("CDS", [(11, 40), (51, 80)], locus_tag="L1", trans_splicing=""), "trans-splicing"),
        (SeqFeature(mixed, type="CDS", qualifiers={"locus_tag": ["L1"]}), "trans-splicing"),
        (SeqFeature(elsewhere, type="CDS", qualifiers={"locus_tag": ["L1"]}), "another record"),
        (feature("CDS", [(11, 40), (40, 80)], locus_tag="L1"), "backward frameshift"),
        (feature("CDS", [(51, 80), (11, 40)], locus_tag="L1"), "not in order"),
    ]


@pytest.mark.parametrize(("cds", "reason"), left_out())
def test_what_cannot_be_used_is_counted_with_its_reason(tmp_path: Path, cds: SeqFeature, reason: str) -> None:
    findings = Findings()

    [chromosome] = read(tmp_path, text(cds), findings=findings)

    assert chromosome.transcripts == []
    [(said, befallen)] = findings.dropped.items()
    assert reason in said
    assert len(befallen) == 1


def test_a_location_that_cannot_be_read_leaves_out_its_gene(tmp_path: Path) -> None:
    content, findings = text(feature("CDS", [(11, 40)], locus_tag="L1")).replace("11..40", "11..x40"), Findings()

    [chromosome] = read(tmp_path, content, findings=findings)

    assert chromosome.transcripts == []
    assert findings.dropped == {"a location that cannot be read": ["L1"]}
    assert findings.repaired == {}


def test_lines_against_the_format_are_counted(tmp_path: Path) -> None:
    content = text(feature("CDS", [(11, 40)], locus_tag="L1")).replace("ORIGIN\n", "ORIGIN\n\n")
    findings = Findings()

    [chromosome] = read(tmp_path, content, findings=findings)

    assert len(chromosome.tokens) == len(BASES)
    assert list(findings.repaired) == ["a GenBank line that is not by the format's rules"]


def test_records_come_one_by_one_under_their_accessions(tmp_path: Path) -> None:
    found = read(tmp_path, text(name="A") + text(name="B", topology="circular", bases="ACGTN" * 20))

    assert [(one.name, one.circular, len(one.tokens)) for one in found] == [("A.1", False, 400), ("B.1", True, 100)]


def test_a_record_without_accession_goes_by_its_locus(tmp_path: Path) -> None:
    lines = text(name="contig1").splitlines(keepends=True)
    content = "".join(line for line in lines if not line.startswith(("ACCESSION", "VERSION")))

    assert [one.name for one in read(tmp_path, content)] == ["contig1"]


WHOLE = text(feature("CDS", [(11, 40)], locus_tag="L1"))
CONTIG = WHOLE[: WHOLE.index("ORIGIN")] + "CONTIG      join(X2.1:1..400)\n//\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "made.gb"),
        (">chr1\nACGT\n", "holds no GenBank record"),
        ("##gff-version 3\nchr1\t.\tgene\t1\t9\t.\t+\t.\tID=a\n", "holds no GenBank record"),
        (WHOLE[:-200], "torn|cannot be read as GenBank"),
        (WHOLE[: WHOLE.index("ORIGIN")], "cannot be read as GenBank|torn|no sequence"),
        (WHOLE[: WHOLE.index("CDS")], "cannot be read as GenBank"),
        (WHOLE.replace("400 bp", "500 bp"), "torn, or was edited .Expected sequence length 500, found 400"),
        (WHOLE + WHOLE, "the record 'X1.1' is in .* already"),
        (CONTIG, "has no sequence, only references"),
        (WHOLE.replace("acgtacgtac", "acgtac!tac"), "'!' at position 7 is not a DNA symbol"),
        ("LOCUS\n//\n", "holds no GenBank record"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as refusal:
        read(tmp_path, content)

    assert "\n" not in str(refusal.value)
