"""After the search: the best trials trained again on every fold with every seed, and the test genes opened once."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from raystudy.data.batches import LabelScale, sealed_labels
from raystudy.data.splits import Split
from raystudy.errors import Reason, StudyFailed, TrialFailed
from raystudy.execution.capacity import Capacity, finalist_workers
from raystudy.materials import Materials, missing_baselines
from raystudy.models.baselines import counted_features, fit_baseline
from raystudy.progress import Progress
from raystudy.search.retries import may_go_on, parts_of_batch
from raystudy.study.sections import FeatureTable
from raystudy.study.space import derive_seed
from raystudy.tracking.predictions import read_predictions
from raystudy.tracking.records import Records, TrialRecord, TrialState
from raystudy.training.metrics import scores
from raystudy.training.reference import read_test_epochs
from raystudy.training.selection import choose_finalists, open_test, selection_bias


def fit_baselines(study: Materials) -> None:
    """Fit what has not been fitted; predictions for every gene are kept, test labels are not read.

    Each is fitted on the study's split, and where finalists are trained on folds, on each of these too.
    """
    missing = missing_baselines(study.spec, study.records)
    if not missing:
        return
    counted = counted_features(study.genes, study.spec.networks)
    read = ", ".join(sorted(study.spec.inputs))
    for one in study.spec.baselines:
        origin: dict[str, Any]
        if isinstance(one, FeatureTable):
            if one not in study.features:
                continue
            table = study.features[one]
            arms, features = {one.arm(model): str(model) for model in one.models}, table.values
            origin = {
                "table": str(one.features),
                "sha256": table.sha256,
                "genes_without_features": table.num_missing,
                "rows_of_other_genes": table.num_unknown,
            }
        else:
            arms, features, origin = {str(one): str(one)}, counted, {"counted_from": read}
        for name, fold in sorted(missing, key=str):
            if name in arms and fold is None:
                found = _fit(study, name, arms[name], features, study.split)
                study.records.append("baseline", name=name, num_features=features.shape[1], **found, **origin)
            elif name in arms and fold is not None:
                found = _fit(study, _on_fold(name, fold), arms[name], features, study.folds[fold])
                study.records.append("fold_baseline", name=name, fold=fold, **found)


def _fit(study: Materials, identity: str, model: str, features: Any, split: Split) -> dict[str, float]:
    """What it reaches on the validation genes; its predictions are kept as ``identity``'s."""
    started = time.perf_counter()
    found, predicted = baseline_scores(study, model, features, split)
    study.keep_predictions(identity, predicted, split, opened=False)
    return found | {"seconds": time.perf_counter() - started}


def baseline_scores(
    study: Materials, model: str, features: Any, split: Split
) -> tuple[dict[str, float], npt.NDArray[np.float64]]:
    """A baseline's validation scores on a split, and its predictions of all genes in the labels' own units, [n, K]."""
    targets = study.spec.targets
    labels = sealed_labels(study.genes, targets, split)
    scale = LabelScale.fit(labels[split.train], targets)
    standardised, valid = scale.standardise(labels), split.valid
    predicted = fit_baseline(model, features, standardised, split)
    found = scores(standardised[valid], predicted[valid], targets)
    return {f"valid_{name}": value for name, value in found.items()}, scale.to_unit(predicted)


def train_finalists(study: Materials, capacity: Capacity, progress: Progress) -> None:
    """Retrain the best trials, as far as the records say that is still to be done.

    Raises StudyFailed where not one replicate of them could be trained.
    """
    spec, records = study.spec, study.records
    record = records.read()
    begun = {one.id: one for one in record.finalists}
    none_complete = all(one.state is not TrialState.COMPLETE for one in record.finalists)
    for trial in choose_finalists(record.trials, spec.finalists):
        for finalist in _replicates(study, trial, capacity):
            # One that was begun goes on with the batches it began with, whatever the cluster is now.
            finalist = begun.get(finalist.id, finalist)
            if finalist.state is TrialState.COMPLETE or (finalist.state is TrialState.FAILED and not none_complete):
                continue
            _close_lost_attempt(records, finalist)
            num_workers = workers_of(study, finalist, capacity)
            with progress.stage(f"retraining {finalist.id} on {num_workers} workers"):
                state = TrialState.RUNNING
                while state is TrialState.RUNNING:
                    parts = trial.micro_batches * parts_of_batch(finalist)
                    records.trial_started(finalist, micro_batches=parts)
                    _attempt(study, records.read_trial(finalist.id), num_workers)
                    finalist = records.read_trial(finalist.id)
                    state = finalist.state
    finalists = records.read().finalists
    if not any(one.state is TrialState.COMPLETE for one in finalists):
        reasons = "; ".join(f"{one.id}: {one.explanation}" for one in finalists)
        raise StudyFailed(f"no finalist could be retrained ({reasons}); the same command tries again")


