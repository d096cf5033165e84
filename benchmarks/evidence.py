"""What a study that was killed must have left behind: everything once, and nothing that an unkilled one has not.

Each check yields the facts that do not hold, in words. They read what the study wrote (records, Optuna's storage,
MLflow's runs, checkpoints, the report) and no memory of the processes that wrote it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from raystudy.tracking.records import StudyRecord, TrialRecord, TrialState
from raystudy.training import checkpoint

TOLD = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
    TrialState.INFEASIBLE: OptunaState.PRUNED,
}


@dataclass(frozen=True)
class Tracked:
    """One MLflow run: the trial (``study`` for the study's own), its status and the epochs of its validation R2."""

    trial_id: str
    status: str
    epochs: list[int]


@dataclass
class Evidence:
    """What a study that has ended left behind."""

    record: StudyRecord
    stored: Sequence[FrozenTrial]
    tracked: Sequence[Tracked]
    report: dict[str, Any] | None
    exit_code: int | None


def losses(found: Evidence, study: dict[str, Any], unkilled: StudyRecord | None = None) -> list[str]:
    """Every fact that does not hold of a study that has ended, in words; compared with an unkilled one where given."""
    return [
        *_wrong_count(found.record, study),
        *(wrong for trial in [*found.record.trials, *found.record.finalists] for wrong in _wrong_trial(trial, found)),
        *_wrong_storage(found, study),
        *_wrong_tracking(found),
        *_wrong_ending(found, study),
        *(_unlike(found.record, unkilled) if unkilled else ()),
    ]


def counted(record: StudyRecord) -> list[TrialRecord]:
    """The trials that the budget counts."""
    return [trial for trial in record.trials if trial.state is not TrialState.INFEASIBLE]


def _wrong_count(record: StudyRecord, study: dict[str, Any]) -> Iterator[str]:
    trials = counted(record)
    if len(trials) != study["budget"]["trials"]:
        yield f"{len(trials)} trials instead of {study['budget']['trials']}"
    for what, times in Counter((trial.config_hash, trial.seed) for trial in trials).items():
        if times > 1:
            yield f"configuration {what[0][:8]} with seed {what[1]} is there {times} times"
    for config_hash, times in Counter(trial.config_hash for trial in trials if trial.origin == "sampled").items():
        if times > 1:
            yield f"configuration {config_hash[:8]} was sampled {times} times"
    arms = Counter(trial.arm for trial in trials if trial.arm)
    for arm in study["arms"]:
        if arms[arm["name"]] != 1:
            yield f"arm {arm['name']} is there {arms[arm['name']]} times"
    widths = (record.last("dimension") or {}).get("seeded", {}).get("widths", [])
    seeded = [trial.config["latent_dim"] for trial in trials if trial.origin == "seeded"]
    if sorted(seeded) != sorted(widths):
        yield f"seeded widths {widths}, but trials of {seeded}"
    if len(record.finalists) != 1:
        yield f"{len(record.finalists)} finalists instead of 1"


def _wrong_trial(trial: TrialRecord, found: Evidence) -> Iterator[str]:
    """An ending that is none of the study's own, and epochs lost, repeated, or not those of the weights."""
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.INFEASIBLE):
        yield f"{trial.id} is {trial.state}: {trial.reason}"
    epochs = [epoch["epoch"] for attempt in trial.attempts for epoch in attempt.epochs]
    if repeated := sorted(epoch for epoch, times in Counter(epochs).items() if times > 1):
        yield f"{trial.id}: epochs {repeated} are in the record more than once"
    due = trial.config["epochs"] if trial.state is TrialState.COMPLETE else max(epochs, default=0)
    if missing := sorted(set(range(1, due + 1)) - set(epochs)):
        yield f"{trial.id} is {trial.state} without epochs {missing}"
    if [attempt.number for attempt in trial.attempts] != list(range(1, len(trial.attempts) + 1)):
        yield f"{trial.id}: attempts are numbered {[attempt.number for attempt in trial.attempts]}"
    for attempt in trial.attempts[:-1]:
        if attempt.state != "interrupted" or not attempt.reason:
            yield f"{trial.id}: attempt {attempt.number} was lost, but is {attempt.state} ({attempt.reason})"
    kind = "finalists" if trial in found.record.finalists else "trials"
    weights = found.record.folder / kind / trial.id / checkpoint.LAST
    if epochs and not weights.exists():
        yield f"{trial.id} has no checkpoint"
    elif epochs:  # each training of an epoch takes a time of its own: other seconds, another training
        trained = {one["epoch"]: one["epoch_seconds"] for one in checkpoint.load(weights)[1]["history"]}
        for epoch in trial.epochs:
            if trained.get(epoch["epoch"]) != epoch["epoch_seconds"]:
                yield f"{trial.id}: epoch {epoch['epoch']} on record is not the one that its weights were trained in"


