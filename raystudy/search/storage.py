"""Optuna's half of the truth: one study in its storage, readable by its dashboard."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError, StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, ProgrammingError

from raystudy.errors import DataError, RaystudyError, SpecError
from raystudy.search.sampler import make_pruner, make_sampler
from raystudy.study.sections import BETTER
from raystudy.study.space import derive_seed
from raystudy.study.spec import StudySpec
from raystudy.study.urls import redacted

log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)  # its log lines would interrupt our progress display

SPEC_HASH, OWNER = "raystudy.spec_hash", "raystudy.owner"
_DIRECTIONS = {"maximize": StudyDirection.MAXIMIZE, "minimize": StudyDirection.MINIMIZE}


PATIENCE_SECONDS = 60.0
"""How long a database server may be away (restarted, moved, cut off) before the session ends."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0
OPENINGS = 5
"""Tries to make the tables: of several drivers that find an empty database at the same time all but one fail."""
# A server whose machine is gone says nothing any more; without these a write would wait for it for a quarter hour.
_LIBPQ = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
_LIBPQ |= {"tcp_user_timeout": 30_000}


def open_storage(spec: StudySpec, folder: Path) -> BaseStorage:
    """The study file's database, or SQLite in the study's folder. RaystudyError where it does not answer."""
    url = spec.tracking.storage or f"sqlite:///{(folder / 'optuna.db').resolve()}"
    try:
        return _open(url)
    except Exception as error:  # whatever the driver of a database may raise
        raise RaystudyError(
            f"Optuna's storage cannot be opened ({redacted(_reason(error), url)}); `tracking.storage` is a database "
            "URL as SQLAlchemy reads it, such as postgresql+psycopg://user@host/optuna, without the password, which "
            "is PGPASSWORD's or ~/.pgpass's; correct it, start the server, or install its driver (`pip install "
            "'raystudy[postgresql]'`)"
        ) from None


def _open(url: str) -> RDBStorage:
    options: dict[str, Any] = {}
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        options["pool_pre_ping"] = True  # between two writes the server may have been restarted
    if parsed.get_driver_name() in ("psycopg", "psycopg2"):
        options["connect_args"] = {key: value for key, value in _LIBPQ.items() if key not in parsed.query}
    for left in reversed(range(OPENINGS)):
        try:
            return RDBStorage(url, engine_kwargs=dict(options))
        except (IntegrityError, ProgrammingError):
            if not left:
                raise
            time.sleep(FIRST_PAUSE_SECONDS)
    raise AssertionError("the last try returns or raises")


