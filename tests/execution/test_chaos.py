"""Real studies, killed and taken up again: nothing is lost or there twice. More of it in benchmarks/chaos.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import chaos
from raystudy.tracking.records import Records


@pytest.mark.ray
@pytest.mark.timeout(580)
def test_a_study_whose_driver_and_a_worker_are_killed_counts_every_trial_once(tmp_path: Path) -> None:
    study = chaos.document(chaos.prepare_data(tmp_path / "data"), "none", num_trials=8, epochs=4)

    found = chaos.chaos(tmp_path / "killed", study, seed=1, num_kills=2, kinds=("driver", "worker"))

    assert found.losses == []
    assert [kill.kind for kill in found.kills] == ["driver", "worker"]
    assert (found.num_sessions, found.num_trials) == (2, 8)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills_leave_the_record_of_an_unkilled_study(tmp_path: Path) -> None:
    study = chaos.document(chaos.prepare_data(tmp_path / "data"), "successive_halving", num_trials=10)
    unkilled = chaos.chaos(tmp_path / "unkilled", study, seed=0, num_kills=0)
    assert unkilled.losses == []
    record = Records(tmp_path / "unkilled" / "studies" / chaos.NAME).read()

    found = chaos.chaos(tmp_path / "killed", study, seed=1, num_kills=10, unkilled=record)

    assert found.losses == []
    assert len(found.kills) == 10
    assert found.num_trials == unkilled.num_trials == 10
