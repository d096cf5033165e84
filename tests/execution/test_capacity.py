from __future__ import annotations

from typing import Any

import pytest

from raystudy.errors import Infeasible
from raystudy.execution.capacity import concurrent_trials, finalist_workers
from raystudy.study.spec import ResourcesSpec


def resources(**settings: Any) -> ResourcesSpec:
    return ResourcesSpec(**settings)


@pytest.mark.parametrize(
    ("asked", "capacity", "fit"),
    [
        ({}, {"CPU": 2.0}, 2),
        ({"cpus_per_worker": 2}, {"CPU": 5.0, "GPU": 0.0}, 2),
        ({"workers": 2, "cpus_per_worker": 2}, {"CPU": 8.0}, 2),
        ({"gpus_per_worker": 1}, {"CPU": 16.0, "GPU": 3.0}, 3),
        ({"gpus_per_worker": 0.5}, {"CPU": 16.0, "GPU": 3.0}, 6),
        ({"gpus_per_worker": 0.5, "cpus_per_worker": 4}, {"CPU": 16.0, "GPU": 3.0}, 4),
    ],
)
def test_as_many_trials_run_as_the_scarcest_resource_allows(
    asked: dict[str, Any], capacity: dict[str, float], fit: int
) -> None:
    assert concurrent_trials(resources(**asked), capacity) == fit


@pytest.mark.parametrize(
    ("asked", "capacity", "message"),
    [
        ({"cpus_per_worker": 4}, {"CPU": 2.0}, r"needs 4 CPU \(1 workers\), but there are 2"),
        ({"workers": 3, "cpus_per_worker": 2}, {"CPU": 4.0}, r"needs 6 CPU \(3 workers\), but there are 4"),
        ({"gpus_per_worker": 1}, {"CPU": 2.0}, r"needs 1 GPU \(1 workers\), but there are 0"),
        (
            {"workers": 4, "gpus_per_worker": 0.5},
            {"CPU": 8.0, "GPU": 1.0},
            r"needs 2 GPU \(4 workers\), but there are 1",
        ),
    ],
)
def test_what_can_never_run_is_refused_naming_what_is_missing(
    asked: dict[str, Any], capacity: dict[str, float], message: str
) -> None:
    with pytest.raises(Infeasible, match=message) as caught:
        concurrent_trials(resources(**asked), capacity)

    assert "`resources`" in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "capacity", "global_batch", "workers"),
    [
        ({}, {"CPU": 2.0}, 64, 2),
        ({}, {"CPU": 3.0}, 64, 2),
        ({}, {"CPU": 3.0}, 96, 3),
        ({}, {"CPU": 8.0}, 112, 7),
        ({}, {"CPU": 128.0}, 128, 8),
        ({}, {"CPU": 6.0}, 113, 1),
        ({}, {"CPU": 8.0}, 2, 1),
        ({"gpus_per_worker": 0.5}, {"CPU": 8.0, "GPU": 1.0}, 64, 1),
        ({"cpus_per_worker": 4}, {"CPU": 8.0}, 64, 2),
        ({"cpus_per_worker": 4}, {"CPU": 2.0}, 64, 1),
        ({"gpus_per_worker": 1}, {"CPU": 16.0, "GPU": 4.0}, 64, 4),
    ],
)
def test_a_finalist_takes_the_most_workers_that_share_its_batch_evenly(
    asked: dict[str, Any], capacity: dict[str, float], global_batch: int, workers: int
) -> None:
    assert finalist_workers(resources(**asked), capacity, global_batch) == workers
