"""Files laid out as those published with Xpresso, of a few genes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

COUNTS = {"train": 12, "valid": 10, "test": 10}
GENES = {part: [f"ENSG{1000 * number + row:011d}" for row in range(COUNTS[part])] for number, part in enumerate(COUNTS)}
ALL_GENES = [gene for genes in GENES.values() for gene in genes]


def published(seed: int = 0) -> dict[str, dict[str, Any]]:
    """What each file holds: bases at random, and numbers standardised over all genes before these were parted."""
    random = np.random.default_rng(seed)
    numbers = random.normal(size=(len(ALL_GENES), 9))
    numbers = (numbers - numbers.mean(axis=0)) / numbers.std(axis=0)
    found, first = {}, 0
    for part, count in COUNTS.items():
        here = numbers[first : first + count]
        first += count
        found[part] = {
            "data": here[:, :8],
            "promoter": random.integers(0, 4, (count, 20_000, 1), np.uint8) == np.arange(4),
            "label": here[:, 8],
            "geneName": np.array(GENES[part], dtype="S15"),
        }
    return found


def write(folder: Path, content: dict[str, dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, datasets in content.items():
        with h5py.File(folder / f"{part}.h5", "w") as file:
            for name, values in datasets.items():
                file.create_dataset(name, data=values, compression="gzip", compression_opts=1)
    return folder


def text_of(one_hot: Any) -> str:
    """The bases of one window [L, 4], spelled out one by one."""
    return "".join("ACGT"[list(base).index(True)] if any(base) else "N" for base in one_hot.tolist())
