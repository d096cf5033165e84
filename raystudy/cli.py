"""The ``raystudy`` command: one thin function a verb. Logs and progress go to stderr, answers to stdout."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from raystudy import data_commands, model_commands, printing
from raystudy.errors import DataError, Infeasible, RaystudyError, SpecError

if TYPE_CHECKING:
    from raystudy.study.spec import StudySpec

app = typer.Typer(
    help="How well expression can be predicted from sequence, and which architecture does it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON document on stdout.")]
StudyFile = Annotated[Path, typer.Argument(help="The study file.")]
StudyName = Annotated[str, typer.Argument(help="The study's name, as in its file.")]
Data = Annotated[Path | None, typer.Option("--data", help="Prepared data to use instead of the study file's.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="Run the study end to end in a minute, with tiny sizes.")]


@app.command()
def dimension(
    data: Annotated[Path, typer.Argument(help="A folder that `raystudy prepare` wrote.")],
    representation: Annotated[
        str | None, typer.Option(help="kmer3 (the default), kmer4, onehot, composition or embedding.")
    ] = None,
    input: Annotated[
        str | None, typer.Option(help="dna, protein or both; dna by default, protein for the composition.")
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="For `embedding`: a table with a column gene_id, or a trained checkpoint.")
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option(help="A slow estimator to ask too (ESS, DANCo, PH): about a minute each.")
    ] = None,
    window_bp: Annotated[
        tuple[int, int] | None, typer.Option(help="Bases up and down of the anchor; 1000 500 by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate the intrinsic dimension of the input."""
    from raystudy.data.genes import Genes
    from raystudy.dimension.seeding import dimension_of
    from raystudy.materials import studies_folder
    from raystudy.report.page import write_dimension_page
    from raystudy.study.space import canonical_hash

    genes = Genes.open(data)
    # Longer windows of neighbouring genes overlap, and what is measured then is how genes tile the genome.
    window = window_bp or (min(1000, genes.anchor), min(500, genes.window_length - genes.anchor))
    if embeddings and representation not in (None, "embedding"):
        raise SpecError(f"`--embeddings` is for the representation embedding, but `--representation {representation}`")
    embedding = None if embeddings is None else _read_embedding(embeddings, genes)
    if also:
        err.print(f"{', '.join(also)}: slow, each may take a minute or more")
    with err.status("estimating"):
        found = dimension_of(
            genes,
            window,
            representation or ("embedding" if embeddings else "kmer3"),
            input,
            embedding=embedding,
            also=also or (),
            cache_folder=studies_folder() / "cache",
        )
    made_of = canonical_hash([genes.hash, window, embedding and embedding.sha256])[:6]
    name = f"{genes.source}-{found['representation']}-{found['input']}-{made_of}.html"
    page = studies_folder() / "dimension" / name
    try:
        found["page"] = str(write_dimension_page(found, page))
    except OSError as error:  # the answer itself must not be lost with it
        err.print(f"{page} cannot be written: {error.strerror}", soft_wrap=True)
        found["page"] = None
    _answer(found, as_json, lambda: printing.print_dimension(found))


@app.command()
def presets(as_json: Json = False) -> None:
    """List the published networks that a study can name as `model.preset`, with their parameters."""
    from raystudy.plan import list_presets

    found = list_presets()
    _answer(found, as_json, lambda: printing.print_presets(found))


