"""What preparing a user's files met: genes left out, repairs, rows of no gene; counted by reason, with examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EXAMPLES = 5


@dataclass
class Findings:
    """``dropped``, ``repaired``, ``unmatched``: reason -> what it befell, in the order in which it was met."""

    dropped: dict[str, list[str]] = field(default_factory=dict)
    repaired: dict[str, list[str]] = field(default_factory=dict)
    unmatched: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, what: str) -> None:
        """``what`` (a gene's id, mostly) is left out of the table."""
        self.dropped.setdefault(reason, []).append(what)

    def repair(self, reason: str, what: str) -> None:
        """``what`` was read otherwise than it is written, and stays."""
        self.repaired.setdefault(reason, []).append(what)

    def unmatch(self, reason: str, what: str) -> None:
        """``what``, of a user's table, belongs to no gene that could be used; a gene left out is a drop besides."""
        self.unmatched.setdefault(reason, []).append(what)

    def as_json(self) -> dict[str, dict[str, dict[str, Any]]]:
        """``{"dropped": {reason: {"count": n, "examples": [...]}}, ...}`` of all three, most frequent first."""
        kinds = {"dropped": self.dropped, "repaired": self.repaired, "unmatched": self.unmatched}
        return {
            kind: {
                reason: {"count": len(befallen), "examples": befallen[:EXAMPLES]}
                for reason, befallen in sorted(reasons.items(), key=lambda item: -len(item[1]))
            }
            for kind, reasons in kinds.items()
        }
