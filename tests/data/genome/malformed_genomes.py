"""What users may have done to the files of a genome, one file at a time, and what must come of each."""

from __future__ import annotations

from tests.data.genome.malformed_cases import (
    GENES,
    Case,
    Change,
    after,
    also,
    counted,
    cut_at,
    every,
    holds,
    in_sequence,
    moved,
    raw,
    refused,
    same,
    sub,
    without,
)

FA, GFF, GTF, GB, TSV, TSS, PROTEINS = (
    *("genome.fa", "genes.gff3", "genes.gtf", "genome.gb"),
    *("levels.tsv", "tss.tsv", "proteins.fa"),
)
STOP = "^a stop codon inside its coding sequence, and no protein given"
FRAME = "^a coding sequence that is no multiple of three bases"
BEYOND = "^bases beyond the end of its chromosome"
ABSENT = "^ids of .* without a usable coding gene"
NO_LEVEL = "^no expression value"
NO_CHROMOSOME = "^on a chromosome that is not in the genome"
UNKNOWN = "^unknown bases .N. in its coding sequence"
PARTIAL = "^an incomplete coding sequence"
ON_A, ON_B = GENES[:4], GENES[4:]
ENDS = r"(begins|ends)\b.*\bcodon"  # of a coding sequence that has no start codon, no stop codon, or neither
ENSEMBL = {gene: f"ENSG00000000{gene[1:]}" for gene in GENES}


def gone(reason: str, *genes: str) -> dict[str, list[str]]:
    """Left out while the annotation is read, so that nothing has the ids of the table's rows."""
    return {reason: list(genes), ABSENT: list(genes)}


def rename(old: str, new: str, in_table: str = "") -> Change:
    """A gene has another id, in the GFF3 and in the table."""
    return every(sub(old, new), also(TSV, sub(old, in_table or new)))