@app.command()
def plan(
    study: StudyFile,
    here: Annotated[
        bool, typer.Option("--here", help="Plan for this machine, whatever `cluster` the study file declares.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what a study would run, what it may use, and whether it fits, before anything runs; exits with 2 if not."""
    from raystudy.execution.capacity import declared
    from raystudy.plan import DECLARED, make_plan, this_machine
    from raystudy.study.reading import load_spec

    spec = load_spec(study)
    if spec.cluster is not None and not here:
        found = make_plan(spec, declared(spec.cluster), DECLARED)
    else:
        spec = _told_if_reduced(spec)
        found = make_plan(spec, this_machine())
    _answer(found, as_json, lambda: printing.print_plan(found))
    if not found["feasible"]:
        raise typer.Exit(Infeasible.exit_code)


@app.command()
def tune(
    study: Annotated[Path | None, typer.Argument(help="The study file; search_spaces/yeast.yaml by default.")] = None,
    data: Data = None,
    smoke: Smoke = False,
    as_json: Json = False,
) -> None:
    """Run a study, or go on with it where it was interrupted."""
    from raystudy import tune as story
    from raystudy.execution.cluster import check_address
    from raystudy.materials import in_ray_job, studies_folder
    from raystudy.progress import Progress
    from raystudy.study.reading import load_spec
    from raystudy.study.smoke import smoke as shrink

    path = study or story.DEFAULT_STUDY
    spec = load_spec(path)
    if smoke:
        spec = shrink(spec)
    if in_ray_job():
        where = f"Results go to {studies_folder() / spec.name} on {socket.gethostname()}, not to the job's own folder."
        err.print(f"{where} RAYSTUDY_HOME, set where Ray is started, moves them.", soft_wrap=True, highlight=False)
    check_address()
    _told_if_reduced(spec)
    try:
        with _sigterm_as_ctrl_c(), Progress(err) as progress:
            story.run_study(spec, progress, data)
    except KeyboardInterrupt:
        command = " ".join(["raystudy tune", str(path), *(["--data", str(data)] if data else []), *["--smoke"] * smoke])
        again = "the same job, submitted again," if in_ray_job() else "the same command"
        message = f"Interrupted. Everything so far is kept; {again} goes on from there: {command}"
        err.print(message, soft_wrap=True, highlight=False)
        raise typer.Exit(130) from None
    _report(spec.name, as_json)


@app.command()
def simulate(
    study: StudyFile,
    trials: Annotated[int | None, typer.Option(min=1, help="Instead of the study file's budget.")] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Simulated GPUs, a trial on each.")] = 256,
    node_hours: Annotated[float, typer.Option(min=0.01, help="How long a node stays on average.")] = 2.0,
    driver_kills: Annotated[int, typer.Option(min=0, help="How often the driver dies.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the surface and of what goes wrong.")] = 0,
    as_json: Json = False,
) -> None:
    """Play a study's search on a simulated cluster, where nodes go away and trials fail; nothing is trained."""
    from raystudy.simulate import Conditions
    from raystudy.simulate import simulate as play
    from raystudy.study.reading import load_spec

    conditions = Conditions(gpus=gpus, node_hours=node_hours, driver_kills=driver_kills, seed=seed)
    with err.status("simulating"):
        found = play(load_spec(study), conditions, trials)
    _answer(found, as_json, lambda: printing.print_facts(found))


@app.command()
def status(name: StudyName, as_json: Json = False) -> None:
    """Say how far a study is."""
    from raystudy.report.table import status_json

    found = status_json(_record(name))
    _answer(found, as_json, lambda: printing.print_facts(found))


@app.command()
def report(name: StudyName, as_json: Json = False) -> None:
    """Show a study's results and write its page anew."""
    _report(name, as_json)


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on the loopback interface.")] = 5000) -> None:
    """Open MLflow over all studies; Ctrl-C ends it."""
    from raystudy.materials import studies_folder
    from raystudy.tracking.mlflow import ui_command

    command = ui_command(studies_folder(), port)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SpecError(f"port {port} cannot be used ({error.strerror}); choose another with --port") from None
    err.print(f"MLflow at http://127.0.0.1:{port} (Ctrl-C ends it)")
    os.execvp(command[0], command)  # noqa: S606


for command in (*data_commands.COMMANDS, *model_commands.COMMANDS):
    app.command()(command)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """`ray job stop`, Slurm and container runtimes send SIGTERM, and SIGKILL seconds later."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not break off what the first began
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _told_if_reduced(spec: StudySpec) -> StudySpec:
    """The study as it runs on this machine; a word on stderr where that is not the whole one."""
    from raystudy.plan import as_it_runs_here
    from raystudy.study.reduced import changed

    small = as_it_runs_here(spec)
    if small is not spec:
        what = "; ".join(changed(spec, small))
        err.print(f"There is no GPU here, so the study's `reduced` section applies ({what}).", highlight=False)
    return small


def _report(name: str, as_json: bool) -> None:
    from raystudy.report.page import write_page
    from raystudy.report.table import report_json, result_table

    record = _record(name)
    page = write_page(record)
    found = report_json(record, page)

    def show() -> None:
        console = Console()
        console.print(result_table(record, console.width))
        console.print(found["verdict"], end="\n\n")
        if found["published"]:
            printing.print_published(found["published"])
            print()
        export = record.folder / "export"
        tracking = (record.last("session_started") or {}).get("tracking", "")
        hint = " (open it with `raystudy ui`)" if tracking.startswith("sqlite") else ""
        places = {
            "report": f"{page} (and {page.with_suffix('.md').name})",
            "MLflow": f"{tracking}{hint}",
            "model": export.exists() and f"{export} (`raystudy predict {name} --table ...`)",
        }
        for what, where in places.items():
            if where:
                console.print(f"{what}: {where}", soft_wrap=True, highlight=False)

    _answer(found, as_json, show)


def _record(name: str) -> Any:
    from raystudy.materials import studies_folder
    from raystudy.tracking.records import Records

    folder = studies_folder() / name
    if not (folder / "study.jsonl").exists():
        known = sorted(path.parent.name for path in studies_folder().glob("*/study.jsonl"))
        raise DataError(
            f"there is no study {name!r} in {studies_folder()}; there is {', '.join(known) or 'none yet'}. Run it with "
            "`raystudy tune STUDY.yaml`, or set RAYSTUDY_HOME to the folder that holds it"
        )
    return Records(folder).read()


def _answer(document: Any, as_json: bool, show: Callable[[], None]) -> None:
    if as_json:
        print(json.dumps(document, allow_nan=False, default=str))
    else:
        show()


def _read_embedding(path: Path, genes: Any) -> Any:
    """Numbers for each gene: a table's, or what enters the last layer of a trained network."""
    from raystudy.data.tables import read_features
    from raystudy.training.trained import TrainedModel

    if path.is_dir() or path.suffix == ".safetensors":
        return TrainedModel.load(path).embed(genes)
    return read_features(path, genes.gene_ids)


def _run(application: Callable[..., Any]) -> None:
    """Run a command; errors made on purpose become one paragraph on stderr and their exit code."""
    try:
        application()
    except RaystudyError as error:
        err.print(f"[bold red]error:[/] {type(error).__name__}: ", end="")
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a folder that cannot be written
        err.print(f"error: {error.strerror or error}: {error.filename}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


def main() -> None:
    """Entry point of ``raystudy``."""
    _run(app)


def tune_module() -> None:
    """Entry point of ``python -m raystudy.tune``: the same as ``raystudy tune``."""
    module = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    module.command()(tune)
    _run(module)
