"""Any genome a user brings: GenBank, or FASTA with GTF or GFF3, and a table of expression levels by gene id.

The annotation is read first, then one chromosome after the other, so that memory holds coordinates, one chromosome
and the windows of the table's genes. Nothing is guessed: what cannot be used is left out and counted by its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from raystudy.data.fasta import fasta_records, read_fasta
from raystudy.data.files import open_text, sha256_of
from raystudy.data.findings import Findings
from raystudy.data.genes import GeneTable, Target
from raystudy.data.genome.annotation import read_annotation
from raystudy.data.genome.cutting import REPRESENTATIVE, SEVERAL_PLACES, Cutter, Gene
from raystudy.data.genome.expression import Expression, parse_formulas, read_expression, read_numbers
from raystudy.data.genome.genbank import read_genbank
from raystudy.data.genome.joining import Rows
from raystudy.data.genome.loci import Chromosome, bare_name, tokens_of
from raystudy.data.genome.proteins import ProteinFile, check_code
from raystudy.data.genome.transcripts import Transcript
from raystudy.data.homology import Homology, chosen_engine, find_families
from raystudy.data.splits import CIRCULAR
from raystudy.errors import DataError, SpecError
from raystudy.study.sections import NAME


def build(
    *,
    expression: Path,
    target: Sequence[str],
    genome: Sequence[Path] = (),
    annotation: Path | None = None,
    genbank: Sequence[Path] = (),
    id_column: str | None = None,
    gene_id: str | None = None,
    proteins: Path | None = None,
    tss: Path | None = None,
    anchor: Literal["cds", "tss"] | None = None,
    genetic_code: int = 1,
    window_bp: tuple[int, int] = (7000, 3500),
    homology: Homology = "auto",
    name: str = "genome",
) -> GeneTable:
    """The genes that have a level in the table ``expression``, from ``genbank``, or ``genome`` and ``annotation``.

    ``genome`` may be left out where the GFF3 embeds it. ``target`` are formulas such as ``mrna=log10(TPM + 0.1)``.
    Windows stand at the start codon, or at the TSS: of the table ``tss`` (columns gene_id and tss, 1-based), else,
    with ``anchor="tss"``, the representative transcript's 5' end. Proteins are the annotation's, else of the FASTA
    ``proteins``, else translated. Families are made from all proteins, so that two genes linked by one without a level
    stay together. ``notes["findings"]`` counts what was left out or read otherwise than written.
    Raises SpecError for options that do not fit, DataError for files that cannot be used.
    """
    roles = _roles(genome, annotation, genbank) | _given(expression=expression, proteins=proteins, tss=tss)
    formulas = parse_formulas(target)
    if min(window_bp) < 0 or window_bp[1] < 1:
        raise SpecError(f"`window_bp` is bases up and down of the anchor, 0 and 1 at least, but got {list(window_bp)}")
    if anchor not in (None, "cds", "tss"):
        raise SpecError(f"`anchor` is cds (start codon) or tss, but got {anchor!r}")
    if not NAME.fullmatch(name):
        raise SpecError(f"`name` is letters, digits, `_`, `.` and `-`, as a study's, but got {name!r}")
    if tss is not None and anchor == "cds":
        raise SpecError("a TSS table was given, but `anchor` is cds. Leave one of them out")
    chosen_engine(homology)  # which may be refused, before much is read
    findings, code, names = Findings(), check_code(genetic_code), _distinct_names(chain(*roles.values()))
    digests = {name: sha256_of(path) for path, name in names.items()}

    levels = read_expression(expression, formulas, id_column, findings)
    rows, has_any = Rows(expression, levels.ids), levels.has_any
    cutter = Cutter(
        window_bp=window_bp,
        anchor="tss" if tss is not None else anchor or "cds",
        tss=None if tss is None else _tss_of(tss, findings),
        genetic_code=code,
        proteins=None if proteins is None else ProteinFile(proteins),
        has_level=lambda gene: (row := rows.row(gene)) is not None and bool(has_any[row]),
        findings=findings,
        files=", ".join(map(str, names)),
    )
    if annotation is None:
        chromosomes = _from_genbank(genbank, gene_id, rows, findings)
    else:
        chromosomes = _from_fasta(genome, annotation, gene_id, rows, findings)
    genes, circular = _cut(chromosomes, cutter)
    kept = [row for row, gene in enumerate(genes) if gene.placed is not None]
    transcripts = [genes[row].transcript for row in kept]
    placed = [one.placed for one in genes if one.placed is not None]
    targets = _targets(levels, rows, transcripts)
    family_ids, how = find_families([gene.protein_tokens for gene in genes], homology)
    return GeneTable(
        source=name,
        source_digests=digests,
        anchor=window_bp[0],
        gene_ids=[one.gene_id for one in transcripts],
        symbols=[one.symbol for one in transcripts],
        chroms=[one.chrom for one in transcripts],
        starts=np.array([one.start for one in placed]),
        ends=np.array([one.end for one in placed]),
        strands=[one.strand for one in transcripts],
        windows=np.stack([one.window for one in placed]),
        proteins=[genes[row].protein for row in kept],
        cds=[genes[row].cds for row in kept],
        features=np.stack([one.features for one in placed]),
        targets=targets,
        family_ids=family_ids[kept],
        notes={
            "anchor": "TSS" if cutter.anchor == "tss" else "start codon",
            "genetic_code": sorted(cutter.codes),
            "representative_transcript": REPRESENTATIVE,
            "homology": how,
            "files": {role: [names[path] for path in paths] for role, paths in roles.items()},
            "targets": {formula.name: str(formula) for formula in formulas},
            **({CIRCULAR: circular} if circular else {}),
            **cutter.notes(),
            "findings": findings.as_json(),
        },
    )


def _roles(genome: Sequence[Path], annotation: Path | None, genbank: Sequence[Path]) -> dict[str, list[Path]]:
    """Role -> files of the genome. Raises SpecError where they are too few, or too many."""
    if genbank and (genome or annotation is not None):
        raise SpecError("a genome is either GenBank, or FASTA with an annotation, but got both. Leave one out")
    if not genbank and annotation is None:
        what = "FASTA alone, which does not say where genes are" if genome else "neither"
        raise SpecError(
            f"a genome is GenBank, or FASTA with a GTF or GFF3 annotation, but got {what}. Add what is missing"
        )
    if genbank:
        return {"genbank": list(genbank)}
    return {"genome": list(genome)} | _given(annotation=annotation)


def _given(**files: Path | None) -> dict[str, list[Path]]:
    return {role: [path] for role, path in files.items() if path is not None}


def _distinct_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Each file's name; the second of one name, in another folder, gets its number."""
    names: dict[Path, str] = {}
    for path in paths:
        if path not in names:
            times = sum(other.name == path.name for other in names) + 1
            names[path] = path.name if times == 1 else f"{path.name} ({times})"
    return names


