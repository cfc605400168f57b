"""What is wrong with a configuration, key by key, in words that its author can act upon."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

UNITS = {
    "vramGb": "GB of one GPU, as it is sold: 24",
    "reliability": "a share of time: 0.97",
    "inetDownMbps": "Mb/s",
    "diskGb": "GB",
    "cuda": "a version: 12.4",
    "maxUsdPerHour": "USD",
    "bidUsdPerHour": "USD",
}
"""What a number that is wrong should have been."""


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about a name that is not known."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known)}"


def faults(error: ValidationError, root: type[BaseModel], namespace: str) -> Iterator[str]:
    """A line for each key that is wrong, of a configuration that ``root`` should have held."""
    for problem in error.errors(include_url=False):
        steps = problem["loc"]
        key = f"{namespace}:" + "".join(
            f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps
        ).lstrip(".")
        yield f"{key or namespace}: {_reason(problem, steps, root)}"


def _reason(problem: Any, steps: tuple[int | str, ...], root: type[BaseModel]) -> str:  # noqa: ANN401
    kind, given, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return f"there is no such key{nearest(str(steps[-1]), _keys_beside(steps, root))}"
    if kind == "missing":
        return "this key is missing"
    if kind == "value_error":
        return str(context["error"])
    if steps == ("groups",) and kind == "too_short":
        return "no group is declared; declare one, or end the fleet with `pulumi destroy`"
    if steps[-1] == "count" and kind == "greater_than_equal" and len(steps) == 3:
        return (
            f"a group has at least one worker, not {given}; to have none, remove the group, "
            "or end the fleet with `pulumi destroy`"
        )
    if kind == "string_pattern_mismatch":
        return (
            f"{given!r} is no name: lower-case letters, digits and single hyphens, "
            "beginning with a letter"
        )
    if kind == "model_type":
        return f"should hold the keys {', '.join(_keys_beside((*steps, ''), root))}, not {given!r}"
    message = str(problem["msg"]).removeprefix("Input ")
    unit = f" ({UNITS[str(steps[-1])]})" if steps[-1] in UNITS else ""
    return f"{message}{unit}, not {json.dumps(given, ensure_ascii=False, default=str)}"


def _keys_beside(steps: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """The keys there are where an unknown one was given."""
    model = root
    for step in steps[:-1]:
        if isinstance(step, str):
            model = next(_models(model.model_fields[step].annotation))
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
