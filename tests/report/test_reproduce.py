from __future__ import annotations

import json

from raystudy.report.reproduce import commands, session_lines
from raystudy.tracking.records import Records


def add_session(records: Records, **changed: object) -> None:
    first = records.read().every("session_started")[0]
    provenance = first["provenance"] | changed
    records.append("session_started", data=first["data"], split=first["split"], provenance=provenance)


def test_the_commands_go_from_a_clone_to_this_report(fake_study):
    assert commands(fake_study().read()).splitlines() == [
        "# in a clone of raystudy",
        "git checkout abc",
        "python -m pip install -c constraints.txt -e .",
        "# the hash of data/synthetic must be d1",
        "raystudy prepare synthetic --out data/synthetic",
        "raystudy tune fake.yaml --data data/synthetic",
        "raystudy report fake",
    ]


def test_data_of_a_folder_is_named_and_not_prepared(fake_study):
    records = fake_study()
    written = json.loads((records.folder / "spec.json").read_text())
    written["spec"]["data"] = {"source": None, "path": "my genes"}
    (records.folder / "spec.json").write_text(json.dumps(written))
    told = commands(records.read())
    assert "raystudy tune fake.yaml --data 'my genes'" in told
    assert "# the hash of my genes must be d1" in told
    assert "prepare" not in told


def test_changes_that_were_not_committed_are_said(fake_study):
    records = fake_study()
    assert "not committed" not in commands(records.read())
    add_session(records, git={"commit": "def", "dirty": True})
    told = commands(records.read())
    assert "not committed" in told
    assert "git checkout def" in told


def test_a_folder_without_a_session_still_has_commands(tmp_path):
    study = Records(tmp_path / "new").read()
    assert "raystudy tune new.yaml" in commands(study)
    assert session_lines(study) == []


def test_sessions_alike_are_one_line(fake_study):
    records = fake_study()
    assert session_lines(records.read()) == ["The only session ran commit abc on no GPU (ray 2.60.0)."]
    add_session(records)
    assert session_lines(records.read()) == ["Each of the 2 sessions ran commit abc on no GPU (ray 2.60.0)."]


def test_sessions_of_different_code_or_machines_have_a_line_each(fake_study):
    records = fake_study()
    add_session(records, git={"commit": "def", "dirty": True}, gpus=["A", "A"], num_cores=8, processor="B")
    first, second = session_lines(records.read())
    assert first.startswith("Session 1, ")
    assert first.endswith(" UTC: commit abc on no GPU (ray 2.60.0).")
    assert "commit def with changes on 8 cores, B, 2 x A" in second
