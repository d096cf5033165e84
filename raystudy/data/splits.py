"""Train, valid and test genes that are independent of each other, written once, hashed and audited."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raystudy.data.genes import Genes
from raystudy.data.homology import distinct_kmers
from raystudy.errors import DataError, SplitLeakage
from raystudy.study.sections import SplitSpec
from raystudy.study.space import canonical_hash, derive_seed

Rows = npt.NDArray[np.int64]
PARTS = ("train", "valid", "test")
PAIRS = (("train", "valid"), ("train", "test"), ("valid", "test"))
"""Which must not know of each other: a part, and one held out from it."""
TRAIN, VALID, TEST = range(3)
NOWHERE = -1
FEWEST_CHROMOSOMES = 8
"""With fewer chromosomes than this a block is a stretch of a chromosome instead of a whole one."""
LARGEST_SHARE = 0.2
"""Of all genes. Where a chromosome holds more, blocks are stretches too, for it can be in one part only."""
BLOCKS_OF_SMALL_GENOME = 30
FEWEST_GENES = 10
_NOWHERE_NEAR = 2**60
CIRCULAR = "circular"
"""What a source notes of circular chromosomes: name -> length in bp."""
COORDINATES, FAMILIES, PUBLISHED = "coordinates", "families", "published_split"
"""What a source notes: False where positions, or families, are not known; how many genes, in the table's order, are in
each part of a published split."""


class Loci(NamedTuple):
    """Where genes lie, as `Genes` has it, of genes that are not written yet."""

    chroms: npt.NDArray[np.str_]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    strands: npt.NDArray[np.str_]
    notes: Mapping[str, Any]


@dataclass(frozen=True)
class Split:
    """Row numbers of each part, sorted; genes in none of them were dropped as too close to a held-out one."""

    by: str
    data_hash: str
    train: Rows
    valid: Rows
    test: Rows
    dropped: dict[str, int]
    """Genes dropped by reason: ``window_overlap``, ``family``, ``no_label``."""
    audit: dict[str, Any]
    """What leaks between each pair of parts; see `audit`."""

    @property
    def hash(self) -> str:
        return canonical_hash([self.data_hash, *(getattr(self, part).tolist() for part in PARTS)])

    def summary(self) -> dict[str, Any]:
        """The contract's ``split`` object."""
        sizes = {part: len(getattr(self, part)) for part in PARTS}
        return {"hash": self.hash, "by": self.by, **sizes, "dropped": self.dropped, "audit": self.audit}

    def save(self, path: Path, genes: Genes) -> None:
        """Write the split with gene ids, so that it can be read and reused outside raystudy."""
        document = {
            **self.summary(),
            "data_hash": self.data_hash,
            "genes": {part: genes.gene_ids[getattr(self, part)].tolist() for part in PARTS},
        }
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(document, indent=1))
        partial.replace(path)

    @classmethod
    def load(cls, path: Path, genes: Genes) -> Split:
        """Read a split again; DataError when it was made for other data or was edited."""
        try:
            document = json.loads(path.read_text())
            made_for, names = document["data_hash"], {part: document["genes"][part] for part in PARTS}
            by, dropped, report, known_hash = (document[key] for key in ("by", "dropped", "audit", "hash"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: not a whole split that raystudy wrote ({type(error).__name__}: {error})"
            ) from None
        if made_for != genes.hash:
            raise DataError(
                f"{path}: this split was made for data {made_for}, but the data given is {genes.hash}; "
                "a study keeps its data and its split: give the study another name to use other data"
            )
        row_of = {gene: row for row, gene in enumerate(genes.gene_ids.tolist())}
        rows = {part: np.array([row_of.get(gene, -1) for gene in names[part]], np.int64) for part in PARTS}
        split = cls(by, genes.hash, **rows, dropped=dropped, audit=report)
        if split.hash != known_hash:
            raise DataError(f"{path}: its genes do not match its hash {known_hash}; it was edited by hand")
        return split


def make_split(genes: Genes, spec: SplitSpec, window_bp: tuple[int, int], labelled: npt.NDArray[np.bool_]) -> Split:
    """Part the labelled genes as ``spec`` says.

    ``by: block`` holds out whole chromosomes (or stretches of them where a genome has few) and then drops genes
    that overlap a held-out window or share a family with a held-out gene: from train against valid and test, from
    valid against test. The other ways drop nothing; their audit says what they leak. ``by: published`` takes the
    parts that came with the data.

    Raises DataError when the data does not hold what this way needs (positions, families, a published split) or a
    part would be left with fewer than ten genes, SplitLeakage when a block split leaks.
    """
    _check_known(genes, spec.by)
    part = np.full(genes.num_genes, NOWHERE)
    if spec.by == "published":
        part[labelled] = _published_parts(genes)[labelled]
    else:
        units = _UNITS[spec.by](genes)
        part[labelled] = _assign(units[labelled], spec)[units[labelled]]
    return _finish(genes, spec, window_bp, labelled, part, "")


def make_folds(
    split: Split,
    genes: Genes,
    spec: SplitSpec,
    window_bp: tuple[int, int],
    labelled: npt.NDArray[np.bool_],
    num_folds: int,
) -> list[Split]:
    """Part the genes that a split of ``make_split`` does not test into folds, each the validation part in turn.

    The test part is the split's own in every fold. The other labelled genes (those dropped between train and valid
    among them) are dealt out by the same units, whole, as evenly as these allow; each fold drops what `make_split`
    would. A gene that no fold drops for being too close to a test gene is validated in exactly one. One fold is the
    split itself.

    Raises DataError when there are fewer units than folds, or a fold leaves a part with fewer than ten genes.
    """
    if num_folds == 1:
        return [split]
    part = np.where(labelled, TRAIN, NOWHERE)
    part[split.test] = TEST
    apart = part.copy()
    if spec.by == "block":
        _drop_close(genes, apart, window_bp)
    developed = np.flatnonzero(apart == TRAIN)
    units, sizes = np.unique(_UNITS[spec.by](genes)[developed], return_inverse=True, return_counts=True)[1:]
    if len(sizes) < num_folds:
        raise DataError(
            f"`replicates.folds: {num_folds}` needs as many units of `split.by: {spec.by}` outside the test part, but "
            f"its {len(developed)} genes are in {len(sizes)}; ask for at most {len(sizes)} folds, or part the genes "
            "another way"
        )
    fold_of_gene = _deal(sizes, num_folds, spec.seed)[units]
    folds = []
    for number in range(num_folds):
        in_fold = part.copy()
        in_fold[developed[fold_of_gene == number]] = VALID
        folds.append(_finish(genes, spec, window_bp, labelled, in_fold, f"fold {number} of {num_folds}: "))
    return folds


def _finish(
    genes: Genes,
    spec: SplitSpec,
    window_bp: tuple[int, int],
    labelled: npt.NDArray[np.bool_],
    part: npt.NDArray[np.int64],
    where: str,
) -> Split:
    """The split of genes already in their parts: what is too close dropped, sizes checked, audited."""
    dropped = {"no_label": int((~labelled).sum())}
    if spec.by == "block":
        dropped |= _drop_close(genes, part, window_bp)
    rows_of = {name: np.flatnonzero(part == number) for number, name in enumerate(PARTS)}
    for name, rows in rows_of.items():
        if len(rows) < FEWEST_GENES:
            units = np.bincount(_UNITS[spec.by](genes))
            raise DataError(
                f"{where}the {name} part has {len(rows)} genes of {int(labelled.sum())} labelled ones, at least "
                f"{FEWEST_GENES} are needed. `split.by: {spec.by}` parts {len(units)} units, the largest of them of "
                f"{units.max()} genes; use more genes, a larger fraction, a narrower `data.window_bp`, "
                f"{'fewer `replicates.folds` ' if where else ''}or another `split.by` than {spec.by!r} "
                f"(genes dropped: {dropped})"
            )
    report = audit(genes, rows_of, window_bp)
    leaks = [pair for pair, found in report.items() if found["window_overlaps"] or found["family_members"]]
    if spec.by == "block" and leaks:
        raise SplitLeakage(f"{where}a block split must not leak, but {', '.join(leaks)} do: {report}")
    return Split(spec.by, genes.hash, dropped=dropped, audit=report, **rows_of)


def _drop_close(genes: Genes, part: npt.NDArray[np.int64], window_bp: tuple[int, int]) -> dict[str, int]:
    """Take genes too close to one held out from them out of ``part``, in place; how many for which reason."""
    starts, length = window_starts(genes, window_bp), sum(window_bp)
    dropped = {}
    for reason in ("window_overlap", "family"):
        before = int((part >= 0).sum())
        for here in (TRAIN, VALID):
            rows, held = np.flatnonzero(part == here), np.flatnonzero(part > here)
            if reason == "family":
                close = np.isin(genes.family_ids[rows], genes.family_ids[held])
            else:
                close = _overlaps(genes, starts, length, rows, held)
            part[rows[close]] = NOWHERE
        dropped[reason] = before - int((part >= 0).sum())
    return dropped


def audit(genes: Genes, parts: dict[str, Rows], window_bp: tuple[int, int]) -> dict[str, dict[str, float | None]]:
    """What each pair of parts shares, from the side of the held-out part.

    ``window_overlaps`` and ``family_members`` count held-out genes whose window overlaps one of the other part, or
    whose family has a member there; ``protein_similarity`` is the largest share of 6-mers in common. None is not known:
    without positions, or without proteins.
    """
    has_positions, has_families = (genes.notes.get(name, True) for name in (COORDINATES, FAMILIES))
    starts, length = window_starts(genes, window_bp), sum(window_bp)
    kmers = distinct_kmers(genes.protein_tokens, genes.protein_offsets)
    found = {}
    for seen, held in PAIRS:
        a, b = parts[seen], parts[held]
        similarity = kmers.shared_fraction(b, a)
        found[f"{seen}-{held}"] = {
            "window_overlaps": int(_overlaps(genes, starts, length, b, a).sum()) if has_positions else None,
            "family_members": int(np.isin(genes.family_ids[b], genes.family_ids[a]).sum()) if has_families else None,
            "protein_similarity": round(float(similarity.max(initial=0)), 4) if has_families else None,
        }
    return found


def window_starts(genes: Genes | Loci, window_bp: tuple[int, int]) -> npt.NDArray[np.int64]:
    """First genomic base of each gene's window, strand considered; beyond the ends of its chromosome too."""
    up, down = window_bp
    return np.where(genes.strands == "+", genes.starts - up, genes.ends - down + 1)


def nearest_start_bp(
    genes: Genes | Loci, starts: npt.NDArray[np.int64], rows: Rows, others: Rows
) -> npt.NDArray[np.int64]:
    """For each of ``rows``: how far the start of its window is from the nearest of ``others`` on its chromosome, int64.

    Windows of one length overlap when this is less than their length. On a circular chromosome it is the way round
    where that is shorter; where ``others`` has no gene on the chromosome, it is more than any length. A gene that is
    among ``others`` too is not compared with itself.
    """
    nearest = np.full(len(rows), _NOWHERE_NEAR)
    is_other = np.isin(rows, others)
    names, chrom_of = np.unique(genes.chroms, return_inverse=True)
    for chrom in np.unique(chrom_of[others]):
        there, here = starts[others[chrom_of[others] == chrom]], chrom_of[rows] == chrom
        if len(there) == 1:  # on a circle it would else meet itself, once around
            here &= ~is_other
        from_here = starts[rows[here]]
        if turn := (genes.notes.get(CIRCULAR) or {}).get(str(names[chrom])):
            from_here = from_here % turn
            there = np.concatenate([there % turn + shift for shift in (-turn, 0, turn)])
        there = np.concatenate([[-_NOWHERE_NEAR], np.sort(there), [_NOWHERE_NEAR]])
        after = np.searchsorted(there, from_here)
        nearest[here] = np.minimum(there[after + is_other[here]] - from_here, from_here - there[after - 1])
    return nearest


def _overlaps(
    genes: Genes, starts: npt.NDArray[np.int64], length: int, rows: Rows, others: Rows
) -> npt.NDArray[np.bool_]:
    """For each of ``rows``: does its window overlap the window of any of ``others``?"""
    return nearest_start_bp(genes, starts, rows, others) < length


def _by_chromosome(genes: Genes) -> Rows:
    return np.unique(genes.chroms, return_inverse=True)[1].astype(np.int64)


def _by_block(genes: Genes) -> Rows:
    chromosomes = _by_chromosome(genes)
    sizes = np.bincount(chromosomes)
    if len(sizes) >= FEWEST_CHROMOSOMES and sizes.max() <= LARGEST_SHARE * genes.num_genes:
        return chromosomes
    order = np.lexsort((genes.starts, chromosomes))
    block = np.empty(genes.num_genes, np.int64)
    block[order] = np.arange(genes.num_genes) * BLOCKS_OF_SMALL_GENOME // genes.num_genes
    return np.unique(np.stack([chromosomes, block]), axis=1, return_inverse=True)[1].reshape(-1)


def _by_family(genes: Genes) -> Rows:
    return np.unique(genes.family_ids, return_inverse=True)[1].astype(np.int64)


def _by_gene(genes: Genes) -> Rows:
    return np.arange(genes.num_genes)


_UNITS: dict[str, Callable[[Genes], Rows]] = {
    "block": _by_block,
    "chromosome": _by_chromosome,
    "family": _by_family,
    "random": _by_gene,
    "published": _by_gene,  # in folds
}


_NEEDS = {"block": COORDINATES, "chromosome": COORDINATES, "family": FAMILIES, "published": PUBLISHED}
_LACKING = {
    COORDINATES: "where its genes lie is not known",
    FAMILIES: "it has no proteins, without which families are not known",
    PUBLISHED: "no split was published with it",
}


def _check_known(genes: Genes, by: str) -> None:
    """DataError where the data does not hold what this way of parting genes needs."""
    known = {COORDINATES: True, FAMILIES: True, PUBLISHED: None, **genes.notes}
    ways = [way for way in _UNITS if way not in _NEEDS or known[_NEEDS[way]]]
    if by not in ways:
        raise DataError(
            f"`split.by: {by}` cannot be had of the data in {genes.origin}: {_LACKING[_NEEDS[by]]}. "
            f"Part it by {' or '.join(ways)} instead"
        )


def _published_parts(genes: Genes) -> npt.NDArray[np.int64]:
    counts = genes.notes[PUBLISHED]
    if sum(counts[name] for name in PARTS) != genes.num_genes:
        raise DataError(
            f"the published split {counts} of the data in {genes.origin} does not fit its {genes.num_genes} genes; "
            "prepare the data again"
        )
    return np.repeat(np.arange(len(PARTS)), [counts[name] for name in PARTS])


def _assign(units: Rows, spec: SplitSpec) -> npt.NDArray[np.int64]:
    """Part of each unit: test, then valid, filled in random order as long as it gets closer to size."""
    sizes = np.bincount(units)
    part = np.full(len(sizes), TRAIN)
    order = np.random.default_rng(spec.seed).permutation(np.flatnonzero(sizes))
    for number, fraction in ((TEST, spec.test), (VALID, spec.valid)):
        missing = fraction * len(units)
        for unit in order:
            if part[unit] == TRAIN and abs(missing - sizes[unit]) < abs(missing):
                part[unit] = number
                missing -= sizes[unit]
    return part


def _deal(sizes: npt.NDArray[np.int64], num_folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Fold of each unit: the largest first, each to the fold with the fewest genes (Graham 1969); equals by chance."""
    random = np.random.default_rng(derive_seed(seed, "folds"))
    shuffled = random.permutation(len(sizes))
    fold, filled = np.empty(len(sizes), np.int64), np.zeros(num_folds, np.int64)
    for unit in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold[unit] = np.argmin(filled)
        filled[fold[unit]] += sizes[unit]
    return fold
