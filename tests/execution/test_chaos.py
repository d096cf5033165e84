"""Real studies, killed and taken up again: nothing is lost or there twice. More of it in benchmarks/chaos.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import chaos
from raystudy.tracking.records import Records


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