def _reason(error: BaseException) -> str:
    """What went wrong, in the words of the database's driver where it is one that speaks."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    said = cause.orig if isinstance(cause, DBAPIError) and cause.orig is not None else cause
    return f"{type(cause).__name__}: {' '.join(str(said).split())[:200]}"


@contextmanager
def _told_in_a_sentence() -> Iterator[None]:
    try:
        yield
    except (OptunaError, OSError) as error:
        raise RaystudyError(
            f"Optuna's storage takes no more ({_reason(error)}). Everything so far is on record; the same command "
            "goes on when the storage is back"
        ) from error


class DurableStudy:
    """An Optuna study that is searched in memory and written to its storage, trial by trial.

    The driver is the only writer, so it never has to ask the storage what it wrote itself: with hundreds of trials
    under way Optuna spends most of a second a trial on reading these again (docs/log.md).
    """

    @_told_in_a_sentence()
    def __init__(self, spec: StudySpec, storage: BaseStorage, owner: str, num_known: int) -> None:
        """Make or find the study of ``spec`` in ``storage``, for the folder whose mark is ``owner``.

        ``num_known`` of its trials are on record. Raises SpecError where the storage holds another study, or one of
        another folder, under this name.
        """
        directions = [objective.direction for objective in spec.objectives]
        kept = optuna.create_study(study_name=spec.name, storage=storage, directions=directions, load_if_exists=True)
        known = kept.user_attrs.get(SPEC_HASH)
        if known not in (None, spec.hash):
            raise SpecError(
                f"Optuna's storage holds another study {spec.name!r} (its study file has the hash {known}, this one "
                f"{spec.hash}); give this one another `name`, or another `tracking.storage`"
            )
        if kept.user_attrs.get(OWNER, owner) != owner:
            raise SpecError(
                f"Optuna's storage holds a study {spec.name!r} that belongs to another studies folder; go on with it "
                "from there, or give this one another `name`, or another `tracking.storage`"
            )
        self._storage, self._study_id = storage, kept._study_id
        self._memory = InMemoryStorage()
        optuna.create_study(study_name=spec.name, storage=self._memory, directions=directions)
        self.study = _Study(
            spec.name, self._memory, make_sampler(spec, derive_seed(spec.hash, "sampler", num_known)), make_pruner(spec)
        )
        self.study.pruned_on = _DIRECTIONS[BETTER[spec.prune_on]]
        self._written: dict[int, tuple[int, FrozenTrial]] = {}
        for trial in storage.get_all_trials(self._study_id):
            self._memory.create_new_trial(self.study._study_id, template_trial=trial)
            self._written[trial.number] = trial._trial_id, trial
        if known is None:
            self.note(SPEC_HASH, spec.hash)
            self.note(OWNER, owner)

    def note(self, name: str, content: Any) -> None:
        """Keep something about the whole study."""
        self._patiently(lambda _: self._storage.set_study_user_attr(self._study_id, name, content))

    def trial(self, number: int) -> FrozenTrial:
        return self._memory.get_trial(number)  # in a memory of one study, a trial's id is its number

    def set_epoch(self, number: int, epoch: int, value: float) -> None:
        self._memory.set_trial_intermediate_value(number, epoch, value)

    def set_attributes(self, number: int, **attributes: Any) -> None:
        """For readers of the storage."""
        for name, value in attributes.items():
            self._memory.set_trial_user_attr(number, name, value)

    def set_violation(self, number: int, rule: str, excess: float) -> None:
        """Let samplers know that, and by how much, a configuration breaks a rule."""
        self._memory.set_trial_system_attr(number, f"constraints:{rule}", excess)

    def write(self, number: int) -> None:
        """Bring the storage's trial to what it is in memory.

        Raises DataError where another driver writes there too, RaystudyError where the storage does not answer.
        """
        self._patiently(lambda in_doubt: self._write(number, in_doubt))

    @_told_in_a_sentence()
    def _patiently(self, write: Callable[[bool], None]) -> None:
        """Write, and wait for a database server that is away; meanwhile trials train on, and report later.

        ``write`` is told whether an earlier try failed, of which nobody knows how much the server still took.
        """
        began, pause, in_doubt = time.monotonic(), FIRST_PAUSE_SECONDS, False
        while True:
            try:
                write(in_doubt)
            except StorageInternalError as error:
                began = began if in_doubt else time.monotonic()
                if not _is_away(self._storage, error) or time.monotonic() - began > PATIENCE_SECONDS:
                    raise
                if not in_doubt:
                    log.warning(
                        f"Optuna's storage is away ({_reason(error)}): waiting for it, up to {PATIENCE_SECONDS:g} s"
                    )
                in_doubt = True
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                if in_doubt:
                    log.warning(f"Optuna's storage is back after {time.monotonic() - began:.1f} s, the search goes on")
                return

    def _write(self, number: int, in_doubt: bool) -> None:
        now = deepcopy(self.trial(number))  # the memory goes on changing what it gave out
        if in_doubt:
            self._recall(number, now)
        if number not in self._written:
            trial_id = self._storage.create_new_trial(self._study_id, template_trial=now)
            if self._storage.get_trial_number_from_id(trial_id) != number:
                raise DataError(
                    f"another driver writes to the study {self.study.study_name!r} in Optuna's storage; end one of "
                    "them, and give the studies different names"
                )
        else:
            trial_id, before = self._written[number]
            if before.state is TrialState.WAITING is not now.state:  # first of all: only what runs can be told an end
                self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
            for name in now.params.keys() - before.params.keys():
                kind = now.distributions[name]
                self._storage.set_trial_param(trial_id, name, kind.to_internal_repr(now.params[name]), kind)
            for step, value in _new(now.intermediate_values, before.intermediate_values):
                self._storage.set_trial_intermediate_value(trial_id, step, value)
            for name, value in _new(now.system_attrs, before.system_attrs):
                self._storage.set_trial_system_attr(trial_id, name, value)
            for name, value in _new(now.user_attrs, before.user_attrs):
                self._storage.set_trial_user_attr(trial_id, name, value)
            if now.state is not before.state and now.state.is_finished():
                self._storage.set_trial_state_values(trial_id, now.state, now.values)
        self._written[number] = trial_id, now

    def _recall(self, number: int, now: FrozenTrial) -> None:
        """Learn how much of a trial the storage took, after a connection was lost before it could say so."""
        try:
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        except KeyError:
            return
        there = self._storage.get_trial(trial_id)
        ours = number in self._written or (there.datetime_start, there.params) == (now.datetime_start, now.params)
        if ours:  # else another driver's, as the next write will tell
            # A trial's end is the last that is written of it, and takes no more.
            self._written[number] = trial_id, now if there.state.is_finished() else there


def _is_away(storage: BaseStorage, error: StorageInternalError) -> bool:
    """Is it the connection that failed, of a server that may come back? A file does not."""
    served = isinstance(storage, RDBStorage) and storage.engine.name != "sqlite"
    return served and isinstance(error.__cause__, OperationalError | InterfaceError)


def _new(now: Mapping[Any, Any], before: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    return [(key, value) for key, value in now.items() if key not in before or before[key] != value]


class _Study(optuna.Study):
    """A study whose `direction` is that of the metric that trials are pruned on.

    Optuna leaves pruning out of studies of several objectives, where it would not know by which one to judge: its
    pruners and TPE's look at pruned trials ask for `direction`, which then raises. Here one of them was declared.
    """

    pruned_on: StudyDirection

    @property
    def direction(self) -> StudyDirection:
        return self.pruned_on
