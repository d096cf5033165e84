"""Where a result came from: code, packages and hardware, and nothing that names a person or a host."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess  # git and nvidia-smi are asked, with fixed arguments
from importlib import metadata
from pathlib import Path

import raystudy
from raystudy.tracking.records import JsonObject

PACKAGES = (
    "ray",
    "torch",
    "optuna",
    "mlflow",
    "numpy",
    "scikit-learn",
    "scikit-dimension",
    "pyarrow",
)
ASK_SECONDS = 10


def provenance(folder: Path | None = None) -> JsonObject:
    """Code, packages and hardware of this process, as plain JSON.

    folder: root of a git checkout; by default the one that raystudy itself runs from. ``git`` is null outside
    of one, ``dirty`` says that files differ from the commit. ``memory_gib`` is the machine's, no container's.
    """
    return {
        "raystudy": raystudy.__version__,
        "git": _git(folder or Path(raystudy.__file__).parents[1]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "num_cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "gpus": (_ask("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") or "").splitlines(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _git(folder: Path) -> JsonObject | None:
    if not (folder / ".git").exists():  # an installed package may lie inside somebody else's checkout
        return None
    commit = _ask("git", "-C", str(folder), "rev-parse", "--verify", "HEAD")
    changes = _ask("git", "-C", str(folder), "status", "--porcelain")
    return None if commit is None else {"commit": commit, "dirty": changes is None or changes != ""}


def _ask(program: str, *arguments: str) -> str | None:
    found = shutil.which(program)
    if found is None:
        return None
    try:
        answer = subprocess.run(  # noqa: S603
            [found, *arguments], capture_output=True, text=True, timeout=ASK_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # not on this system
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
