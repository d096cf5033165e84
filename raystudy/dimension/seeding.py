"""From the estimated dimension to the widths that a search tries first."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import raystudy
from raystudy.data.genes import Genes
from raystudy.dimension.estimators import DimensionEstimate, estimate
from raystudy.dimension.representations import represent
from raystudy.errors import SpecError

REPORT_WIDTH = 16


@dataclass(frozen=True)
class SeededWidths:
    """Powers of two to try first, the most likely one first; ``clamped``: the space cut the dimension off.

    ``provenance`` (representation, estimates, consensus, interval, note) is what records keep of it.
    """

    widths: tuple[int, ...]
    clamped: bool
    provenance: dict[str, Any]


def seed_widths(estimate: DimensionEstimate, low: int, high: int) -> SeededWidths:
    """The powers of two around the consensus, within [low, high], and the report's 16 where that lies inside.

    Where every estimator refused, only 16 (clamped) is left, and the note says why. The 16 is always tried,
    whatever was measured, so nothing about the measurement has to be chosen to arrive at it.
    Raises SpecError when [low, high] holds no power of two.
    """
    exponents = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1) if 1 <= low <= high else range(0)
    if not exponents:
        raise SpecError(
            f"`1 <= low <= high` with a power of two between them must hold for a width seeded from the "
            f"intrinsic dimension, but got (low={low}, high={high}). Choose for example low: 8, high: 128."
        )
    smallest, largest = 2 ** exponents[0], 2 ** exponents[-1]
    if estimate.consensus is None:
        wanted = [REPORT_WIDTH]
        reasons = "; ".join(dict.fromkeys(estimate.refused.values()))
        note = f"every estimator refused ({reasons}), so only the report's {REPORT_WIDTH} is tried first"
    else:
        exact = math.log2(estimate.consensus)
        wanted = [2**exponent for exponent in {math.floor(exact), math.ceil(exact)}]
        wanted.sort(key=lambda width: abs(math.log2(width) - exact))
        note = f"powers of two around the consensus {estimate.consensus:.1f}"
    widths = [min(max(width, smallest), largest) for width in wanted]
    clamped = widths != wanted
    if clamped:
        note += f", clamped from {', '.join(map(str, wanted))} to the space's [{low}, {high}]"
    if smallest <= REPORT_WIDTH <= largest:
        widths.append(REPORT_WIDTH)
    document = estimate.as_json()
    provenance = {key: document[key] for key in ("representation", "estimates", "consensus", "interval")}
    return SeededWidths(tuple(dict.fromkeys(widths)), clamped, provenance | {"note": note})


def dimension_of(
    genes: Genes,
    window_bp: tuple[int, int],
    representation: str = "kmer3",
    others: Sequence[str] = ("kmer4", "composition"),
    cache_folder: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The contract's ``dimension`` JSON: the chosen representation's estimate, those of ``others`` beside it.

    Each estimate is kept in ``cache_folder`` under the data's hash, window, representation, seed and version
    of raystudy. Raises SpecError on an unknown representation, DataError on a window outside the data.
    """
    found = {
        name: _estimate_once(genes, window_bp, name, cache_folder, seed)
        for name in dict.fromkeys([representation, *others])
    }
    return found.pop(representation) | {"others": found}


def _estimate_once(
    genes: Genes, window_bp: tuple[int, int], representation: str, cache_folder: Path | None, seed: int
) -> dict[str, Any]:
    if cache_folder is None:
        return estimate(represent(genes, window_bp, representation), representation, seed).as_json()
    key = {
        "data": genes.hash,
        "window_bp": list(window_bp),
        "representation": representation,
        "seed": seed,
        "raystudy": raystudy.__version__,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = Path(cache_folder) / f"dimension-{representation}-{digest[:16]}.json"
    try:
        kept = json.loads(path.read_text())
        if kept["key"] == key:
            return DimensionEstimate.from_json(kept["estimate"]).as_json()
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing there, or torn: estimated and written again
    document = estimate(represent(genes, window_bp, representation), representation, seed).as_json()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps({"key": key, "estimate": document}, allow_nan=False))
    partial.replace(path)
    return document
