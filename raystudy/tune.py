"""A study from its file to its report; reads as the story of one. Run as ``python -m raystudy.tune [STUDY.yaml]``."""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from raystudy.data.batches import StudyData, sealed_labels
from raystudy.data.genes import TABLE, Genes
from raystudy.data.sources import prepare
from raystudy.data.splits import PARTS, Split, make_split
from raystudy.dimension.estimators import DimensionEstimate
from raystudy.dimension.seeding import dimension_of, seed_widths
from raystudy.errors import DataError, Infeasible, RaystudyError, SpecError, TrialFailed
from raystudy.execution.capacity import finalist_workers
from raystudy.execution.cluster import ray_cluster, remote_address
from raystudy.models.baselines import BASELINES, counted_features
from raystudy.plan import make_plan, this_machine
from raystudy.progress import Progress
from raystudy.report.page import write_page
from raystudy.search.policy import Origin, SearchPolicy
from raystudy.study.space import derive_seed
from raystudy.study.spec import DataSpec, StudySpec, parse_spec
from raystudy.tracking.mlflow import MlflowMirror, without_password
from raystudy.tracking.predictions import read_predictions, write_predictions
from raystudy.tracking.provenance import provenance
from raystudy.tracking.records import Records, StudyRecord, TrialRecord, TrialState
from raystudy.training.metrics import pearson_r2, r2
from raystudy.training.selection import choose_finalists, open_test

DEFAULT_STUDY = Path("search_spaces/yeast.yaml")
SMOKE_WINDOW = (300, 300)


def studies_folder() -> Path:
    """Where studies, prepared data and MLflow's database stand: RAYSTUDY_HOME, else ``studies`` here."""
    return Path(os.environ.get("RAYSTUDY_HOME", "studies"))


def run_study(spec: StudySpec, progress: Progress, data: Path | None = None) -> StudyRecord:
    """Run or take up a study: data, split, dimension, baselines, search, finalists, test, report.

    ``data`` is a prepared folder to use instead of the study file's. Everything that can be wrong with the study
    file, the data or the machine is found before the first trial. Raises RaystudyError.
    """
    plan = make_plan(spec, this_machine())
    if not plan["feasible"] and remote_address() is None:
        raise Infeasible(f"study {spec.name!r} cannot run here: {'; '.join(plan['problems'])}")
    folder = studies_folder() / spec.name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            return _Study(spec, folder, progress, data).run()
    except Timeout:
        raise RaystudyError(
            f"another raystudy is at work on study {spec.name!r} (its folder {folder} is locked); wait for it, follow "
            f"it with `raystudy status {spec.name}`, or give this study another `name`"
        ) from None


