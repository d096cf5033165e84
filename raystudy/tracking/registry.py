"""A study's winner in MLflow's model registry: an export folder put in as a model, and taken out again as a folder.

The model is code, `pyfunc_model.py` copied beside the export, and the export's own files. Nothing is pickled, and what
comes back is the very folder that was put in, which its digest shows.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import raystudy
from raystudy.data.encode import FEATURES
from raystudy.errors import DataError
from raystudy.study.model import ModelSpec, configure
from raystudy.study.urls import without_password
from raystudy.tracking.records import JsonObject
from raystudy.tracking.runs import flat
from raystudy.tracking.store import first_line, local_uri, open_client, store_uri

ALIAS = "best"
ARTIFACT = "model"
"""What `pyfunc_model.py` knows the export folder by."""
CONFIG = "config.json"
DIGEST_TAG = "raystudy.export"
"""The sha256 of the export's `config.json`, which holds the digests of its other files."""
PACKAGES = ("mlflow", "numpy", "pandas", "torch")
_URI = re.compile(r"models:/(?P<name>[^/@:]+)(@(?P<alias>[\w-]+)|/(?P<version>\d+))")


class Column(NamedTuple):
    """One column that the model reads: what it holds, and how it looks."""

    name: str
    type: str
    meaning: str
    example: str | float


def columns(config: JsonObject) -> list[Column]:
    """The columns that an export's networks read, with what each holds; all are required."""
    members = config["members"]
    models = [configure(member["config"])[0] for member in members]
    read = frozenset[str]()
    for model, member in zip(models, members, strict=True):
        # Features of which none varied among the training genes have no say.
        read |= model.inputs - (set() if any(member["feature_scale"]["factor"]) else {"half_life"})
    found = [Column("gene_id", "string", "the gene's name, which its prediction carries; no two alike", "gene_1")]
    if "dna" in read:
        found.append(_window(models[0]))
    if "protein" in read:
        found.append(Column("protein", "string", "amino acids in one-letter code", "MSKVLA"))
    if "codon" in read:
        found.append(Column("cds", "string", "the spliced coding sequence, from its start to its stop codon", "ATGTAA"))
    if "half_life" in read:
        meaning = "half-life feature, raw; NaN where it is not known"
        found += [Column(name, "double", meaning, 0.5) for name in FEATURES]
    return found


def _window(model: ModelSpec) -> Column:
    up, down = model.window_bp
    meaning = (
        f"exactly {up + down} bases in the gene's own direction, the TSS or CDS start at index {up} counted from 0; "
        "N where unknown or beyond a chromosome's end"
    )
    return Column("window", "string", meaning, ("ACGT" * (up + down))[: up + down])


def register(client: Any, name: str, run_id: str, export: Path, numbers: JsonObject) -> None:
    """Make the export a version of the model ``name``, unless it is one, and let the alias ``best`` point to it.

    ``run_id`` is the run that trained it; ``numbers`` become the version's tags, and those that a number once had and
    has no more are gone. Raises whatever the store raises.
    """
    digest = _digest(export / CONFIG)
    known = client.search_model_versions(f"name = '{name}' and tags.`{DIGEST_TAG}` = '{digest}'")
    version = known[0].version if known else _add_version(client, name, run_id, export, digest)
    tags = flat(numbers)
    for key in known[0].tags if known else ():
        if key.partition(".")[0] in numbers and key not in tags:
            client.delete_model_version_tag(name, version, key)
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)
    client.set_registered_model_alias(name, ALIAS, version)


def _add_version(client: Any, name: str, run_id: str, export: Path, digest: str) -> str:
    """MLflow's own `log_model` would do this to the process's one global store, and open the finished run again."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    config = json.loads((export / CONFIG).read_text())
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description=f"Winners of the raystudy study {name}")
    experiment = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment, name, run_id, tags={DIGEST_TAG: digest}, model_type="raystudy")
    about = Model(artifact_path=logged.artifact_location, run_id=run_id, model_id=logged.model_id)
    with tempfile.TemporaryDirectory() as folder:
        _save(Path(folder) / ARTIFACT, export, config, about)
        client.log_model_artifacts(logged.model_id, str(Path(folder) / ARTIFACT))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    version = client.create_model_version(
        name,
        logged.artifact_location,
        run_id,
        tags={DIGEST_TAG: digest},
        description=_description(config),
        model_id=logged.model_id,
    )
    return str(version.version)


def _save(folder: Path, export: Path, config: JsonObject, about: Any) -> None:
    """The export in MLflow's format, as code beside files."""
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    read = columns(config)
    targets = config["members"][0]["targets"]
    ends = ("", "_low", "_high") if config.get("interval") else ("",)
    predicted = [ColSpec("double", f"{target}{end}") for target in targets for end in ends]
    mlflow.pyfunc.save_model(
        str(folder),
        mlflow_model=about,
        python_model=str(Path(__file__).with_name("pyfunc_model.py")),
        artifacts={ARTIFACT: str(export)},
        signature=ModelSignature(
            Schema([ColSpec(column.type, column.name) for column in read]),
            Schema([ColSpec("string", "gene_id"), *predicted]),
        ),
        input_example=pd.DataFrame({column.name: [column.example] for column in read}),
        # Said here, because MLflow finds them out by loading and running the model in another process.
        pip_requirements=[f"raystudy=={raystudy.__version__}", *map(_requirement, PACKAGES)],
    )


