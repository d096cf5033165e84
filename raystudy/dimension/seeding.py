"""From the estimated dimension to the widths that a search tries first."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import raystudy
from raystudy.data.genes import Genes
from raystudy.data.tables import GeneFeatures
from raystudy.dimension.consensus import DimensionEstimate, estimate
from raystudy.dimension.representations import default_input, represent
from raystudy.errors import SpecError
from raystudy.study.model import ModelSpec

REPORT_WIDTH = 16
KEPT = ("representation", "input", "estimates", "consensus", "interval", "flags")
METHOD = 2
"""Raised whenever a rule or a constant of the estimate changes, so that no cache answers with the former one's."""


@dataclass(frozen=True)
class SeededWidths:
    """Powers of two to try first, the most likely one first; ``clamped``: a limit moved at least one of them.

    ``provenance`` (`KEPT` of the estimate, and a note) is what Optuna and MLflow keep of it.
    """

    widths: tuple[int, ...]
    clamped: bool
    provenance: dict[str, Any]


def seed_widths(estimate: DimensionEstimate, low: int, high: int, affordable: int | None = None) -> SeededWidths:
    """The powers of two around the consensus, and the report's 16, each moved into [low, high] and under a limit.

    ``affordable`` is the widest whose every configuration the plan lets train, None without such a limit; where even
    ``low`` is wider, ``low`` is left.
    Where every estimator refused, only the 16 is left, and the note says why. The 16 is always tried, whatever was
    measured, so nothing about the measurement has to be chosen to arrive at it.
    Raises SpecError when [low, high] holds no power of two.
    """
    exponents = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1) if 1 <= low <= high else range(0)
    if not exponents:
        raise SpecError(
            f"`1 <= low <= high` with a power of two between them must hold for a width seeded from the "
            f"intrinsic dimension, but got (low={low}, high={high}). Choose for example low: 8, high: 128."
        )
    smallest, largest = 2 ** exponents[0], 2 ** exponents[-1]
    limit = largest if affordable is None else 2 ** (affordable.bit_length() - 1) if affordable else 0
    widest = max(smallest, min(largest, limit))
    if estimate.consensus is None:
        around: list[int] = []
        reasons = "; ".join(dict.fromkeys(estimate.refused.values()))
        note = f"every estimator refused ({reasons}), so only the published {REPORT_WIDTH} is tried first"
    else:
        exact = math.log2(estimate.consensus)
        around = [2**exponent for exponent in {math.floor(exact), math.ceil(exact)}]
        around.sort(key=lambda width: abs(math.log2(width) - exact))
        note = f"powers of two around the consensus {estimate.consensus:.1f}, and the published {REPORT_WIDTH}"
    wanted = [*around, REPORT_WIDTH]
    widths = [min(max(width, smallest), widest) for width in wanted]
    if widths != wanted:
        limits = f"the space's [{low}, {high}]"
        if limit < smallest:
            limits += " (`budget.parameters` may refuse any of these widths)"
        elif limit < largest:
            limits += f" and by `budget.parameters`, to which every configuration keeps up to a width of {widest}"
        moved = [f"{was} to {now}" for was, now in zip(wanted, widths, strict=True) if was != now]
        note += f"; clamped by {limits}: {', '.join(dict.fromkeys(moved))}"
    document = estimate.as_json()
    provenance = {key: document[key] for key in KEPT} | {"note": note}
    return SeededWidths(tuple(dict.fromkeys(widths)), widths != wanted, provenance)


def representation_for(networks: Iterable[ModelSpec]) -> str:
    """What seeds a latent array: 3-mers of the window where any network's reads DNA, else the protein's composition."""
    return "kmer3" if any(model.perceiver_reads in ("base", "kmer") for model in networks) else "composition"


