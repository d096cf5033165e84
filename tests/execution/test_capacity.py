from __future__ import annotations

from typing import Any

import pytest

from raystudy.errors import Infeasible
from raystudy.execution.capacity import (
    Capacity,
    Node,
    asked,
    bundle,
    check_deadlock,
    concurrent_trials,
    declared,
    finalist_workers,
    nodes_in,
    nodes_of,
)
from raystudy.study.sections import NodeSpec, ResourcesSpec

A100 = Node(cpus=96, gpus=8, memory_gb=1000, gpu_memory_gb=80, count=4)


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
        ({"gpus_per_worker": 0.1}, {"CPU": 99.0, "GPU": 3.0}, 30),
        ({"gpus_per_worker": 0.4}, {"CPU": 16.0, "GPU": 2.0}, 4),
        ({"gpus_per_worker": 0.5, "cpus_per_worker": 4}, {"CPU": 16.0, "GPU": 3.0}, 4),
        ({"memory_gb_per_worker": 3}, {"CPU": 16.0, "memory": 10e9}, 3),
    ],
)
def test_as_many_trials_run_as_the_scarcest_resource_allows(
    asked: dict[str, Any], capacity: dict[str, float], fit: int
) -> None:
    assert concurrent_trials(resources(**asked), capacity) == fit


@pytest.mark.parametrize(
    ("asked", "nodes", "fit"),
    [
        ({"cpus_per_worker": 3}, [Node(4, count=4)], 4),
        ({"cpus_per_worker": 3}, [Node(2, count=9), Node(7)], 2),
        ({"gpus_per_worker": 1, "cpus_per_worker": 8}, [A100], 32),
        ({"gpus_per_worker": 1, "cpus_per_worker": 16}, [A100], 24),
        ({"gpus_per_worker": 3}, [A100], 8),
        ({"workers": 3, "gpus_per_worker": 3}, [A100], 2),
        ({"gpus_per_worker": 1, "memory_gb_per_worker": 80}, [A100], 32),
        ({"gpus_per_worker": 0.5, "memory_gb_per_worker": 40}, [A100], 64),
        ({"gpus_per_worker": 1, "memory_gb_per_worker": 30}, [A100, Node(16, 2, gpu_memory_gb=24)], 32),
        ({"memory_gb_per_worker": 6}, [Node(8, memory_gb=16), Node(8, memory_gb=64)], 2 + 8),
        ({"memory_gb_per_worker": 6}, [Node(8)], 8),
    ],
)
def test_what_fits_is_counted_node_by_node(asked: dict[str, Any], nodes: list[Node], fit: int) -> None:
    assert concurrent_trials(resources(**asked), nodes) == fit


@pytest.mark.parametrize(
    ("asked", "capacity", "message"),
    [
        ({"cpus_per_worker": 4}, {"CPU": 2.0}, r"a worker needs {CPU: 4}, but the largest node has {CPU: 2}; "),
        (
            {"cpus_per_worker": 4, "gpus_per_worker": 2},
            [Node(2, 1, count=9), Node(16, 1)],
            r"a worker needs {CPU: 4, GPU: 2}, but the largest node has {CPU: 16, GPU: 1}; ",
        ),
        (
            {"cpus_per_worker": 4},
            [Node(3, memory_gb=8, count=100)],
            r"needs {CPU: 4}, but the largest node has {CPU: 3, memory: 8 GB}",
        ),
        (
            {"memory_gb_per_worker": 32},
            [Node(64, memory_gb=16), Node(2, memory_gb=24)],
            r"needs {CPU: 1, memory: 32 GB}, but the largest node has {CPU: 2, memory: 24 GB}",
        ),
        (
            {"gpus_per_worker": 0.5, "memory_gb_per_worker": 48},
            [A100],
            r"needs {CPU: 1, GPU: 0.5, GPU memory: 48 GB}, but .* has {CPU: 96, GPU: 8, .*, GPU memory: 80 GB}",
        ),
        (
            {"workers": 3, "cpus_per_worker": 2},
            {"CPU": 4.0},
            r"needs 3 times {CPU: 2} at once, but there is room for 2",
        ),
        (
            {"workers": 3, "cpus_per_worker": 3},
            [Node(5, count=2)],
            r"needs 3 times {CPU: 3} at once, but there is room for 2",
        ),
        ({"gpus_per_worker": 1}, {"CPU": 2.0}, r"needs {CPU: 1, GPU: 1}, but the largest node has {CPU: 2}"),
        ({}, [], r"needs {CPU: 1}, but there is no node"),
        ({"workers": 4, "gpus_per_worker": 0.5}, {"CPU": 8.0, "GPU": 4.0}, r"NCCL refuses"),
        ({"gpus_per_worker": 1.5}, {"CPU": 8.0, "GPU": 4.0}, r"cannot have 1.5 GPUs"),
    ],
)
def test_what_can_never_run_is_refused_naming_the_bundle_and_the_largest_node(
    asked: dict[str, Any], capacity: Capacity, message: str
) -> None:
    with pytest.raises(Infeasible, match=message) as caught:
        concurrent_trials(resources(**asked), capacity)

    assert any(word in str(caught.value) for word in ("`resources`", "`gpus_per_worker`"))


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
        ({"gpus_per_worker": 0.5}, {"CPU": 8.0, "GPU": 2.0}, 64, 2),
        ({"cpus_per_worker": 4}, {"CPU": 8.0}, 64, 2),
        ({"cpus_per_worker": 4}, {"CPU": 2.0}, 64, 1),
        ({"cpus_per_worker": 4}, [Node(7, count=2)], 64, 2),
        ({"cpus_per_worker": 4}, [Node(6, count=3)], 96, 3),
        ({"gpus_per_worker": 1}, {"CPU": 16.0, "GPU": 4.0}, 64, 4),
        ({"gpus_per_worker": 1}, [A100], 1024, 32),
    ],
)
def test_a_finalist_takes_the_most_workers_that_share_its_batch_evenly(
    asked: dict[str, Any], capacity: Capacity, global_batch: int, workers: int
) -> None:
    assert finalist_workers(resources(**asked), capacity, global_batch) == workers


