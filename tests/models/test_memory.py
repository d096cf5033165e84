from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from raystudy.execution.cluster import WORKER_ENVIRONMENT
from raystudy.models import memory, stem
from raystudy.models.build import build, count_parameters
from raystudy.models.memory import training_bytes
from raystudy.study.model import ModelSpec, TrainingSpec
from raystudy.training.loop import EVALUATION_BATCH

SMALL: dict[str, Any] = {"window_bp": (300, 200), "max_protein": 300, "num_latents": 16, "queries_dim": 32}
MODELS: dict[str, dict[str, Any]] = {
    "dna and protein": SMALL,
    "dna in the Perceiver": {**SMALL, "perceiver_input": "dna", "half_life": "mlp"},
    "embedding": {**SMALL, "encoder": "embedding", "embedding_dim": 16},
    "xpresso": {"family": "xpresso", "window_bp": (1000, 500)},
}
REAL_STEPS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"window_bp": (500, 250), "max_protein": 400, "num_latents": 32, "queries_dim": 64}, {"batch_size": 48}),
    ({"family": "dna", "window_bp": (500, 250), "num_latents": 32, "queries_dim": 64}, {"batch_size": 32}),
    ({"family": "xpresso", "window_bp": (1000, 500)}, {"batch_size": 64}),
]
MAPPED_ALONE = {"MALLOC_MMAP_THRESHOLD_": "65536"}
TAKE_REAL_STEPS = """if True:
    import ctypes, gc, json, sys
    import torch
    from torch import zeros
    from raystudy.data.batches import Inputs
    from raystudy.models.build import build
    from raystudy.study.model import ModelSpec

    def kilobytes(field):
        return int(next(line for line in open("/proc/self/status") if line.startswith(field)).split()[1])

    def step(network, optimizer, model, B):
        longest = model.perceiver_length if model.perceiver_reads else 0
        lengths = [longest - number % 2 * (longest > 0) for number in range(B)]
        sequence_BL = zeros(B, model.convolution_length, dtype=torch.uint8)
        positions_T = torch.cat([torch.arange(length) for length in lengths])
        inputs = Inputs(sequence_BL, zeros(B, 8), zeros(sum(lengths), dtype=torch.int32), positions_T, lengths)
        network(inputs).square().sum().backward()
        optimizer.step()

    def growth(settings, batch_size):
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        open("/proc/self/clear_refs", "w").write("5")
        before = kilobytes("VmRSS:")
        model = ModelSpec(**settings)
        network = build(model)
        step(network, torch.optim.AdamW(network.parameters()), model, batch_size)
        return 1024 * (kilobytes("VmHWM:") - before)

    torch.set_num_threads(1)
    steps = json.loads(sys.argv[1])
    for settings, _ in steps:
        growth(settings, 2)  # what the first step of a process loads and keeps
    print(json.dumps([growth(settings, training["batch_size"]) for settings, training in steps]))
"""


def needed(settings: dict[str, Any], num_targets: int = 1, micro_batches: int = 1, **training: Any) -> int:
    return training_bytes(ModelSpec(**settings), TrainingSpec(**training), num_targets, micro_batches)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's count of a process's peak memory")
@pytest.mark.parametrize(
    ("allocator", "slack", "low", "high"),
    [
        # Not every network's chunks are as large as what is set aside for them.
        pytest.param(MAPPED_ALONE, memory.HELD_BY_CHUNK, 0.7, 1.2, id="each tensor mapped alone"),
        # 0.38 to 0.84 in 17 processes of one machine: how a heap of large blocks is filled is a matter of chance.
        pytest.param(WORKER_ENVIRONMENT, 0, 0.3, 1.1, id="as in a worker", marks=pytest.mark.slow),
    ],
)
def test_the_estimate_is_near_what_a_real_step_takes(
    allocator: dict[str, str], slack: int, low: float, high: float
) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"} | allocator
    command = [sys.executable, "-c", TAKE_REAL_STEPS, json.dumps(REAL_STEPS)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)

    assert done.returncode == 0, done.stderr
    estimates = [needed(settings, **training) for settings, training in REAL_STEPS]
    shares = [(estimate - slack) / real for estimate, real in zip(estimates, json.loads(done.stdout), strict=True)]
    assert all(low < share < high for share in shares), shares


@pytest.mark.parametrize(("name", "precision"), [("dna and protein", "fp32"), *((name, "bf16") for name in MODELS)])
def test_shapes_alone_give_what_pytorch_s_own_fake_tensors_and_autocast_give(
    name: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(stem.CHUNK_BYTES, "cpu", stem.CHUNK_BYTES["meta"])
    model = ModelSpec(**MODELS[name])
    step = memory._measured(model, precision == "bf16", 1, evaluating=False)
    with FakeTensorMode(), memory._Held() as held:
        network = build(model)
        for parameter in network.parameters():
            parameter.grad = torch.empty_like(parameter)
        inputs = memory._longest_genes(model)
        held.most = before = held.now
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            predicted = network(inputs)
        predicted.float().square().sum().backward()

    assert step == pytest.approx(held.most - before, rel=0.01)


def test_memory_is_weights_gradients_two_moments_and_what_grows_with_the_batch() -> None:
    one, two, three = (needed(SMALL, batch_size=size) for size in (128, 256, 384))

    assert three - two == pytest.approx(two - one, abs=1)
    fixed = 4 * 4 * count_parameters(ModelSpec(**SMALL)) + memory.HELD_BY_CHUNK
    assert two - one == pytest.approx(one - fixed, abs=1)


def test_halves_of_a_batch_take_what_a_batch_of_half_the_size_takes() -> None:
    assert needed(SMALL, batch_size=256, micro_batches=2) == needed(SMALL, batch_size=128)
    assert needed(SMALL, batch_size=257, micro_batches=2) == needed(SMALL, batch_size=129)


def test_a_small_batch_still_needs_what_evaluating_takes() -> None:
    assert memory.EVALUATED_TOGETHER == EVALUATION_BATCH
    assert needed(SMALL, batch_size=2) == needed(SMALL, batch_size=4)
    assert needed(SMALL, batch_size=2) > 0.2 * needed(SMALL, batch_size=64)


def test_half_precision_takes_less_and_longer_genes_take_more() -> None:
    full = needed(SMALL, precision="fp32", batch_size=128)

    assert 0.4 * full < needed(SMALL, precision="bf16", batch_size=128) < 0.9 * full
    assert needed(SMALL, precision="auto", batch_size=128) == full
    longer = needed({**SMALL, "window_bp": (600, 400), "max_protein": 600}, batch_size=128)
    assert 1.2 * full < longer < 2.2 * full


def test_networks_that_differ_in_what_takes_no_memory_are_measured_once() -> None:
    memory._measured.cache_clear()
    for dropout in (0.1, 0.2, 0.3):
        for size in (64, 128):
            needed({**SMALL, "dropout": dropout}, batch_size=size, learning_rate=1e-3 * dropout)

    assert memory._measured.cache_info().misses == 1
    needed({**SMALL, "dropout": 0.0})
    assert memory._measured.cache_info().misses == 2


def test_the_caller_s_random_numbers_and_gradient_mode_are_left_alone() -> None:
    memory._measured.cache_clear()
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    with torch.no_grad():
        found = needed(SMALL)
    assert torch.equal(torch.rand(3), wanted)
    memory._measured.cache_clear()
    assert needed(SMALL) == found
