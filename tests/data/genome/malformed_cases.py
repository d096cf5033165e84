"""Small genomes in files, what a user may have done to one of these, and what must come of it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from Bio import bgzf

from tests.data import xpresso_cases
from tests.data.genome.cases import MadeGenome, edit, make_genome, put, wrapped

Options = dict[str, Any]
Change = Callable[[Path], Options | None]
"""What is done to the file; what it gives are options to be changed as well."""

VARIANTS = {"genes.gtf": "gtf", "genome.gb": "genbank", "tss.tsv": "tss", "proteins.fa": "proteins"}
GENES = [f"G{number:03d}" for number in range(8)]


@dataclass(frozen=True)
class Case:
    """``file`` of a genome (`write`) is spoiled; it is ``refused`` in these words (a pattern), or there is a table.

    ``counted``: a pattern of each reason of the findings -> what it befell. Of the table's genes only the ``lost``
    ones may lack a value (N, NaN) that they had before, and only the ``reported`` ones, which the table's notes must
    name, may have another one. ``renamed``: id before -> now. ``options`` are added to those of the spoiled genome.
    """

    file: str
    change: Change
    refused: str = ""
    counted: Mapping[str, list[str]] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    reported: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    options: Options = field(default_factory=dict)

    @property
    def variant(self) -> str:
        """Which of the genomes of `write`: the folder in ``file``, or what its name stands for."""
        folder, _, name = self.file.rpartition("/")
        return folder or VARIANTS.get(name, "gff3")

    @property
    def name(self) -> str:
        return self.file.rpartition("/")[2]


def refused(file: str, change: Change, said: str, **options: Any) -> Case:
    return Case(file, change, refused=said, options=options)


def same(file: str, change: Change, renamed: Mapping[str, str] | None = None, **options: Any) -> Case:
    """The very table that it was before, and nothing to report."""
    return Case(file, change, renamed=renamed or {}, options=options)


def counted(file: str, change: Change, reasons: Mapping[str, list[str]], **rest: Any) -> Case:
    return Case(file, change, counted=reasons, **rest)


def write(variant: str, folder: Path) -> tuple[MadeGenome | None, Options]:
    """A genome of eight genes (G000-G003 on chrA, G004-G007 on chrB) in clean files, as `build` takes them.

    ``gff3``, ``gtf``, ``genbank``; GFF3 with a table of TSS (``tss``), with proteins of which G005's has a
    selenocysteine (``proteins``), with a genetic code of its own for G005 (``codes``); circles of which G001 and G005
    lie across the origin, as GFF3 (``circle``) and GenBank (``ring``).
    Or what was published with Xpresso (``xpresso``), with proteins and a table of levels (``joined``).
    """
    if variant in ("xpresso", "joined"):
        return None, write_xpresso(folder, variant == "joined")
    made = make_genome(4, num_genes=8)
    gene = made.genes[5]
    residue = gene.protein.index("W")
    if variant in ("proteins", "codes"):
        put(made, gene, residue, "TGA")
        gene.coding = gene.coding[: 3 * residue] + "TGA" + gene.coding[3 * residue + 3 :]
    if variant == "proteins":
        gene.protein = gene.protein.replace("W", "U", 1)
    if variant in ("circle", "ring"):
        made = made.rotated(by_bp=350)
    kinds = {"gtf": "gtf", "genbank": "genbank", "ring": "genbank"}
    options = made.write(folder, kinds.get(variant, "gff3"))
    if variant == "codes":
        edit(folder / "genes.gff3", lambda text: text.replace("ID=G005.p1;", "ID=G005.p1;transl_table=4;"))
    if variant == "tss":
        options["tss"] = folder / "tss.tsv"
        starts = {one.gene_id: one.exons[0][0] if one.strand == "+" else one.exons[-1][1] for one in made.genes}
        options["tss"].write_text("gene_id\ttss\n" + "".join(f"{gene}\t{tss}\n" for gene, tss in starts.items()))
    if variant == "proteins":
        options["proteins"] = folder / "proteins.fa"
        options["proteins"].write_text("".join(f">{one.gene_id} made\n{one.protein}\n" for one in made.genes))
    return made, options


def write_xpresso(folder: Path, is_joined: bool) -> Options:
    xpresso_cases.write(folder, xpresso_cases.published())
    options: Options = {"files": folder, "homology": "kmer"}
    if is_joined:
        genes, dice = xpresso_cases.ALL_GENES, np.random.default_rng(0)
        proteins = ["".join(dice.choice(list("ACDEFGHIKLMNPQRSTVWY"), 40)) for _ in genes]
        records = [f">{gene}\nM{protein}\n" for gene, protein in zip(genes, proteins, strict=True)]
        (folder / "proteins.fa").write_text("".join(records))
        (folder / "levels.tsv").write_text("gene_id\tppm\n" + "".join(f"{gene}\t{len(gene)}.5\n" for gene in genes))
        options |= {"proteins": folder / "proteins.fa", "expression": folder / "levels.tsv"}
        options["target"] = ["protein=log10(ppm)"]
    return options


# What is done to a file. Each raises where it would do nothing, so that no case is a clean file by mistake.


def bytewise(change: Callable[[bytes], bytes]) -> Change:
    def act(path: Path) -> None:
        before = path.read_bytes()
        after = change(before)
        assert after != before, f"{path} is as it was"
        path.write_bytes(after)

    return act


def sub(pattern: str, new: str | Callable[[re.Match[str]], str], count: int = 0) -> Change:
    """Write ``new`` for what the pattern (of lines) finds."""
    return text(lambda content: re.sub(pattern, new, content, count=count, flags=re.M))


def text(change: Callable[[str], str]) -> Change:
    return bytewise(lambda content: change(content.decode()).encode())


def raw(old: bytes, new: bytes) -> Change:
    return bytewise(lambda content: content.replace(old, new))


def without(pattern: str) -> Change:
    """Lines in which it is found are left out."""
    return sub(rf"^.*(?:{pattern}).*\n", "")


def holds(new: str | bytes) -> Change:
    return bytewise(lambda _: new if isinstance(new, bytes) else new.encode())


def before(new: str | bytes) -> Change:
    return bytewise(lambda content: (new if isinstance(new, bytes) else new.encode()) + content)


def after(new: str | bytes) -> Change:
    return bytewise(lambda content: content + (new if isinstance(new, bytes) else new.encode()))


def cut_at(pattern: str) -> Change:
    """The file ends where the pattern begins."""
    return bytewise(lambda content: content[: re.search(pattern.encode(), content, re.M).start()])  # type: ignore[union-attr]


def also(name: str, change: Change) -> Change:
    """Another file of the folder is changed, besides."""
    return lambda path: change(path.with_name(name))


def every(*changes: Change) -> Change:
    def act(path: Path) -> Options:
        return {name: value for change in changes for name, value in (change(path) or {}).items()}

    return act


def called(option: str, name: str) -> Change:
    """The file of an option gets another name."""
    return lambda path: {option: path.rename(path.with_name(name))}


def in_sequence(chrom: str, position: int, new: str, num_replaced: int | None = None) -> Change:
    """Bases of the FASTA, from a position (1-based) on, are others; with 0 replaced they are put in."""

    def act(path: Path) -> None:
        records = dict(one.split(" made\n") for one in path.read_text().split(">")[1:])
        bases = records[chrom].replace("\n", "")
        last = position - 1 + (len(new) if num_replaced is None else num_replaced)
        records[chrom] = wrapped(bases[: position - 1] + new + bases[last:])
        path.write_text("".join(f">{name} made\n{lines}" for name, lines in records.items()))

    return act


def moved(by_first: int, by_last: int, lines: str = "") -> Change:
    """Coordinates of the GFF3's lines in which the pattern is found."""

    def shifted(line: re.Match[str]) -> str:
        columns = line[0].split("\t")
        if re.search(lines, line[0]):
            columns[3:5] = [str(int(columns[3]) + by_first), str(int(columns[4]) + by_last)]
        return "\t".join(columns)

    return sub(r"^chr.*$", shifted)


