from __future__ import annotations

import pytest

from raystudy.dimension import consensus


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Only estimators that take no time are asked."""
    names = ("correlation_integral", "CorrInt", "TwoNN", "MLE", "lPCA")
    monkeypatch.setattr(consensus, "FAST", names)
    return names
