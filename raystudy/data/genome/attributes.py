"""The last column of GTF and GFF3, and what it says of a gene: its names, whether it is whole, whether it is one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

Attributes = dict[str, list[str]]
"""Each key's values in the order written. A cross-reference ``Dbxref=GeneID:7157`` is also a key ``GeneID``."""

TYPE = "type of the feature"
"""The key that holds a line's third column."""

SYMBOL = "symbol"
"""The name of a gene that stands for whatever attribute its flavour keeps the symbol in."""

_GTF_PAIR = re.compile(r'(?<![^\s;])([^\s;"=]++)\s++(?:"([^"]*+)"|([^\s;"]++))')
_GTF_STYLE = re.compile(r'\s*[^\s;"=]+\s+("|[^\s;"=]+\s*(;|$))')
_GFF3_STYLE = re.compile(r'\s*[^\s;"=][^;"=]*=')
_ID_PREFIX = re.compile(r"^(gene|transcript|mRNA|rna|CDS|cds)[:-](?=.)")
_SYMBOLS = ("gene_name", "gene", "gene_symbol", "symbol")
_ALIASES = ("locus_tag", "old_locus_tag", "gene_id", "ID", "Name", *_SYMBOLS, "gene_synonym", "Alias", "GeneID")
_OWN_ALIASES = ("transcript_id", "protein_id")
_DECAYED = {
    "nonsense_mediated_decay",
    "non_stop_decay",
    "protein_coding_lof",
    "protein_coding_cds_not_defined",
}
_BIOTYPES = ("biotype", "gene_biotype", "transcript_biotype", "gene_type", "transcript_type", TYPE)


def is_gtf(text: str) -> bool | None:
    """Whether the column is written as GTF does (``key "value";``) or as GFF3 does (``key=value;``); None: neither."""
    if _GFF3_STYLE.match(text):
        return False
    return True if _GTF_STYLE.match(text) else None


def gtf_attributes(text: str) -> Attributes:
    """``gene_id "x"; tag "a"; tag "b";`` as ``{"gene_id": ["x"], "tag": ["a", "b"]}``."""
    attributes: Attributes = {}
    for key, quoted, bare in _GTF_PAIR.findall(text):
        attributes.setdefault(key, []).append(quoted or bare)
    return _with_references(attributes, "db_xref")


def gff3_attributes(text: str) -> Attributes:
    """``ID=x;tag=a,b`` as ``{"ID": ["x"], "tag": ["a", "b"]}``, %-escapes decoded."""
    attributes: Attributes = {}
    for pair in filter(None, text.split(";")):
        key, _, value = pair.strip().partition("=")
        attributes.setdefault(unquote(key), []).extend(unquote(one) for one in value.split(","))
    return _with_references(attributes, "Dbxref")


def _with_references(attributes: Attributes, key: str) -> Attributes:
    for reference in attributes.get(key, ()):
        database, _, accession = reference.partition(":")
        attributes.setdefault(database, [accession])
    return attributes


def first(levels: Sequence[Attributes], *keys: str) -> str:
    """The first of the keys that a level has, as it is written; earlier levels go before later ones. Or empty."""
    values = (",".join(level[key]).strip() for key in keys for level in levels if key in level)
    return next((value for value in values if value), "")


def bare_id(attributes: Attributes) -> str:
    """The ID without what Ensembl (``gene:``) and RefSeq (``gene-``) set before it; empty where there is none."""
    return _ID_PREFIX.sub("", first([attributes], "ID"))


def gene_name(levels: Sequence[Attributes], key: str | None) -> str:
    """What ``key`` (the option ``--gene-id``) calls the gene; empty where it has no such name.

    ``levels`` are the attributes of the gene, of its transcript and of the CDS, as far as there are any.
    """
    if key == SYMBOL:
        return symbol(levels)
    if key is not None:
        return first(levels, key)
    return first(levels, "gene_id", "locus_tag") or bare_id(levels[0]) or first(levels, "Name")


def gene_line(levels: Sequence[Attributes]) -> str:
    """The id of the line of the gene; empty where the gene has no line of its own."""
    return first(levels[:1], "ID", "gene_id") if levels[0][TYPE][0].lower().endswith("gene") else ""


def transcript_name(levels: Sequence[Attributes]) -> str:
    """What the annotation calls the transcript, or else its CDS; empty where it has no name."""
    return first(levels[::-1], "transcript_id") or bare_id(levels[-2] if len(levels) > 2 else levels[-1])


def symbol(levels: Sequence[Attributes]) -> str:
    """The gene's symbol; empty where there is none. A CDS without a gene often has its product as its Name."""
    named = first(levels, *_SYMBOLS)
    if named or len(levels) == 1:
        return named
    name = first(levels[:1], "Name")
    return "" if name == gene_name(levels, None) else name


def aliases(levels: Sequence[Attributes], gene_id: str) -> tuple[str, ...]:
    """Other names of the gene, of its transcript and of its protein, each once."""
    names = [bare_id(level) for level in levels]
    names += [value for key in _ALIASES for level in (levels[0], levels[-1]) for value in level.get(key, ())]
    names += [first(levels, key) for key in _OWN_ALIASES]
    return tuple(name for name in dict.fromkeys(names) if name and name != gene_id)


def is_pseudogene(levels: Sequence[Attributes]) -> bool:
    """Whether an attribute or the type of the gene or of its transcript says so."""
    said = [value for key in _BIOTYPES for level in levels for value in level.get(key, ())]
    marked = first(levels, "pseudo").lower() == "true" or any("pseudogene" in level for level in levels)
    return marked or any("pseudogen" in one.lower() for one in said)


def is_decayed(levels: Sequence[Attributes]) -> bool:
    """Whether the transcript's biotype says that it is degraded, or makes none of the gene's proteins."""
    return any(value.lower() in _DECAYED for key in _BIOTYPES for level in levels for value in level.get(key, ()))


def is_complete(levels: Sequence[Attributes]) -> bool:
    """Whether both ends of the coding sequence are known, as far as attributes say.

    A gene or an mRNA may be partial where only its UTRs are not known (RefSeq's yeast): just the CDS counts. Prodigal
    writes ``partial`` of every CDS, a digit for each end: ``00`` is whole.
    """
    tags = {value for level in levels for value in level.get("tag", ())}
    cds = levels[-1]
    partial = first([cds], "partial").lower() not in ("", "00", "false") or "start_range" in cds or "end_range" in cds
    return not partial and not tags & {"cds_start_NF", "cds_end_NF"}
