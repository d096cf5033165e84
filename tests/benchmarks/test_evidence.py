"""Each kind of loss is found in a fabricated study, and none in a whole one; real kills are in tests/execution."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from benchmarks import chaos
from benchmarks.evidence import TOLD, Evidence, Tracked, losses
from raystudy.tracking.records import Records, StudyRecord, TrialRecord, TrialState
from raystudy.training import checkpoint

NUM_TRIALS, EPOCHS = 5, 3
PRUNED_AFTER = 2
ORIGINS = ("arm", "arm", "seeded", "sampled", "sampled")
DRIVER_LOST = "driver lost"


@dataclass
class Fabricated:
    """A study's folder and stores, as a kill and a resumption leave them, to be damaged in one place."""

    folder: Path
    pruner: str = "successive_halving"

    def __post_init__(self) -> None:
        self.records = Records(self.folder)
        self.study = chaos.document(self.folder, self.pruner, NUM_TRIALS, EPOCHS)
        if not self.folder.exists():
            self.write()
        record = self.records.read()
        self.stored = [self.frozen(trial) for trial in record.trials]
        self.tracked = [Tracked("study", "FINISHED", [])] + [
            Tracked(one.id, "FINISHED", [epoch["epoch"] for epoch in one.epochs])
            for one in [*record.trials, *record.finalists]
        ]
        self.exit_code = 0
        self.report: dict[str, Any] | None = {"best": {"trial": "t0001"}, "trials": [0] * NUM_TRIALS}

    def write(self) -> None:
        self.records.append("session_started", split={"hash": "s"})
        self.records.append("dimension", consensus=4.0, seeded={"widths": [8]})
        self.records.append("baseline", name=chaos.BASELINE, valid_r2=0.3)
        for number in range(NUM_TRIALS):
            self.run(self.trial(number), lost_after=1 if number == 1 else None)
        self.records.append("search_finished")
        self.run(replace(self.trial(1), id="t0001-r0", seed=99, origin="finalist", arm=None))
        self.records.append("test_opened", scores={"t0001-r0": {}, chaos.BASELINE: {}})
        self.records.append("study_finished")

    def trial(self, number: int) -> TrialRecord:
        config = {"epochs": EPOCHS, "latent_dim": 8, "learning_rate": number}
        arm = chaos.ARMS[number] if number < len(chaos.ARMS) else None
        return TrialRecord(f"t{number:04d}", config, f"hash{number}", 100, number, ORIGINS[number], arm)

    def run(self, trial: TrialRecord, lost_after: int | None = None, reason: str | None = DRIVER_LOST) -> None:
        """Train it to its end, the last one until it is pruned; in two attempts where one was lost after an epoch."""
        pruned = trial.id == f"t{NUM_TRIALS - 1:04d}"
        epochs = [
            {"epoch": epoch, "valid_r2": 0.1 * epoch + trial.seed / 100, "epoch_seconds": epoch + trial.seed / 7}
            for epoch in range(1, (PRUNED_AFTER if pruned else EPOCHS) + 1)
        ]
        self.records.trial_started(trial)
        for epoch in epochs:
            self.records.trial_epoch(trial.id, epoch)
            if epoch["epoch"] == lost_after:
                self.records.trial_ended(trial.id, TrialState.INTERRUPTED, reason)
                self.records.trial_started(trial)
        ended = (TrialState.PRUNED, self.pruner) if pruned else (TrialState.COMPLETE, None)
        self.records.trial_ended(trial.id, *ended)
        weights = self.records.trial_folder(trial.id) / checkpoint.LAST
        checkpoint.save(weights, {"weight": torch.zeros(1)}, {"history": epochs})

    def frozen(self, trial: TrialRecord, **changes: Any) -> FrozenTrial:
        known: dict[str, Any] = {
            "state": TOLD[trial.state],
            "value": trial.valid_r2 if trial.state is TrialState.COMPLETE else None,
            "params": {"x": 0.5},
            "distributions": {"x": FloatDistribution(0, 1)},
            "user_attrs": {"raystudy.state": trial.state.value, "raystudy.reason": trial.reason},
            "intermediate_values": {epoch["epoch"]: epoch["valid_r2"] for epoch in trial.epochs},
        }
        frozen = optuna.trial.create_trial(**known | changes)
        frozen.number = int(trial.id[1:])
        return frozen

    def lines(self, trial_id: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log(trial_id).read_text().splitlines()]

    def rewrite(self, trial_id: str, lines: list[dict[str, Any]]) -> None:
        self.log(trial_id).write_text("".join(json.dumps(line) + "\n" for line in lines))

    def log(self, trial_id: str) -> Path:
        return self.records.trial_folder(trial_id) / "record.jsonl"

    def drop_event(self, event: str) -> None:
        path = self.folder / "study.jsonl"
        kept = [line for line in path.read_text().splitlines() if json.loads(line)["event"] != event]
        path.write_text("".join(f"{line}\n" for line in kept))

    def losses(self, unkilled: StudyRecord | None = None) -> list[str]:
        evidence = Evidence(self.records.read(), self.stored, self.tracked, self.report, self.exit_code)
        return losses(evidence, self.study, unkilled)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Fabricated:
    return Fabricated(tmp_path_factory.mktemp("whole") / chaos.NAME)


