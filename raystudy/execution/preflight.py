"""A look at every machine of a cluster before a trial runs there: can it run raystudy, and reach the study's files?"""

from __future__ import annotations

import os
import platform
import secrets
import socket
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raystudy.data.genes import Genes
from raystudy.errors import RaystudyError
from raystudy.execution.failures import one_line
from raystudy.models.backends import choose_backends
from raystudy.models.build import build
from raystudy.study.spec import StudySpec
from raystudy.training.loop import DTYPES, resolve_precision

PATIENCE_SECONDS = 120.0
"""For a machine's answer: it starts a process there and imports PyTorch."""
MOST_LOST = 3
COMPARED = ("raystudy", "torch", "numpy")
_SIGN = "sign"


class Preflight:
    """Asks each node once: those that are there before the first trial, and those that come later as they come."""

    def __init__(self, spec: StudySpec, study_folder: Path, data_folder: Path) -> None:
        self._asked: set[str] = set()
        self._pending: dict[Any, tuple[str, str]] = {}
        self._lost: Counter[str] = Counter()
        self._folder = (study_folder / "preflight").resolve()
        self._sign = secrets.token_hex(8)
        self._data_folder = data_folder.resolve()
        self._gene_hash = Genes.open(data_folder).hash
        self._versions = versions()
        self._spec = spec
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / _SIGN).write_text(self._sign)

    def look(self, wait_seconds: float = 0) -> None:
        """Ask the nodes that are new, and hear those that have answered, waiting so long for all of them.

        Raises RaystudyError with all that is wrong, machine by machine.
        """
        living = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        for node_id, node in living.items():
            if node_id not in self._asked:
                self._asked.add(node_id)
                gpus = bool(self._spec.resources.gpus_per_worker and node["Resources"].get("GPU"))
                self._pending[self._ask(node_id, gpus)] = node_id, node["NodeManagerHostname"]
        ready, late = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=wait_seconds)
        problems = [problem for answer in ready for problem in self._hear(answer, *self._pending.pop(answer))]
        if wait_seconds:
            problems += [f"{self._pending[answer][1]} has not answered in {wait_seconds:g} s" for answer in late]
        if problems:
            raise RaystudyError(
                f"the cluster is not ready: {'; '.join(problems)}. What every machine needs stands in "
                "cluster/README.md; then the same command goes on"
            )

    def _ask(self, node_id: str, try_gpu: bool) -> Any:
        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        # No GPU is asked for, though one is tried: trials may have them all. A process that has tried one is ended, for
        # CUDA knows all devices in it, and the trial that Ray might give it would not be on its own.
        look = ray.remote(num_cpus=0, max_calls=1, max_retries=0, scheduling_strategy=there)(look_around)
        study = self._spec.model_dump(mode="json") if try_gpu else None
        return look.remote(node_id, str(self._folder), str(self._data_folder), study)

    def _hear(self, answer: Any, node_id: str, host: str) -> list[str]:
        try:
            found = ray.get(answer)
        except (RayTaskError, RuntimeEnvSetupError) as error:
            return [f"{host} cannot run raystudy ({one_line(error)})"]
        except RayError as error:  # lost with its process or its node, of whose end Ray may not know yet
            self._lost[node_id] += 1
            if self._lost[node_id] == MOST_LOST:
                return [f"{host} loses every process that looks at it ({one_line(error)})"]
            self._asked.discard(node_id)  # to be asked again, where it lives
            return []
        problems = []
        for name in ("python", *COMPARED):
            ours, theirs = self._versions[name], found["versions"][name]
            if ours != theirs:
                problems.append(f"{host} has {name} {theirs}, the driver {ours}")
        if found["sign"] != self._sign or not (self._folder / found["mark"]).exists():
            problems.append(
                f"{host} does not see the study's folder {self._folder.parent}; set RAYSTUDY_HOME to a folder on a "
                "file system that every machine mounts"
            )
        if found["gene_hash"] != self._gene_hash:
            problems.append(
                f"{host} finds {found['gene_hash'] or 'no genes'} in {self._data_folder}, the driver "
                f"{self._gene_hash}; prepare the data into a folder that every machine mounts"
            )
        return problems + [f"{host}: {one}" for one in found["refused"]]


def versions() -> dict[str, str | None]:
    """Of Python and of what could make two machines compute differently; without a build's suffix (+cpu, +cu128)."""
    found: dict[str, str | None] = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in COMPARED:
        try:
            found[name] = version(name).split("+")[0]
        except PackageNotFoundError:
            found[name] = None
    return found


def look_around(node_id: str, folder: str, data_folder: str, study: dict[str, Any] | None) -> dict[str, Any]:
    """What a machine has to say of itself; of attention where there is a ``study`` to try."""
    there, mark = Path(folder), f"{socket.gethostname()}-{node_id}"
    try:
        sign = (there / _SIGN).read_text()
        (there / mark).write_text(sign)
    except OSError as error:
        sign = one_line(error)
    try:
        gene_hash = Genes.open(Path(data_folder)).hash
    except (OSError, RaystudyError):
        gene_hash = None
    refused = [] if study is None else _refused_attention(StudySpec(**study))
    return {"versions": versions(), "sign": sign, "mark": mark, "gene_hash": gene_hash, "refused": refused}


def _refused_attention(spec: StudySpec) -> list[str]:
    """Why the study's own network could not be trained on this machine's GPU; a search may still try others."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":  # as Ray sets it for who asks for no GPU; CUDA has not begun here
        del os.environ["CUDA_VISIBLE_DEVICES"]
    if not torch.cuda.is_available():
        return [f"PyTorch {torch.__version__} finds no GPU, though Ray counts one; install a build for its driver"]
    model, training = spec.configure({})
    device = torch.device("cuda")
    try:
        network = build(model, len(spec.targets)).to(device)
        choose_backends(network, training.attention, device, DTYPES[resolve_precision(training.precision, device)])
    except RaystudyError as refusal:
        return [str(refusal)]
    except torch.OutOfMemoryError:
        return []  # a trial is at work on it, which says enough
    return []
