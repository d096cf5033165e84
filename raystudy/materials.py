"""What a study works with: its genes, their split and folds, its baselines' tables, opened and checked beforehand."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from raystudy.data.batches import FeatureScale, GeneInputs, half_life_values, sealed_labels
from raystudy.data.genes import TABLE, Genes
from raystudy.data.sources import prepare
from raystudy.data.splits import PARTS, Split, make_folds, make_split
from raystudy.data.tables import GeneFeatures, read_features
from raystudy.errors import DataError, SpecError
from raystudy.study.sections import DataSpec, FeatureTable
from raystudy.study.space import derive_seed
from raystudy.study.spec import StudySpec
from raystudy.tracking.identity import check_spec, keep_spec
from raystudy.tracking.predictions import write_predictions
from raystudy.tracking.records import Records

FEWEST_LABELS = 5


def in_ray_job() -> bool:
    """Is this what `ray job submit` started? Its working directory is then a copy that Ray throws away."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def studies_folder() -> Path:
    """Where studies, prepared data and MLflow's database stand.

    RAYSTUDY_HOME, else ``studies`` here; in a Ray job ``~/raystudy/studies``, where SpecError refuses a relative
    RAYSTUDY_HOME: it would go away with the job.
    """
    chosen = os.environ.get("RAYSTUDY_HOME")
    if not in_ray_job():
        return Path(chosen or "studies")
    if chosen and not Path(chosen).is_absolute():
        raise SpecError(
            f"RAYSTUDY_HOME={chosen} is a relative path, and the working directory of a Ray job is deleted after it; "
            "give an absolute one that every machine of the cluster reaches, or leave it out: results are then in "
            "~/raystudy/studies on the head"
        )
    return Path(chosen) if chosen else Path.home() / "raystudy" / "studies"


def prepared_folder(spec: DataSpec, given: Path | None = None) -> Path:
    """The folder of prepared data: the one given, the study file's path, or its source's, prepared on first use."""
    folder = given or spec.path or studies_folder() / "data" / str(spec.source)
    if not (folder / TABLE).exists() and folder not in (given, spec.path):
        prepare(str(spec.source), folder)
    return folder


@dataclass(frozen=True)
class Materials:
    """One study's data, as every step of it sees them."""

    spec: StudySpec
    records: Records
    data_folder: Path
    genes: Genes
    split: Split
    folds: list[Split]
    """What the finalists are trained on again: the split itself, or its genes parted anew."""
    features: dict[FeatureTable, GeneFeatures]

    @classmethod
    def open(cls, spec: StudySpec, records: Records, data: Path | None) -> Self:
        """Open and check everything, then claim the study's name and keep its split.

        A mistake must not claim the name, nor leave a split to go by, so nothing is written before all is checked.
        Raises SpecError where the name is another study's, DataError where data and study do not go together.
        """
        folder = records.folder
        check_spec(spec, folder / "spec.json")
        data_folder = prepared_folder(spec.data, data)
        genes = Genes.open(data_folder)
        genes.windows(spec.data.window_bp)
        claimed = (folder / "spec.json").exists() and (folder / "split.json").exists()
        split = Split.load(folder / "split.json", genes) if claimed else _make_split(spec, genes)
        num_folds = spec.replicates.folds
        if claimed and num_folds > 1:
            folds = [Split.load(_fold_path(folder, number), genes) for number in range(num_folds)]
        else:
            folds = make_folds(split, genes, spec.split, spec.data.window_bp, _labelled(spec, genes), num_folds)
            for number, fold in enumerate(folds):
                _check_labels(spec, genes, fold, f"fold {number}: " if num_folds > 1 else "")
            for share, part in training_parts(spec, split).items():
                _check_labels(spec, genes, part, f"`training_sizes` {share:g}: ")
        for model in spec.networks:
            feature_scale = FeatureScale.fit(half_life_values(genes.features, model), split.train)
            GeneInputs.of(genes, model, feature_scale)
        features = _read_feature_tables(spec, genes, split, missing_baselines(spec, records))
        if not claimed:
            split.save(folder / "split.json", genes)
            for number, fold in enumerate(folds if num_folds > 1 else []):
                fold.save(_fold_path(folder, number), genes)
        keep_spec(spec, folder / "spec.json")  # also again: budget, machines and prices may have changed
        return cls(spec, records, data_folder, genes, split, folds, features)

    def keep_predictions(self, name: str, predicted: npt.NDArray[np.floating], split: Split, opened: bool) -> None:
        """Keep predictions for every gene in the labels' own units, with the test labels only once they are opened."""
        targets = self.spec.targets
        if opened:
            measured = np.stack([self.genes.target(target) for target in targets], axis=1)
        else:
            measured = sealed_labels(self.genes, targets, split)
        parts = {part: getattr(split, part) for part in PARTS}
        write_predictions(self.records.folder, name, self.genes.gene_ids, parts, targets, predicted, measured)


