"""What the benchmark counts, and the simulated part end to end with two replicates."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import seeding, surfaces
from benchmarks.surfaces import BEST_R2, KINDS, Training, World, planted_estimate, widths_of
from raystudy.data.sources import prepare
from raystudy.errors import TrialFailed
from raystudy.study.spec import StudySpec
from raystudy.tracking.records import TrialRecord


def command(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(seeding.main)
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def spec() -> StudySpec:
    return seeding.study("simulated", 0)


@pytest.fixture
def world(spec: StudySpec) -> World:
    return replace(World.draw("informed", 0, spec), log2_width=5.0)


def optimum(world: World) -> dict[str, Any]:
    return {
        "latent_dim": 32,
        "learning_rate": 10**world.log10_rate,
        "dropout": world.dropout,
        "batch_size": world.batch_size,
        "encoder": world.encoder,
        "half_life": world.half_life,
        "epochs": 5,
    }


def test_a_surface_is_highest_where_all_values_are_at_their_best(world: World) -> None:
    assert world.r2(optimum(world), 5) == pytest.approx(world.best) == pytest.approx(BEST_R2)


@pytest.mark.parametrize(
    ("name", "change", "share"),
    [
        ("latent_dim", lambda width: 2 * width, math.exp(-1 / 18)),
        ("latent_dim", lambda width: width // 4, math.exp(-4 / 18)),
        ("learning_rate", lambda rate: rate * 10**0.5, math.exp(-1 / 8)),
        ("dropout", lambda dropout: dropout - 0.1, 0.99),
        ("batch_size", lambda size: size // 2, 0.99),
        ("encoder", lambda _: "another", 0.98),
        ("half_life", lambda _: "another", 0.98),
    ],
)
def test_each_value_off_its_best_costs_what_is_documented(
    world: World, name: str, change: Callable[[Any], Any], share: float
) -> None:
    best = optimum(world)

    assert world.r2(best | {name: change(best[name])}, 5) == pytest.approx(share * world.best)


def test_r2_rises_from_epoch_to_epoch_and_later_for_a_low_learning_rate(world: World) -> None:
    curves = {}
    for rate in (1e-4, 3e-3):
        values = [world.r2(optimum(world) | {"learning_rate": rate}, epoch) for epoch in range(1, 6)]
        assert values == sorted(values)
        curves[rate] = values[0] / values[-1]

    assert curves[1e-4] < curves[3e-3] < 1


def test_the_best_is_that_of_the_nearest_power_of_two(world: World) -> None:
    between = replace(world, log2_width=5.4)

    assert between.best == between.r2(optimum(between), 5) < BEST_R2
    assert replace(world, log2_width=5.6).best == pytest.approx(between.best)


def test_worlds_of_a_replicate_differ_by_where_the_best_width_lies_and_how_steep_it_is_only(spec: StudySpec) -> None:
    off = {kind: [] for kind in KINDS}
    for replicate in range(30):
        worlds = {kind: World.draw(kind, replicate, spec) for kind in KINDS}
        assert len({replace(world, log2_width=0.0, width_octaves=1.0) for world in worlds.values()}) == 1
        for kind in ("informed", "unrelated", "misleading"):
            assert worlds[kind].log2_width == worlds[f"{kind}_steep"].log2_width
            assert worlds[kind].width_octaves == 2 * worlds[f"{kind}_steep"].width_octaves
        for kind, world in worlds.items():
            assert 3 <= world.log2_width <= 7
            off[kind].append(abs(world.log2_width - math.log2(world.estimate)))

    assert max(off["informed"]) < 2
    assert min(off["misleading"]) >= 2
    assert max(off["unrelated"]) > 2
    assert min(off["unrelated"]) < 1


def test_a_study_tries_the_powers_of_two_around_the_estimate_and_16(spec: StudySpec) -> None:
    assert set(widths_of(planted_estimate(90.0), spec)) == {64, 128, 16}


@pytest.mark.parametrize(
    ("worths", "expected"),
    [([0.1, 0.95, 1.0], 2), ([0.95], 1), ([0.5, 0.2, 0.94], 4), ([-math.inf, 0.99], 2), ([], 1), ([-math.inf] * 2, 3)],
)
def test_trials_are_counted_to_the_first_that_is_good_enough_and_one_beyond_where_none_is(
    worths: list[float], expected: int
) -> None:
    assert seeding.trials_until(worths, 0.95) == expected


def test_where_nobody_knows_the_best_it_is_the_best_of_both_arms() -> None:
    pair = seeding.Pair(seeded=[0.1, 0.39, 0.2], unseeded=[0.2, 0.3, 0.4], best=None)

    assert pair.num_trials == (2, 3)
    assert replace(pair, best=0.5).num_trials == (4, 4)
    assert seeding.Pair([-0.2, -0.101], [-0.104, -0.1], best=None).num_trials == (2, 1)


def test_an_arm_whose_trials_all_failed_never_got_there_whatever_the_best_is() -> None:
    failed = [-math.inf, -math.inf]

    assert seeding.Pair(failed, [0.1, 0.2], best=None).num_trials == (3, 2)
    assert seeding.Pair(failed, failed, best=None).num_trials == (3, 3)


def test_an_octave_off_costs_5_per_cent_of_a_gentle_peak_and_20_of_a_steep_one() -> None:
    assert surfaces.octave_cost(surfaces.WIDTH_OCTAVES) == pytest.approx(0.05, abs=0.005)
    assert surfaces.octave_cost(surfaces.STEEP_WIDTH_OCTAVES) == pytest.approx(0.20, abs=0.005)


def test_the_interval_of_equal_differences_is_that_difference() -> None:
    assert seeding.paired_interval([-2.0] * 5) == (-2.0, -2.0)


def test_the_interval_of_few_differences_is_students() -> None:
    reach = 4.302653 / math.sqrt(3)  # the 97.5 % point of t with 2 degrees of freedom, as printed in tables

    assert seeding.paired_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - reach, 2 + reach))


@pytest.mark.parametrize("differences", [[], [1.0]])
def test_fewer_than_two_differences_have_no_interval(differences: list[float]) -> None:
    assert seeding.paired_interval(differences) is None


def test_the_interval_of_six_skewed_differences_may_be_wider_than_their_range() -> None:
    low, high = seeding.paired_interval([-20.0, 0.0, 0.0, 0.0, 0.0, 0.0])

    assert low < -10 < 0 < high


def test_arms_are_compared_by_pairs_and_those_that_never_got_there_are_said() -> None:
    pairs = [seeding.Pair([1.0, 1.0], [0.0, 1.0], 1.0), seeding.Pair([1.0, 0.5], [0.5, 0.9], 1.0)]

    found = seeding.compare(pairs)

    assert (found["trials_seeded"], found["trials_unseeded"], found["trials_difference"]) == (1, 2.5, -1.5)
    reach = 12.7062 * 0.5  # t with 1 degree of freedom, and the standard error of -1 and -2
    assert found["trials_difference_low"] == pytest.approx(-1.5 - reach)
    assert found["trials_difference_high"] == pytest.approx(-1.5 + reach)
    assert (found["never_seeded"], found["never_unseeded"]) == (0, 1)
    assert found["best_r2_difference"] == pytest.approx(0.05)
    assert found["best_r2_left_out"] == 0


def test_replicates_in_which_an_arm_failed_are_counted_and_left_out_of_the_best_r2() -> None:
    failed = seeding.Pair([-math.inf] * 2, [0.2, 0.3], None)

    found = seeding.compare([failed, seeding.Pair([0.5, 0.4], [0.4, 0.2], None)])

    assert (found["best_r2_left_out"], found["never_seeded"]) == (1, 1)
    assert found["best_r2_difference"] == pytest.approx(0.1)
    assert found["trials_seeded"] == 2  # 1 and, never, 3
    assert "best_r2_difference_low" not in found
    assert not [name for name in seeding.compare([failed] * 3) if name.startswith("best_r2_") and "left" not in name]
    assert all(map(math.isfinite, found.values()))
    assert "not compared in 1, where every trial of an arm failed" in seeding.verdict({"real": found})


@pytest.mark.parametrize(
    ("num", "low", "high", "said"),
    [
        (10, -1.0, 1.0, "no difference"),
        (10, -2.0, -1.0, "fewer:"),
        (10, 0.5, 2.0, "more:"),
        (9, -2.0, -1.0, "9 replicates are too few for a claim:"),
        (2, 0.5, 2.0, "2 replicates are too few for a claim:"),
    ],
)
def test_the_verdict_says_what_the_interval_and_the_replicates_allow(
    num: int, low: float, high: float, said: str
) -> None:
    found = seeding.compare([seeding.Pair([1.0, 1.0], [1.0, 1.0], 1.0)] * num)
    text = seeding.verdict({"informed": found | {"trials_difference_low": low, "trials_difference_high": high}})

    claims = ("no difference", "fewer:", "more:", f"{num} replicates are too few for a claim:")
    assert [words for words in claims if words in text] == [said]
    assert f"[{low:+.1f}, {high:+.1f}]" in text


def test_one_replicate_gives_its_numbers_without_an_interval_or_a_claim() -> None:
    found = seeding.compare([seeding.Pair([1.0, 1.0], [0.1, 1.0], 1.0)])
    text = seeding.verdict({"informed": found})

    assert "trials_difference_low" not in found
    assert "1 replicate is too few for a claim: 1.0 against 2.0 (-1.0 [no interval]; 1 replicate, " in text


def test_the_verdict_says_what_an_octave_off_costs_in_each_world() -> None:
    found = seeding.compare([seeding.Pair([1.0], [1.0], 1.0)] * 2)

    for kind in KINDS:
        text = seeding.verdict({kind: found})
        assert ("an octave off costs 20%" in text) == kind.endswith("_steep")
        assert ("hardly matters by construction (an octave off costs 5%)" in text) == (not kind.endswith("_steep"))


def test_both_arms_see_the_same_values_for_the_same_configuration(spec: StudySpec, world: World) -> None:
    seen: list[dict[str, list[float]]] = []

    class Watched(World):
        def __call__(self, trial: TrialRecord, folder: Path, report: Any) -> None:
            reported: list[float] = []
            seen[-1].setdefault(trial.config_hash, reported)  # a configuration tried again has another seed

            def listen(metrics: dict[str, Any]) -> None:
                reported.append(metrics["valid_r2"])
                report(metrics)

            super().__call__(trial, folder, listen)

    narrow = {name: spec.search[name] for name in ("latent_dim", "encoder")}  # without continuous values, so they meet
    narrow_spec = spec.model_copy(
        update={"search": narrow, "budget": spec.budget.model_copy(update={"trials": 6}), "pruner": "none"}
    )
    for widths in ((32, 16), ()):
        seen.append({})
        seeding.search(narrow_spec, Watched(**vars(world)), widths)

    common = seen[0].keys() & seen[1].keys()
    assert common
    for config in common:
        assert seen[0][config] == seen[1][config]
        assert len(seen[0][config]) == 5


def test_widths_are_tried_first_and_a_trial_that_fails_is_worth_what_it_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    class Failing:
        best = None

        def __call__(self, trial: TrialRecord, folder: Path, report: Any) -> None:
            tried.append(trial.config["latent_dim"])
            raise TrialFailed("nan", "on purpose")

        def worth(self, trial: TrialRecord) -> float:
            assert trial.reason == "nan"
            return -1.0

    monkeypatch.setitem(seeding.TRIALS, "simulated", 3)

    assert seeding.search(seeding.study("simulated", 0), Failing(), (64, 8)) == [-1.0] * 3
    assert tried[:2] == [64, 8]


@pytest.mark.slow
def test_the_command_compares_the_worlds_and_writes_what_the_report_quotes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAYSTUDY_HOME", str(tmp_path))
    monkeypatch.setitem(seeding.TRIALS, "simulated", 4)
    out = tmp_path / "new" / "seeding.json"

    found = command("--json", "--replicates", "2", "--out", str(out))

    assert found.exit_code == 0, found.output
    figures, document = json.loads(found.stdout), json.loads(out.read_text())
    assert document["figures"] == figures
    assert all(isinstance(value, float) for value in figures.values())
    for kind in KINDS:
        assert figures[f"{kind}_replicates"] == 2
        assert 1 <= figures[f"{kind}_trials_seeded"] <= 5
        assert 0 < figures[f"{kind}_best_r2_unseeded"] <= BEST_R2
        assert f"{figures[f'{kind}_trials_difference']:+.1f}" in document["verdict"]
    assert "the small real study was not run (no prepared data" in document["verdict"]
    assert set(document) == {"figures", "verdict", "machine", "date", "command"}
    assert "--replicates 2" in document["command"]


def test_what_is_done_is_written_before_the_next_surface(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails_later(kind: str, replicate: int) -> seeding.Pair:
        if kind == KINDS[1]:
            raise KeyboardInterrupt
        return seeding.Pair([-math.inf, -math.inf], [0.3, 0.39], best=0.4)

    monkeypatch.setattr(seeding, "simulated", fails_later)
    out = tmp_path / "seeding.json"

    with pytest.raises(KeyboardInterrupt):
        seeding.main(part="simulated", replicates=2, out=out)

    document = json.loads(out.read_text())
    assert document["figures"]["informed_never_seeded"] == 2
    assert f"{KINDS[1]} was not finished when this was written" in document["verdict"]
    assert list(tmp_path.iterdir()) == [out]


def test_real_trainings_are_compared_on_their_own_training_genes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAYSTUDY_HOME", str(tmp_path))
    prepare("synthetic", tmp_path / "genes", num_genes=150)
    monkeypatch.setitem(seeding.TRIALS, "real", 2)
    measured: list[int] = []

    def estimate(training: Training, spec: StudySpec) -> dict[str, Any]:
        assert set(training.split.train).isdisjoint(np.concatenate([training.split.valid, training.split.test]))
        measured.append(len(training.split.train))
        return planted_estimate(20.0)

    monkeypatch.setattr(seeding, "measured_estimate", estimate)
    monkeypatch.setattr(surfaces, "NUM_TRAIN", 60)

    found = command("--part", "real", "--replicates", "1", "--data", str(tmp_path / "genes"), "--json")

    assert found.exit_code == 0, found.output
    figures = json.loads(found.stdout)
    assert measured == [60]
    assert figures["real_estimate_smallest"] == 20
    assert min(figures["real_trials_seeded"], figures["real_trials_unseeded"]) <= 2
    assert figures["real_best_r2_seeded"] < 1
    assert json.loads((tmp_path / "benchmarks" / "seeding.json").read_text())["figures"] == figures


def test_the_real_part_alone_is_refused_without_prepared_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAYSTUDY_HOME", str(tmp_path))

    found = command("--part", "real")

    assert found.exit_code == 2
    assert "raystudy prepare yeast" in found.output
