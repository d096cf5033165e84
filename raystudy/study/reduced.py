"""A study as a machine without a GPU does it: the same arms and rules, with the sizes of its `reduced` section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raystudy.errors import SpecError
from raystudy.study.model import nearest
from raystudy.study.reading import parse_spec
from raystudy.study.spec import StudySpec


def reduced(spec: StudySpec) -> StudySpec:
    """The study with what `reduced` says put over it; the study itself where it says nothing.

    Raises SpecError where the result is no study, or `reduced` names an arm that is not there.
    """
    if not spec.reduced:
        return spec
    given = spec.model_dump(mode="json", exclude_unset=True, exclude={"reduced"})
    changes = {key: value for key, value in spec.reduced.items() if key != "arms"}
    document = _over(given, changes) | {"arms": _arms(given.get("arms", []), spec.reduced.get("arms", {}))}
    return parse_spec(document, where="reduced")


def changed(full: StudySpec, small: StudySpec) -> list[str]:
    """What the reduced study reads and trains otherwise, such as ``epochs: 2 instead of 400``."""
    return [
        f"{key}: {_text(after)} instead of {_text(before)}"
        for one, other in ((full.data, small.data), (full.training, small.training))
        for key, after in other
        if (before := getattr(one, key)) != after
    ]


def _over(given: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key, everything else is replaced."""
    merged = dict(given)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = _over(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _arms(given: list[dict[str, Any]], changes: Any) -> list[dict[str, Any]]:
    if not isinstance(changes, dict) or not all(isinstance(value, dict) for value in changes.values()):
        raise SpecError(f"`reduced.arms` gives each arm's changed keys under its name, but got {changes!r:.60}")
    names = [arm["name"] for arm in given]
    if unknown := changes.keys() - set(names):
        raise SpecError(f"`reduced.arms`: there is no arm {min(unknown)!r}{nearest(min(unknown), names)}")
    return [_over(arm, changes.get(arm["name"], {})) for arm in given]


def _text(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
