"""Any study shrunk until it runs end to end in a minute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raystudy.study.model import ModelSpec
from raystudy.study.reading import parse_spec
from raystudy.study.spec import StudySpec

SMOKE_READS: dict[str, Any] = {"window_bp": (300, 300), "max_protein": 300}
SMOKE_SIZES = {*SMOKE_READS, "num_latents", "pool_size", "position_rows", "epochs"}
"""Keys that a smoke run sets itself."""
_MEASURED = ("protein", "mrna")
"""What synthetic genes have."""


def smoke(spec: StudySpec) -> StudySpec:
    """Any study shrunk to a minute on two CPU cores: two trials of two epochs on short windows of synthetic genes."""
    given = spec.model_dump(mode="json", exclude_unset=True, exclude={"reduced", "published", "training_sizes"})
    arms = [{"name": arm.name, **_shrunk(arm.overrides, spec.configure(arm.overrides)[0])} for arm in spec.arms]
    search = {key: kind for key, kind in given.get("search", {}).items() if key not in SMOKE_SIZES}
    for kind in search.values():
        kind["when"] = {key: value for key, value in kind.get("when", {}).items() if key not in SMOKE_SIZES}
    document = given | {
        "name": f"{spec.name[:58]}-smoke",
        "data": {"source": "synthetic", **SMOKE_READS},
        "target": spec.target if set(spec.targets) <= set(_MEASURED) else _MEASURED[: len(spec.targets)],
        "split": {} if spec.split.by == "published" else given.get("split", {}),
        "search": search,
        "arms": arms if arms or search else [{"name": "smoke"}],
        "model": _shrunk(given.get("model", {}), spec.model),
        "training": given.get("training", {}) | {"epochs": 2},
        "resources": {
            "workers": min(spec.resources.most_workers, 2),
            "executor": "torch_trainer" if spec.resources.nested else "auto",
        },
        "budget": {"trials": 2, "minutes": 10 if spec.resources.nested else 3},  # a nested trial takes long to start
        "finalists": 1,
        "replicates": {"folds": min(spec.replicates.folds, 2)},
        "warm_start": None,
        "constraints": [],  # of sizes that are not these
        "tracking": {"uri": spec.tracking.uri},
        "cluster": None,
        "baselines": [one for one in spec.baselines if isinstance(one, str)],  # a table has other genes
    }
    return parse_spec(document, where="smoke")


def _shrunk(given: Mapping[str, Any], network: ModelSpec) -> dict[str, Any]:
    """A network's keys with small sizes in place of its own, and in place of its preset's."""
    small = SMOKE_READS | {"num_latents": min(network.num_latents, 16), "pool_size": min(network.pool_size, 10)}
    kept = {key: value for key, value in given.items() if key not in SMOKE_SIZES}
    return kept | {key: value for key, value in small.items() if key not in network.unread}