def line_ends(*ends: str) -> Change:
    """One after the other, over and over."""
    numbers = iter(range(10**6))
    return sub(r"\n", lambda _: ends[next(numbers) % len(ends)])


def packed(pack: Callable[[bytes], bytes], cut: int | None = None, more: bytes = b"") -> Change:
    return bytewise(lambda content: pack(content)[:cut] + more)


BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def two_members(content: bytes) -> bytes:
    return gzip.compress(content[:99]) + gzip.compress(content[99:])


def bgzip(content: bytes) -> bytes:
    """Blocks of 500 bytes each, and the closing one."""
    out = io.BytesIO()
    file = bgzf.BgzfWriter(fileobj=out)
    for first in range(0, len(content), 500):
        file.write(content[first : first + 500])
        file.flush()
    return out.getvalue() + BGZIP_END


def bgzip_without_its_end(content: bytes) -> bytes:
    return bgzip(content).removesuffix(BGZIP_END)


def zipped(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("file.txt", content)
    return out.getvalue()


def twice_gzipped(content: bytes) -> bytes:
    return gzip.compress(gzip.compress(content))


def utf16(content: bytes) -> bytes:
    return content.decode().encode("utf-16")


def utf16_without_a_mark(content: bytes) -> bytes:
    return content.decode().encode("utf-16-le")


SAME_WHATEVER_PACKS_IT = {
    "gzip": packed(gzip.compress),
    "two gzip members": packed(two_members),
    "bgzip": packed(bgzip),
    "a byte order mark": before(b"\xef\xbb\xbf"),
    "Windows line ends": line_ends("\r\n"),
    "line ends of an old Mac": line_ends("\r"),
    "CR, LF and CRLF in one file": line_ends("\r", "\n", "\r\n"),
    "a long way through links": lambda path: path.symlink_to(path.rename(path.with_name("linked"))),
}
REFUSED_WHATEVER_IT_IS: dict[str, tuple[Change, str]] = {
    "truncated gzip": (packed(gzip.compress, cut=-40), "end-of-stream|whole|truncated"),
    "gzip with a damaged middle": (
        packed(lambda content: (one := gzip.compress(content))[:90] + b"\0\1\2\3" + one[94:]),
        "whole",
    ),
    "garbage after gzip": (packed(gzip.compress, more=b"garbage"), "whole"),
    "bgzip without its last block": (packed(bgzip_without_its_end), "closing block"),
    "zip named as what it should be": (packed(zipped), "a zip archive"),
    "bzip2": (packed(bz2.compress), "bzip2"),
    "xz": (packed(lzma.compress), "xz"),
    "gzip within gzip": (packed(twice_gzipped), "gzip within gzip"),
    "UTF-16": (packed(utf16), "UTF-16"),
    "UTF-16 without a mark": (packed(utf16_without_a_mark), "binary"),
    "an empty file": (holds(""), "[Ee]mpty|begins|holds no|no coding|no FASTA"),
    "nothing but white space": (holds("\n \n\t\n"), "[Ee]mpty|begins|holds no|no coding|no FASTA|column"),
    "a page that says 404": (
        holds("<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n"),
        "DOCTYPE|no GenBank record|no FASTA record",
    ),
    "no file": (lambda path: path.unlink(), "No such file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir())[1], "[Dd]irectory"),
    "a link to itself": (lambda path: (path.unlink(), path.symlink_to(path))[1], "symbolic links"),
}
