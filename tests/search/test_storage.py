"""Optuna's storage: where it may stand, whose it is, and that plain Optuna reads it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState as OptunaState

from raystudy.errors import DataError, RaystudyError, SpecError
from raystudy.search.policy import SearchPolicy
from raystudy.tracking.records import MemoryRecords, Records, TrialState
from tests.search.cases import ask, make_spec, open_policy, run_all, train


def test_the_storage_stands_where_the_study_file_says(folder: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    run_all(open_policy(folder, tracking={"storage": url}))

    assert not (folder / "optuna.db").exists()
    assert len(optuna.load_study(study_name="fake", storage=url).trials) == 6
    assert open_policy(folder, tracking={"storage": url}).ask() is None, "and is found there again"


def test_several_studies_share_a_storage_and_keep_apart(folder: Path, tmp_path: Path) -> None:
    tracking = {"storage": f"sqlite:///{tmp_path / 'shared.db'}"}
    policies = {}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        policies[name] = open_policy(tmp_path / name, name=name, tracking=tracking)
    for _ in range(3):
        for policy in policies.values():
            train(policy, ask(policy))

    for name, policy in policies.items():
        told = optuna.load_study(study_name=name, storage=tracking["storage"]).trials
        assert [one.number for one in told] == [0, 1, 2]
        assert [one.values for one in told] == [[trial.valid_r2] for trial in policy.records.read().trials]
    again = open_policy(tmp_path / "one", name="one", tracking=tracking)
    assert len(run_all(again)) == 3


def test_another_study_under_the_same_name_is_refused(folder: Path, tmp_path: Path) -> None:
    tracking = {"storage": f"sqlite:///{tmp_path / 'shared.db'}"}
    open_policy(folder, tracking=tracking)

    with pytest.raises(SpecError, match=r"holds another study 'fake' .*another `name`, or another `tracking.storage`"):
        open_policy(folder, tracking=tracking, training={"epochs": 9})
    assert open_policy(folder, tracking=tracking, budget={"trials": 99, "minutes": 1}), "a larger budget is the same"


def test_another_study_of_other_objectives_under_the_same_name_is_refused(folder: Path) -> None:
    open_policy(folder)

    with pytest.raises(SpecError, match="another `name`"):
        open_policy(folder, objectives=[{"metric": "valid_r2"}, {"metric": "parameters"}])


def test_a_database_that_was_removed_is_refused_and_nothing_is_trained_again(folder: Path) -> None:
    run_all(open_policy(folder, budget={"trials": 2, "minutes": 10}))
    (folder / "optuna.db").unlink()

    with pytest.raises(DataError, match=r"do not belong together: one of them lacks 2 trials of the records, t0000"):
        open_policy(folder)


def test_records_that_were_removed_are_refused_as_well(folder: Path) -> None:
    run_all(open_policy(folder, budget={"trials": 2, "minutes": 10}))
    shutil.rmtree(folder / "trials" / "t0000")

    with pytest.raises(DataError, match=r"lacks trial 0, which the records do not know"):
        open_policy(folder)


@pytest.mark.parametrize("url", ["nosuchdialect://there", "sqlite:////no/such/folder/optuna.db", "words"])
def test_a_storage_that_does_not_answer_is_told_in_one_paragraph(folder: Path, url: str) -> None:
    with pytest.raises(RaystudyError, match=r"Optuna's storage cannot be opened .*`tracking.storage`") as told:
        open_policy(folder, tracking={"storage": url})

    assert "\n" not in str(told.value)


def test_the_password_of_a_storage_is_not_told(folder: Path) -> None:
    with pytest.raises(RaystudyError) as told:
        open_policy(folder, tracking={"storage": "postgresql+nosuch://user:geheim@there/optuna"})

    assert "geheim" not in str(told.value)


def test_another_driver_that_writes_to_the_same_study_is_found_out(folder: Path, tmp_path: Path) -> None:
    tracking = {"storage": f"sqlite:///{tmp_path / 'shared.db'}"}
    ours, twin = open_policy(folder, tracking=tracking), open_policy(folder, tracking=tracking)
    ask(ours)
    with pytest.raises(DataError, match="another driver writes to the study 'fake'"):
        ask(twin)

    (tmp_path / "theirs").mkdir()
    with pytest.raises(SpecError, match="belongs to another studies folder"):
        open_policy(tmp_path / "theirs", tracking=tracking)
    assert Records(tmp_path / "theirs").read().trials == []


def test_a_study_in_memory_writes_no_file(folder: Path) -> None:
    records, storage = MemoryRecords(folder / "nowhere"), InMemoryStorage()
    policy = SearchPolicy(make_spec(), records, time.time() + 3600, storage=storage)
    run_all(policy)

    assert list(folder.iterdir()) == []
    assert [trial.state for trial in records.read().trials] == [TrialState.COMPLETE] * 6
    again = SearchPolicy(make_spec(), records, time.time() + 3600, storage=storage)
    assert again.ask() is None


def test_plain_optuna_reads_the_study_as_a_dashboard_would(folder: Path) -> None:
    policy = open_policy(folder, budget={"trials": 8, "minutes": 10}, pruner="none")
    policy.note("intrinsic_dimension", {"consensus": 7.5})
    run_all(policy)
    left = open_policy(folder, budget={"trials": 9, "minutes": 10}, pruner="none")
    train(left, ask(left), until=1)

    url = f"sqlite:///{folder / 'optuna.db'}"
    assert optuna.get_all_study_names(url) == ["fake"]
    study = optuna.load_study(study_name="fake", storage=url)
    assert study.user_attrs["intrinsic_dimension"] == {"consensus": 7.5}
    assert study.best_value == max(trial.valid_r2 for trial in Records(folder).read().trials if trial.valid_r2)
    assert [one.state for one in study.trials][-1] is OptunaState.RUNNING
    for one in study.trials[:-1]:
        assert set(one.params) == {"log2_latent_dim", "encoder", "learning_rate"}
        assert one.user_attrs["raystudy.state"] in ("complete", "pruned")
        assert one.datetime_start <= one.datetime_complete
    assert list(study.trials_dataframe()["state"].unique()) != []
    assert optuna.importance.get_param_importances(study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