IN_FASTA: dict[str, Case] = {
    "lower case": same(FA, sub(r"^[ACGT]+$", lambda line: line[0].lower())),
    "soft masking": same(FA, sub(r"(?<=[ACGT]{9})[ACGT]{20}", lambda part: part[0].lower())),
    "everything on one line": same(FA, sub(r"(?<=[ACGT])\n(?=[ACGT])", "")),
    "blank lines": same(FA, sub(r"^>", "\n\n>")),
    "spaces at the ends of lines": same(FA, sub(r"$", "  ")),
    "a line end in the middle of a line": same(FA, sub(r"^([ACGT]{20})", "\\1\r\n", count=5)),
    "chromosomes the other way round": same(FA, sub(r"(>chrA[^>]*)(>chrB[^>]*)", r"\2\1")),
    "Windows-1252 in a header": same(FA, raw(b"made", b"m\xe4de")),
    "IUPAC codes between genes": same(FA, in_sequence("chrA", 290, "RYSWKMBDHVN")),
    "an IUPAC code upstream of a gene": counted(FA, in_sequence("chrB", 300, "R"), {}, lost=("G005",)),
    "an IUPAC code in a CDS": counted(FA, in_sequence("chrB", 400, "R"), {UNKNOWN: ["G005"]}),
    "a hard-masked chromosome": counted(
        FA, sub(r"(?<=chrB made\n)[ACGT\n]+", lambda part: "N" * len(part[0].replace("\n", "")) + "\n"), {UNKNOWN: ON_B}
    ),
    "a hard-masked genome": refused(
        FA, sub(r"^[ACGT]+$", lambda line: "N" * len(line[0])), "no gene is left.*unknown bases"
    ),
    "a stop inside a CDS": counted(FA, in_sequence("chrB", 402, "TGA"), {STOP: ["G005"]}),
    "one base more at the beginning of a chromosome": counted(
        FA, in_sequence("chrA", 1, "A", 0), {f"{STOP}|{FRAME}|{ENDS}": ON_A}
    ),
    "three bases more at the beginning of a chromosome": counted(
        FA, in_sequence("chrA", 1, "ACG", 0), {STOP: ["G001"], ENDS: ["G000", "G002", "G003"]}
    ),
    "a base more within a gene": counted(
        FA, in_sequence("chrB", 400, "A", 0), {f"{STOP}|{FRAME}|{ENDS}": ["G005", "G006", "G007"]}, reported=("G005",)
    ),
    "three bases more within a gene": counted(
        FA, in_sequence("chrB", 700, "CCC", 0), {f"{STOP}|{FRAME}|{ENDS}": ["G006", "G007"]}, reported=("G006", "G007")
    ),
    "a thousand bases more at the beginning of each": refused(
        FA, sub(r"made\n", "made\n" + "ACGTTGCAAC" * 100 + "\n"), "do not belong together|no gene is left"
    ),
    "an end cut off": counted(FA, sub(r"^.{4}\n\Z", ""), {}, lost=("G007",)),
    "an end cut off within a gene": counted(FA, sub(r"(?s)(chrB made\n.{970}).*", r"\1\n"), {BEYOND: ["G007"]}),
    "a chromosome without bases": counted(FA, sub(r"(?<=chrA made\n)[ACGT\n]+", ""), {BEYOND: ON_A}),
    "no chrB": counted(FA, cut_at(">chrB"), {NO_CHROMOSOME: [f"{gene} on chrB" for gene in ON_B]}),
    "a prefix less": counted(FA, sub(">chr", ">"), {"names that differ by a prefix": ["A is chrA", "B is chrB"]}),
    "a version more": refused(
        FA, sub(">chr(.)", r">NC_00000\1.1"), "no chromosome of the annotation is in the genome.*genes.gff3"
    ),
    "a chromosome twice": refused(FA, after(">chrA again\nACGT\n"), "two sequences of the genome are 'chrA'"),
    "a chromosome twice, once with a prefix": refused(
        FA, after(">A\nACGT\n"), "two sequences of the genome are 'chrA'"
    ),
    "numbers of bases": refused(FA, sub(r"^(?=[ACGT])", "   61 "), "'6' at position .* is not a DNA symbol"),
    "residues of a protein": refused(FA, in_sequence("chrB", 30, "MEL"), "'E' at position 31 is not a DNA symbol"),
    "RNA": refused(
        FA, sub(r"^[ACGT]+$", lambda line: line[0].replace("T", "U")), "'U' at position .* is not a DNA symbol"
    ),
    "gaps": refused(FA, in_sequence("chrA", 7, "--"), "'-' at position 7"),
    "a tab": refused(FA, in_sequence("chrA", 7, "\t"), "position 7 is not a DNA symbol"),
    "a NUL byte": refused(FA, in_sequence("chrA", 7, "\0"), "binary"),
    "letters of Windows-1252": refused(FA, raw(b"TAACT", b"T\xe4\xe4CT"), "is not a DNA symbol"),
    "files joined without a line end": refused(FA, sub(r"\n>chrB", ">chrB"), "'>' at position .* is not a DNA symbol"),
    "a header without a name": refused(FA, sub(">chrB made", ">"), "record 2 has no id"),
    "no header": refused(FA, sub("^>.*\n", ""), "is no FASTA file: it begins with 'TAACT"),
    "the annotation": refused(
        FA, also(GFF, lambda path: str(path.replace(path.with_name(FA))) and None), "No such file"
    ),
    "genome and annotation swapped": refused(
        GFF, lambda path: {"genome": [path], "annotation": path.with_name(FA)}, "genome.fa.*looks like FASTA"
    ),
    "proteins": refused(
        f"proteins/{FA}",
        lambda path: {"genome": [path.with_name(PROTEINS)]},
        "no chromosome of the annotation is in the genome",
    ),
    "names of chromosomes swapped": refused(
        FA, sub("chr([AB])", lambda name: "chrB" if name[1] == "A" else "chrA"), "do not belong together"
    ),
    "the genome of another": refused(FA, sub("^[ACGT]+$", lambda line: line[0][::-1]), "do not belong together.*of 8"),
    "the other strands": refused(
        FA,
        sub("^[ACGT]+$", lambda line: line[0].translate(str.maketrans("ACGT", "TGCA"))),
        "do not belong together.*of 8",
    ),
}

