"""What users may have done to their tables, proteins, GTF and GenBank, and what must come of each."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet as pq

from tests.data.genome.malformed_cases import (
    GENES,
    Case,
    Change,
    after,
    before,
    called,
    counted,
    cut_at,
    every,
    holds,
    packed,
    raw,
    refused,
    same,
    sub,
    text,
    without,
    write,
)
from tests.data.genome.malformed_genomes import (
    ABSENT,
    BEYOND,
    ENDS,
    GB,
    GFF,
    GTF,
    NO_LEVEL,
    PARTIAL,
    PROTEINS,
    STOP,
    TSS,
    TSV,
    gone,
)


def as_parquet(path: Path, **columns: object) -> None:
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    table = {"gene_id": [gene for gene, _ in rows], "TPM": [float(level) for _, level in rows]}
    pq.write_table(pa.table(table | columns), path)


def turned(table: str) -> str:
    """Rows as columns."""
    columns = zip(*(line.split("\t") for line in table.splitlines()), strict=True)
    return "".join("\t".join(row) + "\n" for row in columns)


def value(written: str) -> Change:
    """Of G003, whatever it was."""
    return sub("(?<=^G003\t).*", written)


RAW = {"target": ["mrna=log10(TPM)"]}
NO_NUMBERS = [
    "inf",
    "-inf",
    "Infinity",
    "1e999",
    "1,5",
    "1.234,5",
    "1,234.5",
    "1 234",
    "1_000",
    "n.d.",
    "<0.1",
    "#DIV/0!",
    "0x1F",
    "3.5*",
    "5%",
    "1.2.3",
    "--",
    "'5",
]
IN_TABLE: dict[str, Case] = {
    **{
        f"no value, written {none!r}": counted(TSV, value(none), {NO_LEVEL: ["G003"]})
        for none in ("", "NA", "nan", "N/A", " null ")
    },
    **{f"a value of {one}": refused(TSV, value(one), "'G003' .row 4 below the header.") for one in NO_NUMBERS},
    "a negative value": refused(TSV, value("-0.5"), "-0.5 in its column 'TPM' for 'G003'.*logarithm already"),
    "a value of 0 without pseudo-count": counted(
        TSV, value("0"), {"0 read as not detected": ["G003"], NO_LEVEL: ["G003"]}, options=RAW
    ),
    "no value at all": refused(TSV, sub("\t[\\d.]+$", "\t"), "no level for 'mrna'"),
    "another column": refused(TSV, sub("TPM", "tpm"), "no column 'TPM'.*'gene_id', 'tpm'"),
    "a column twice": refused(TSV, every(sub("(?<=.)$", "\t1"), sub("TPM\t1", "TPM\tTPM")), "has 2 columns 'TPM'"),
    "a header only": refused(TSV, sub("^G.*\n", ""), "0 rows"),
    "no header": refused(TSV, sub("^gene.*\n", ""), "'TPM'"),
    "a header of another case": same(TSV, sub("gene_id", "Gene_ID")),
    "comments before the header": same(TSV, before("# from a sequencer\n#\n")),
    "a header that is a comment": same(TSV, before("# from a sequencer\n#")),
    "row names without a name": refused(
        TSV, sub("gene_id\t", ""), "Row names without a name, as R writes them.*Put `gene_id`"
    ),
    "blank lines": same(TSV, sub("^G003", "\nG003")),
    "a tab at the end of each line": same(TSV, sub("(?<=.)$", "\t")),
    "another column of texts": same(TSV, sub("(?<=.)$", "\tnote")),
    "commas in a .tsv": refused(TSV, sub("\t", ","), "parted by ','"),
    "semicolons in a .csv": refused(TSV, every(sub("\t", ";"), called("expression", "levels.csv")), "parted by ';'"),
    "spaces for tabs": refused(TSV, sub("\t", "   "), "parted by ' '"),
    "tabs in a .csv": refused(TSV, called("expression", "levels.csv"), r"parted by '\\t'"),
    "a .csv of commas": same(TSV, every(sub("\t", ","), called("expression", "levels.csv"))),
    "thousands with commas in a .csv": refused(
        TSV,
        every(sub("\t", ","), sub("92.894", "1,234.5"), called("expression", "levels.csv")),
        "3 values in line 2, but 2 columns",
    ),
    "decimal commas in quotes in a .csv": refused(
        TSV, every(sub("\t", ","), sub("92.894", '"92,894"'), called("expression", "levels.csv")), "has '92,894'"
    ),
    "another suffix": same(TSV, called("expression", "levels.dat")),
    "a workbook": refused(
        TSV,
        every(holds(b"PK\x03\x04" + bytes(2000)), called("expression", "levels.xlsx")),
        "a workbook is .*Export its sheet as TSV or CSV",
    ),
    "a row of three columns": refused(TSV, sub("(?<=^G003)", "\t7"), "3 values in line 5, but 2 columns"),
    "a row of one column": refused(TSV, sub("(?<=^G003).*", ""), "1 values in line 5, but 2 columns"),
    "texts in quotes": same(TSV, sub("^(G.*)\t", '"\\1"\t')),
    "a quote that does not end": refused(TSV, sub("^(G003.*)\t", '"\\1\t'), "quote that does not end.*line 5"),
    "quotes that do not end in another column": same(
        TSV, every(sub("$(?<=.)", "\tx"), sub("(?<=^G003)(.*)x", r'\1"x'))
    ),
    "a row twice": refused(TSV, after("G003\t13.919\n"), "has the id 'G003' twice .again in row 9"),
    "a row twice but for spaces": refused(TSV, after(" G003\t13.919\n"), "has the id 'G003' twice"),
    "genes as columns": refused(TSV, text(turned), "'TPM'"),
    "a NUL byte": refused(TSV, value("1\0002"), "levels.tsv"),
    "Windows-1252 in an id": refused(TSV, raw(b"G003", b"G\xe4"), "no UTF-8 in its column 'gene_id', line 5"),
    "a line over the limit": refused(TSV, after("G9" + "x" * 2**24 + "\t1\n"), "levels.tsv"),
    "Parquet": same(TSV, as_parquet),
    "Parquet within gzip": refused(TSV, every(as_parquet, packed(gzip.compress)), "Parquet within gzip. Unpack it"),
    "Parquet cut short": refused(TSV, every(as_parquet, cut_at("PAR1$")), "levels.tsv"),
    "Parquet with lists": refused(TSV, lambda path: as_parquet(path, TPM=[[1.0]] * 8), "list<.*> in its column 'TPM'"),
    "Parquet with infinity": refused(
        TSV, lambda path: as_parquet(path, TPM=[float("inf")] * 8), "inf in its column 'TPM'"
    ),
    "Parquet with truths": refused(TSV, lambda path: as_parquet(path, TPM=[True] * 8), "bool in its column 'TPM'"),
    "Parquet with fractions as ids": refused(
        TSV, lambda path: as_parquet(path, gene_id=[0.5] * 8), "double in its column of ids"
    ),
    "Parquet without an id": counted(
        TSV,
        lambda path: as_parquet(path, gene_id=["G000", None, *GENES[2:]]),
        {"without an id": ["row 2"], NO_LEVEL: ["G001"]},
    ),
    "the genome": refused(
        TSV, lambda path: {"expression": path.with_name("genome.fa")}, "genome.fa.*no suffix that says"
    ),
    "the annotation": refused(
        TSV, lambda path: (path.write_text(path.with_name(GFF).read_text()), None)[1], "levels.tsv.*(column|TPM)"
    ),
}


def at(tss: str) -> Change:
    """The TSS of G005, whose coding sequence is 327..491 on the + strand of chrB, 1,144 bp."""
    return sub("(?<=^G005\t).*", tss)


OTHER_ENDS = "gene_id\ttss\n" + "".join(
    f"{gene}\t{end}\n" for gene, end in zip(GENES, (282, 308, 739, 965, 285, 517, 544, 897), strict=True)
)
IN_TSS: dict[str, Case] = {
    **{f"at {tss}": counted(TSS, at(tss), {"not within": ["G005"]}) for tss in ("400", "328", "1144")},
    **{
        f"at {tss}": counted(TSS, at(tss), {"a TSS beyond": ["G005"]})
        for tss in ("0", "-5", "1145", "99999999999", "1e29")
    },
    **{f"at {tss}": refused(TSS, at(tss), "'G005' .row 6") for tss in ("chr1:313", "313,0", "inf", "1e30")},
    "between two bases": refused(TSS, at("313.5"), "the TSS of 'G005' is 313.5"),
    "not known": counted(TSS, at(""), {"no TSS in the TSS table": ["G005"]}),
    "a gene twice": refused(TSS, after("G005\t313\n"), "'G005' twice"),
    "a gene missing": counted(TSS, without("G005"), {"no TSS in the TSS table": ["G005"]}),
    "another column": refused(TSS, sub("tss", "position"), "no column 'tss'"),
    "no gene in common": refused(TSS, sub("^G", "X"), "tss.tsv.*no TSS|no TSS.*tss.tsv"),
    "the wrong ends": refused(TSS, holds(OTHER_ENDS), "tss.tsv.*not within|not within .*tss.tsv"),
}

UNLIKE = "^a given protein that has nothing of its coding sequence"
IN_PROTEINS: dict[str, Case] = {
    "lower case": same(PROTEINS, sub("^[A-Z]+$", lambda line: line[0].lower())),
    "stops at the ends": same(PROTEINS, sub("(?<=^)([A-Z]+)$", r"\1*")),
    "of another organism": refused(
        PROTEINS, sub("^>G.*", ">sp|Q99|XYZ_HUMAN"), "proteins.fa has a protein of none of the 7 genes"
    ),
    "of other genes": refused(
        PROTEINS,
        sub(r"^>G00(\d)", lambda gene: f">G00{(int(gene[1]) + 2) % 8}"),
        "proteins.fa.*unlike|unlike.*proteins.fa",
    ),
    "of another gene": counted(
        PROTEINS, sub("^>G00[23]", lambda gene: ">G003" if gene[0] == ">G002" else ">G002"), {UNLIKE: ["G002", "G003"]}
    ),
    "a stop inside": counted(PROTEINS, sub("^MYDVAIM", "MYDVAIM*"), {"a stop inside its given protein": ["G002"]}),
    "a residue more": counted(PROTEINS, sub("^MYDVAIM", "MYDVAIMK"), {}, reported=("G002",)),
    "an unknown residue": counted(PROTEINS, sub("^MYDVAIM", "MYDVAXM"), {}, reported=("G002",)),
    "no protein of a gene": same(PROTEINS, without("G002|MYDVAIM")),
    "no protein of a gene with selenocysteine": counted(PROTEINS, without("G005|MKTQPR"), {STOP: ["G005"]}),
    "two proteins of a gene": counted(PROTEINS, after(">G005\nMKLMKLMKLMKL\n"), {STOP: ["G005"]}),
    "an empty protein": same(PROTEINS, sub("^MYDVAIM.*\n", "")),
    "DNA": refused(PROTEINS, sub("^M[A-Z]+$", "ATGGCGGCGACGACGGCATAA"), "proteins.fa.*unlike|unlike.*proteins.fa"),
    "digits": refused(PROTEINS, sub("^MYDVAIM", "MYDV41M"), "proteins.fa.*G002 made.*not a protein symbol"),
    "gaps": refused(PROTEINS, sub("^MYDVAIM", "MYDV--M"), "proteins.fa.*not a protein symbol"),
    "the table": refused(PROTEINS, lambda path: {"proteins": path.with_name(TSV)}, "levels.tsv is no FASTA file"),
}


def _with_stops(gtf: str) -> str:
    lines = [line.split("\t") for line in gtf.splitlines()]
    for stop in [line for line in lines if line[2] == "stop_codon"]:
        for line in lines:
            if line[2] == "CDS" and line[8] == stop[8]:
                if stop[6] == "+" and int(line[4]) == int(stop[3]) - 1:
                    line[4] = stop[4]
                elif stop[6] == "-" and int(line[3]) == int(stop[4]) + 1:
                    line[3] = stop[3]
    return "".join("\t".join(line) + "\n" for line in lines)


def _as_gff3(path: Path) -> None:
    write("gff3", path.parent / "other")
    path.write_text((path.parent / "other" / GFF).read_text())


IN_GTF: dict[str, Case] = {
    "no quotes": same(GTF, sub('"', "")),
    "no quotes in one line": same(GTF, sub('"G002"(?=.*\n.*stop)', "G002")),
    "no transcript": refused(GTF, sub(' transcript_id "G002.t1";', ""), "line 1[0-9]: this .* has no `transcript_id"),
    "no gene": refused(GTF, sub('gene_id "[^"]*";', ""), "no coding transcript|gene_id"),
    "no gene in the lines of one": counted(
        GTF, sub('gene_id "G002";', ""), {"nothing names its gene": ["G002.t1"], ABSENT: ["G002"]}
    ),
    "no lines of genes and transcripts": same(GTF, without("\tgene\t|\ttranscript\t")),
    "no stop codons": counted(GTF, without("\tstop_codon\t"), {ENDS: GENES}, reported=tuple(GENES)),
    "no stop codon of a gene": counted(GTF, without("\tstop_codon\t.*G002"), {ENDS: ["G002"]}, reported=("G002",)),
    "stop codons within the CDS as well": same(GTF, text(_with_stops)),
    "a start that is not known": counted(GTF, sub('(?<="G002.t1";)', ' tag "cds_start_NF";'), {PARTIAL: ["G002"]}),
    "a gene id in two places": counted(
        GTF,
        sub('gene_id "G007"', 'gene_id "G002"'),
        {"several lines have the ID": ["G002.t1", "G007.t1"], ABSENT: ["G002", "G007"]},
    ),
    "GFF3 under the name": same(GTF, _as_gff3),
    "versions apart from ids": same(GTF, sub("(?<=;)$", ' gene_version "7";')),
}


LOCUS = r"Malformed LOCUS line found - is this correct? :'LOCUS chrA 1014 bp DNA\n' (genome.gb)"
OF_G002 = r"554\.\.718"
IN_GENBANK: dict[str, Case] = {
    "upper case": same(GB, sub(r"(?<=^ {5}[ \d]{4} )[acgtn ]+$", lambda line: line[0].upper())),
    "torn in the sequence": refused(GB, cut_at("^      721"), "genome.gb is torn|cannot be read as GenBank"),
    "torn in the features": refused(GB, cut_at("     mRNA            535"), "genome.gb"),
    "torn between the records": counted(GB, cut_at("LOCUS       chrB"), {ABSENT: GENES[4:]}),
    "no closing line": refused(GB, sub("^//\n\\Z", ""), "genome.gb is torn|cannot be read"),
    "no sequence": refused(GB, sub(r"(?s)^ORIGIN\n.*?(?=^//)", "ORIGIN\n", count=1), "genome.gb.*(no sequence|torn)"),
    "references for a sequence": refused(
        GB,
        sub(r"(?s)^ORIGIN\n.*?(?=^//)", "CONTIG      join(J00194.1:1..1014)\n"),
        "no sequence, only references to others .CONTIG.",
    ),
    "a first line that is not by the rules": counted(
        GB, sub("^LOCUS       chrA .*", "LOCUS       chrA 1014 bp DNA"), {"not by the format's rules": [LOCUS]}
    ),
    "a location of twelve digits": counted(GB, sub(OF_G002, "554..718000000000"), {f"{BEYOND}|location": ["G002"]}),
    "a length that is wrong": refused(GB, sub("1014 bp", "2014 bp"), "torn, or was edited"),
    "a record twice": refused(GB, sub(r"(?s)\A(.*)\Z", r"\1\1"), "'chrA' is in .* already"),
    "no LOCUS": refused(GB, sub("^LOCUS.*\n", ""), "holds no GenBank record"),
    "a base that is none": refused(GB, sub("taactccact", "taactcxact"), "'X' at position 7 is not a DNA symbol"),
    "an IUPAC code in a CDS": counted(GB, sub("gtacggcgtc", "rtacggcgtc"), {}, lost=("G002",)),
    "partial at the start": counted(GB, sub(OF_G002, "<554..718"), {PARTIAL: ["G002"]}),
    "partial at the end": counted(GB, sub(OF_G002, "554..>718"), {PARTIAL: ["G002"]}),
    "between two bases": counted(GB, sub(OF_G002, "554^555"), gone("location", "G002")),
    "a single base": counted(GB, sub(OF_G002, "554"), {"G002|three|nothing": ["G002"]}),
    "one of several places": counted(GB, sub(OF_G002, "(550.554)..718"), {PARTIAL: ["G002"]}),
    "an order rather than a join": same(GB, sub(r"CDS             join\(", "CDS             order(")),
    "a part in another record": counted(
        GB, sub(OF_G002, "join(J00194.1:1..9,554..718)"), gone("lies in another record", "G002")
    ),
    "parts of both strands": counted(
        GB, sub(OF_G002, "join(554..600,complement(601..718))"), gone("trans-splicing", "G002")
    ),
    "parts the other way round": counted(
        GB, sub(OF_G002, "join(601..718,554..600)"), gone("overlap or are not in order", "G002")
    ),
    "parts that overlap": counted(
        GB, sub(OF_G002, "join(554..600,600..718)"), gone("overlap or are not in order", "G002")
    ),
    "trans-splicing": counted(
        GB,
        sub(rf"(?<=CDS             ){OF_G002}\n", "554..718\n                     /trans_splicing\n"),
        gone("trans-splicing", "G002"),
    ),
    "a pseudogene": counted(
        GB,
        sub(rf"(?<=CDS             ){OF_G002}\n", "554..718\n                     /pseudo\n"),
        gone("^a pseudogene", "G002"),
    ),
    "the other strand": counted(GB, sub(OF_G002, "complement(554..718)"), {UNLIKE: ["G002"]}),
    "last base before the first": counted(GB, sub(OF_G002, "718..554"), gone("location", "G002")),
    "past the end": counted(GB, sub(OF_G002, "954..1118"), {f"{BEYOND}|location": ["G002"]}),
    "shifted by one": counted(GB, sub(OF_G002, "555..719"), {f"{UNLIKE}|{ENDS}": ["G002"]}),
    "shifted by three": counted(GB, sub(OF_G002, "557..721"), {ENDS: ["G002"]}),
    "shifted by minus three": counted(GB, sub(OF_G002, "551..715"), {ENDS: ["G002"]}),
    "a codon less at the start": counted(GB, sub(OF_G002, "557..718"), {ENDS: ["G002"]}, reported=("G002",)),
    "a location that is none": counted(
        GB,
        sub(OF_G002, "about here"),
        gone("a location that cannot be read", "G002")
        | {"not by the format's rules": ["Over indented CDS feature? (genome.gb)"]},
    ),
    "read from the second base": counted(
        GB, sub("/codon_start=1(?=\n     gene            784)", "/codon_start=2"), {PARTIAL: ["G002"]}
    ),
    "read from nowhere": counted(
        GB, sub("/codon_start=1(?=\n     gene            784)", "/codon_start=x"), {PARTIAL: ["G002"]}
    ),
    "genetic code 99": counted(
        GB, sub("/codon_start=1(?=\n     gene            784)", "/transl_table=99"), {"unknown genetic code": ["G002"]}
    ),
    "another's translation": counted(
        GB, sub('(?<=translation=")MYDVAIMREAGWHMC[^"]*', "MKLVVAATTRREEWWKLM"), {UNLIKE: ["G002"]}
    ),
    "no translations": same(GB, sub(r'^ +/translation="[^"]*"\n', "")),
    "an empty translation": same(GB, sub('(?<=translation=")MYDVAIMREAGWHMC[^"]*', "")),
    "a translation with digits": counted(GB, sub("MYDVAIMREAGWHMC", "MYDVAIM1EAGWHMC"), {"no residue": ["G002"]}),
    "a translation with a stop": counted(
        GB, sub("MYDVAIMREAGWHMC", "MYDVAIM*EAGWHMC"), {"a stop inside its given protein": ["G002"]}
    ),
    "a translation whose quote is not closed": refused(
        GB, sub('(?<=DEIWVD\n                     WGFYCASFP)"', ""), "genome.gb"
    ),
    "an empty locus tag": counted(
        GB, sub('/locus_tag="G002"', '/locus_tag=""'), {ABSENT: ["G002"], NO_LEVEL: ["sym002"]}
    ),
    "names that are all empty": counted(
        GB,
        sub('/locus_tag="G002"\n.*/gene="sym002"', '/locus_tag=""\n                     /gene'),
        {"^no locus_tag and no gene": ["[553:718](+)"], ABSENT: ["G002"]},
    ),
    "an id of two genes": counted(GB, sub('"G001"', '"G002"'), {"several places": ["G002"], ABSENT: ["G001"]}),
    "Windows-1252 in a qualifier": same(GB, raw(b"sym002", b"sym\xe4")),
    "tabs for spaces": refused(GB, sub("^     (gene|mRNA|CDS) +", r"\t\1\t"), "genome.gb"),
    "FASTA": refused(GB, holds(">chrA\nACGT\n"), "holds no GenBank record"),
    "GFF3": refused(GB, holds("##gff-version 3\nchrA\tx\tCDS\t1\t9\t.\t+\t0\tID=a\n"), "holds no GenBank record"),
    "given as FASTA": refused(
        GB, lambda path: {"genbank": (), "genome": [path], "annotation": path}, "looks like GenBank"
    ),
    "a circle that is said to be linear": counted(
        "ring/genome.gb", sub("circular", "linear  "), gone("not in order", "G001", "G005"), lost=tuple(GENES)
    ),
}