def _requirement(package: str) -> str:
    return f"{package}=={metadata.version(package).partition('+')[0]}"  # "+cpu" is a build, not a release


def _description(config: JsonObject) -> str:
    """For the registry's page: a signature has no room for what a column means."""
    units, members = config.get("units") or {}, len(config["members"])
    targets = [
        f"`{target}` ({units[target]})" if target in units else f"`{target}`"
        for target in config["members"][0]["targets"]
    ]
    how = f", the mean of {members} networks" if members > 1 else ""
    head = f"Predicts {', '.join(targets)} of each gene{how}.\n\nOne row a gene; every column is required."
    rows = [f"| `{column.name}` | {column.type} | {column.meaning} |" for column in columns(config)]
    return "\n".join([head, "", "| column | type | holds |", "|---|---|---|", *rows])


def download(uri: str, studies: Path) -> Path:
    """The export folder of a registered model, ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.

    From the store that MLFLOW_TRACKING_URI names, else the one beside the studies: the `tracking.uri` of a study file
    is not known here. Kept in ``studies/cache/models`` by its digest. Raises DataError where there is no such model,
    or it is not an export.
    """
    asked = _URI.fullmatch(uri)
    if asked is None:
        raise DataError(
            f"{uri!r} is no model's address: it is models:/NAME@ALIAS or models:/NAME/VERSION, as in models:/yeast@best"
        )
    store = store_uri(None, studies)
    if store == local_uri(studies) and not (studies / "mlflow.db").exists():
        raise DataError(
            f"there is no {uri}, for nothing has been registered in {studies} yet. Run a study to its end, whose "
            "winner is registered under its name, or let MLFLOW_TRACKING_URI name the store or server that has it (the "
            "`tracking.uri` of its study file, where that has one)"
        )
    try:
        client = open_client(store)
        if asked["alias"]:
            version = client.get_model_version_by_alias(asked["name"], asked["alias"])
        else:
            version = client.get_model_version(asked["name"], asked["version"])
        location = client.get_model_version_download_uri(version.name, version.version)
    except Exception as error:  # whatever a store or a network may raise
        raise DataError(
            f"MLflow at {without_password(store)} does not give {uri} ({first_line(error, store)}). The winner of a "
            "study is registered under its name when it has finished; MLFLOW_TRACKING_URI names another store or server"
        ) from None
    digest = version.tags.get(DIGEST_TAG, "")
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise DataError(
            f"{uri} was not registered by raystudy (it has no tag {DIGEST_TAG}), and nothing else is loaded; give "
            "another name or version"
        )
    kept = studies / "cache" / "models" / digest[:16]
    if not kept.exists():
        _fetch(uri, location, store, digest, kept)
    return kept


def _fetch(uri: str, location: str, store: str, digest: str, kept: Path) -> None:
    """Bring the model's files here and keep its export folder, which appears whole or not at all."""
    from mlflow.artifacts import download_artifacts

    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".download-") as folder:
        try:
            download_artifacts(location, dst_path=folder, tracking_uri=store)
        except Exception as error:  # whatever a store or a network may raise
            raise DataError(
                f"the files of {uri} could not be fetched from MLflow at {without_password(store)} "
                f"({first_line(error, store)}). Check that it answers and still has them, then try again"
            ) from None
        found = [one for one in Path(folder).rglob(CONFIG) if _digest(one) == digest]
        if not found:
            raise DataError(
                f"the files of {uri} are not those that were registered: none of them is a {CONFIG} of the digest "
                f"{digest[:16]}... Register the export again, or give another version"
            )
        if not kept.exists():  # else another process was first
            shutil.move(found[0].parent, kept)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
