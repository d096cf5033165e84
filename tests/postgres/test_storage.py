"""Optuna's storage in PostgreSQL: the properties it has in SQLite, several writers, and a server that goes away."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import OperationalError

from raystudy.errors import DataError, RaystudyError, SpecError
from raystudy.search import storage as module
from raystudy.search.policy import SearchPolicy
from raystudy.search.storage import open_storage
from raystudy.tracking.records import Records
from tests.postgres.server import PASSWORD, Server
from tests.search import killing, test_kills
from tests.search.cases import ask, make_spec, open_policy, run_all, train
from tests.search.killing import WRITES

ROOT = Path(__file__).parents[2]
NUM_TRIALS = 6


def agree(folder: Path, url: str, name: str = "fake", trials: int = NUM_TRIALS) -> list[optuna.trial.FrozenTrial]:
    """Plain Optuna and the records tell the same of as many trials, each configuration once; Optuna's are returned."""
    told = optuna.load_study(study_name=name, storage=url).get_trials()
    ours = Records(folder).read().trials
    assert len(ours) == len({trial.config_hash for trial in ours}) == trials
    assert [one.number for one in told] == list(range(trials))
    assert [one.user_attrs["raystudy.state"] for one in told] == [trial.state.value for trial in ours]
    assert [one.value for one in told if not one.intermediate_values or one.state.name == "COMPLETE"] == [
        trial.valid_r2 for trial in ours if trial.state.name == "COMPLETE"
    ]
    assert [one.intermediate_values for one in told] == [
        {epoch["epoch"]: epoch["valid_r2"] for epoch in trial.epochs} for trial in ours
    ]
    return told


def test_a_study_is_searched_found_again_and_kept_apart(folder: Path, tmp_path: Path, database: str) -> None:
    tracking = {"storage": database}
    run_all(open_policy(folder, tracking=tracking))
    agree(folder, database)
    assert open_policy(folder, tracking=tracking).ask() is None

    with pytest.raises(SpecError, match="holds another study 'fake'"):
        open_policy(folder, tracking=tracking, training={"epochs": 9})
    (tmp_path / "theirs").mkdir()
    with pytest.raises(SpecError, match="belongs to another studies folder"):
        open_policy(tmp_path / "theirs", tracking=tracking)
    run_all(open_policy(tmp_path / "theirs", name="theirs", tracking=tracking))
    agree(tmp_path / "theirs", database, "theirs")


def test_another_driver_of_the_same_study_is_found_out(folder: Path, database: str) -> None:
    tracking = {"storage": database}
    ours, twin = open_policy(folder, tracking=tracking), open_policy(folder, tracking=tracking)
    ask(ours)

    with pytest.raises(DataError, match="another driver writes to the study 'fake'"):
        ask(twin)


class KillableServed(RDBStorage):
    """A served storage for `killing.Study`, which knows its study by the number that it has in memory."""

    def __init__(self, url: str, killer: killing.Killer) -> None:
        super().__init__(url)
        self._killer = killer

    def get_all_trials(self, study_id: int, *arguments: Any, **named: Any) -> list[optuna.trial.FrozenTrial]:
        return super().get_all_trials(study_id or 1, *arguments, **named)


def _killable(name: str) -> Any:
    def write(self: KillableServed, *arguments: Any, **named: Any) -> Any:
        self._killer()
        return getattr(RDBStorage, name)(self, *arguments, **named)

    return write


for _name in WRITES:
    setattr(KillableServed, _name, _killable(_name))


