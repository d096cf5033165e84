"""What the lines of a GTF or GFF3 file say of each transcript, gathered: its parts, and what they hang on."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from raystudy.data.genome.attributes import TYPE, Attributes, first, gff3_attributes, gtf_attributes, is_gtf
from raystudy.data.genome.lines import Feature, Role, features, refuse

Key = tuple[str, ...]
"""What parts hang on: (ID,) in GFF3; (gene_id, transcript_id), and (gene_id,) for the gene, in GTF."""

Span = tuple[int, int]

MOST_LEVELS = 16
"""From a CDS up to its gene; annotations have two or three."""

_GENE = re.compile(r"gene$", re.IGNORECASE)
# Each key is looked back at, since a pattern that begins with a literal is found ten times as fast.
_GTF_GENE = re.compile(r'gene_id(?<!\wgene_id)\s+(?:"([^"]*)"|([^\s";]+))')
_GTF_TRANSCRIPT = re.compile(r'transcript_id(?<!\wtranscript_id)\s+(?:"([^"]*)"|([^\s";]+))')
_TELLING = re.compile("_NF|pseudo|partial")
_GFF3_PARENT = re.compile(r"Parent=(?<![^;\s]Parent=)([^;]+)")
_PART = re.compile(r"(?<![^;\s])part=\d+(?=;|$)")
_GFF3_ID = re.compile(r"ID=(?<![^;\s]ID=)([^;]+)")


class Refused(Exception):
    """Why a transcript is left out; the one who reads an annotation counts it."""


@dataclass(slots=True)
class Node:
    """A gene or a transcript, or a CDS without a parent, as its line has it; ``num_lines`` of them have its id."""

    kind: str
    parents: list[Key]
    attributes: str
    num_lines: int = 1


@dataclass(slots=True)
class Coding:
    """A coding sequence: the attributes of its first line, and flat ``first, last, phase`` of every part."""

    attributes: str
    flat: array[int] = field(default_factory=lambda: array("q"))

    def parts(self) -> list[tuple[int, int, int]]:
        """First base, last base and phase of each part, ascending."""
        return sorted(zip(self.flat[::3], self.flat[1::3], self.flat[2::3], strict=True))


@dataclass(slots=True)
class Parts:
    """What hangs on a gene or a transcript; ``scattered`` over several chromosomes or strands.

    ``flat`` has ``first, last, role`` of exons, stop codons and UTRs; ``codings`` are by the ID of the CDS.
    """

    chrom: str
    strand: str
    scattered: bool = False
    flat: array[int] = field(default_factory=lambda: array("q"))
    codings: dict[str, Coding] = field(default_factory=dict)

    def add(self, feature: Feature, coding_id: str) -> None:
        if feature.chrom != self.chrom or feature.strand != self.strand:
            self.scattered = True
        if feature.role is not Role.CODING:
            self.flat.extend((feature.first, feature.last, feature.role))
            return
        if coding_id not in self.codings:
            self.codings[coding_id] = Coding(feature.attributes)
        self.codings[coding_id].flat.extend((feature.first, feature.last, feature.phase))

    def of(self, role: Role) -> list[Span]:
        """Exons, stop codons or UTRs, ascending."""
        spans = zip(self.flat[::3], self.flat[1::3], self.flat[2::3], strict=True)
        return sorted((start, end) for start, end, found in spans if found == role)


class Gathered:
    """All lines of an annotation: ``parts`` by what they hang on, in the order of the file, and the nodes above them.

    ``circle_bp`` has the length of each circular chromosome, ``met`` how many lines there are of each type. Raises
    DataError for a line that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._nodes: dict[Key, Node] = {}
        self._is_gtf: bool | None = None
        self.parts: dict[Key, Parts] = {}
        self.circle_bp: dict[str, int] = {}
        self.met: Counter[str] = Counter()
        for feature in features(path, self.met):
            if feature.role is Role.CIRCLE:
                self.circle_bp[feature.chrom] = feature.last
                continue
            if self._is_gtf is None:
                self._is_gtf = is_gtf(feature.attributes)
            if self._is_gtf:
                self._add_gtf(feature)
            else:
                self._add_gff3(feature)

    def _add_gtf(self, feature: Feature) -> None:
        gene, transcript = _GTF_GENE.search(feature.attributes), _GTF_TRANSCRIPT.search(feature.attributes)
        gene_id = gene[1] or gene[2] or "" if gene else ""
        if feature.role is Role.PARENT and _GENE.search(feature.kind):
            self._add_node((gene_id,), [], feature)
            return
        if transcript is None:
            refuse(self._path, feature.line, f'this {feature.kind[:20]} has no `transcript_id "..."`, as GTF must have')
        key = (gene_id, transcript[1] or transcript[2] or "")
        if feature.role is not Role.PARENT:
            self._add_part(key, feature, "")
        elif _TELLING.search(feature.attributes):
            self._add_node(key, [(gene_id,)], feature)
        else:  # its CDS lines say the same, and memory is dear
            self._add_node(key, [(gene_id,)], feature._replace(attributes=""))

    def _add_gff3(self, feature: Feature) -> None:
        if feature.role is Role.CODING and is_gtf(feature.attributes) is not False:
            refuse(
                self._path,
                feature.line,
                f"the last column of this CDS, {feature.attributes[:40]!r}, names no gene as GFF3 does (`Parent=...;`)",
            )
        parent, own = _GFF3_PARENT.search(feature.attributes), _GFF3_ID.search(feature.attributes)
        parents: list[Key] = [(unquote(one),) for one in dict.fromkeys(parent[1].split(","))] if parent else []
        own_id = unquote(own[1]) if own else ""
        if feature.role is Role.PARENT:
            if own_id:
                self._add_node((own_id,), parents, feature)
            return
        if feature.role is Role.CODING and not parents:
            named = first([gff3_attributes(feature.attributes)], "transcript_id", "locus_tag", "gene_id")
            name = own_id or named or f"CDS of line {feature.line}"
            parents = [(name,)]
            self._nodes.setdefault((name,), Node(feature.kind, [], feature.attributes))
        for key in parents:
            self._add_part(key, feature, own_id)

    def _add_node(self, key: Key, parents: list[Key], feature: Feature) -> None:
        node = self._nodes.get(key)
        if node is None:
            self._nodes[key] = Node(feature.kind, parents, feature.attributes)
        elif not _are_parts(node.attributes, feature.attributes):
            node.num_lines += 1

    def _add_part(self, key: Key, feature: Feature, coding_id: str) -> None:
        parts = self.parts.get(key)
        if parts is None:
            parts = self.parts[key] = Parts(feature.chrom, feature.strand)
        parts.add(feature, coding_id)

    def codings(self) -> Iterator[tuple[Key, Parts, Coding]]:
        """Every coding sequence with what hangs beside it. Parts are given up as they come, to save memory."""
        for key in list(self.parts):
            parts = self.parts.pop(key)
            node = self._nodes.get(key)
            found = list(parts.codings.values())
            on_transcript = node is not None and not _GENE.search(node.kind)
            if on_transcript and len(found) > 1 and all(len(coding.flat) == 3 for coding in found):
                joined = Coding(found[0].attributes, sum((coding.flat for coding in found), array("q")))
                found = found if overlap([part[:2] for part in joined.parts()]) else [joined]
            for coding in found:
                yield key, parts, coding

    def levels(self, key: Key, coding: Coding) -> list[Attributes]:
        """The attributes of the gene, of what lies between, and of the CDS.

        In GTF genes and transcripts need no lines of their own. Raises Refused where they are not one clear line.
        """
        chain = [key[:1], key] if self._is_gtf else self._climb(key)
        nodes = [self._nodes[one] for one in chain if one in self._nodes]
        if any(node.num_lines > 1 for node in nodes):
            raise Refused("several lines have the ID of its gene or transcript")
        lines = [(node.attributes, node.kind) for node in nodes if node.attributes != coding.attributes]
        return [_attributes(*line, bool(self._is_gtf)) for line in [*lines, (coding.attributes, "CDS")]]

    def _climb(self, key: Key) -> list[Key]:
        """From the gene down to this one."""
        chain: list[Key] = []
        while key in self._nodes:
            if len(chain) == MOST_LEVELS:
                raise Refused("its Parents lead in a circle")
            chain.insert(0, key)
            node = self._nodes[key]
            if _GENE.search(node.kind) or not node.parents:
                return chain
            if len(node.parents) > 1:
                raise Refused("its transcript belongs to several genes")
            [key] = node.parents
        raise Refused("its Parent is no gene or transcript of the file")


@lru_cache(maxsize=16)  # a gene's serve all its transcripts
def _attributes(text: str, kind: str, is_gtf: bool) -> Attributes:
    return (gtf_attributes if is_gtf else gff3_attributes)(text) | {TYPE: [kind]}


def _are_parts(one: str, other: str) -> bool:
    """Whether two lines are parts of a gene that the origin of a circle splits: they differ in ``part=`` alone.

    Where the parts lie, the CDS says.
    """
    return one != other and _PART.search(other) is not None and _PART.sub("", one) == _PART.sub("", other)


def overlap(spans: list[Span]) -> bool:
    """Whether any of the ascending spans lies on another."""
    return any(before[1] >= after[0] for before, after in pairwise(spans))
