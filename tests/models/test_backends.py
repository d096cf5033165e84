from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raystudy.errors import Infeasible
from raystudy.models import backends
from raystudy.models.attention import SelfAttention
from raystudy.models.backends import BACKENDS, Need, Probed, choose, choose_backends, probe
from raystudy.models.build import build
from tests.models.cases import model_of

CPU, NEED = torch.device("cpu"), Need(num_heads=2, width=8, ragged=False, dropout=0.0)
RAGGED = Need(num_heads=1, width=64, ragged=True, dropout=0.2)
NEEDS = [NEED, RAGGED, Need(8, 2, False, 0.2), Need(8, 64, False, 0.0)]


@pytest.fixture(autouse=True)
def _nothing_probed() -> Iterator[None]:
    """What a test with a faked backend found must not be remembered, and what was remembered must not be found."""
    backends.probe.cache_clear()
    yield
    backends.probe.cache_clear()


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, Probed]:
    """What probes find; a test fills it in."""
    results: dict[str, Probed] = {}
    monkeypatch.setattr(backends, "probe", lambda need, backend, device, dtype: results[backend])
    return results


def break_attend(monkeypatch: pytest.MonkeyPatch, backend: str, what: Any) -> None:
    """Have one backend raise ``what``, or have its answers multiplied by it."""
    real = backends.attend

    def broken(q: Tensor, k: Tensor, v: Tensor, dropout: float, asked: str) -> Tensor:
        if asked == backend and isinstance(what, Exception):
            raise what
        return real(q, k, v, dropout, asked) * (what if asked == backend else 1)

    monkeypatch.setattr(backends, "attend", broken)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", ["sdpa", "math"])
@pytest.mark.parametrize("need", NEEDS, ids=str)
def test_pytorchs_own_backends_are_found_right_in_both_precisions(need: Need, backend: str, dtype: torch.dtype) -> None:
    found = probe(need, backend, CPU, dtype)

    assert found.refusal is None
    assert found.seconds > 0


