"""A look now and then at the machines under a search, which Tune would wait for without end."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.tune import Callback

from raystudy.errors import Infeasible, RaystudyError
from raystudy.execution.capacity import concurrent_trials, nodes_of
from raystudy.execution.preflight import Preflight
from raystudy.study.sections import ResourcesSpec

LOOK_SECONDS = 5.0
PATIENCE_SECONDS = 120.0
"""For a node to come back, where none is left that could hold a trial."""


class ClusterWatch(Callback):
    """Ends a search whose cluster can hold no trial any more; the same command goes on when it can again."""

    def __init__(self, resources: ResourcesSpec, may_grow: bool, preflight: Preflight | None = None) -> None:
        """``may_grow``: more nodes may come by themselves, so that only a cluster without any is beyond hope.

        ``preflight`` looks at those that come.
        """
        self._resources = resources
        self._may_grow = may_grow
        self._preflight = preflight
        self._looked_at = 0.0
        self._fitted_at = time.monotonic()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        now = time.monotonic()
        if now < self._looked_at + LOOK_SECONDS:
            return
        self._looked_at = now
        nodes = nodes_of(ray.nodes())
        if self._preflight is not None:
            self._preflight.look()
        try:
            concurrent_trials(self._resources, nodes)
        except Infeasible as missing:
            if not nodes or (not self._may_grow and now > self._fitted_at + PATIENCE_SECONDS):
                why = missing if nodes else "none of its nodes is left"
                raise RaystudyError(
                    f"the cluster cannot run a trial any more: {why}. Everything so far is kept; the same command goes "
                    "on when the machines are back"
                ) from None
        else:
            self._fitted_at = now

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for a restore that raystudy does not use
