"""A study from its file to its report; reads as the story of one. Run as ``python -m raystudy.tune [STUDY.yaml]``."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from raystudy.dimension.consensus import DimensionEstimate
from raystudy.dimension.seeding import dimension_of, representation_for, seed_widths
from raystudy.errors import DataError, Infeasible, RaystudyError, SpecError, StudyFailed
from raystudy.execution import remote_address
from raystudy.execution.capacity import Capacity, declared
from raystudy.execution.cluster import ray_cluster
from raystudy.export import export_best
from raystudy.finalists import fit_baselines, open_the_test, train_finalists
from raystudy.materials import Materials, studies_folder
from raystudy.models.build import count_parameters
from raystudy.plan import as_it_runs_here, make_plan, this_machine, widest_affordable
from raystudy.progress import Progress
from raystudy.report.compare import best_finalist
from raystudy.report.page import write_page
from raystudy.search.importances import importances
from raystudy.search.policy import Origin, SearchPolicy
from raystudy.sizes import train_on_parts
from raystudy.study.reduced import changed
from raystudy.study.space import conditions_of
from raystudy.study.spec import StudySpec
from raystudy.tracking.mlflow import MlflowMirror, without_password
from raystudy.tracking.provenance import provenance
from raystudy.tracking.records import Records, StudyRecord
from raystudy.training.exported import read_config
from raystudy.training.selection import choose_finalists

if TYPE_CHECKING:  # Ray is imported when a search begins, not for reading a study
    from raystudy.execution.preflight import Preflight

log = logging.getLogger(__name__)

DEFAULT_STUDY = Path("search_spaces/yeast.yaml")


def run_study(spec: StudySpec, progress: Progress, data: Path | None = None) -> StudyRecord:
    """Run or take up a study: data, split, dimension, baselines, search, finalists, test, report.

    Where there is no GPU, it is the study that its `reduced` section makes of it. ``data`` is a prepared folder to use
    instead of the study file's. Everything that can be wrong with the study file, the data or the machine is found
    before the first trial. Raises RaystudyError.
    """
    whole, spec = spec, as_it_runs_here(spec)
    plan = make_plan(spec, this_machine())
    if not plan["feasible"] and remote_address() is None:
        raise Infeasible(f"study {spec.name!r} cannot run here: {'; '.join(plan['problems'])}")
    folder = studies_folder() / spec.name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            return _Study(spec, folder, progress, data).run(whole)
    except SpecError as error:
        if whole is spec:
            raise
        raise SpecError(f"{error}. (Here is no GPU, so the file's `reduced` section applies.)") from None
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
        begun = self.records.read().last("warm_start")
        self.warm = _warm_points(spec) if begun is None else begun
        with progress.stage("data"):
            self.study = Materials.open(spec, self.records, data)
        self.mirror = MlflowMirror(spec.tracking.uri, self.records)

    def run(self, whole: StudySpec) -> StudyRecord:
        """``whole`` is the study before it was reduced."""
        genes = self.study.genes
        self.records.append(
            "session_started",
            spec_hash=self.spec.hash,
            data={
                "hash": genes.hash,
                "num_genes": genes.num_genes,
                "source": genes.source,
                "units": genes.units,
                "unknown": genes.notes.get("unknown"),
            },
            split=self.study.split.summary(),
            folds=[fold.summary() for fold in self.study.folds] if len(self.study.folds) > 1 else None,
            provenance=provenance(),
            tracking=without_password(self.mirror.uri),
        )
        if whole != self.spec:
            sizes = {
                arm.name: count_parameters(whole.configure(arm.overrides)[0], len(whole.targets)) for arm in whole.arms
            }
            against = {arm.name: arm.against for arm in whole.arms}
            self.records.append(
                "reduced",
                changes=changed(whole, self.spec),
                whole_parameters=sizes,
                whole_against=against,
                study_file=whole.model_dump(mode="json", exclude_unset=True, exclude={"tracking"}),
            )
        self._seed_search_points()
        with self.progress.stage("baselines"):
            fit_baselines(self.study)
        self._train()
        open_the_test(self.study)
        if self.records.read().last("study_finished") is None:
            self.records.append("study_finished", seconds=self.records.read().seconds)
        with self.progress.stage("report"):
            record = self.records.read()
            write_page(record)
            self.mirror.sync(record)
        with self.progress.stage("export"):
            self._export(record)
        return record

    def _export(self, record: StudyRecord) -> None:
        """Everything is known by now, so what goes wrong here is told and ends nothing."""
        try:
            export, best = export_best(record), best_finalist(record)
            if export is not None and best is not None and best.best_replicate is not None:
                self.mirror.register(export, best.best_replicate.id, read_config(export).numbers)
        except (RaystudyError, OSError) as error:
            log.warning(f"the winner was not exported ({error}); `raystudy export {record.name} --out DIR` tries again")

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
            genes, train = self.study.genes, self.study.split.train
            found = dimension_of(genes, window_bp, representation, rows=train, cache_folder=cache)
            estimate = DimensionEstimate.from_json(found)
            seeded = seed_widths(estimate, width.low, width.high, widest_affordable(self.spec))
            self.records.append(
                "dimension",
                **found,
                seeded={"widths": seeded.widths, "clamped": seeded.clamped, "provenance": seeded.provenance},
            )

    def _train(self) -> None:
        """Search and retrain the finalists, as far as the records say that is still to be done."""
        record = self.records.read()
        if record.test_scores:
            return
        with ExitStack() as running:
            with self.progress.stage("starting Ray"):
                nodes = running.enter_context(ray_cluster())
            capacity = declared(self.spec.cluster or ()) if self._may_grow else nodes
            plan = make_plan(self.spec, capacity)
            if not plan["feasible"]:
                raise Infeasible(f"study {self.spec.name!r} cannot run here: {'; '.join(plan['problems'])}")
            preflight = None if remote_address() is None else self._look_at_every_machine()
            if record.last("search_finished") is None:
                self._search(capacity, preflight)
            train_finalists(self.study, capacity, self.progress)
            train_on_parts(self.study, capacity, self.progress)

    @property
    def _may_grow(self) -> bool:
        """Are trials to ask for more nodes than there are yet? Not on a machine alone."""
        return self.spec.cluster is not None and remote_address() is not None

    def _look_at_every_machine(self) -> Preflight:
        """Those of a cluster may be unlike this one; RaystudyError where a trial could not run there."""
        from raystudy.execution.preflight import PATIENCE_SECONDS, Preflight

        preflight = Preflight(self.spec, self.records.folder, self.study.data_folder)
        with self.progress.stage("looking at every machine"):
            preflight.look(PATIENCE_SECONDS)
        return preflight

    def _search(self, capacity: Capacity, preflight: Preflight | None = None) -> None:
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
                point = {**conditions_of("latent_dim", self.spec.search), "latent_dim": width}
                policy.enqueue(point, Origin("seeded", provenance=seeded["provenance"]))
            for point in self._warm_start():
                policy.enqueue(point["values"], Origin("warm", provenance={"trial": point["trial"]}))
            search(self.spec, self.records, policy, self.study.data_folder, capacity, self._may_grow, preflight)
            reason = policy.finished_reason
            if reason is None:
                raise StudyFailed("Ray Tune ended before the search had; everything is kept, the same command goes on")
            policy.close()
        record = self.records.read()
        if not choose_finalists(record.trials, 1):
            reasons = "; ".join(sorted({f"{trial.state}: {trial.explanation}" for trial in record.trials}))
            raise StudyFailed(
                f"none of {len(record.trials)} trials ended with a validation R2 ({reasons}); correct the cause, then "
                "raise `budget.trials` to go on, or give the study another `name`"
            )
        if self.spec.search:
            self.records.append("importances", **importances(self.spec, record.trials))
        self.records.append(
            "search_finished",
            reason=reason,
            trials=len(record.trials),
            cost=policy.cost,
            currency=self.spec.prices.currency,
            duplicates=len({line["number"] for line in record.every("duplicate")}),
        )

    def _warm_start(self) -> list[dict[str, Any]]:
        """The points of the earlier study, as this study found them when it began: that one may go on meanwhile."""
        if self.warm is None:
            return []
        if self.records.read().last("warm_start") is None:
            self.records.append("warm_start", **self.warm)
        return list(self.warm["points"])


def _warm_points(spec: StudySpec) -> dict[str, Any] | None:
    """The best configurations of the study to start from, as far as this study's space has them.

    DataError where there is no such study, or nothing of it can be tried here.
    """
    if spec.warm_start is None:
        return None
    folder = studies_folder() / spec.warm_start.study
    earlier = choose_finalists(Records(folder).read().trials, spec.warm_start.trials)
    if not earlier:
        raise DataError(
            f"`warm_start.study`: no trial of a study {spec.warm_start.study!r} with a validation R2 is in "
            f"{studies_folder()}; correct the name, or run that study first"
        )
    points, skipped = [], []
    for trial in earlier:
        values = spec.applying({key: trial.config[key] for key in spec.search if key in trial.config})
        outside = [f"{key} {value}" for key, value in values.items() if not spec.search[key].allows(value)]
        if outside or not values:
            reason = f"not in the space: {', '.join(outside)}" if outside else "none of the searched keys"
            skipped.append({"trial": trial.id, "reason": reason})
        else:
            points.append({"trial": trial.id, "values": values})
    if not points:
        reasons = "; ".join(f"{one['trial']} ({one['reason']})" for one in skipped)
        raise DataError(f"`warm_start`: none of the best trials of {spec.warm_start.study!r} can be tried: {reasons}")
    return {"study": spec.warm_start.study, "points": points, "skipped": skipped}


if __name__ == "__main__":
    from raystudy.cli import tune_module

    tune_module()
