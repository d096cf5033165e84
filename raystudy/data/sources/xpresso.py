"""What was published with Xpresso: windows of 20,000 bp around the TSS, half-life features and mRNA levels of genes.

A folder with ``train.h5``, ``valid.h5`` and ``test.h5``, to which proteins and levels are joined by Ensembl id. The
files say neither where a gene lies nor what the columns of ``data`` are; the latter is told by the script that wrote
them: log10 of lengths and of the CDS's exons per 1,000 bp, each + 0.1, and fractions of G+C. These, and the label, are
standardised over all genes, before these were parted.

Source: Agarwal & Shendure, Cell Reports 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raystudy.data.encode import FEATURES, Tokens, tokenize_protein
from raystudy.data.files import sha256_of
from raystudy.data.findings import Findings
from raystudy.data.genes import GeneTable, Target
from raystudy.data.homology import Homology, chosen_engine, find_families
from raystudy.data.sources.xpresso_files import TSS, WINDOW_BP, Part, read_part, read_windows
from raystudy.data.sources.xpresso_joined import join
from raystudy.data.splits import COORDINATES, FAMILIES, PARTS, PUBLISHED
from raystudy.errors import DataError

_COLUMNS = (
    "utr5_length",
    "cds_length",
    "intron_length",  # before the 3'UTR's, other than in `FEATURES`
    "utr3_length",
    "utr5_gc",
    "cds_gc",
    "utr3_gc",
    "junction_density",
)
_LENGTHS = [name.endswith("_length") for name in FEATURES]
_FRACTIONS = [name.endswith("_gc") for name in FEATURES]


def build(
    *,
    files: Path,
    proteins: Path | None = None,
    expression: Path | None = None,
    target: Sequence[str] = (),
    id_column: str | None = None,
    homology: Homology = "auto",
) -> GeneTable:
    """All genes of the folder ``files`` in its order, with their mRNA level as it stands there as target ``mrna``.

    With the FASTA ``proteins`` a gene has its longest protein; with the table ``expression`` and formulas ``target``
    (see `Formula.parse`) more targets, or another ``mrna``; genes that one of them does not have are left out. The
    split as published is noted, as numbers of genes, for ``split: {by: published}``.

    Raises DataError where a file cannot be read, is not as published, has a gene twice, or shares too few genes with
    the others; SpecError where ``expression`` and ``target`` do not go together.
    """
    chosen_engine(homology)  # which may be refused, before much is read
    findings = Findings()
    parts = [read_part(files / f"{part}.h5") for part in PARTS]
    _check_distinct(parts)
    all_ids = [gene for part in parts for gene in part.gene_ids]
    joined = join(all_ids, proteins, expression, target, id_column, findings)
    rows, windows = _windows(parts, joined.rows, findings)
    gene_ids = [all_ids[row] for row in rows]
    if not gene_ids:
        dropped = findings.as_json()["dropped"]
        raise DataError(f"no gene is left of the {len(all_ids)} in {files}. Left out were: {dropped}")

    labels = np.concatenate([part.labels for part in parts])
    features = np.concatenate([part.features for part in parts])[:, [_COLUMNS.index(name) for name in FEATURES]]
    _count_missing(gene_ids, labels[rows], features[rows], findings)
    part_of = np.repeat(range(len(PARTS)), [len(part.gene_ids) for part in parts])[rows]
    sources = [*(part.path for part in parts), *(path for path in (proteins, expression) if path)]
    unknown, nowhere = [""] * len(gene_ids), np.zeros(len(gene_ids), np.int64)
    texts = [joined.proteins.get(gene, "") for gene in gene_ids]
    family_ids, how = _families(texts, gene_ids, proteins, homology)
    return GeneTable(
        source="xpresso",
        source_digests={path.name: sha256_of(path) for path in sources},
        anchor=TSS,
        gene_ids=gene_ids,
        symbols=unknown,
        chroms=unknown,
        starts=nowhere,
        ends=nowhere,
        strands=unknown,
        windows=windows,
        proteins=texts,
        cds=unknown,
        features=features[rows],
        targets={"mrna": Target(labels[rows], _label_unit(labels))} | joined.targets(gene_ids),
        family_ids=family_ids,
        notes={
            "anchor": "TSS",
            COORDINATES: False,
            **how,
            PUBLISHED: {name: int((part_of == number).sum()) for number, name in enumerate(PARTS)},
            "half_life_features": _features_note(features),
            "findings": findings.as_json(),
        },
    )


def _check_distinct(parts: Sequence[Part]) -> None:
    """DataError for a gene that is there twice: within a file, or, which leaks, in two parts of the split."""
    path_of: dict[str, Path] = {}
    for part in parts:
        for gene in part.gene_ids:
            if gene in path_of:
                raise DataError(
                    f"{gene} is in {path_of[gene]} and again in {part.path} (versions of ids do not count). Each gene "
                    "is in one part of a split, once: give the files as they were published"
                )
            path_of[gene] = part.path


def _windows(parts: Sequence[Part], rows: NDArray[np.int64], findings: Findings) -> tuple[NDArray[np.int64], Tokens]:
    """The rows, counted over all parts, whose windows have a base that is known, and these windows."""
    windows = np.empty((len(rows), WINDOW_BP), np.uint8)
    first = 0
    for part in parts:
        here = slice(*np.searchsorted(rows, [first, first + len(part.gene_ids)]))
        read_windows(part, rows[here] - first, windows[here])
        for row in here.start + np.flatnonzero(~windows[here].any(axis=1)):
            findings.drop("its window has no known base", part.gene_ids[rows[row] - first])
        first += len(part.gene_ids)
    known = windows.any(axis=1)
    return (rows, windows) if known.all() else (rows[known], windows[known])


def _count_missing(
    gene_ids: Sequence[str], labels: NDArray[np.float64], features: NDArray[np.float32], findings: Findings
) -> None:
    for row in np.flatnonzero(np.isnan(labels)).tolist():
        findings.repair("label NaN: read as no level", gene_ids[row])
    for row in np.flatnonzero(np.isnan(features).any(axis=1)).tolist():
        findings.repair("half-life features NaN: read as missing", gene_ids[row])


def _families(
    texts: Sequence[str], gene_ids: Sequence[str], path: Path | None, homology: Homology
) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Families and what to note of them; without proteins each gene is one, which is noted as not known."""
    if path is None:
        return np.arange(len(gene_ids)), {FAMILIES: False}
    named = zip(texts, gene_ids, strict=True)
    tokens = [tokenize_protein(text, f"{path}: the protein of {gene}") for text, gene in named]
    family_ids, how = find_families(tokens, homology)
    return family_ids, {"homology": how}


def _standardised(values: NDArray[Any]) -> bool:
    """Are all columns, about, of mean 0 and deviation 1? Loosely: part of the genes may have been taken out."""
    mean, deviation = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    return bool(np.all((abs(mean) < 0.5) & (deviation > 0.5) & (deviation < 2)))


def _label_unit(labels: NDArray[np.float64]) -> str:
    what = "standardised over all genes" if _standardised(labels) else "as in the files, where it is not standardised"
    return f"log10 of the level with a pseudo-count of 0.1, {what}"


def _features_note(features: NDArray[np.float32]) -> str:
    """What was assumed of them, and whether they look so."""
    lengths, fractions = features[:, _LENGTHS], features[:, _FRACTIONS]
    order = f"columns of `data` taken to be {', '.join(_COLUMNS)}, as the publishing script wrote them"
    if _standardised(features):
        return f"{order}; standardised over all genes, as published: lengths and junction density after log10(x + 0.1)"
    if not (((lengths < -1) | (lengths > 8)).any() or ((fractions < 0) | (fractions > 1)).any()):
        return f"{order}; not standardised as published, but as plain log10 lengths and G+C fractions would be"
    return f"{order}; neither standardised nor like plain log10 lengths and G+C fractions: look at what wrote the files"