CDS_OF = "\tCDS\t.*{}"
AT_ORIGIN = sub(
    "^(.*\t(?:exon|CDS)\t)(\\d+)\t(\\d+)(\t.*G005.*)$",
    lambda line: f"{line[1]}{line[2]}\t1144{line[4]}\n{line[1]}1\t{int(line[3]) - 1144}{line[4]}",
)
IN_ANNOTATION: dict[str, Case] = {
    "comments only": refused(GFF, sub("^[^#].*\n", ""), "no coding transcript.*holds no feature"),
    "blank lines and comments": same(GFF, sub(r"^(?=chrB)", "# here\n\n###\n", count=3)),
    "lines the other way round": same(GFF, sub(r"(?s)\A.*\Z", lambda text: "\n".join(text[0].split("\n")[::-1]))),
    "types in lower case": same(GFF, sub("\tCDS\t", "\tcds\t")),
    "no phases": same(GFF, sub(r"\t[012]\t(?=ID)", "\t.\t")),
    "phases that are all 0": same(GFF, sub(r"\t[012]\t(?=ID)", "\t0\t")),
    "a source with Windows-1252": same(GFF, raw(b"made", b"m\xe4de")),
    "attributes that end in semicolons": same(GFF, sub("(?<=\\w)$", ";;")),
    "a phase of 1 at the first codon": counted(GFF, sub(r"\t0\t(?=ID=G002)", "\t1\t"), {PARTIAL: ["G002"]}),
    "phases that are all 1": refused(
        GFF, sub(r"\t[012]\t(?=ID)", "\t1\t"), "no gene is left.*incomplete coding sequence.*(8)"
    ),
    "a phase of 3": refused(GFF, sub(r"\t0\t(?=ID=G002)", "\t3\t"), r"line 14: the phase of a CDS is '3'"),
    "a strand swapped": counted(GFF, sub(r"\t\+\t(?=.*G002)", "\t-\t"), {f"{STOP}|{ENDS}": ["G002"]}),
    "a strand swapped in the CDS alone": counted(
        GFF, sub(r"\t\+\t(?=.*ID=G002.p1)", "\t-\t"), gone("several chromosomes or strands", "G002")
    ),
    "all strands +": counted(GFF, sub(r"\t-\t(?=[.\d])", "\t+\t"), {f"{STOP}|{ENDS}": ["G001", "G006", "G007"]}),
    "all strands -": refused(GFF, sub(r"\t\+\t(?=[.\d])", "\t-\t"), "do not belong together.*of 7"),
    "all strands swapped": refused(
        GFF,
        sub(r"\t([+-])\t(?=[.\d])", lambda strand: "\t+\t" if "-" in strand[0] else "\t-\t"),
        "do not belong together.*of 7",
    ),
    "no strands": refused(GFF, sub(r"\t[+-]\t(?=[.\d])", "\t.\t"), "its strand is not known .8."),
    "strands as numbers": refused(GFF, sub(r"\t\+\t(?=[.\d])", "\t1\t"), "line 2: the strand is '1'"),
    "coordinates past the end": counted(GFF, moved(1000, 1000, "G003"), {BEYOND: ["G003"]}),
    "coordinates from 0": refused(GFF, moved(-1, 0), "do not belong together.*of 8"),
    "the assembly shifted by one": refused(GFF, moved(1, 1), "do not belong together.*of 8"),
    "the assembly shifted by minus one": refused(GFF, moved(-1, -1), "do not belong together.*of 8"),
    "the assembly shifted by three": refused(GFF, moved(3, 3), "do not belong together.*of 8"),
    "the assembly shifted by minus three": refused(GFF, moved(-3, -3), "do not belong together.*of 8"),
    "the assembly shifted by a thousand": refused(GFF, moved(1000, 1000), "do not belong together.*of 8"),
    "a gene shifted by minus three": counted(GFF, moved(-3, -3, "G002"), {ENDS: ["G002"]}),
    "a gene shifted by one": counted(GFF, moved(1, 1, "G005"), {f"{STOP}|{ENDS}": ["G005"]}),
    "a gene from 0": counted(GFF, moved(-1, 0, "G005"), {FRAME: ["G005"]}),
    "a CDS without its stop codon": counted(
        GFF, moved(0, -3, CDS_OF.format("G002")), {ENDS: ["G002"]}, reported=("G002",)
    ),
    "a CDS without its start codon": counted(
        GFF, moved(3, 0, CDS_OF.format("G002")), {ENDS: ["G002"]}, reported=("G002",)
    ),
    "a CDS outside its exon": counted(GFF, moved(0, 90, CDS_OF.format("G002")), gone("^CDS outside its exons", "G002")),
    "start above end": refused(
        GFF, moved(900, 0, "G002"), "line 11: `1 <= start <= end` must hold, but got start 1435"
    ),
    "a start of 0": refused(GFF, sub("\t61\t", "\t0\t"), "line 2: `1 <= start <= end`.*start 0"),
    "a negative start": refused(GFF, sub("\t61\t", "\t-61\t"), "line 2: whole numbers.*'-61'"),
    "coordinates with commas": refused(GFF, sub("\t535\t", "\t1,535\t"), "line 11: whole numbers.*'1,535'"),
    "coordinates with a point": refused(GFF, sub("\t535\t", "\t535.0\t"), "line 11: whole numbers.*'535.0'"),
    "a coordinate of thirteen digits": refused(
        GFF, sub("\t739\t", "\t7390000000000\t"), "line 11: whole numbers of at most 12 digits"
    ),
    "a coordinate of twelve digits": counted(GFF, sub("\t739\t", "\t739000000000\t"), {BEYOND: ["G002"]}),
    "spaces for tabs": refused(GFF, sub("\t", "  "), "line 2: .*it has spaces in place of tabs"),
    "commas for tabs": refused(GFF, sub("\t", ","), "line 2: .*has 1 tab-separated column rather than 9"),
    "a line of 8 columns": refused(
        GFF, sub("\t\\.(?=\t\\+.*G002.p1)", ""), "line 14: .*has 8 tab-separated columns rather than 9"
    ),
    "a line of 10 columns": refused(GFF, sub("(?<=G002.p1)", "\t"), "line 14: .*has 10 tab-separated columns"),
    "a line over the limit": refused(
        GFF,
        after("chrB\tmade\tgene\t1\t2\t.\t+\t.\tID=" + "x" * (2**24 + 1)),
        "line 42 has more than 16,777,216 characters",
    ),
    "a last line torn in two": refused(GFF, cut_at("922\t1077"), "line 41: .*has 4 tab-separated columns"),
    "no last lines": counted(GFF, cut_at("^chrB.*\t756\t772\t"), {PARTIAL: ["G006"], ABSENT: ["G007"]}),
    "a NUL byte": refused(GFF, sub("535", "5\0005"), "binary"),
    "GTF attributes in a line": refused(
        GFF,
        sub("ID=G002.p1;Parent=G002.t1", 'gene_id "G002"; transcript_id "G002.t1";'),
        "line 14: .*names no gene as GFF3 does",
    ),
    "BED": refused(GFF, holds("chrA\t60\t282\tG000\t0\t+\n"), "line 1: .*6 tab-separated columns"),
    "FASTA": refused(GFF, holds(">chrA\nACGT\n"), "line 1: .*looks like FASTA"),
    "GenBank": refused(
        GFF,
        holds("LOCUS       chrA                    1014 bp    DNA     linear   UNK 01-JAN-1980\n"),
        "line 1: .*looks like GenBank",
    ),
    "the table": refused(
        GFF, lambda path: {"annotation": path.with_name(TSV)}, "levels.tsv, line 1: .*2 tab-separated columns"
    ),
    "no lines of CDS": refused(
        GFF, without("\tCDS\t"), "no coding transcript that could be read: the types of its features are"
    ),
    "a prefix less": counted(GFF, sub("^chr", ""), {"names that differ by a prefix": ["chrA is A", "chrB is B"]}),
    "a percent escape in a chromosome's name": same(GFF, sub("^chrA", "chr%41")),
    "a chromosome with a space": counted(GFF, sub("^chrB(?=.*G007)", "chrB "), {NO_CHROMOSOME: ["G007 on chrB "]}),
    "a gene's line twice": counted(
        GFF, sub("(^.*\tgene\t.*G002.*\n)", r"\1\1"), {"several lines have the ID": ["G002.t1"], ABSENT: ["G002"]}
    ),
    "a CDS line twice": counted(GFF, sub("(^.*\tCDS\t.*G002.*\n)", r"\1\1"), gone("coding parts overlap", "G002")),
    "the file twice": refused(GFF, sub(r"(?s)\A(.*)\Z", r"\1\1"), "no coding transcript.*several lines have the ID"),
    "an id of two genes": counted(
        GFF, sub("G001", "G002"), {"several lines have the ID": ["G002.t1"], ABSENT: ["G001", "G002"]}
    ),
    "an id of two genes on two chromosomes": counted(
        GFF, sub("G007", "G002"), {"several lines have the ID": ["G002.t1"], ABSENT: ["G002", "G007"]}
    ),
    "no gene's line": counted(
        GFF, without("\tgene\t.*G002"), {"its Parent is no gene or transcript": ["G002.t1"], ABSENT: ["G002"]}
    ),
    "no mRNA's line": counted(
        GFF, without("\tmRNA\t.*G002"), {"its Parent is no gene or transcript": ["G002.t1"], ABSENT: ["G002"]}
    ),
    "a transcript that is its own Parent": counted(
        GFF,
        sub("ID=G002.t1;Parent=G002", "ID=G002.t1;Parent=G002.t1"),
        {"lead in a circle": ["G002.t1"], ABSENT: ["G002"]},
    ),
    "a part of a CDS is missing": counted(
        GFF, without("890\t950"), {f"{FRAME}|{STOP}|{ENDS}": ["G003"]}, reported=("G003",)
    ),
    "a part in frame is missing": counted(
        GFF, without("CDS\t569\t634"), {f"{FRAME}|{STOP}|{ENDS}": ["G006"]}, reported=("G006",)
    ),
    "no exons of a gene": counted(GFF, without("\texon\t.*G003"), {}, lost=("G003",)),
    "a CDS of two transcripts": counted(
        GFF,
        sub("(?<=ID=G002.p1;Parent=G002.t1)", ",G003.t1"),
        {"of a gene that stays: CDS outside its exons": ["G003.t1"]},
    ),
    "exons that overlap": counted(GFF, moved(-60, 0, "exon\t890"), gone("^its exons overlap", "G003")),
    "CDS on two chromosomes": counted(
        GFF, sub("^chrA(?=.*890\t950)", "chrB"), gone("several chromosomes or strands", "G003")
    ),
    "trans-splicing": counted(
        GFF, sub("(?<=ID=G003.p1;)", "exception=trans-splicing;"), gone("trans-splicing", "G003")
    ),
    "a pseudogene": counted(GFF, sub("(?<=ID=G003;)", "biotype=processed_pseudogene;"), gone("^a pseudogene", "G003")),
    "a partial CDS": counted(GFF, sub("(?<=ID=G003.p1;)", "partial=true;"), {PARTIAL: ["G003"]}),
    "genetic code 99": counted(GFF, sub("(?<=ID=G003.p1;)", "transl_table=99;"), {"unknown genetic code": ["G003"]}),
    "genetic code x": counted(
        GFF, sub("(?<=ID=G003.p1;)", "transl_table=x;"), gone("transl_table is no number", "G003")
    ),
    "no genetic code of its own": counted(f"codes/{GFF}", sub("transl_table=4;", ""), {STOP: ["G005"]}),
    "the wrong genetic code": counted(GFF, lambda _: {"genetic_code": 23}, {STOP: ["G000", "G007"]}),
    "a gene of the same place": counted(
        GFF, sub(r"((?:^.*G002.*\n){4})", lambda part: part[0] + part[0].replace("G002", "G9")), {NO_LEVEL: ["G9"]}
    ),
    "a gene within another, on the other strand": counted(
        GFF,
        sub(r"((?:^.*G002.*\n){4})", lambda part: part[0] + part[0].replace("G002", "G9").replace("+", "-")),
        {f"{STOP}|{ENDS}": ["G9"]},
    ),
    "no genome, and none embedded": refused(GFF, lambda _: {"genome": ()}, "embeds no sequences"),
    "a genome embedded": same(
        GFF,
        lambda path: (path.write_text(path.read_text() + "##FASTA\n" + path.with_name(FA).read_text()), {"genome": ()})[
            1
        ],
    ),
    "no circle's line": counted(f"circle/{GFF}", without("Is_circular"), {BEYOND: ["G001", "G005"]}, lost=tuple(GENES)),
    "a circle gone around twice": counted(f"circle/{GFF}", moved(0, 1200, "G005"), {BEYOND: ["G005"]}),
    "a circle of another length": same(f"circle/{GFF}", sub(r"\t1\t\d+\t(?=.*circular)", "\t1\t5000\t")),
    "a gene cut in two at the origin": counted(f"circle/{GFF}", AT_ORIGIN, {"both sides of the origin": ["G005.t1"]}),
    "a gene cut in two at the origin of no circle": counted(
        f"circle/{GFF}",
        every(AT_ORIGIN, without("Is_circular")),
        {f"{STOP}|{FRAME}|{ENDS}": ["G005"], BEYOND: ["G001"]},
        lost=tuple(GENES),
    ),
    "a gene cut in two at the origin of a circle of another length": counted(
        f"circle/{GFF}", every(AT_ORIGIN, sub(r"\t1\t1144\t", "\t1\t1200\t")), {f"{STOP}|{FRAME}|{ENDS}": ["G005"]}
    ),
}

