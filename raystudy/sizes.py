"""What more training genes are worth: the best finalist and the baselines trained again on parts of them.

Nested random parts of the training genes, judged on all of the validation genes; the test genes have no part in it.
"""

from __future__ import annotations

from dataclasses import replace

from raystudy.data.splits import Split
from raystudy.errors import Infeasible, Reason, TrialFailed
from raystudy.execution.capacity import Capacity
from raystudy.finalists import baseline_scores, workers_of
from raystudy.materials import Materials, training_parts
from raystudy.models.baselines import counted_features
from raystudy.progress import Progress
from raystudy.report.compare import best_finalist
from raystudy.study.space import derive_seed
from raystudy.tracking.records import TrialRecord


def train_on_parts(study: Materials, capacity: Capacity, progress: Progress) -> None:
    """Record a ``training_size`` event for each share and model, as far as there is none yet."""
    known = {line["name"] for line in study.records.read().every("training_size")}
    parts = training_parts(study.spec, study.split)
    counted = [str(one) for one in study.spec.baselines if isinstance(one, str)]
    missing = [(name, share) for share in parts for name in counted if _name(name, share) not in known]
    if missing:
        with progress.stage("baselines on fewer genes"):
            features = counted_features(study.genes, study.spec.networks)
            for name, share in missing:
                found, _ = baseline_scores(study, name, features, parts[share])
                _record(study, name, share, parts[share], kind="baseline", valid_r2=found["valid_r2"])
    finalist = best_finalist(study.records.read())
    if finalist is None or finalist.best_replicate is None:
        return
    for share, part in parts.items():
        if _name(finalist.trial, share) not in known:
            with progress.stage(f"{finalist.trial} on {share:.0%} of the training genes"):
                num_workers = workers_of(study, finalist.best_replicate, capacity)
                _train(study, finalist.best_replicate, share, part, num_workers)


def _train(study: Materials, replicate: TrialRecord, share: float, part: Split, num_workers: int) -> None:
    """The finalist's configuration and number of epochs on fewer genes; what fails for good is recorded as such."""
    from raystudy.execution.task import Task
    from raystudy.execution.trainer import train_finalist

    spec, records, trial = study.spec, study.records, replicate.id.rpartition("-r")[0]
    name = _name(trial, share)
    folder = records.folder / "sizes" / name
    folder.mkdir(parents=True, exist_ok=True)
    part.save(folder / "split.json", study.genes)
    task = replace(
        Task.of(replicate, spec, records, study.data_folder),
        trial_id=name,
        seed=derive_seed(replicate.seed, "size", share),
        folder=str(folder.resolve()),
        split_path=str((folder / "split.json").resolve()),
        predicts=False,
        reference=False,
    )
    for retries in (2, 1, 0):
        try:
            history = train_finalist(task, num_workers, spec.resources, records.folder / "ray")
        except (TrialFailed, Infeasible) as failure:
            lost = isinstance(failure, TrialFailed) and failure.reason in (Reason.PREEMPTED, Reason.WORKER_LOST)
            if lost and retries:
                continue  # from its last epoch
            _record(study, trial, share, part, kind="network", valid_r2=None, detail=str(failure))
        else:
            best = max(epoch["valid_r2"] for epoch in history)
            _record(study, trial, share, part, kind="network", valid_r2=best, epochs=len(history))
        return


def _record(study: Materials, model: str, share: float, part: Split, **found: object) -> None:
    name, num_train = _name(model, share), len(part.train)
    study.records.append("training_size", name=name, model=model, fraction=share, num_train=num_train, **found)


def _name(model: str, share: float) -> str:
    return f"{model}-s{share * 100:g}"