@pytest.fixture
def study(whole: Fabricated, tmp_path: Path) -> Fabricated:
    return Fabricated(Path(shutil.copytree(whole.folder, tmp_path / chaos.NAME)))


@pytest.fixture
def other(whole: Fabricated, tmp_path: Path) -> Fabricated:
    """To be made different, and compared with as the unkilled one."""
    return Fabricated(Path(shutil.copytree(whole.folder, tmp_path / "unkilled")))


def test_a_study_that_was_resumed_without_a_loss_has_none_and_is_like_itself_unkilled(study: Fabricated) -> None:
    assert study.losses(study.records.read()) == []


def lose_a_trial(study: Fabricated) -> None:
    study.log("t0003").unlink()


def lose_an_arm(study: Fabricated) -> None:
    study.rewrite("t0000", [line | ({"arm": None} if "arm" in line else {}) for line in study.lines("t0000")])


def repeat_an_arm(study: Fabricated) -> None:
    change = {"arm": chaos.ARMS[0], "origin": "arm"}
    study.rewrite("t0003", [line | (change if "arm" in line else {}) for line in study.lines("t0003")])


def sample_a_configuration_twice(study: Fabricated) -> None:
    change = {"config_hash": "hash3"}
    study.rewrite("t0004", [line | (change if "config_hash" in line else {}) for line in study.lines("t0004")])


def count_a_configuration_twice(study: Fabricated) -> None:
    change = {"config_hash": "hash0", "seed": 0}
    study.rewrite("t0001", [line | (change if "config_hash" in line else {}) for line in study.lines("t0001")])


def lose_a_seeded_width(study: Fabricated) -> None:
    change = {"origin": "sampled"}
    study.rewrite("t0002", [line | (change if "origin" in line else {}) for line in study.lines("t0002")])


def lose_the_finalist(study: Fabricated) -> None:
    study.log("t0001-r0").unlink()


def leave_a_trial_running(study: Fabricated) -> None:
    study.rewrite("t0003", study.lines("t0003")[:-1])


def fail_a_trial(study: Fabricated) -> None:
    study.rewrite("t0003", [*study.lines("t0003")[:-1], {**study.lines("t0003")[-1], "state": "failed"}])


def lose_an_epoch(study: Fabricated) -> None:
    study.rewrite("t0003", [line for line in study.lines("t0003") if line.get("epoch") != 2])


def lose_the_last_epoch(study: Fabricated) -> None:
    study.rewrite("t0001", [line for line in study.lines("t0001") if line.get("epoch") != EPOCHS])


def repeat_an_epoch_in_another_attempt(study: Fabricated) -> None:
    lines = study.lines("t0001")
    again = next(number for number, line in enumerate(lines) if line.get("epoch") == 2)
    study.rewrite("t0001", [*lines[:again], lines[1], *lines[again:]])


def repeat_an_epoch_of_the_finalist(study: Fabricated) -> None:
    lines = study.lines("t0001-r0")
    study.rewrite("t0001-r0", [*lines[:2], *lines[1:]])


def leave_a_lost_attempt_open(study: Fabricated) -> None:
    study.rewrite("t0001", [line for line in study.lines("t0001") if line.get("reason") != DRIVER_LOST])


