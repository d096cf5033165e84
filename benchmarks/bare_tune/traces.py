"""What a scenario left behind, and the questions that are put to it: the same ones, whichever system ran it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from benchmarks.bare_tune.judging import Answers
from benchmarks.bare_tune.script import BROKEN, BROKEN_EPOCH, MAX_WIDTH, SECOND, storage_url

STATE = "state in the storage"
VALUE = "value in the storage"
STORAGE_SAYS = "the storage says why"
CALLED_FAILED = "the results call it failed"
RESULTS_SAY = "the results say why"
OPEN = "trials left open in the storage"
FINISHED = "other trials that finished"
STOPPED_AS = "stopped trials are stored as"
FULL_AS = "full-length trials are stored as"
FRONT = "stopped trials on the Pareto front"
LOSS_SAID = "the results say that a worker was lost"
CRASHES = "attempts at a trial that always crashes"
AGAIN = "trials begun again from epoch 1"
STORED = "trials in the storage"
IN_RESULTS = "trials in the results"
UNKNOWN = "trained configurations that the results do not know"
SEEDS = "seeded points in the storage"
ERROR = "the second session ends with an error"
RUNGS = "rung entries forgotten"
DISTINCT = "configurations trained"
TWICE = "configurations trained more than once"
TOOK_WORKER = "infeasible trials that took a worker"
AS_FAILURE = "infeasible trials stored as failures"
UNLEARNED = "infeasible trials whose excess the sampler does not know"
FEASIBLE = "feasible trials trained"
WORDS = {"nan": "nan", "crash": "runtimeerror|crash", "out of memory": "memoryerror|out of memory"}
WORDS |= {"timeout": "time.?out|timed out", "lost": "lost|died|killed"}


@dataclass(frozen=True)
class Traces:
    """Diary, storage and results of a scenario that was run."""

    diary: list[dict[str, Any]]
    trials: list[FrozenTrial]
    front: list[FrozenTrial]
    results: list[dict[str, Any]]
    error: str | None
    """What a second session, begun after the first was killed, failed with."""
    rungs: list[tuple[int, int]]
    epochs: int

    @classmethod
    def read(cls, folder: Path, epochs: int) -> Traces:
        study = optuna.load_study(study_name="study", storage=storage_url(folder))
        front = study.best_trials if len(study.directions) > 1 else []
        results = (_lines(folder / "results.json") or [[]])[0]
        error = (folder / "error").read_text() if (folder / "error").exists() else None
        diary, rungs = _lines(folder / "diary.jsonl"), _lines(folder / "rungs.jsonl")
        return cls(diary, study.trials, front, results, error, rungs, epochs)

    def trained(self) -> dict[str, list[int]]:
        """Epochs by configuration, in the order they were trained."""
        found: dict[str, list[int]] = {}
        for line in self.diary:
            found.setdefault(_key(line["config"]), []).append(line["epoch"])
        return found

    def stored(self, x: float) -> FrozenTrial:
        return next(trial for trial in self.trials if _x(trial) == x)

    def result(self, x: float) -> dict[str, Any]:
        return next(result for result in self.results if (result["config"] or {}).get("x") == x)

    def states(self, keys: set[str]) -> list[str]:
        return sorted({trial.state.name for trial in self.trials if _key({"x": _x(trial)}) in keys})

    def stopped(self) -> set[str]:
        return {key for key, epochs in self.trained().items() if max(epochs) < self.epochs}

    def num_open(self) -> int:
        return sum(not trial.state.is_finished() for trial in self.trials)


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _key(config: dict[str, Any]) -> str:
    return json.dumps(config, sort_keys=True)


def _x(trial: FrozenTrial) -> float | None:
    return trial.params.get("x", trial.params.get("dropout"))


def _names(text: str, reason: str) -> bool:
    return re.search(rf"\b({WORDS[reason]})", text.lower()) is not None


def how_it_ended(found: Traces, reason: str | None = None) -> Answers:
    """How the trial in question stands; ``reason`` is what ended it, if anything did."""
    trial, result = found.stored(BROKEN), found.result(BROKEN)
    answers: Answers = {STATE: trial.state.name, VALUE: trial.value, OPEN: found.num_open()}
    others = [
        epochs for key, epochs in found.trained().items() if key not in (_key({"x": BROKEN}), _key({"x": SECOND}))
    ]
    answers[FINISHED] = sum(max(epochs) == found.epochs for epochs in others)
    if reason is not None:
        answers[STORAGE_SAYS] = _names(json.dumps(trial.user_attrs | trial.system_attrs), reason)
        answers[CALLED_FAILED] = result["failed"]
        answers[RESULTS_SAY] = _names(result["said"], reason)
    return answers


def worker_killed(found: Traces) -> Answers:
    again, crashes = (
        found.trained()[_key({"x": BROKEN})].count(1) - 1,
        found.trained()[_key({"x": SECOND})].count(BROKEN_EPOCH),
    )
    said = _names(found.result(BROKEN)["said"], "lost")
    return how_it_ended(found) | {AGAIN: again, CRASHES: crashes, LOSS_SAID: said}


def stopping(found: Traces) -> Answers:
    stopped = found.stopped()
    full = found.trained().keys() - stopped
    return {STOPPED_AS: found.states(stopped), FULL_AS: found.states(full), OPEN: found.num_open()}


def front(found: Traces) -> Answers:
    stopped = found.stopped()
    return stopping(found) | {FRONT: sum(_key({"x": _x(trial)}) in stopped for trial in found.front)}


def duplicates(found: Traces) -> Answers:
    times = [epochs.count(1) for epochs in found.trained().values()]
    return {DISTINCT: len(times), TWICE: sum(count > 1 for count in times), OPEN: found.num_open()}


def infeasible(found: Traces) -> Answers:
    too_wide = [
        trial for trial in found.trials if trial.params.get("width", trial.params.get("num_latents")) > MAX_WIDTH
    ]
    if not too_wide:
        raise RuntimeError("no infeasible configuration was proposed, so nothing was seen; choose another seed")
    wide = [line["config"]["width"] > MAX_WIDTH for line in found.diary if line["epoch"] <= 1]
    return {
        TOOK_WORKER: sum(wide),
        AS_FAILURE: sum(trial.state is TrialState.FAIL for trial in too_wide),
        UNLEARNED: sum(all(excess <= 0 for excess in trial.constraints.values()) for trial in too_wide),
        FEASIBLE: len(wide) - sum(wide),
    }


def sessions(found: Traces) -> Answers:
    """What two sessions made of one search."""
    trained = found.trained()
    known = {_key(result["config"]) for result in found.results if result["config"]}
    seeded = sum("fixed_params" in trial.system_attrs for trial in found.trials)
    answers: Answers = {STORED: len(found.trials), OPEN: found.num_open(), IN_RESULTS: len(found.results)}
    answers |= {ERROR: found.error, SEEDS: seeded}
    answers |= {UNKNOWN: len(trained.keys() - known), AGAIN: sum(epochs.count(1) > 1 for epochs in trained.values())}
    if found.rungs:
        first = found.rungs[0][0]
        before = [held for pid, held in found.rungs if pid == first]
        after = [held for pid, held in found.rungs if pid != first]
        if not after and found.error is None:
            raise RuntimeError("the first session left nothing to do, so nothing was seen; end its driver earlier")
        answers[RUNGS] = max(0, before[-1] - (after[0] if after else 0))
    return answers


def seeded_again(found: Traces) -> Answers:
    answers = sessions(found)
    return {question: answers[question] for question in (STORED, OPEN, SEEDS, AGAIN)}
