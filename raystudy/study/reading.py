"""From a file to a study, with errors that a person can act on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from raystudy.errors import SpecError
from raystudy.study.model import nearest
from raystudy.study.spec import StudySpec
from raystudy.study.urls import without_password

_WAYS = {"categorical", "int", "float", "log", "pow2", "str", "bool", "FeatureTable"}
"""How pydantic calls the kinds of values that stand for one key, in the location of a problem."""


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, of which PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = []
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"`{key.value}` is given twice", key.start_mark)
            seen.append(key.value)
        return super().construct_mapping(node, deep)


def load_spec(path: Path) -> StudySpec:
    """Read and validate a study file; SpecError names the file, the key, the value and the rule."""
    try:
        document = yaml.load(path.read_text(), Loader=_UniqueKeys)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise SpecError(f"{path}: the study file cannot be read ({error.strerror}); check its path") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise SpecError(f"{path}: a study file is a mapping of keys (name, data, search, ...), got {document!r:.60}")
    spec = parse_spec(document, where=str(path))
    from raystudy.study.reduced import reduced  # which parses too

    reduced(spec)  # a mistake in it shall show on every machine
    return spec


def parse_spec(document: dict[str, Any], where: str = "study") -> StudySpec:
    """Validate a study given as plain objects; see `load_spec`."""
    try:
        return StudySpec.model_validate(document)
    except ValidationError as error:
        raise SpecError(f"{where}: {'; '.join(_explained(error))}") from None


def _explained(error: ValidationError) -> list[str]:
    """One text a place; of the several ways to give a value, only those that what was given comes nearest to."""
    places: dict[tuple[str, ...], list[Any]] = {}
    for problem in error.errors():
        parts = [str(part) for part in problem["loc"]]
        place = tuple(part for part in parts if part not in _WAYS and "[" not in part)
        places.setdefault(place, []).append(problem)
    inner = {place[:depth] for place in places for depth in range(len(place))}
    return [_explain(list(place), problems) for place, problems in places.items() if place not in inner or not place]


def _explain(location: list[str], problems: list[Any]) -> str:
    key = ".".join(location)
    if any(problem["type"] == "extra_forbidden" for problem in problems):
        return f"unknown key `{key}`{nearest(location[-1], _keys_beside(location))}"
    message = ", or: ".join(dict.fromkeys(problem["msg"].removeprefix("Value error, ") for problem in problems))
    received = problems[0]["input"]
    if isinstance(received, str) and "://" in received:
        received = without_password(received)
    shown = f" (got {received!r})" if isinstance(received, str | int | float | bool | type(None)) else ""
    return f"`{key}`: {message}{shown}" if key else message


def _keys_beside(location: list[str]) -> list[str]:
    """The keys that are known where an unknown one was met."""
    section: Any = StudySpec
    for part in location[:-1]:
        if part.isdigit() and get_args(section):
            section = get_args(section)[0]
            section = next(filter(_is_section, get_args(section)), section)
            continue
        field = section.model_fields.get(part) if _is_section(section) else None
        section = None if field is None else field.annotation
        if type(None) in get_args(section):
            section = next(filter(_is_section, get_args(section)), section)
    if _is_section(section):
        return list(section.model_fields)
    return ["kind", "low", "high", "choices", "seed_from", "when", "points"]


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
