"""The verbs of data: one thin function a verb. Progress goes to stderr, answers to stdout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError
from rich.console import Console

from raystudy import printing
from raystudy.errors import SpecError

err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON document on stdout.")]
Files = "Genome: FASTA and GTF/GFF3, or GenBank"
Levels = "Expression and proteins"
Reading = "How genes are read"


def prepare(
    source: Annotated[str, typer.Argument(help="Where genes come from: yeast, ecoli, synthetic, xpresso, genome.")],
    out: Annotated[Path | None, typer.Option(help="The folder to write.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Report on the data, as text and as a page; without --out, do only that.")
    ] = False,
    genome: Annotated[
        list[Path] | None, typer.Option(help="FASTA, plain or gzipped; again for more files.", rich_help_panel=Files)
    ] = None,
    annotation: Annotated[
        list[Path] | None, typer.Option(help="One GTF or GFF3 (Ensembl, RefSeq, SGD, ...).", rich_help_panel=Files)
    ] = None,
    genbank: Annotated[
        list[Path] | None,
        typer.Option(help="GenBank, instead of FASTA and annotation; again for more files.", rich_help_panel=Files),
    ] = None,
    files: Annotated[
        Path | None,
        typer.Option(help="xpresso: the folder of train.h5, valid.h5 and test.h5.", rich_help_panel=Files),
    ] = None,
    expression: Annotated[
        Path | None, typer.Option(help="Levels by gene: TSV, CSV, Parquet or Feather.", rich_help_panel=Levels)
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(help="Its column of gene ids; gene_id, or its only text, by default.", rich_help_panel=Levels),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=COLUMN, NAME=log10(COLUMN + PSEUDO-COUNT), log2 or ln, with `in UNIT` behind it; NAME is mrna, "
            "protein or mrna_half_life; again for more.",
            rich_help_panel=Levels,
        ),
    ] = None,
    proteins: Annotated[
        Path | None,
        typer.Option(help="FASTA; by default the annotation's own, else translated.", rich_help_panel=Levels),
    ] = None,
    gene_id: Annotated[
        str | None,
        typer.Option(help="Attribute of the annotation that names genes, or `symbol`.", rich_help_panel=Reading),
    ] = None,
    anchor: Annotated[
        Literal["cds", "tss"] | None,
        typer.Option(help="Where windows stand: start codon (the default) or TSS.", rich_help_panel=Reading),
    ] = None,
    tss: Annotated[
        Path | None, typer.Option(help="Table of gene_id and tss (1-based).", rich_help_panel=Reading)
    ] = None,
    genetic_code: Annotated[
        int | None, typer.Option(help="NCBI's number, where the annotation says none; 1.", rich_help_panel=Reading)
    ] = None,
    window_bp: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Bases up and down of the anchor that are stored; 7000 3500.", rich_help_panel=Reading),
    ] = None,
    homology: Annotated[
        Literal["auto", "mmseqs2", "kmer"] | None,
        typer.Option(help="What finds families; MMseqs2 where it is installed.", rich_help_panel=Reading),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What pages call this data; genome by default.", rich_help_panel=Reading)
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a gene table from a built-in source, or from files of your own, and write it for training."""
    from raystudy.data.genes import Genes, write_genes
    from raystudy.data.sources import build

    if out is None and not check:
        raise SpecError("there is nothing to do: give `--out FOLDER` to write the gene table, `--check` to look at it")
    if annotation and len(annotation) > 1:
        raise SpecError(f"`--annotation` is one file, but got {len(annotation)}; write them into one (`cat A B > AB`)")
    options = {
        "genome": genome,
        "annotation": annotation[0] if annotation else None,
        "genbank": genbank,
        "files": files,
        "expression": expression,
        "id_column": id_column,
        "target": target,
        "proteins": proteins,
        "gene_id": gene_id,
        "anchor": anchor,
        "tss": tss,
        "genetic_code": genetic_code,
        "window_bp": window_bp,
        "homology": homology,
        "name": name,
    }
    answer: dict[str, Any] = {"folder": out and str(out), "source": source}
    with err.status(f"preparing {source}"):
        table = build(source, **{option: value for option, value in options.items() if value not in (None, [])})
        if out is not None:
            genes = Genes.open(write_genes(table, out))
            answer["hash"] = genes.hash
        answer |= {
            "num_genes": len(table.gene_ids),
            "window_length": table.windows.shape[1],
            "anchor": table.anchor,
            "targets": {target: level.unit for target, level in table.targets.items()},
            "notes": table.notes if out is None else genes.notes,
        }
        if check:
            answer |= _check(table, out)
    if as_json:
        print(json.dumps(answer, allow_nan=False, default=str))
        return
    if check:
        printing.print_check(answer["check"])
        print(f"page: {answer['page']}")
    else:
        printing.print_facts(answer)


def _check(table: Any, out: Path | None) -> dict[str, Any]:
    from raystudy.data.check import check_table
    from raystudy.materials import studies_folder
    from raystudy.report.check import write_check_page

    found = check_table(table)
    page = studies_folder() / "check" / f"{table.source}.html" if out is None else out / "check.html"
    return {"check": found, "page": str(write_check_page(found, page))}


def split(
    data: Annotated[Path, typer.Argument(help="A folder that `raystudy prepare` wrote.")],
    by: Annotated[
        list[str] | None,
        typer.Option(help="block, chromosome, family, random or published; again for more, all by default."),
    ] = None,
    audit: Annotated[bool, typer.Option("--audit", help="Say what each way leaks from one part to another.")] = False,
    window_bp: Annotated[
        tuple[int, int] | None, typer.Option(help="Bases up and down of the anchor; all that are stored by default.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Only genes with this level; all by default.")] = None,
    valid: Annotated[float, typer.Option(help="Share of the genes.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of the genes.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the choice.")] = 0,
    as_json: Json = False,
) -> None:
    """Part genes into train, valid and test in one way or several, and say what each costs and leaks."""
    from raystudy.data.genes import Genes
    from raystudy.data.split_audit import WAYS, compare_splits
    from raystudy.study.sections import SplitSpec
    from raystudy.study.spec import first_rule

    genes = Genes.open(data)
    window = window_bp or (genes.anchor, genes.window_length - genes.anchor)
    try:
        spec = SplitSpec(valid=valid, test=test, seed=seed)
    except ValidationError as error:
        raise SpecError(first_rule(error)) from None
    with err.status("parting the genes"):
        found = compare_splits(genes, spec, by or WAYS, window, target, audit)
    if as_json:
        print(json.dumps(found, allow_nan=False))
    else:
        printing.print_split(found)


COMMANDS = (prepare, split)
