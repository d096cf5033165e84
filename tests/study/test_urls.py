"""Passwords in addresses: hidden in whatever is shown, refused in a study file."""

from __future__ import annotations

from pathlib import Path

import pytest

from raystudy.errors import SpecError
from raystudy.study.urls import has_password, redacted, refuse_password, without_password
from raystudy.tracking.identity import check_spec
from raystudy.tracking.mlflow import ui_command
from tests.search.cases import make_spec

SECRET = "Zwiebel-4711"  # noqa: S105 (a test's)
HOLDING = [
    f"postgresql+psycopg://user:{SECRET}@host:5432/db",
    f"postgresql://user:p%40{SECRET}@host/db",
    f"postgresql://user:p@/{SECRET}@host/db",
    f"postgresql://user:p {SECRET}\n@host/db",
    f"postgresql://host/db?sslmode=require&password={SECRET}",
    f"http://user:{SECRET}@host:5000/",
    f"https://:{SECRET}@host",
]


@pytest.mark.parametrize("url", HOLDING)
def test_a_password_is_hidden_wherever_it_stands(url: str) -> None:
    assert has_password(url)
    assert SECRET not in without_password(url)
    assert "host" in without_password(url)


@pytest.mark.parametrize("url", HOLDING)
def test_an_error_that_quotes_a_password_is_told_without_it(url: str) -> None:
    quotes = [url, url.rstrip("/") + "/api", f"user 'user' with {SECRET} failed" if f":{SECRET}@" in url else ""]
    for text in quotes:
        assert SECRET not in redacted(text, url)


def test_a_password_that_was_quoted_otherwise_is_hidden_too() -> None:
    assert redacted("tried p@ss and p%40ss", "http://user:p%40ss@host") == "tried *** and ***"
    assert redacted("tried p@ss and p%40ss", "http://user:p@ss@host") == "tried *** and ***"


@pytest.mark.parametrize("url", ["sqlite:////a/b.db", "postgresql://user@host:5432/db", "http://host:5000", "words"])
def test_an_address_without_a_password_stays_as_it_is(url: str) -> None:
    assert not has_password(url)
    assert without_password(url) == url
    assert redacted(f"{url} fails", url) == f"{url} fails"
    refuse_password("tracking.uri", url)


@pytest.mark.parametrize("key", ["storage", "uri"])
@pytest.mark.parametrize("url", HOLDING)
def test_a_study_file_with_a_password_is_refused_before_anything_is_written(key: str, url: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=rf"`tracking.{key}` holds a password .*PGPASSWORD") as told:
        check_spec(make_spec(tracking={key: url}), tmp_path / "spec.json")
    assert SECRET not in str(told.value)


def test_a_password_is_not_put_into_the_list_of_processes(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="list of processes") as told:
        ui_command(tmp_path, 5000, HOLDING[0])
    assert SECRET not in str(told.value)