NAMES: dict[str, Case] = {
    "a space": same(GFF, rename("G003", "G 003"), {"G003": "G 003"}),
    "a percent escape": same(GFF, rename("G003", "G%2C003", "G,003"), {"G003": "G,003"}),
    "Greek": same(GFF, rename("G003", "Γ003"), {"G003": "Γ003"}),
    "ten thousand letters": same(GFF, rename("G003", "G" * 10_000), {"G003": "G" * 10_000}),
    "the same but for case": same(GFF, rename("G003", "g002"), {"G003": "g002"}),
    "digits": same(GFF, rename("G00", "00"), {gene: gene[1:] for gene in GENES}),
    "letters of Windows-1252": refused(
        GFF, every(raw(b"G003", b"G\xe4"), also(TSV, raw(b"G003", b"G\xe4"))), "levels.tsv"
    ),
    "NA": same(GFF, rename("G003", "NA"), {"G003": "NA"}),
    "a number": same(GFF, rename("G003", "1e5"), {"G003": "1e5"}),
    "an accent written in two ways": counted(
        GFF,
        rename("G003", "G\u00e93", "Ge\u03013"),
        {ABSENT: ["Ge\u03013"], NO_LEVEL: ["G\u00e93"]},
        renamed={"G003": "G\u00e93"},
    ),
    "versions": counted(
        GFF,
        every(sub("G(00[0-7])", r"ENSG00000000\1"), also(TSV, sub("^G(.*)\t", r"ENSG00000000\1.7\t"))),
        {"without the version suffix": list(ENSEMBL.values())},
        renamed=ENSEMBL,
    ),
    "two versions of one gene": refused(
        TSV,
        every(
            also(GFF, sub("G(00[0-7])", r"ENSG00000000\1")),
            sub("^G(.*)\t", r"ENSG00000000\1.7\t"),
            after("ENSG00000000003.8\t1\n"),
        ),
        "are one gene, 'ENSG00000000003', but for their version",
    ),
    "versions of no known kind": refused(TSV, sub("^(G.*)\t", r"\1.2\t"), "only 0 of the 8 ids.*version"),
    "symbols": refused(TSV, sub("^G", "sym"), "8 are symbols of genes .*--gene-id symbol"),
    "transcripts": refused(TSV, sub("^(G.*)\t", r"\1.t1\t"), "8 are transcripts' ids"),
    "lower case": refused(TSV, sub("^G", "g"), "8 differ in upper and lower case only"),
    "one in lower case": counted(TSV, sub("^G003", "g003"), {ABSENT: ["g003"], NO_LEVEL: ["G003"]}),
    "a date by a spreadsheet": counted(TSV, sub("^G003", "3-Mar"), {ABSENT: ["3-Mar"], NO_LEVEL: ["G003"]}),
    "no gene in common": refused(TSV, sub("^G", "X"), "only 0 of the 8 ids.*'X000'.*'G000'"),
    "three percent in common": refused(
        TSV,
        holds("gene_id\tTPM\nG003\t5\n" + "".join(f"X{number}\t1\n" for number in range(32))),
        "only 1 of the 33 ids",
    ),
    "spaces around": counted(TSV, sub("^G003", " G003 "), {"spaces around an id": ["G003"]}),
    "none in a row": counted(TSV, sub("^G003", ""), {"without an id": ["row 4"], NO_LEVEL: ["G003"]}),
    "an attribute that is not there": refused(
        GFF, lambda _: {"gene_id": "old_locus_tag"}, "its gene has no 'old_locus_tag'.*here of ID"
    ),
    "a column that is not there": refused(TSV, lambda _: {"id_column": "gene"}, "has no column 'gene'.*'gene_id'"),
}
