"""What preparing a user's files met: genes left out and repairs made, each counted by its reason, with examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EXAMPLES = 5


@dataclass
class Findings:
    """``dropped`` and ``repaired``: reason -> what it befell, genes or lines, in the order in which they were met."""

    dropped: dict[str, list[str]] = field(default_factory=dict)
    repaired: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, what: str) -> None:
        """``what`` (a gene's id, mostly) is left out of the table."""
        self.dropped.setdefault(reason, []).append(what)

    def repair(self, reason: str, what: str) -> None:
        """``what`` was read otherwise than it is written, and stays."""
        self.repaired.setdefault(reason, []).append(what)

    def as_json(self) -> dict[str, dict[str, dict[str, Any]]]:
        """``{"dropped": {reason: {"count": n, "examples": [...]}}, "repaired": {...}}``, most frequent first."""
        return {
            kind: {
                reason: {"count": len(befallen), "examples": befallen[:EXAMPLES]}
                for reason, befallen in sorted(reasons.items(), key=lambda item: -len(item[1]))
            }
            for kind, reasons in (("dropped", self.dropped), ("repaired", self.repaired))
        }