def _attempt(study: Materials, finalist: TrialRecord, num_workers: int) -> None:
    """One attempt, which goes on from the last checkpoint of the one before; how it ended is on record."""
    from raystudy.execution.task import Task
    from raystudy.execution.trainer import finalist_predictions, train_finalist

    spec, records = study.spec, study.records
    task = Task.of(finalist, spec, records, study.data_folder)
    try:
        history = train_finalist(task, num_workers, spec.resources, records.folder / "ray")
        study.keep_predictions(finalist.id, finalist_predictions(task), study.folds[finalist.fold], opened=False)
        on_record = {epoch["epoch"] for epoch in finalist.epochs}
        for metrics in history:
            if metrics["epoch"] not in on_record:
                records.trial_epoch(finalist.id, metrics)
        records.trial_ended(finalist.id, TrialState.COMPLETE)
    except TrialFailed as failure:
        state = TrialState.INTERRUPTED if may_go_on(finalist, failure.reason) else TrialState.FAILED
        records.trial_ended(finalist.id, state, failure.reason, failure.detail)
    except KeyboardInterrupt:
        if records.read_trial(finalist.id).attempts[-1].state is TrialState.RUNNING:
            records.trial_ended(finalist.id, TrialState.INTERRUPTED, Reason.INTERRUPTED)
        raise


def workers_of(study: Materials, finalist: TrialRecord, capacity: Capacity) -> int:
    """On how many workers a finalist is trained: those that its batch was shared out to.

    Rows of a published table keep the batches that BatchNorm saw: fewer workers take more of them, one after another.
    """
    batch_size, global_batch = int(finalist.config["batch_size"]), finalist.global_batch or 1
    if study.spec.published is None:
        return global_batch // batch_size
    most = study.spec.most_finalist_workers(finalist.arm)
    return finalist_workers(study.spec.resources, capacity, global_batch, most)


def _close_lost_attempt(records: Records, finalist: TrialRecord) -> None:
    """A driver that was killed left its attempt open."""
    if finalist.attempts and finalist.attempts[-1].state is TrialState.RUNNING:
        records.trial_lost_with_driver(finalist)


def _replicates(study: Materials, trial: TrialRecord, capacity: Capacity) -> list[TrialRecord]:
    """The trial again on each fold with each seed, its global batch shared by every worker that fits."""
    spec = study.spec
    global_batch = trial.global_batch or trial.config["batch_size"]
    batch_size = trial.config["batch_size"]
    if spec.published is None:
        batch_size = global_batch // finalist_workers(spec.resources, capacity, global_batch)
    return [
        replace(
            trial,
            id=f"{trial.id}-r{fold * spec.replicates.seeds + number}",
            config={**trial.config, "batch_size": batch_size},
            seed=derive_seed(trial.seed, "finalist", fold, number),
            origin="finalist",
            global_batch=global_batch,
            fold=fold,
            replicate=number,
            attempts=[],
        )
        for fold in range(spec.replicates.folds)
        for number in range(spec.replicates.seeds)
    ]


def open_the_test(study: Materials) -> None:
    """Score everything that was predicted on the test genes: the one place where their labels are read."""
    record, targets = study.records.read(), study.spec.targets
    if record.last("study_finished") is not None:
        return
    complete = [one for one in record.finalists if one.state is TrialState.COMPLETE]
    split_of = {one.id: study.folds[one.fold] for one in complete}
    split_of |= {line["name"]: study.split for line in record.baselines}
    split_of |= {
        _on_fold(line["name"], line["fold"]): study.folds[line["fold"]] for line in record.every("fold_baseline")
    }
    predicted = {name: read_predictions(study.records.folder, name, study.genes.gene_ids, targets) for name in split_of}
    if not record.test_scores:  # a driver may have been killed after it
        found = open_test(study.genes, targets, study.split, predicted)
        for one in complete if study.spec.protocol == "reference" else []:
            epochs = read_test_epochs(study.records.trial_folder(one.id), len(one.epochs))
            found[one.id] |= selection_bias(study.genes, targets, study.split, epochs, one.best_epoch or 1)
        study.records.append("test_opened", scores=found)
    for name, split in split_of.items():  # only now: labels in a file are opened labels
        study.keep_predictions(name, predicted[name], split, opened=True)


def _on_fold(baseline: str, fold: int) -> str:
    return f"{baseline}-fold{fold}"
