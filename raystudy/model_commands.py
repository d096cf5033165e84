"""The verbs of trained models: one thin function a verb. Progress goes to stderr, answers to stdout."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import Progress

from raystudy import printing
from raystudy.errors import SpecError

err = Console(stderr=True)

Model = Annotated[
    str,
    typer.Argument(
        help="A study's name (its best finalist), the folder of a trial, finalist or export, a checkpoint, or "
        "models:/NAME@ALIAS."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON document on stdout.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
BatchSize = Annotated[
    int | None, typer.Option(min=1, max=64, help="Genes computed at a time; fewer for less memory, 64 by default.")
]
Anchor = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Index, from 0, of the TSS or CDS start in each DNA sequence; not needed where the DNA is exactly what "
        "the model reads, nor for tables that `raystudy prepare` wrote.",
    ),
]


def predict(
    model: Model,
    table: Annotated[
        Path | None, typer.Option(help="A prepared folder, or a Parquet, Feather, CSV or TSV with its columns.")
    ] = None,
    dna: Annotated[Path | None, typer.Option(help="FASTA of DNA in each gene's own direction, plain or .gz.")] = None,
    protein: Annotated[Path | None, typer.Option(help="FASTA of proteins, joined on the header's first word.")] = None,
    cds: Annotated[Path | None, typer.Option(help="FASTA of spliced coding sequences.")] = None,
    features: Annotated[
        Path | None, typer.Option(help="Table of gene_id and the half-life features, for genes in FASTA.")
    ] = None,
    anchor: Anchor = None,
    out: Annotated[Path | None, typer.Option(help=".tsv, .csv or .parquet; TSV to stdout by default.")] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out genes that lack what the model reads, and count them.")
    ] = False,
    precision: Annotated[
        Literal["fp32", "bf16", "auto"] | None, typer.Option(help="By default what the model was trained in.")
    ] = None,
    batch_size: BatchSize = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Predict genes with a trained model, in the labels' own units and the order given."""
    from raystudy import predict as story
    from raystudy.data.fasta import JoinedFasta
    from raystudy.data.genes import Genes
    from raystudy.data.sequences import how_to_give
    from raystudy.data.streams import chunks_of

    files: dict[str, Path] = {
        name: path for name, path in (("dna", dna), ("protein", protein), ("codon", cds)) if path is not None
    }
    if (table is None) == (not files) or (table is not None and features is not None):
        raise SpecError("give genes either with --table, or with --dna, --protein, --cds (and --features to join them)")
    if as_json and out is None:
        raise SpecError("with --json the predictions need a file; name it with --out")
    story.check_out(out)
    found = story.load_model(model, device)
    with ExitStack() as stack, err.status("reading genes") as status:
        if table is not None:
            genes = Genes.open(table) if table.is_dir() else table
            source: story.Source = partial(chunks_of, genes, found.inputs, anchor=anchor)
        else:
            given = {*files, *(["half_life"] if features else [])}
            for name in sorted(found.inputs - given):
                raise SpecError(f"this model reads {how_to_give(name)}")
            read: dict[str, Path] = {name: path for name, path in files.items() if name in found.inputs}
            joined = stack.enter_context(JoinedFasta(read, features if "half_life" in found.inputs else None, anchor))
            source = joined.chunks
        num_genes, num_skipped = story.check(found, source, skip_missing)
        status.update(f"predicting {num_genes} genes")
        story.write_levels(found, source, out, batch_size, precision)
    answer = {
        "model": model,
        "num_genes": num_genes,
        "num_skipped": num_skipped,
        "targets": list(found.targets),
        "inputs": sorted(found.inputs),
        "out": out and str(out),
    }
    if num_skipped:
        err.print(f"{num_skipped} genes lack what the model reads and were left out", highlight=False)
    if out is not None:
        _answer(answer, as_json)


def explain(
    model: Model,
    gene: Annotated[str, typer.Option(help="The gene's id.")],
    data: Annotated[
        Path, typer.Option("--data", "--table", help="A prepared folder, or a table with its columns, that has it.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(),
    input: Annotated[
        Literal["dna", "protein"] | None, typer.Option(help="What to mutate; dna by default where the model reads it.")
    ] = None,
    region: Annotated[
        tuple[int, int] | None,
        typer.Option(
            help="Only positions from A up to but not B: bp from the TSS or CDS start (0), or residues from 1."
        ),
    ] = None,
    anchor: Anchor = None,
    batch_size: BatchSize = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Replace every base (or residue) of a gene by every other, and write what that does to the prediction."""
    from raystudy import explain as story
    from raystudy.predict import load_model

    found = load_model(model, device)
    mutated = input or ("dna" if "dna" in found.inputs else "protein")
    sequence = story.find_gene(data, gene, found, anchor)
    with Progress(console=err, transient=True, disable=not err.is_terminal) as bars:
        bar = bars.add_task(f"mutating {gene}", total=None)
        effects = story.mutate(
            found,
            sequence,
            mutated,
            region,
            batch_size,
            lambda done, total: bars.update(bar, completed=done, total=total),
        )
    out.mkdir(parents=True, exist_ok=True)
    stem = story.file_stem(gene, mutated, region)
    paths = {kind: out / f"{stem}.{kind}" for kind in ("tsv", "svg", "png")}
    with tempfile.TemporaryDirectory(dir=out, prefix=".explain-") as folder:
        partial_paths = {kind: Path(folder) / path.name for kind, path in paths.items()}
        story.write_table(effects, partial_paths["tsv"])
        story.draw(effects, [partial_paths["svg"], partial_paths["png"]])
        for kind, path in paths.items():
            partial_paths[kind].replace(path)
    answer = {
        "model": model,
        "gene": gene,
        "input": mutated,
        "num_positions": len(effects.positions),
        "predicted": dict(zip(effects.targets, effects.predicted.tolist(), strict=True)),
        "table": str(paths["tsv"]),
        "pictures": [str(paths["svg"]), str(paths["png"])],
    }
    _answer(answer, as_json)


def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="The folder to write; one that holds an export is replaced.")],
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble", help="All replicates of the study's best finalist together, with a prediction interval."
        ),
    ] = False,
    coverage: Annotated[
        float | None, typer.Option(help="Share of genes that an ensemble's interval is to hold; 0.9 by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a trained model as a folder to give away: weights, description, and a card with what was measured."""
    from raystudy import export as story
    from raystudy.predict import find_model

    if coverage is not None and not ensemble:
        raise SpecError("`--coverage` is of an ensemble's interval; add --ensemble, or leave it out")
    with err.status("exporting"):
        if ensemble:
            config = story.export_ensemble(story.study_called(model), out, 0.9 if coverage is None else coverage)
        else:
            config = story.export_model(find_model(model), out)
    answer = {
        "model": model,
        "out": str(out),
        "num_members": len(config["members"]),
        "files": sorted(config["files"]),
        "program": config["program"],
        "interval": config["interval"],
        "numbers": config["numbers"],
    }
    _answer(answer, as_json)


COMMANDS = (predict, explain, export)


def _answer(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(document, allow_nan=False))
    else:
        printing.print_facts(document)