def _fold_path(folder: Path, number: int) -> Path:
    return folder / f"split-fold{number}.json"


def _labelled(spec: StudySpec, genes: Genes) -> npt.NDArray[np.bool_]:
    """Which genes have a level of any target."""
    labelled: npt.NDArray[np.bool_] = np.any([np.isfinite(genes.target(target)) for target in spec.targets], axis=0)
    return labelled


def _make_split(spec: StudySpec, genes: Genes) -> Split:
    split = make_split(genes, spec.split, spec.data.window_bp, _labelled(spec, genes))
    _check_labels(spec, genes, split, "")
    return split


def training_parts(spec: StudySpec, split: Split) -> dict[float, Split]:
    """The split with each share of its training genes: the first of one random order, so that parts are nested."""
    order = np.random.default_rng(derive_seed(spec.hash, "sizes")).permutation(split.train)
    return {share: replace(split, train=np.sort(order[: round(share * len(order))])) for share in spec.training_sizes}


def _check_labels(spec: StudySpec, genes: Genes, split: Split, where: str) -> None:
    """DataError where a part has too few measured levels of a target to be judged by."""
    for target, part in product(spec.targets, PARTS):
        rows = getattr(split, part)
        known = int(np.isfinite(genes.target(target)[rows]).sum())
        if known < FEWEST_LABELS:
            raise DataError(
                f"{where}only {known} of the {len(rows)} {part} genes have a {target} level, and at least "
                f"{FEWEST_LABELS} are needed; raise `split.{part}`, choose another `split.seed`, or leave {target} out"
                if part != "train"
                else f"{where}only {known} training genes have a {target} level; leave {target} out"
            )


def missing_baselines(spec: StudySpec, records: Records) -> set[tuple[str, int | None]]:
    """The baselines still to be fitted: on the split itself (None), and on each fold where there are several."""
    record = records.read()
    fitted: set[tuple[str, int | None]] = {(line["name"], None) for line in record.baselines}
    fitted |= {(line["name"], line["fold"]) for line in record.every("fold_baseline")}
    folds = range(spec.replicates.folds) if spec.replicates.folds > 1 else ()
    return set(product(spec.baseline_names, (None, *folds))) - fitted


def _read_feature_tables(
    spec: StudySpec, genes: Genes, split: Split, missing: set[tuple[str, int | None]]
) -> dict[FeatureTable, GeneFeatures]:
    """The tables of the baselines still to be fitted. DataError where one knows nothing of the training genes."""
    found, names = {}, {name for name, _ in missing}
    for one in spec.baselines:
        if isinstance(one, FeatureTable) and names & {one.arm(model) for model in one.models}:
            found[one] = read_features(one.features, genes.gene_ids)
            if not np.isfinite(found[one].values[split.train]).any():
                raise DataError(
                    f"{one.features} has no value for any of the {len(split.train)} training genes; nothing can be "
                    "fitted to that. Give a table of the genes in the data"
                )
    return found