def dimension_of(
    genes: Genes,
    window_bp: tuple[int, int],
    representation: str = "kmer3",
    input: str | None = None,
    others: Sequence[str] | None = None,
    rows: NDArray[np.int64] | None = None,
    embedding: GeneFeatures | None = None,
    also: Collection[str] = (),
    cache_folder: Path | None = None,
) -> dict[str, Any]:
    """The contract's ``dimension`` JSON: the chosen representation's estimate, those of the others beside it.

    ``input`` is what of a gene is represented (`represent`), by the others too; unless said it is each one's default.
    ``others`` are the representations beside the chosen one, those that need no file unless said. ``rows`` are the
    genes to measure, all by default; ``also`` names slow estimators for the chosen representation. Each estimate is
    kept in ``cache_folder`` under the hash of the data and rows, window, representation, estimators and versions.
    Raises SpecError on an unknown name, DataError on a window outside the data.
    """
    if representation == "embedding" and input:
        raise SpecError(f"`input` is {input!r}, but an embedding is of the whole gene as it is; leave `input` out")
    chosen_input = input or default_input(representation)
    source = _Source(genes, window_bp, rows, embedding, cache_folder)
    found = source.estimate(representation, chosen_input, also)
    beside: dict[str, Any] = {}
    for other in _others(representation, input) if others is None else dict.fromkeys(others):
        of = input or default_input(other)
        if (other, of) != (representation, chosen_input):
            name = other if of == chosen_input else f"{other} of {of}"
            beside[name] = source.estimate(other, of)
    return found | {"others": beside}


def _others(representation: str, input: str | None) -> list[str]:
    """Those that need no file; k-mers of residues are asked for by name, ten thousand columns being slow."""
    names = ("onehot", "composition") if input in ("protein", "both") else ("kmer3", "kmer4", "onehot", "composition")
    return [name for name in names if name != representation]


@dataclass(frozen=True)
class _Source:
    """What the estimates of one answer share."""

    genes: Genes
    window_bp: tuple[int, int]
    rows: NDArray[np.int64] | None
    embedding: GeneFeatures | None
    cache_folder: Path | None

    def estimate(self, representation: str, input: str, also: Collection[str] = ()) -> dict[str, Any]:
        """Read from the cache, or made and kept there."""
        key = self._key(representation, input, also)
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        name = f"dimension-{representation}-{input}-{digest[:16]}.json"
        path = None if self.cache_folder is None else self.cache_folder / name
        document = None if path is None else _read(path, key)
        if document is None:
            document = self._measure(representation, input, also).as_json()
            if path is not None:
                with suppress(OSError):  # an answer that cannot be kept is still one
                    _keep(path, key, document)
        return document | {"window_bp": list(self.window_bp)}

    def _measure(self, representation: str, input: str, also: Collection[str]) -> DimensionEstimate:
        cloud = represent(self.genes, self.window_bp, representation, input, self.embedding, self.rows)
        found = estimate(cloud, representation, input, also=also)
        num_genes = self.genes.num_genes if self.rows is None else len(self.rows)
        if num_left_out := num_genes - len(cloud):
            found.flags.append(f"{num_left_out} of {num_genes} genes miss a value of the embedding and are left out")
        return found

    def _key(self, representation: str, input: str, also: Collection[str]) -> dict[str, Any]:
        rows = None if self.rows is None else hashlib.sha256(np.sort(self.rows).tobytes()).hexdigest()
        return {
            "data": self.genes.hash,
            "rows": rows,
            "window_bp": list(self.window_bp),
            "representation": representation,
            "input": input,
            "embedding": self.embedding.sha256 if self.embedding and representation == "embedding" else None,
            "also": sorted(also),
            "method": METHOD,
            "raystudy": raystudy.__version__,
            "scikit-dimension": version("scikit-dimension"),
        }


def _read(path: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    try:
        kept = json.loads(path.read_text())
        return DimensionEstimate.from_json(kept["estimate"]).as_json() if kept["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # nothing there, or torn: estimated and written again


def _keep(path: Path, key: dict[str, Any], document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps({"key": key, "estimate": document}, allow_nan=False))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # half of it, on a full disk