def _tss_of(path: Path, findings: Findings) -> Callable[[str], int | None]:
    ids, columns = read_numbers(path, ["tss"], None, "TSS table", findings)
    rows, values = Rows(path, ids), columns["tss"]
    for row in np.flatnonzero(np.isfinite(values) & (values != np.round(values))).tolist():
        raise DataError(f"{path}: the TSS of {ids[row]!r} is {values[row]:g}, but it is a base's number, 1-based")

    def tss(gene_id: str) -> int | None:
        row = rows.row(gene_id)
        return None if row is None or np.isnan(values[row]) else int(values[row])

    return tss


def _from_genbank(paths: Sequence[Path], gene_id: str | None, rows: Rows, findings: Findings) -> Iterator[Chromosome]:
    transcripts = list[Transcript]()
    for chromosome in read_genbank(paths, gene_id, findings):
        transcripts += chromosome.transcripts
        yield chromosome
    _check_ids(rows, transcripts, f"{paths[0]} has", findings)


def _check_ids(rows: Rows, transcripts: Sequence[Transcript], what: str, findings: Findings) -> None:
    if not transcripts:
        reasons = ", ".join(f"{reason} ({len(them)})" for reason, them in findings.dropped.items())
        raise DataError(f"{what} no coding sequence that can be used{f': {reasons}' if reasons else ''}")
    rows.check(transcripts, findings)