def _wrong_storage(found: Evidence, study: dict[str, Any]) -> Iterator[str]:
    """Where Optuna's storage says something else than the records."""
    stored = {f"t{trial.number:04d}": trial for trial in found.stored}
    known = {trial.id: trial for trial in found.record.trials}
    for trial_id in known.keys() - stored.keys():
        yield f"{trial_id} is not in Optuna's storage"
    for trial_id, there in stored.items():
        ours = known.get(trial_id)
        if ours is None:  # a duplicate, or killed between asking and recording, which must not count as a result
            if "duplicate_of" not in there.user_attrs and there.state is not OptunaState.FAIL:
                yield f"{trial_id} is {there.state.name} in Optuna's storage and not in the records"
            continue
        if there.state is not TOLD.get(ours.state):
            yield f"{trial_id} is {ours.state}, but {there.state.name} in Optuna's storage"
        if ours.state is TrialState.COMPLETE and there.values != [ours.valid_r2]:
            yield f"{trial_id} reached {ours.valid_r2}, but {there.values} in Optuna's storage"
        for attribute, said in (("state", ours.state.value), ("reason", ours.reason)):
            if there.user_attrs.get(f"raystudy.{attribute}", said) != said:
                yield f"{trial_id}: {attribute} {said}, but {there.user_attrs[f'raystudy.{attribute}']} in the storage"
        rungs = {epoch["epoch"]: epoch["valid_r2"] for epoch in ours.epochs}
        if study["pruner"] != "none" and ours.arm is None and there.intermediate_values != rungs:
            yield f"{trial_id}: the pruner knows epochs {there.intermediate_values}, the record {rungs}"


def _wrong_tracking(found: Evidence) -> Iterator[str]:
    """Where MLflow has not exactly one whole run of the study, of each trial and of each finalist."""
    trials = {trial.id: trial for trial in [*found.record.trials, *found.record.finalists]}
    times = Counter(run.trial_id for run in found.tracked)
    for trial_id in ["study", *trials, *sorted(times.keys() - trials.keys() - {"study"})]:
        due = int(trial_id in trials or trial_id == "study")
        if times[trial_id] != due:
            yield f"{trial_id} has {times[trial_id]} MLflow runs instead of {due}"
    for run in found.tracked:
        if run.trial_id != "study" and run.trial_id in trials:
            epochs = [epoch["epoch"] for epoch in trials[run.trial_id].epochs]
            if run.epochs != epochs:
                yield f"{run.trial_id}: MLflow has epochs {run.epochs}, the record {epochs}"
        ended = trials[run.trial_id].state if run.trial_id in trials else TrialState.COMPLETE
        if ended in (TrialState.COMPLETE, TrialState.PRUNED) and run.status != "FINISHED":
            yield f"{run.trial_id} is {run.status} in MLflow"


def _wrong_ending(found: Evidence, study: dict[str, Any]) -> Iterator[str]:
    """What happens once in a study, and the answer of its last session."""
    for event in ("dimension", "search_finished", "test_opened", "study_finished"):
        if (times := len(found.record.every(event))) != 1:
            yield f"{event} is on record {times} times"
    fitted = sorted(line["name"] for line in found.record.every("baseline"))
    if fitted != sorted(study["baselines"]):
        yield f"baselines {fitted} were fitted instead of {sorted(study['baselines'])}"
    scored = {trial.id for trial in found.record.finalists} | set(study["baselines"])
    if found.record.test_scores.keys() != scored:
        yield f"scored on test genes: {sorted(found.record.test_scores)} instead of {sorted(scored)}"
    if found.exit_code != 0:
        yield f"the last session ended with {found.exit_code}"
    if found.report is None or not found.report.get("best"):
        yield "no report of a winner"
    elif len(found.report["trials"]) != len(found.record.trials):
        yield f"the report has {len(found.report['trials'])} trials, the record {len(found.record.trials)}"


def _unlike(record: StudyRecord, unkilled: StudyRecord) -> Iterator[str]:
    """Where the study differs from the unkilled one in something that no kill may change.

    What is sampled depends on what had ended by then, in any study, and a seeded point's other values are sampled too;
    arms, seeded widths and, to the last bit, every training of the same configuration with the same seed do not.
    """
    if (ours := len(counted(record))) != (theirs := len(counted(unkilled))):
        yield f"{ours} trials, {theirs} unkilled"
    points = [
        Counter((one.arm, one.seed) if one.arm else (one.origin, one.config["latent_dim"]) for one in fixed)
        for fixed in ([one for one in counted(study) if one.origin != "sampled"] for study in (record, unkilled))
    ]
    for point in points[0] - points[1]:
        yield f"point {point[0]} is not, or not so often, in the unkilled study ({point[1]})"
    for point in points[1] - points[0]:
        yield f"point {point[0]} of the unkilled study is lost ({point[1]})"
    for event, fact in (("session_started", "split"), ("dimension", "consensus"), ("baseline", "valid_r2")):
        said, was = ((study.last(event) or {}).get(fact) for study in (record, unkilled))
        if said != was:
            yield f"{event}: {fact} is {said}, {was} unkilled"
    before = {(one.config_hash, one.seed): one for one in [*unkilled.trials, *unkilled.finalists]}
    for trial in [*record.trials, *record.finalists]:
        if (same := before.get((trial.config_hash, trial.seed))) is not None:
            for now, then in zip(trial.epochs, same.epochs, strict=False):  # one of them may have been pruned earlier
                if now["valid_r2"] != then["valid_r2"]:
                    yield f"{trial.id}: epoch {now['epoch']} reached {now['valid_r2']}, {then['valid_r2']} unkilled"
