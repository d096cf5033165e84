"""What can be said of a configuration before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from raystudy.models.build import count_parameters
from raystudy.models.memory import training_bytes
from raystudy.study.constraints import keys_of, violation
from raystudy.study.model import configure
from raystudy.study.spec import StudySpec, first_rule


@dataclass(frozen=True)
class Refusal:
    """Why a configuration cannot be trained: one word, a text, and by how much (above 0) the rule is broken."""

    reason: str
    detail: str
    violation: float


def check(spec: StudySpec, flat: dict[str, Any]) -> tuple[dict[str, Any], int, Refusal | None]:
    """All keys that this configuration's network reads, its parameter count, and why it cannot be trained.

    Where values break a rule together there is no network: the keys are those given, and the count is 0.
    """
    try:
        model, training = configure(flat)
    except ValidationError as error:
        return flat, 0, Refusal("rule", first_rule(error), 1.0)
    meaningless = model.unread - {"window_bp", "max_protein"}  # these also say what was offered
    config = {**model.model_dump(mode="json", exclude=meaningless), **training.model_dump()}
    parameters, most = count_parameters(model, len(spec.targets)), spec.budget.parameters
    values = {**model.model_dump(), **training.model_dump(), "parameters": parameters}
    for constraint in spec.constraints:
        if keys_of(constraint) & model.unread:
            continue  # it is about what this network has not
        try:
            excess = violation(constraint, values)
        except ValueError as error:  # it divides by 0 here
            return config, parameters, Refusal("constraint", str(error), 1.0)
        if excess > 0:
            return config, parameters, Refusal("constraint", f"`{constraint}` does not hold", excess)
    if most is not None and parameters > most:
        detail = f"{parameters:,} parameters, and `budget.parameters` allows {most:,}"
        return config, parameters, Refusal("parameters", detail, parameters / most - 1)
    allowed_gb = spec.resources.memory_gb_per_worker
    if allowed_gb is not None:
        needed_gb = training_bytes(model, training, len(spec.targets)) / 1e9
        if needed_gb > allowed_gb:
            detail = f"about {needed_gb:.3g} GB are needed and `resources.memory_gb_per_worker` allows {allowed_gb:g}"
            return config, parameters, Refusal("memory", detail, needed_gb / allowed_gb - 1)
    return config, parameters, None
