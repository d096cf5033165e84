"""Which study file a folder belongs to: kept when a study starts, compared when it is taken up again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raystudy.errors import DataError, SpecError
from raystudy.study.spec import StudySpec


def check_spec(spec: StudySpec, path: Path) -> None:
    """SpecError, with every key that differs, when ``path`` (spec.json) was written by another study of this name."""
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text())
        known, old = before["hash"], _flat(before["identity"])
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path} is damaged; give the study another `name`, or remove its folder") from None
    if known == spec.hash:
        return
    new = _flat(json.loads(json.dumps(spec.identity)))
    changed = [
        f"`{key}` was {old.get(key)!r} and is {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    raise SpecError(
        f"a study {spec.name!r} is in {path.parent} already, with another study file: {'; '.join(changed)}. "
        "Give this one another `name`, or put the file back to go on with that one"
    )


def keep_spec(spec: StudySpec, path: Path) -> None:
    """Write the study file's content; where tracking goes is left out, it may change and names hosts.

    ``spec`` has every key, for who reads results; ``given`` those of the study file, which make a study file again.
    """
    whole, given = (spec.model_dump(mode="json", exclude={"tracking"}, exclude_unset=unset) for unset in (False, True))
    document = {"hash": spec.hash, "identity": spec.identity, "spec": whole, "given": given}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1))
    partial.replace(path)


def _flat(nested: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(nested, dict):
        return {prefix: nested}
    return {
        key: value
        for name, item in nested.items()
        for key, value in _flat(item, f"{prefix}.{name}" if prefix else str(name)).items()
    }
