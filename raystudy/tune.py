"""A study from its file to its report; reads as the story of one. Run as ``python -m raystudy.tune [STUDY.yaml]``."""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from raystudy.data.batches import FeatureScale, GeneInputs, LabelScale, sealed_labels
from raystudy.data.genes import TABLE, Genes
from raystudy.data.sources import prepare
from raystudy.data.splits import PARTS, Split, make_split
from raystudy.data.tables import GeneFeatures, read_features
from raystudy.dimension.consensus import DimensionEstimate
from raystudy.dimension.seeding import dimension_of, representation_for, seed_widths
from raystudy.errors import DataError, Infeasible, RaystudyError, SpecError, TrialFailed
from raystudy.execution import remote_address
from raystudy.execution.capacity import finalist_workers
from raystudy.execution.cluster import ray_cluster
from raystudy.models.baselines import counted_features, fit_baseline
from raystudy.plan import make_plan, this_machine, widest_affordable
from raystudy.progress import Progress
from raystudy.report.page import write_page
from raystudy.search.policy import Origin, SearchPolicy
from raystudy.study.space import derive_seed
from raystudy.study.spec import DataSpec, FeatureTable, StudySpec
from raystudy.tracking.mlflow import MlflowMirror, without_password
from raystudy.tracking.predictions import read_predictions, write_predictions
from raystudy.tracking.provenance import provenance
from raystudy.tracking.records import Records, StudyRecord, TrialRecord, TrialState
from raystudy.training.metrics import scores
from raystudy.training.selection import choose_finalists, open_test

