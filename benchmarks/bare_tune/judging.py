"""What was found, held against what is true."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

Answers = dict[str, Any]
"""By question."""


@dataclass(frozen=True)
class Fact:
    """One question, the true answer and the one that was found."""

    question: str
    truth: Any
    found: Any

    @property
    def right(self) -> bool:
        if isinstance(self.truth, float) and isinstance(self.found, float):
            return math.isclose(self.truth, self.found, abs_tol=1e-9)
        return bool(self.truth == self.found)

    def __str__(self) -> str:
        return f"{self.question}: {_said(self.found)} (truth: {_said(self.truth)})"


@dataclass(frozen=True)
class Finding:
    """The facts of one scenario under one system."""

    facts: tuple[Fact, ...]

    @property
    def num_right(self) -> int:
        return sum(fact.right for fact in self.facts)

    @property
    def verdict(self) -> str:
        """``right`` where every answer is, ``wrong`` where none is, else ``partly``."""
        return "right" if self.num_right == len(self.facts) else "partly" if self.num_right else "wrong"

    def __str__(self) -> str:
        """The verdict, how many answers were right, and those that were not."""
        wrong = "; ".join(str(fact) for fact in self.facts if not fact.right)
        return f"**{self.verdict}** ({self.num_right} of {len(self.facts)})" + (f": {wrong}" if wrong else "")

    def as_json(self) -> dict[str, Any]:
        facts = [asdict(fact) | {"right": fact.right} for fact in self.facts]
        return {"verdict": self.verdict, "right": self.num_right, "facts": facts}


def judge(truth: Answers, answers: Answers) -> Finding:
    """Hold what was found against what is true; KeyError where they do not answer the same questions."""
    if odd := sorted(truth.keys() ^ answers.keys()):
        raise KeyError(f"asked and answered do not agree on: {', '.join(odd)}")
    return Finding(tuple(Fact(question, true, answers[question]) for question, true in truth.items()))


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " and ".join(map(_said, value)) or "nothing"
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
