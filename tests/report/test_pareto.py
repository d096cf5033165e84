from __future__ import annotations

import json
import time
from itertools import product

import numpy as np
import pytest

from raystudy.report.pareto import hypervolume, pareto, pareto_json, undominated, volume_over_time
from raystudy.tracking.records import Records, TrialRecord, TrialState

ALL = ("valid_r2", "epoch_seconds", "parameters")


def write(folder, trials, objectives=ALL) -> Records:
    """A study of trials given as (valid_r2, epoch_seconds, parameters, when it ended, state)."""
    records = Records(folder)
    folder.mkdir()
    named = [{"metric": one, "direction": "maximize" if one == "valid_r2" else "minimize"} for one in objectives]
    (folder / "spec.json").write_text(json.dumps({"hash": "h", "spec": {"objectives": named}}))
    for number, (valid_r2, epoch_seconds, parameters, ended, state) in enumerate(trials):
        trial_id = f"t{number:04d}"
        records.trial_started(TrialRecord(trial_id, {}, trial_id, parameters, 1, "sampled"))
        records.trial_epoch(trial_id, {"epoch": 1, "valid_r2": valid_r2, "epoch_seconds": epoch_seconds})
        records.trial_ended(trial_id, state, time=ended)
    return records


def cells_covered(costs: np.ndarray, reference: np.ndarray) -> int:
    """Volume in whole units: unit cells under the reference that some point covers, one by one."""
    cells = product(*(range(int(limit)) for limit in reference))
    return sum(any(all(cost <= cell) for cost in costs) for cell in map(np.array, cells))


@pytest.mark.parametrize("dimensions", [2, 3, 4])
def test_a_hypervolume_is_the_number_of_cells_that_points_cover(dimensions):
    random = np.random.default_rng(dimensions)
    for _ in range(6):
        costs = random.integers(0, 6, size=(random.integers(1, 9), dimensions)).astype(float)
        reference = np.full(dimensions, 5.0)  # some points lie on it or beyond, many are equal or dominated
        assert hypervolume(costs, reference) == pytest.approx(cells_covered(costs, reference))


def test_a_hypervolume_of_three_objectives_agrees_with_random_points():
    random = np.random.default_rng(0)
    costs, thrown = random.random((25, 3)), random.random((40_000, 3))
    share = (costs[:, None] <= thrown).all(axis=2).any(axis=0).mean()
    assert hypervolume(costs, [1, 1, 1]) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / len(thrown)))


def test_hypervolumes_that_can_be_worked_out_by_hand():
    assert hypervolume(np.array([[1.0, 2.0]]), [4, 4]) == 6
    assert hypervolume(np.array([[1.0, 2.0], [2.0, 1.0]]), [4, 4]) == 8
    assert hypervolume(np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [3.0, 3.0]]), [4, 4]) == 8
    assert hypervolume(np.array([[4.0, 0.0], [5.0, 5.0]]), [4, 4]) == 0
    assert hypervolume(np.array([[0.0, 0.0, 0.0]]), [2, 3, 4]) == 24
    assert hypervolume(np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]), [2, 2, 2]) == 2 + 4 - 1
    assert hypervolume(np.empty((0, 2)), [1, 1]) == 0


def test_equals_are_both_on_the_front_and_a_tie_in_one_objective_is_beaten():
    costs = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 3.0], [2.0, 1.0], [2.0, 2.0]])
    assert undominated(costs).tolist() == [True, True, False, True, False]


def test_the_front_is_what_no_other_beats_one_pair_at_a_time():
    costs = np.random.default_rng(1).integers(0, 5, size=(40, 3)).astype(float)
    beaten = [any((other <= one).all() and (other < one).any() for other in costs) for one in costs]
    assert undominated(costs).tolist() == [not one for one in beaten]


def test_what_is_covered_over_time_is_the_hypervolume_of_each_beginning():
    costs = np.random.default_rng(2).random((30, 3))
    worst = costs.max(axis=0)
    expected = [hypervolume(costs[: count + 1], worst) for count in range(30)]
    assert volume_over_time(costs, worst) == pytest.approx(expected)


def test_a_thousand_trials_of_three_objectives_take_seconds():
    costs = np.random.default_rng(3).random((1000, 3))
    begun = time.perf_counter()
    volumes = volume_over_time(costs, costs.max(axis=0))
    assert undominated(costs).sum() > 10
    assert time.perf_counter() - begun < 10
    assert volumes == sorted(volumes)


def test_a_study_has_its_front_its_reference_and_its_volume_in_the_order_of_endings(tmp_path):
    complete = TrialState.COMPLETE
    trials = [
        (0.5, 4.0, 100, 30.0, complete),  # best R2
        (0.3, 2.0, 100, 10.0, complete),  # fastest
        (0.3, 4.0, 100, 20.0, complete),  # beaten by both
        (0.9, 1.0, 1, 5.0, TrialState.PRUNED),
        (0.1, 6.0, 100, 40.0, complete),  # the worst in both
        (None, 1.0, 1, 50.0, TrialState.FAILED),
    ]
    found = pareto_json(write(tmp_path / "s", trials, ALL[:2]).read())
    assert [one["trial"] for one in found["front"]] == ["t0000", "t0001"]
    assert found["front"][0]["values"] == {"valid_r2": 0.5, "epoch_seconds": 4.0}
    assert found["reference"] == {"valid_r2": 0.1, "epoch_seconds": 6.0}
    assert [one["trial"] for one in found["hypervolume"]] == ["t0001", "t0002", "t0000", "t0004"]
    assert [one["time"] for one in found["hypervolume"]] == [10, 20, 30, 40]
    values = [one["value"] for one in found["hypervolume"]]
    assert values == pytest.approx([0.2 * 4, 0.2 * 4, 0.2 * 4 + 0.2 * 2, 0.2 * 4 + 0.2 * 2])


def test_fewer_parameters_are_better(tmp_path):
    complete = TrialState.COMPLETE
    trials = [(0.5, 1.0, 300, 1.0, complete), (0.5, 1.0, 100, 2.0, complete), (0.4, 1.0, 50, 3.0, complete)]
    front = pareto(write(tmp_path / "s", trials, ("valid_r2", "parameters")).read())
    assert [front.trials[row].id for row in front.members] == ["t0001", "t0002"]
    assert front.reference.tolist() == [0.4, 300]


def test_a_search_after_one_objective_is_looked_at_by_its_costs_too(tmp_path):
    trials = [
        (0.5, 4.0, 100, 1.0, TrialState.COMPLETE),
        (0.3, 2.0, 100, 2.0, TrialState.PRUNED),
        (0.2, 3.0, 100, 3.0, TrialState.COMPLETE),  # beaten by the pruned one
        (None, 1.0, 1, 4.0, TrialState.FAILED),
    ]
    found = pareto_json(write(tmp_path / "one", trials, ("valid_r2",)).read())
    assert [one["metric"] for one in found["objectives"]] == list(ALL)
    assert [one["trial"] for one in found["front"]] == ["t0000", "t0001"]
    assert (found["declared"], found["hypervolume"]) == (False, [])
    assert pareto_json(write(tmp_path / "several", trials).read())["declared"]


def test_there_is_no_front_without_a_trial_that_ended(tmp_path):
    complete = (0.5, 1.0, 1, 1.0, TrialState.COMPLETE)
    assert pareto_json(write(tmp_path / "none", [], ALL).read()) is None
    assert pareto_json(Records(tmp_path / "new").read()) is None
    alone = pareto_json(write(tmp_path / "alone", [complete]).read())
    assert [one["value"] for one in alone["hypervolume"]] == [0.0], "it is its own reference"