DEFAULT_STUDY = Path("search_spaces/yeast.yaml")
FEWEST_LABELS = 5


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
            claimed = (folder / "spec.json").exists() and (folder / "split.json").exists()
            self.split = Split.load(folder / "split.json", self.genes) if claimed else _make_split(spec, self.genes)
            feature_scale = FeatureScale.fit(self.genes.features, self.split.train)
            for model in spec.networks:
                GeneInputs.of(self.genes, model, feature_scale)
            self.features = self._read_feature_tables()
        if not claimed:  # only now: a mistake above must not claim the study's name, nor leave a split to go by
            self.split.save(folder / "split.json", self.genes)
            _keep_spec(spec, folder / "spec.json")
        self.mirror = MlflowMirror(spec.tracking.uri, self.records)

    def run(self) -> StudyRecord:
        self.records.append(
            "session_started",
            spec_hash=self.spec.hash,
            data={
                "hash": self.genes.hash,
                "num_genes": self.genes.num_genes,
                "source": self.genes.source,
                "unknown": self.genes.notes.get("unknown"),
            },
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
        """Estimate the intrinsic dimension, once, where the study file seeds the latent width from it.

        Of what the latent array reads, and of the training genes alone.
        """
        width = self.spec.seeded_width
        if width is None or self.records.read().last("dimension") is not None:
            return
        with self.progress.stage("intrinsic dimension"):
            cache = studies_folder() / "cache"
            window_bp, representation = self.spec.data.window_bp, representation_for(self.spec.networks)
            found = dimension_of(self.genes, window_bp, representation, rows=self.split.train, cache_folder=cache)
            estimate = DimensionEstimate.from_json(found)
            seeded = seed_widths(estimate, width.low, width.high, widest_affordable(self.spec))
            self.records.append(
                "dimension",
                **found,
                seeded={"widths": seeded.widths, "clamped": seeded.clamped, "provenance": seeded.provenance},
            )

    def _fit_baselines(self) -> None:
        """Fit what has not been fitted; predictions for every gene are kept, test labels are not read."""
        missing = self._missing_baselines()
        if not missing:
            return
        with self.progress.stage("baselines"):
            counted = counted_features(self.genes, self.spec.networks)
            read = ", ".join(sorted(self.spec.inputs))
            for one in self.spec.baselines:
                origin: dict[str, Any]
                arms: dict[str, str]
                if isinstance(one, str):
                    arms, features, origin = {one: one}, counted, {"counted_from": read}
                else:
                    table = self.features[one]
                    arms, features = {one.arm(model): model for model in one.models}, table.values
                    origin = {
                        "table": str(one.features),
                        "sha256": table.sha256,
                        "genes_without_features": table.num_missing,
                        "rows_of_other_genes": table.num_unknown,
                    }
                for name in arms.keys() & missing:
                    self._fit_baseline(name, arms[name], features, origin)

    def _missing_baselines(self) -> set[str]:
        return set(self.spec.baseline_names) - {line["name"] for line in self.records.read().baselines}

    def _read_feature_tables(self) -> dict[FeatureTable, GeneFeatures]:
        """The tables of the baselines still to be fitted. DataError where one knows nothing of the training genes."""
        missing, found = self._missing_baselines(), {}
        for one in self.spec.baselines:
            if isinstance(one, FeatureTable) and missing & {one.arm(model) for model in one.models}:
                found[one] = read_features(one.features, self.genes.gene_ids)
                if not np.isfinite(found[one].values[self.split.train]).any():
                    raise DataError(
                        f"{one.features} has no value for any of the {len(self.split.train)} training genes; nothing "
                        "can be fitted to that. Give a table of the genes in the data"
                    )
        return found

    def _fit_baseline(self, name: str, model: str, features: Any, origin: dict[str, Any]) -> None:
        started = time.perf_counter()
        labels = sealed_labels(self.genes, self.spec.targets, self.split)
        scale = LabelScale.fit(labels[self.split.train], self.spec.targets)
        standardised, valid = scale.standardise(labels), self.split.valid
        predicted = fit_baseline(model, features, standardised, self.split)
        self._keep_predictions(name, scale.to_unit(predicted), opened=False)
        found = scores(standardised[valid], predicted[valid], self.spec.targets)
        self.records.append(
            "baseline",
            name=name,
            **{f"valid_{measure}": value for measure, value in found.items()},
            num_features=features.shape[1],
            **origin,
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
                policy.enqueue({}, Origin("arm", arm=arm.name))
            seeded = (self.records.read().last("dimension") or {}).get("seeded", {})
            if seeded:
                policy.note("intrinsic_dimension", seeded["provenance"] | {"widths": seeded["widths"]})
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
        predicted = {
            name: read_predictions(self.records.folder, name, self.genes.gene_ids, self.spec.targets) for name in names
        }
        found = open_test(self.genes, self.spec.targets, self.split, predicted)
        for name in names:
            self._keep_predictions(name, predicted[name], opened=True)
        self.records.append("test_opened", scores=found)

    def _keep_predictions(self, name: str, predicted: Any, opened: bool) -> None:
        """Keep predictions for every gene in the labels' own units, with the test labels only once they are opened."""
        targets = self.spec.targets
        if opened:
            measured = np.stack([self.genes.target(target) for target in targets], axis=1)
        else:
            measured = sealed_labels(self.genes, targets, self.split)
        parts = {part: getattr(self.split, part) for part in PARTS}
        write_predictions(self.records.folder, name, self.genes.gene_ids, parts, targets, predicted, measured)


def prepared_folder(spec: DataSpec, given: Path | None = None) -> Path:
    """The folder of prepared data: the one given, the study file's path, or its source's, prepared on first use."""
    folder = given or spec.path or studies_folder() / "data" / str(spec.source)
    if not (folder / TABLE).exists() and folder not in (given, spec.path):
        prepare(str(spec.source), folder)
    return folder


def _check_spec(spec: StudySpec, path: Path) -> None:
    """SpecError, naming the keys, when another study has this name."""
    if path.exists():
        try:
            before = json.loads(path.read_text())
            known, old = before["hash"], _flat(before["identity"])
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path} is damaged; give the study another `name`, or remove its folder") from None
        if known != spec.hash:
            new = _flat(json.loads(json.dumps(spec.identity)))
            changed = [
                f"`{key}` was {old.get(key)!r} and is {new.get(key)!r}"
                for key in sorted(old.keys() | new.keys())
                if old.get(key) != new.get(key)
            ]
            raise SpecError(
                f"a study {spec.name!r} is in {path.parent} already, with another study file: {'; '.join(changed)}. "
                "Give this one another `name`, or put the file back to go on with that one"
            )


def _keep_spec(spec: StudySpec, path: Path) -> None:
    """Write the study file's content; where tracking goes is left out, it may hold a password."""
    whole = spec.model_dump(mode="json", exclude={"tracking"})
    document = {"hash": spec.hash, "identity": spec.identity, "spec": whole}
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


def _make_split(spec: StudySpec, genes: Genes) -> Split:
    """The study's split; DataError where a part has too few measured levels of a target to be judged by."""
    known = {target: np.isfinite(genes.target(target)) for target in spec.targets}
    split = make_split(genes, spec.split, spec.data.window_bp, np.any(list(known.values()), axis=0))
    for target, part in product(known, PARTS):
        rows = getattr(split, part)
        if known[target][rows].sum() < FEWEST_LABELS:
            raise DataError(
                f"only {known[target][rows].sum()} of the {len(rows)} {part} genes have a {target} level, and at least "
                f"{FEWEST_LABELS} are needed; raise `split.{part}`, choose another `split.seed`, or leave {target} out"
                if part != "train"
                else f"only {known[target][rows].sum()} training genes have a {target} level; leave {target} out"
            )
    return split


if __name__ == "__main__":
    from raystudy.cli import tune_module

    tune_module()