def lose_the_reason_of_a_lost_attempt(study: Fabricated) -> None:
    study.rewrite("t0001", [line | ({"reason": None} if "reason" in line else {}) for line in study.lines("t0001")])


def number_two_attempts_alike(study: Fabricated) -> None:
    study.rewrite("t0001", [line | ({"attempt": 1} if "attempt" in line else {}) for line in study.lines("t0001")])


def lose_a_checkpoint(study: Fabricated) -> None:
    (study.records.trial_folder("t0003") / checkpoint.LAST).unlink()


def train_an_epoch_again(study: Fabricated) -> None:
    path = study.records.trial_folder("t0003") / checkpoint.LAST
    tensors, state = checkpoint.load(path)
    state["history"][1]["epoch_seconds"] += 0.001
    checkpoint.save(path, tensors, state)


def forget_a_trial_in_the_storage(study: Fabricated) -> None:
    study.stored = study.stored[:-1]


def store_another_state(study: Fabricated) -> None:
    study.stored[4] = study.frozen(study.records.read_trial("t0004"), state=OptunaState.COMPLETE, value=0.2)


def leave_a_trial_running_in_the_storage(study: Fabricated) -> None:
    study.stored[3] = study.frozen(study.records.read_trial("t0003"), state=OptunaState.RUNNING, value=None)


def store_another_value(study: Fabricated) -> None:
    study.stored[3] = study.frozen(study.records.read_trial("t0003"), value=0.123)


def store_another_reason(study: Fabricated) -> None:
    attributes = {"raystudy.state": "pruned", "raystudy.reason": "budget"}
    study.stored[4] = study.frozen(study.records.read_trial("t0004"), user_attrs=attributes)


def lose_a_rung(study: Fabricated) -> None:
    study.stored[4] = study.frozen(study.records.read_trial("t0004"), intermediate_values={1: 0.14})


def store_a_result_that_is_not_on_record(study: Fabricated) -> None:
    study.stored.append(study.frozen(replace(study.records.read_trial("t0003"), id="t0009")))


def repeat_an_mlflow_run(study: Fabricated) -> None:
    study.tracked.append(study.tracked[2])


def repeat_the_mlflow_run_of_the_study(study: Fabricated) -> None:
    study.tracked.append(study.tracked[0])


def lose_an_mlflow_run(study: Fabricated) -> None:
    del study.tracked[2]


def track_a_trial_that_never_was(study: Fabricated) -> None:
    study.tracked.append(Tracked("t0077", "FINISHED", []))


def leave_an_mlflow_run_open(study: Fabricated) -> None:
    study.tracked[2] = replace(study.tracked[2], status="RUNNING")


def log_an_epoch_twice_to_mlflow(study: Fabricated) -> None:
    study.tracked[2] = replace(study.tracked[2], epochs=[1, 1, 2, 3])


def open_the_test_twice(study: Fabricated) -> None:
    study.records.append("test_opened", scores={})


def finish_twice(study: Fabricated) -> None:
    study.records.append("study_finished")


def fit_a_baseline_twice(study: Fabricated) -> None:
    study.records.append("baseline", name=chaos.BASELINE, valid_r2=0.3)


def never_open_the_test(study: Fabricated) -> None:
    study.drop_event("test_opened")


def end_with_an_error(study: Fabricated) -> None:
    study.exit_code = 1


def report_no_winner(study: Fabricated) -> None:
    study.report = {"best": None, "trials": [0] * NUM_TRIALS}


def say_nothing(study: Fabricated) -> None:
    study.report = None


def report_fewer_trials(study: Fabricated) -> None:
    study.report = {"best": {"trial": "t0001"}, "trials": [0] * (NUM_TRIALS - 1)}