def test_nodes_are_read_from_what_ray_says_of_them() -> None:
    small = {"CPU": 4.0, "memory": 16e9, "object_store_memory": 1e9, "node:10.0.0.2": 1.0}
    large = {"CPU": 16.0, "GPU": 2.0, "memory": 64e9, "accelerator_type:A100": 1.0}
    head = {"memory": 8e9, "node:__internal_head__": 1.0}
    found = nodes_of(
        [
            {"Alive": True, "Resources": small},
            {"Alive": True, "Resources": large},
            {"Alive": False, "Resources": {}},
            {"Alive": True, "Resources": {**small, "node:10.0.0.2": 0.0, "node:10.0.0.3": 1.0}},
            {"Alive": True, "Resources": head},
        ]
    )

    assert set(found) == {Node(4, 0, 16, None, 2), Node(16, 2, 64, None, 1, "A100"), Node(0, 0, 8, None, 1)}
    assert concurrent_trials(resources(cpus_per_worker=3), found) == 2 + 5


def test_nodes_are_read_from_a_study_file_and_totals_are_one_node() -> None:
    given = NodeSpec(count=4, cpus=96, gpus=8, memory_gb=1000, gpu_memory_gb=80)

    assert declared([given]) == (A100,)
    assert nodes_in({"CPU": 4.0, "GPU": 1.0, "memory": 2e9, "object_store_memory": 1e9}) == (Node(4, 1, 2),)
    assert nodes_in([A100]) == (A100,)


def test_ray_is_asked_for_memory_where_the_memory_is_the_node_s() -> None:
    assert bundle(resources()) == {"CPU": 1}
    assert bundle(resources(memory_gb_per_worker=1.5)) == {"CPU": 1, "memory": 1_500_000_000}
    on_gpu = resources(cpus_per_worker=4, gpus_per_worker=0.5, memory_gb_per_worker=30)
    assert bundle(on_gpu) == {"CPU": 4, "GPU": 0.5}
    assert asked(on_gpu) == "{CPU: 4, GPU: 0.5, GPU memory: 30 GB}"


def test_all_that_is_up_at_once_is_said_to_have_room() -> None:
    safe, why = check_deadlock(resources(workers=5, gpus_per_worker=1), [A100], 8)

    assert safe
    assert "32 bundles of {CPU: 1, GPU: 1} have room" in why
    assert "at most 30 are asked for at once by trials, and 8 by a finalist" in why


def test_a_finalist_with_more_workers_than_have_room_is_a_deadlock_and_so_is_a_trial_that_cannot_start() -> None:
    assert check_deadlock(resources(), {"CPU": 4.0}, 4)[0]
    assert not check_deadlock(resources(), {"CPU": 4.0}, 5)[0]
    assert check_deadlock(resources(cpus_per_worker=8), {"CPU": 4.0}, 1) == (
        False,
        "nothing can start, see the problems",
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workers": [4, 2]}, r"`workers` is \[fewest, most\], but got \[4, 2\]"),
        ({"accelerator": "A100"}, "`accelerator: A100` asks for a kind of GPU, but `gpus_per_worker` is 0"),
        ({"workers": 2, "executor": "inprocess"}, "trains in one process, but `workers` is 2"),
        ({"workers": 0}, "greater than 0"),
    ],
)
def test_resources_that_contradict_each_other_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        resources(**given)


def test_a_torch_trainer_runs_what_has_a_gpu_or_several_workers_and_what_asks_for_one() -> None:
    assert not resources().nested
    assert resources(workers=2).nested
    assert resources(workers=[1, 2]).nested
    assert resources(gpus_per_worker=0.5).nested
    assert resources(executor="torch_trainer").nested
    assert not resources(gpus_per_worker=1, executor="inprocess").nested


def test_a_kind_of_gpu_is_found_on_nodes_of_that_kind_alone() -> None:
    h100 = Node(cpus=96, gpus=8, accelerator="H100")
    a100 = Node(cpus=96, gpus=8, accelerator="A100", count=2)
    asks = resources(gpus_per_worker=1, accelerator="A100", workers=8)

    assert concurrent_trials(asks, [h100, a100]) == 2
    assert bundle(asks) == {"CPU": 1, "GPU": 1, "accelerator_type:A100": 0.001}
    with pytest.raises(Infeasible, match=r"needs {CPU: 1, GPU: 1 of kind A100}, but .* has {CPU: 96, GPU: 8 of kind H"):
        concurrent_trials(asks, [h100])
    assert declared([NodeSpec(cpus=96, gpus=8, accelerator="H100")]) == (h100,)


def test_trials_that_grow_are_counted_with_all_their_workers_and_start_with_the_fewest() -> None:
    grows = resources(workers=[2, 4])

    assert concurrent_trials(grows, {"CPU": 9.0}) == 2
    assert concurrent_trials(grows, {"CPU": 3.0}) == 1
    assert check_deadlock(grows, {"CPU": 3.0}, 3)[0]
    with pytest.raises(Infeasible, match="a trial of 2 workers needs 2 times"):
        concurrent_trials(grows, {"CPU": 1.0})
