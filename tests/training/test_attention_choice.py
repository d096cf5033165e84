"""Which attention was computed how: chosen once per layer, reported with every epoch, kept when a run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from raystudy.errors import Infeasible
from raystudy.models import backends
from raystudy.training import checkpoint
from raystudy.training.loop import train
from raystudy.training.session import LocalSession, Metrics
from tests.training.conftest import READERS, Tiny, make_job, run

WITHOUT_XFORMERS = pytest.mark.skipif(
    find_spec("xformers") is not None and torch.cuda.is_available(), reason="xformers may work on this machine"
)
LAYERS = ("perceiver.cross", "perceiver.blocks.0.attention", "head")


class Killed(Exception):
    """Stands for the end of a process."""


@pytest.fixture(autouse=True)
def _probed_anew() -> Iterator[None]:
    backends.probe.cache_clear()
    yield
    backends.probe.cache_clear()


def offer(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let ``auto`` choose among these."""
    monkeypatch.setattr(backends, "BACKENDS", names)


@pytest.mark.parametrize("attention", ["math", "sdpa"])
def test_every_epoch_says_for_each_layer_what_was_asked_for(attention: str, tiny: Tiny, tmp_path: Path) -> None:
    reported = run(make_job(epochs=2, attention=attention), tiny.data, tmp_path)

    assert [epoch["attention"] for epoch in reported] == 2 * [dict.fromkeys(LAYERS, attention)]


def test_auto_takes_a_backend_that_works_here_for_each_layer(tiny: Tiny, tmp_path: Path) -> None:
    job = make_job(epochs=1, model={"depth": 2})
    reported = run(job, tiny.read_by(job), tmp_path)

    assert set(reported[0]["attention"]) == {*LAYERS, "perceiver.blocks.1.attention"}
    assert set(reported[0]["attention"].values()) <= {"sdpa", "math"}


def test_a_network_without_attention_reports_none(tiny: Tiny, tmp_path: Path) -> None:
    job = make_job(epochs=1, model=READERS["xpresso"])

    assert run(job, tiny.read_by(job), tmp_path)[0]["attention"] == {}


def die_after_the_first_epoch(metrics: Metrics) -> None:
    raise Killed


def test_a_run_that_goes_on_takes_the_earlier_choice_though_it_would_now_choose_otherwise(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, "math")
    with pytest.raises(Killed):
        train(make_job(epochs=3), tiny.data, LocalSession(tmp_path / "resumed", die_after_the_first_epoch))
    offer(monkeypatch, "sdpa")
    resumed = run(make_job(epochs=3), tiny.data, tmp_path / "resumed")
    fresh = run(make_job(epochs=1), tiny.data, tmp_path / "fresh")

    assert [set(epoch["attention"].values()) for epoch in resumed] == 3 * [{"math"}]
    assert set(fresh[0]["attention"].values()) == {"sdpa"}


@WITHOUT_XFORMERS
def test_a_run_that_goes_on_where_the_earlier_choice_does_not_work_chooses_again(tiny: Tiny, tmp_path: Path) -> None:
    job = make_job(epochs=2)
    with pytest.raises(Killed):
        train(job, tiny.data, LocalSession(tmp_path, die_after_the_first_epoch))
    tensors, state = checkpoint.load(tmp_path / checkpoint.LAST)
    state["history"][0]["attention"] = dict.fromkeys(LAYERS, "xformers")
    checkpoint.save(tmp_path / checkpoint.LAST, tensors, state)

    resumed = run(job, tiny.data, tmp_path)

    assert set(resumed[1]["attention"].values()) <= {"sdpa", "math"}


@WITHOUT_XFORMERS
def test_xformers_where_it_cannot_work_is_infeasible_with_the_reason_and_trains_nothing(
    tiny: Tiny, tmp_path: Path
) -> None:
    reported: list[Metrics] = []

    with pytest.raises(Infeasible) as caught:
        train(make_job(attention="xformers"), tiny.data, LocalSession(tmp_path, reported.append))

    message = str(caught.value)
    for part in ("attention `xformers`", "1 heads of width 64", "float32", "on cpu", "`training.attention`"):
        assert part in message
    if find_spec("xformers") is None:
        assert "xformers is not installed; install raystudy[gpu]" in message
    assert "\n" not in message
    assert reported == []
    assert not list(tmp_path.iterdir())


def test_a_deterministic_training_takes_no_backend_for_its_speed_and_no_algorithm_that_differs(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = list[bool]()
    monkeypatch.setattr(
        backends, "probe", lambda _, backend, *__: backends.Probed({"sdpa": 9.0, "xformers": 3.0, "math": 1.0}[backend])
    )
    by_speed = make_job(epochs=1)
    assert set(run(by_speed, tiny.data, tmp_path / "by speed")[0]["attention"].values()) == {"math"}

    session = LocalSession(tmp_path, lambda _: allowed.append(torch.are_deterministic_algorithms_enabled()))
    train(make_job(epochs=1, deterministic=True), tiny.data, session)

    _, state = checkpoint.load(tmp_path / checkpoint.LAST)
    assert set(state["history"][0]["attention"].values()) == {"sdpa"}
    assert allowed == [True]
    assert not torch.are_deterministic_algorithms_enabled(), "as it was before"