DAMAGES: dict[Callable[[Fabricated], None], str] = {
    lose_a_trial: "4 trials instead of 5",
    lose_an_arm: "arm slow is there 0 times",
    repeat_an_arm: "arm slow is there 2 times",
    sample_a_configuration_twice: "configuration hash3 was sampled 2 times",
    count_a_configuration_twice: "configuration hash0 with seed 0 is there 2 times",
    lose_a_seeded_width: "seeded widths [8], but trials of []",
    lose_the_finalist: "0 finalists instead of 1",
    leave_a_trial_running: "t0003 is running: None",
    fail_a_trial: "t0003 is failed: None",
    lose_an_epoch: "t0003 is complete without epochs [2]",
    lose_the_last_epoch: f"t0001 is complete without epochs [{EPOCHS}]",
    repeat_an_epoch_in_another_attempt: "t0001: epochs [1] are in the record more than once",
    repeat_an_epoch_of_the_finalist: "t0001-r0: epochs [1] are in the record more than once",
    leave_a_lost_attempt_open: "t0001: attempt 1 was lost, but is running (None)",
    lose_the_reason_of_a_lost_attempt: "t0001: attempt 1 was lost, but is interrupted (None)",
    number_two_attempts_alike: "t0001: attempts are numbered [1, 1]",
    lose_a_checkpoint: "t0003 has no checkpoint",
    train_an_epoch_again: "t0003: epoch 2 on record is not the one that its weights were trained in",
    forget_a_trial_in_the_storage: "t0004 is not in Optuna's storage",
    store_another_state: "t0004 is pruned, but COMPLETE in Optuna's storage",
    leave_a_trial_running_in_the_storage: "t0003 is complete, but RUNNING in Optuna's storage",
    store_another_value: "but [0.123] in Optuna's storage",
    store_another_reason: "t0004: reason successive_halving, but budget in the storage",
    lose_a_rung: "t0004: the pruner knows epochs {1: 0.14}",
    store_a_result_that_is_not_on_record: "t0009 is COMPLETE in Optuna's storage and not in the records",
    repeat_an_mlflow_run: "t0001 has 2 MLflow runs instead of 1",
    repeat_the_mlflow_run_of_the_study: "study has 2 MLflow runs instead of 1",
    lose_an_mlflow_run: "t0001 has 0 MLflow runs instead of 1",
    track_a_trial_that_never_was: "t0077 has 1 MLflow runs instead of 0",
    leave_an_mlflow_run_open: "t0001 is RUNNING in MLflow",
    log_an_epoch_twice_to_mlflow: "t0001: MLflow has epochs [1, 1, 2, 3], the record [1, 2, 3]",
    open_the_test_twice: "test_opened is on record 2 times",
    finish_twice: "study_finished is on record 2 times",
    fit_a_baseline_twice: "baselines ['ridge', 'ridge'] were fitted",
    never_open_the_test: "test_opened is on record 0 times",
    end_with_an_error: "the last session ended with 1",
    report_no_winner: "no report of a winner",
    say_nothing: "no report of a winner",
    report_fewer_trials: "the report has 4 trials, the record 5",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_each_kind_of_loss_is_found_and_named(study: Fabricated, damage: Callable[[Fabricated], None]) -> None:
    damage(study)

    assert DAMAGES[damage] in "\n".join(study.losses())


def test_what_was_asked_but_never_recorded_and_what_was_a_duplicate_are_no_losses(study: Fabricated) -> None:
    sampled = study.records.read_trial("t0003")
    study.stored.append(study.frozen(replace(sampled, id="t0005"), state=OptunaState.FAIL, value=None))
    study.stored.append(study.frozen(replace(sampled, id="t0006"), user_attrs={"duplicate_of": "t0003"}))

    assert study.losses() == []


def test_an_unkilled_study_that_differs_in_a_point_a_fact_or_a_training_is_told_apart(
    study: Fabricated, other: Fabricated
) -> None:
    other.rewrite("t0000", [line | ({"seed": 5} if "seed" in line else {}) for line in other.lines("t0000")])
    other.rewrite(
        "t0003", [line | ({"valid_r2": 0.2} if line.get("epoch") == 2 else {}) for line in other.lines("t0003")]
    )
    other.records.append("baseline", name=chaos.BASELINE, valid_r2=0.4)
    other.log("t0004").unlink()

    found = study.losses(other.records.read())

    assert [loss.split(":")[0] for loss in found] == [
        "5 trials, 4 unkilled",
        "point slow is not, or not so often, in the unkilled study (0)",
        "point slow of the unkilled study is lost (5)",
        "baseline",
        "t0003",
    ]


def test_what_was_sampled_after_a_kill_may_differ_from_the_unkilled_study(study: Fabricated, other: Fabricated) -> None:
    change = {"config_hash": "another", "seed": 77}
    other.rewrite("t0003", [line | (change if "seed" in line else {}) for line in other.lines("t0003")])

    assert study.losses(other.records.read()) == []