def test_whatever_happens_in_whatever_order_records_and_database_agree(
    folder: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(killing, "KillableStorage", lambda killer: KillableServed(database, killer))

    test_kills.test_whatever_happens_in_whatever_order_records_and_optuna_agree(folder, seed=1)


DRIVER = """
import os, sys
from pathlib import Path
from tests.search.cases import ask, open_policy, run_all, train

folder, url, kill_after = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
changes = {"name": folder.name, "tracking": {"storage": url}, "pruner": "successive_halving"}
policy = open_policy(folder, **changes, budget={"trials": 12, "minutes": 10})
for number in range(12):
    trial = ask(policy)
    if number == kill_after:
        train(policy, trial, value=lambda *_: 9.0, until=1)  # too good to be stopped
        os.kill(os.getpid(), 9)
    train(policy, trial)
"""


@pytest.mark.slow
def test_two_drivers_begin_in_an_empty_database_at_once_and_a_killed_one_is_taken_up(
    tmp_path: Path, database: str
) -> None:
    drivers = []
    for name, kill_after in (("killed", 7), ("other", -1)):
        (tmp_path / name).mkdir()
        command = [sys.executable, "-c", DRIVER, str(tmp_path / name), database, str(kill_after)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        drivers.append(
            subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
    for driver in drivers:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"
    for driver in drivers:
        assert driver.stdin is not None
        driver.stdin.write("go\n")
        driver.stdin.flush()
    assert [driver.wait(timeout=60) for driver in drivers] == [-9, 0]
    for driver in drivers:
        driver.stdin.close()  # type: ignore[union-attr]
        driver.stdout.close()  # type: ignore[union-attr]

    other = agree(tmp_path / "other", database, "other", trials=12)
    before = optuna.load_study(study_name="killed", storage=database).get_trials()
    assert len(before) == 8
    first, last = min(one.datetime_start for one in other), max(one.datetime_start for one in other)
    assert any(first < one.datetime_start < last for one in before), "they wrote at the same time"

    changes: dict[str, Any] = {"tracking": {"storage": database}, "pruner": "successive_halving"}
    policy = open_policy(tmp_path / "killed", name="killed", **changes, budget={"trials": 12, "minutes": 10})
    going = ask(policy)
    assert (going.id, len(going.epochs)) == ("t0007", 1), "what was running goes on"
    train(policy, going, value=lambda *_: 9.0)
    run_all(policy)
    after = agree(tmp_path / "killed", database, "killed", trials=12)
    rungs = [{key: value for key, value in one.system_attrs.items() if "rung" in key} for one in before]
    assert any(rungs)
    for one, known in zip(after, rungs, strict=False):
        assert known.items() <= one.system_attrs.items()


def test_drivers_that_find_an_empty_database_at_the_same_time_all_open_it(folder: Path, database: str) -> None:
    spec, opened, start = make_spec(tracking={"storage": database}), [], threading.Barrier(4)

    def begin() -> None:
        start.wait()
        opened.append(open_storage(spec, folder))

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(opened) == 4


@pytest.fixture
def restarting(postgres: Server) -> Iterator[Server]:
    """The server, running again when the test ends."""
    yield postgres
    postgres.stop()
    postgres.start()


@pytest.mark.parametrize("crash", [False, True], ids=["restarted", "crashed"])
def test_a_server_that_comes_back_is_waited_for(
    restarting: Server, folder: Path, database: str, crash: bool, caplog: pytest.LogCaptureFixture
) -> None:
    policy = open_policy(folder, tracking={"storage": database})
    for _ in range(2):
        train(policy, ask(policy))
    going = ask(policy)
    restarting.stop(crash)
    back = threading.Timer(1.0, restarting.start)
    back.start()
    train(policy, going)
    back.join()
    run_all(policy)

    agree(folder, database)
    away, again = caplog.messages
    assert "Optuna's storage is away (OperationalError: " in away
    assert "back after" in again


def test_a_server_that_stays_away_ends_the_session_and_the_next_one_goes_on(
    restarting: Server, folder: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.3)
    policy = open_policy(folder, tracking={"storage": database})
    train(policy, ask(policy))
    going = ask(policy)
    restarting.stop()
    with pytest.raises(RaystudyError, match=r"takes no more \(OperationalError: .*the same command goes on") as told:
        train(policy, going)
    assert "invalid data" not in str(told.value)
    with pytest.raises(RaystudyError, match=r"cannot be opened .*start the server"):
        open_policy(folder, tracking={"storage": database})

    restarting.start()
    again = open_policy(folder, tracking={"storage": database})
    assert ask(again).id == going.id
    train(again, going)
    run_all(again)
    agree(folder, database)


def test_connections_that_were_cut_between_two_writes_are_not_noticed(
    postgres: Server, folder: Path, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    policy = open_policy(folder, tracking={"storage": database})
    for _ in range(3):
        train(policy, ask(policy))
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
        assert postgres.execute(f"{cut} pg_backend_pid()", database.rpartition("/")[2])
    run_all(policy)

    agree(folder, database)
    assert caplog.messages == []


@pytest.mark.slow
@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
def test_an_answer_lost_after_any_single_write_changes_nothing(
    folder: Path, database: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.0)
    turn = itertools.count()
    lose: list[int] = []

    def losing(name: str) -> Any:
        real = getattr(RDBStorage, name)

        def write(self: RDBStorage, *arguments: Any, **named: Any) -> Any:
            lost = next(turn) in lose
            answer = real(self, *arguments, **named) if taken or not lost else None
            if lost:
                raise StorageInternalError("lost") from OperationalError("", {}, Exception("connection lost"))
            return answer

        return write

    for name in WRITES:
        monkeypatch.setattr(RDBStorage, name, losing(name))

    changes: dict[str, Any] = {"tracking": {"storage": database}, "pruner": "successive_halving"}
    changes["budget"] = {"trials": 3, "minutes": 10}
    run_all(open_policy(folder, **changes))
    num_writes = next(turn)
    assert num_writes > 20
    for write in range(1, num_writes, 2 - taken):  # the first one makes the study's marks
        turn, lose = itertools.count(), [write]
        study = folder.parent / f"lost{write}"
        study.mkdir()
        run_all(open_policy(study, name=study.name, **changes))
        agree(study, database, study.name, trials=3)


def test_a_wrong_password_is_told_in_one_paragraph_without_any(
    postgres: Server, folder: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "Geheimnis")
    with pytest.raises(RaystudyError, match=r"cannot be opened \(OperationalError: .*password authentication") as told:
        open_policy(folder, tracking={"storage": database})
    assert "Geheimnis" not in str(told.value)
    assert "\n" not in str(told.value)

    monkeypatch.delenv("PGPASSWORD")
    file = folder / "pgpass"
    secret = PASSWORD.replace(":", "\\:")
    file.write_text(f"127.0.0.1:{postgres.port}:*:raystudy:{secret}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    assert isinstance(open_policy(folder, tracking={"storage": database}), SearchPolicy)


def test_a_driver_holds_few_connections(postgres: Server, folder: Path, database: str) -> None:
    policy = open_policy(folder, tracking={"storage": database})
    run_all(policy)

    ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ((num_connections,),) = postgres.execute(ours, database.rpartition("/")[2])
    assert 1 <= num_connections <= 2