def half_precision() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, half_precision])
def test_a_probe_finds_the_same_wherever_it_is_asked(around: Any) -> None:
    with around():
        assert probe(NEED, "sdpa", CPU, torch.float32).refusal is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_backend_with_a_wrong_answer_is_refused_with_its_error(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    break_attend(monkeypatch, "sdpa", 1.5)

    refusal = probe(NEED, "sdpa", CPU, dtype).refusal

    assert refusal is not None
    assert "off by" in refusal
    assert f"{backends.TOLERANCE[dtype]:g} is allowed" in refusal


def test_a_backend_that_forgets_which_gene_a_key_belongs_to_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_to_all(q: Tensor, kv: Tensor, lengths: list[int], dropout: float) -> Tensor:
        k, v = kv.chunk(2, dim=1)
        return F.scaled_dot_product_attention(q, k.expand(len(q), *k.shape), v.expand(len(q), *v.shape))

    monkeypatch.setattr(backends.GeneByGene, "apply", all_to_all)

    assert "off by" in str(probe(RAGGED, "sdpa", CPU, torch.float32).refusal)
    assert "off by" in str(probe(RAGGED, "sdpa", CPU, torch.bfloat16).refusal)


def test_a_backend_whose_answer_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    break_attend(monkeypatch, "sdpa", float("nan"))

    assert "off by nan" in str(probe(NEED, "sdpa", CPU, torch.float32).refusal)


def test_a_backend_whose_gradients_only_are_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = backends.attend

    def broken(q: Tensor, k: Tensor, v: Tensor, dropout: float, asked: str) -> Tensor:
        v = v + 0  # so that the hook is of this call
        if asked == "sdpa":
            v.register_hook(lambda gradient: gradient * float("nan"))
        return real(q, k, v, dropout, asked)

    monkeypatch.setattr(backends, "attend", broken)

    assert "off by nan" in str(probe(NEED, "sdpa", CPU, torch.float32).refusal)


@pytest.mark.parametrize("kind", [RuntimeError, NotImplementedError, ValueError, AssertionError, TypeError])
def test_a_backend_that_refuses_keeps_its_own_message(monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    break_attend(monkeypatch, "sdpa", kind("no kernel\n   for width 8"))

    assert probe(NEED, "sdpa", CPU, torch.float32) == Probed(0.0, f"{kind.__name__}: no kernel for width 8")


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xformers", None)

    for need in (NEED, RAGGED):
        refusal = probe(need, "xformers", CPU, torch.float32).refusal
        assert refusal is not None
        assert "xformers" in refusal
        assert "install raystudy[gpu]" in refusal


def test_a_probe_is_made_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [], backends._call
    monkeypatch.setattr(backends, "_call", lambda *args, **more: calls.append(args) or real(*args, **more))

    first = probe(NEED, "sdpa", CPU, torch.float32)
    made = len(calls)

    assert made > 1
    assert probe(Need(2, 8, False, 0.0), "sdpa", torch.device("cpu"), torch.float32) is first
    assert len(calls) == made
    probe(NEED, "sdpa", CPU, torch.bfloat16)
    assert len(calls) > made, "another precision is another question"


def test_an_explicit_backend_that_is_refused_makes_the_configuration_infeasible(found: dict[str, Probed]) -> None:
    found["xformers"] = Probed(0.0, "no such kernel")

    with pytest.raises(Infeasible) as caught:
        choose(NEED, "xformers", CPU, torch.bfloat16)

    for part in ("`xformers`", "2 heads", "width 8", "bfloat16", "cpu", "no such kernel", "training.attention"):
        assert part in str(caught.value)


def test_an_explicit_backend_that_works_is_taken_however_slow(found: dict[str, Probed]) -> None:
    found.update(math=Probed(9.0), sdpa=Probed(1.0))

    assert choose(NEED, "math", CPU, torch.float32) == "math"


@pytest.mark.parametrize(
    ("seconds", "taken"),
    [
        ({"sdpa": 1.0, "xformers": 0.6, "math": 2.0}, "xformers"),
        ({"sdpa": 1.0, "xformers": 0.9, "math": 2.0}, "sdpa"),
        ({"sdpa": 1.0, "xformers": 0.6, "math": 0.5}, "math"),
        ({"sdpa": None, "xformers": 1.0, "math": 0.9}, "xformers"),
        ({"sdpa": None, "xformers": None, "math": 9.0}, "math"),
    ],
)
def test_auto_takes_the_first_that_is_right_unless_another_is_clearly_faster(
    found: dict[str, Probed], seconds: dict[str, float | None], taken: str
) -> None:
    assert set(seconds) == set(BACKENDS)
    found.update({name: Probed(0.0, "refused") if s is None else Probed(s) for name, s in seconds.items()})

    assert choose(NEED, "auto", CPU, torch.float32) == taken


def test_auto_without_any_backend_gives_every_reason(found: dict[str, Probed]) -> None:
    found.update({name: Probed(0.0, f"{name} is broken") for name in BACKENDS})

    with pytest.raises(Infeasible) as caught:
        choose(NEED, "auto", CPU, torch.float32)

    assert all(f"{name}: {name} is broken" in str(caught.value) for name in BACKENDS)


def attention_layers(network: nn.Module) -> dict[str, str]:
    return {name: module.backend for name, module in network.named_modules() if hasattr(module, "need")}


LAYERS = ["perceiver.cross", "perceiver.blocks.0.attention", "perceiver.blocks.1.attention", "head"]


def test_every_attention_layer_is_given_its_own_backend_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(model_of({"reader": "dna", "depth": 2}))
    monkeypatch.setattr(backends, "choose", lambda need, asked, *_: "math" if need.num_heads == 8 else "sdpa")

    chosen = choose_backends(network, "auto", CPU, torch.float32)

    assert chosen == dict(zip(LAYERS, ["sdpa", "math", "math", "sdpa"], strict=True))
    assert attention_layers(network) == chosen


def test_an_explicit_backend_is_given_to_every_layer(found: dict[str, Probed]) -> None:
    network = build(model_of({"reader": "protein asked by dna", "depth": 2}))
    found["math"] = Probed(1.0)

    assert choose_backends(network, "math", CPU, torch.float32) == dict.fromkeys(LAYERS, "math")
    assert attention_layers(network) == dict.fromkeys(LAYERS, "math")


def test_auto_keeps_what_an_interrupted_training_had_where_it_still_can(found: dict[str, Probed]) -> None:
    network = build(model_of({"reader": "dna", "depth": 2}))
    found.update(sdpa=Probed(1.0), math=Probed(5.0), xformers=Probed(0.0, "not here"))
    before = {"perceiver.cross": "math", "head": "xformers"}

    chosen = choose_backends(network, "auto", CPU, torch.float32, before)

    assert chosen == {**dict.fromkeys(LAYERS, "sdpa"), "perceiver.cross": "math"}
    found["math"] = Probed(5.0)
    assert set(choose_backends(network, "sdpa", CPU, torch.float32, before).values()) == {"sdpa"}, "asked for by name"


def test_a_network_without_attention_has_nothing_to_choose() -> None:
    assert choose_backends(build(model_of({"reader": "xpresso"})), "xformers", CPU, torch.float32) == {}


def test_a_layer_asks_for_what_it_will_use() -> None:
    assert SelfAttention(24, num_heads=8, head_dim=2, dropout=0.1).need == Need(8, 2, ragged=False, dropout=0.1)