def _from_fasta(
    genome: Sequence[Path], annotation: Path, gene_id: str | None, rows: Rows, findings: Findings
) -> Iterator[Chromosome]:
    """The annotation's chromosomes, in the order of the FASTA, one in memory at a time."""
    annotated = read_annotation(annotation, gene_id, findings)
    _check_ids(rows, annotated.transcripts, f"{annotation} has", findings)
    waiting: dict[str, list[Transcript]] = {}
    for transcript in annotated.transcripts:
        waiting.setdefault(transcript.chrom, []).append(transcript)
    times = Counter(map(bare_name, waiting))
    alike = {bare_name(chrom): chrom for chrom in waiting if times[bare_name(chrom)] == 1}
    taken: dict[str, str] = {}
    other = ""
    records = ((path, *one) for path in genome for one in read_fasta(path)) if genome else _embedded(annotation)
    for path, record, bases in records:
        chrom = record if record in waiting or record in taken else alike.get(bare_name(record))
        if chrom is None:
            other = record
            continue
        if chrom in taken:
            raise DataError(
                f"{path}: two sequences of the genome are {chrom!r}: {taken[chrom]!r} and {record!r}. Keep one"
            )
        taken[chrom] = record
        if record != chrom:
            findings.repair("chromosome names that differ by a prefix or version", f"{record} is {chrom}")
        tokens = tokens_of(bases, f"{path}: the sequence {record}")
        del bases
        yield Chromosome(chrom, tokens, chrom in annotated.circular, waiting.pop(chrom))
        del tokens
    if not taken:
        raise DataError(
            f"no chromosome of the annotation is in the genome: {annotation} has {next(iter(waiting))!r} and others, "
            f"the genome {other!r} and others. Names must be alike, but for a prefix (`chr1` and `1`) or a version: "
            "give both of one origin, or rename them"
        )
    there = {one.gene_id for one in annotated.transcripts if one.chrom in taken}
    for gene_id, chrom in {one.gene_id: one.chrom for one in annotated.transcripts if one.gene_id not in there}.items():
        findings.drop("on a chromosome that is not in the genome", f"{gene_id} on {chrom}")


def _embedded(annotation: Path) -> Iterator[tuple[Path, str, str]]:
    """The sequences behind ``##FASTA`` in a GFF3."""
    with open_text(annotation, "an annotation") as text:
        first = next((line for line in text if line.startswith(">")), "")
        if not first:
            raise DataError(f"{annotation} embeds no sequences (behind `##FASTA`), so `genome` must give them as FASTA")
        for header, bases in fasta_records(annotation, chain([first], text)):
            yield annotation, (header.split(maxsplit=1) or [""])[0], bases


def _cut(chromosomes: Iterable[Chromosome], cutter: Cutter) -> tuple[list[Gene], dict[str, int]]:
    """All genes with a protein, each once, and the lengths of circular chromosomes, in bp."""
    genes, circular = list[Gene](), dict[str, int]()
    for chromosome in chromosomes:
        genes += cutter.genes(chromosome)
        if chromosome.circular:
            circular[chromosome.name] = len(chromosome.tokens)
        del chromosome  # or it would stay in memory while the next one is read
    cutter.check()
    times = Counter(gene.transcript.gene_id for gene in genes)
    for gene_id in (gene_id for gene_id, count in times.items() if count > 1):
        cutter.findings.drop(SEVERAL_PLACES, gene_id)
    genes = [gene for gene in genes if times[gene.transcript.gene_id] == 1]
    if not any(gene.placed for gene in genes):
        dropped = sorted(cutter.findings.dropped.items(), key=lambda item: -len(item[1]))
        reasons = "; ".join(f"{reason} ({len(them):,})" for reason, them in dropped)
        raise DataError(f"no gene is left for the table of {cutter.files}. What was left out: {reasons}")
    return genes, circular


def _targets(levels: Expression, rows: Rows, transcripts: list[Transcript]) -> dict[str, Target]:
    found = [row for one in transcripts if (row := rows.row(one.gene_id)) is not None]
    targets = {name: Target(target.values[found], target.unit) for name, target in levels.targets.items()}
    for name, target in targets.items():
        if not np.isfinite(target.values).any():
            raise DataError(f"{levels.path} has no {name!r} level ({target.unit}) of a gene in the table. Leave it out")
    return targets