class _Study:
    """One session of one study."""

    def __init__(self, spec: StudySpec, folder: Path, progress: Progress, data: Path | None) -> None:
        self.spec = spec
        self.records = Records(folder)
        self.progress = progress
        self.started = time.time()
        self.spent_before = self.records.read().seconds
        _check_spec(spec, folder / "spec.json")
        with progress.stage("data"):
            self.data_folder = prepared_folder(spec.data, data)
            self.genes = Genes.open(self.data_folder)
            self.genes.windows(spec.data.window_bp)
            self.split = _keep_split(spec, self.genes, folder / "split.json")
        _keep_spec(spec, folder / "spec.json")  # only now: a mistake above must not claim the study's name
        self.mirror = MlflowMirror(spec.tracking.uri, self.records)

    def run(self) -> StudyRecord:
        self.records.append(
            "session_started",
            spec_hash=self.spec.hash,
            data={"hash": self.genes.hash, "num_genes": self.genes.num_genes, "source": self.genes.source},
            split=self.split.summary(),
            provenance=provenance(),
            tracking=without_password(self.mirror.uri),
        )
        self._seed_search_points()
        self._fit_baselines()
        self._train()
        self._open_test()
        if self.records.read().last("study_finished") is None:
            self.records.append("study_finished", seconds=self.records.read().seconds)
        with self.progress.stage("report"):
            record = self.records.read()
            write_page(record)
            self.mirror.sync(record)
        return record

    def _seed_search_points(self) -> None:
        """Estimate the intrinsic dimension, once, where the study file seeds the latent width from it."""
        width = self.spec.seeded_width
        if width is None or self.records.read().last("dimension") is not None:
            return
        with self.progress.stage("intrinsic dimension"):
            cache = studies_folder() / "cache"
            found = dimension_of(self.genes, self.spec.data.window_bp, cache_folder=cache)
            seeded = seed_widths(DimensionEstimate.from_json(found), width.low, width.high)
            self.records.append(
                "dimension",
                **found,
                seeded={"widths": seeded.widths, "clamped": seeded.clamped, "provenance": seeded.provenance},
            )

    def _fit_baselines(self) -> None:
        """Fit what has not been fitted; predictions for every gene are kept, test labels are not read."""
        missing = set(self.spec.baselines) - {line["name"] for line in self.records.read().baselines}
        if not missing:
            return
        with self.progress.stage("baselines"):
            data = StudyData.load(
                self.data_folder, self.records.folder / "split.json", self.spec.data, self.spec.target
            )
            features = counted_features(data)
            for name in sorted(missing):
                started = time.perf_counter()
                predicted = BASELINES[name](features, data)
                valid = data.split.valid
                self._keep_predictions(name, data.label_scale.to_unit(predicted), opened=False)
                self.records.append(
                    "baseline",
                    name=name,
                    valid_r2=r2(data.labels[valid], predicted[valid]),
                    valid_pearson_r2=pearson_r2(data.labels[valid], predicted[valid]),
                    seconds=time.perf_counter() - started,
                )

    def _train(self) -> None:
        """Search and retrain the finalists, as far as the records say that is still to be done."""
        record = self.records.read()
        if record.test_scores:
            return
        with ExitStack() as running:
            with self.progress.stage("starting Ray"):
                capacity = running.enter_context(ray_cluster())
            plan = make_plan(self.spec, capacity)
            if not plan["feasible"]:
                raise Infeasible(f"study {self.spec.name!r} cannot run here: {'; '.join(plan['problems'])}")
            if record.last("search_finished") is None:
                self._search(capacity)
            self._train_finalists(capacity)

    def _search(self, capacity: dict[str, float]) -> None:
        from raystudy.execution.tuner import search

        with self.progress.search(self.spec) as show:
            policy = SearchPolicy(
                self.spec,
                self.records,
                ends=self.started + 60 * self.spec.budget.minutes - self.spent_before,
                listeners=[self.mirror.sync_trial, show],
            )
            for arm in self.spec.arms:
                policy.enqueue({}, Origin("arm", arm=str(arm["name"])))
            seeded = (self.records.read().last("dimension") or {}).get("seeded", {})
            for width in seeded.get("widths", []):
                policy.enqueue({"latent_dim": width}, Origin("seeded", provenance=seeded["provenance"]))
            search(self.spec, self.records, policy, self.data_folder, capacity)
            policy.close()
        trials = self.records.read().trials
        if all(trial.valid_r2 is None for trial in trials):
            reasons = "; ".join(sorted({f"{trial.state}: {trial.reason}" for trial in trials}))
            raise TrialFailed("no trial", f"none of {len(trials)} trials reached a validation R2 ({reasons})")
        self.records.append("search_finished", reason="minutes" if policy.out_of_time else "trials", trials=len(trials))

    def _train_finalists(self, capacity: dict[str, float]) -> None:
        from raystudy.execution.task import Task
        from raystudy.execution.worker import finalist_predictions, train_finalist

        record = self.records.read()
        for trial in choose_finalists(record.trials, self.spec.finalists):
            finalist = self._finalist(trial, capacity)
            known = {one.id: one for one in record.finalists}.get(finalist.id)
            if known is not None:
                if known.state is TrialState.COMPLETE:
                    continue
                finalist = known  # goes on with the batches it began with, whatever the cluster is now
            num_workers = (finalist.global_batch or 1) // finalist.config["batch_size"]
            with self.progress.stage(f"retraining {trial.id} on {num_workers} workers"):
                self.records.trial_started(finalist)
                task = Task.of(finalist, self.spec, self.records, self.data_folder)
                try:
                    history = train_finalist(task, num_workers, self.spec.resources, self.records.folder / "ray")
                except TrialFailed as failure:
                    self.records.trial_ended(finalist.id, TrialState.FAILED, str(failure))
                    continue
                self._keep_predictions(finalist.id, finalist_predictions(task), opened=False)
                for metrics in history:
                    self.records.trial_epoch(finalist.id, metrics)
                self.records.trial_ended(finalist.id, TrialState.COMPLETE)
        finalists = self.records.read().finalists
        if not any(one.state is TrialState.COMPLETE for one in finalists):
            reasons = "; ".join(f"{one.id}: {one.reason}" for one in finalists)
            raise TrialFailed("no finalist", f"none could be retrained ({reasons}); the same command tries again")

    def _finalist(self, trial: TrialRecord, capacity: dict[str, float]) -> TrialRecord:
        """The trial again, with a seed of its own, its global batch shared by every worker that fits."""
        global_batch = trial.global_batch or trial.config["batch_size"]
        num_workers = finalist_workers(self.spec.resources, capacity, global_batch)
        return replace(
            trial,
            id=f"{trial.id}-r0",
            config={**trial.config, "batch_size": global_batch // num_workers},
            seed=derive_seed(self.spec.hash, trial.config_hash, "finalist", 0),
            origin="finalist",
            global_batch=global_batch,
            attempts=[],
        )

    def _open_test(self) -> None:
        """Score everything that was predicted on the test genes: the one place where their labels are read."""
        record = self.records.read()
        if record.test_scores:
            return
        complete = [one.id for one in record.finalists if one.state is TrialState.COMPLETE]
        names = [*complete, *(line["name"] for line in record.baselines)]
        predicted = {name: read_predictions(self.records.folder, name, self.genes.gene_ids) for name in names}
        scores = open_test(self.genes, self.spec.target, self.split, predicted)
        for name in names:
            self._keep_predictions(name, predicted[name], opened=True)
        self.records.append("test_opened", scores=scores)

    def _keep_predictions(self, name: str, predicted: Any, opened: bool) -> None:
        """Keep predictions for every gene in the label's own unit, with the test labels only once they are opened."""
        if opened:
            measured = self.genes.target(self.spec.target)
        else:
            measured = sealed_labels(self.genes, self.spec.target, self.split)
        parts = {part: getattr(self.split, part) for part in PARTS}
        write_predictions(self.records.folder, name, self.genes.gene_ids, parts, predicted, measured)


def prepared_folder(spec: DataSpec, given: Path | None = None) -> Path:
    """The folder of prepared data: the one given, the study file's path, or its source's, prepared on first use."""
    folder = given or spec.path or studies_folder() / "data" / str(spec.source)
    if not (folder / TABLE).exists() and folder not in (given, spec.path):
        prepare(str(spec.source), folder)
    return folder


def smoke(spec: StudySpec) -> StudySpec:
    """Any study shrunk to a minute on two CPU cores: two trials of two epochs on short windows of synthetic genes."""
    small = {"epochs": 2, "num_latents": min(spec.model.num_latents, 16), "pool_size": min(spec.model.pool_size, 10)}
    document = spec.model_dump(mode="json")
    document |= {
        "name": f"{spec.name[:58]}-smoke",
        "data": {"source": "synthetic", "window_bp": SMOKE_WINDOW, "max_protein": 200},
        "search": {key: value for key, value in document["search"].items() if key not in small},
        "arms": [{key: value for key, value in arm.items() if key not in small} for arm in document["arms"]],
        "model": {key: small.get(key, value) for key, value in document["model"].items()},
        "training": {key: small.get(key, value) for key, value in document["training"].items()},
        "resources": {},
        "budget": {"trials": 2, "minutes": 3},
        "finalists": 1,
    }
    return parse_spec(document, where="smoke")


def _check_spec(spec: StudySpec, path: Path) -> None:
    """SpecError, naming the keys, when another study has this name."""
    if path.exists():
        try:
            before = json.loads(path.read_text())
            known, old = before["hash"], _flat(before["spec"])
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path} is damaged; give the study another `name`, or remove its folder") from None
        if known != spec.hash:
            new = _flat(spec.model_dump(mode="json"))
            keys = spec.identity.keys()
            changed = [
                f"`{key}` was {old.get(key)!r} and is {new.get(key)!r}"
                for key in sorted(old.keys() | new.keys())
                if key.split(".")[0] in keys and old.get(key) != new.get(key)
            ]
            raise SpecError(
                f"a study {spec.name!r} is in {path.parent} already, with another study file: {'; '.join(changed)}. "
                "Give this one another `name`, or put the file back to go on with that one"
            )


def _keep_spec(spec: StudySpec, path: Path) -> None:
    """Write the study file's content; where tracking goes is left out, it may hold a password."""
    document = {"hash": spec.hash, "spec": spec.model_dump(mode="json", exclude={"tracking"})}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1))
    partial.replace(path)


def _flat(nested: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(nested, dict):
        return {prefix: nested}
    return {
        key: value
        for name, item in nested.items()
        for key, value in _flat(item, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def _keep_split(spec: StudySpec, genes: Genes, path: Path) -> Split:
    """The study's split, made once."""
    if not path.exists():
        labelled = np.isfinite(genes.target(spec.target))
        make_split(genes, spec.split, spec.data.window_bp, labelled).save(path, genes)
    return Split.load(path, genes)


if __name__ == "__main__":
    from raystudy.cli import tune_module

    tune_module()
