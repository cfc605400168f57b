"""What `pulumi preview --json` says would become of a fleet, group by group.

The engine's document holds the new configuration, the stack's present outputs, and a step for each
resource that would change: enough to tell, without a key and without asking a cloud, how many
machines come and go, why, and what the fleet costs at most before and after.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from stemctl.errors import InputError
from stemctl.fleet.stack import Endpoint

SLOT_TYPES = "$pulumi-python:dynamic/"
"""In the URN of every slot, and of the other resources of the fleet."""


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class _State(_Read):
    inputs: dict[str, Any] = {}
    outputs: dict[str, Any] = {}


class _Step(_Read):
    op: str
    urn: str
    old_state: _State | None = None
    new_state: _State | None = None
    replace_reasons: list[str] | None = None


class _Diagnostic(_Read):
    message: str
    severity: str = ""


class _Document(_Read):
    config: dict[str, str]
    steps: list[_Step] = []
    diagnostics: list[_Diagnostic] | None = None


class _Gpu(_Read):
    names: list[str] = []
    count: int = 1
    vram_gb: float | None = None
    max_usd_per_hour: float = 0.0
    spot: bool = False


class _Group(_Read):
    name: str
    cloud: str
    count: int
    gpu: _Gpu | None = None


class _Limits(_Read):
    total: float = 0.0
    groups: dict[str, float] = {}


class _Outputs(_Read):
    endpoints: list[Endpoint] = []
    max_usd_per_hour: _Limits = Field(default_factory=_Limits)


@dataclass(frozen=True)
class Replaced:
    """A slot of which the machine would end, and another be rented; and for what reasons."""

    slot: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class GroupChange:
    """A group before and after. Prices are USD per hour in the worst case."""

    name: str
    cloud: str
    machine: str
    """What is asked for, in few words: ``RTX 4090``."""
    before: int
    after: int
    usd_before: float
    usd_after: float
    replaced: tuple[Replaced, ...]
    adapted: int
    """Slots that keep their machine: what has changed holds for the next one."""
    realtime: float | None
    """Seconds of audio a second of one of its workers, where it was measured."""

    @property
    def changes(self) -> bool:
        """Whether anything would be done."""
        return bool(self.before != self.after or self.replaced or self.adapted)


@dataclass(frozen=True)
class Preview:
    """A fleet before and after."""

    stack: str
    groups: tuple[GroupChange, ...]
    cap: float | None
    errors: tuple[str, ...]
    """Why the preview failed; nothing of it would be done then."""

    @property
    def usd_before(self) -> float:
        """What the fleet costs at most now."""
        return sum(group.usd_before for group in self.groups)

    @property
    def usd_after(self) -> float:
        """What it may cost then."""
        return sum(group.usd_after for group in self.groups)


def read_preview(text: str) -> Preview:
    """The preview in what `pulumi preview --json` has printed.

    Raises:
        InputError: it is none, or not one of such a stack.
    """
    try:
        document = _Document.model_validate_json(text)
        project, stack = _names(document)
        config = {key.removeprefix(f"{project}:"): value for key, value in document.config.items()}
        declared = [_Group.model_validate(one) for one in _parsed(config.get("groups", "[]"))]
        root = next((s for s in document.steps if s.urn.endswith(f"::{project}-{stack}")), None)
        old = root.old_state.outputs if root and root.old_state else {}
        outputs = _Outputs.model_validate(old)
        cap = float(config["maxUsdPerHour"]) if "maxUsdPerHour" in config else None
    except (ValidationError, ValueError, IndexError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"this is no preview of such a stack ({first}): give what "
            "`pulumi preview --json` prints"
        ) from None
    errors = tuple(_errors(document.diagnostics or ()))
    # The engine tells them in the order in which they happened to be ready.
    slots = sorted(
        (s for s in document.steps if SLOT_TYPES in s.urn), key=lambda s: _numbered(s.urn)
    )
    steps = [] if errors else slots
    groups = [] if errors else list(_groups(declared, outputs, steps))
    return Preview(stack, tuple(groups), cap, errors)


def _numbered(urn: str) -> tuple[str, int]:
    """By what slots are in order: ``gpu-2`` before ``gpu-10``."""
    group, _, index = urn.rpartition("-")
    return group, int(index) if index.isdigit() else 0


def _names(document: _Document) -> tuple[str, str]:
    """Of the project and the stack."""
    if not document.steps:
        return next(iter(document.config)).partition(":")[0], ""
    parts = document.steps[0].urn.split("::")
    return parts[1], parts[0].rpartition(":")[2]


def _parsed(text: str) -> list[Any]:
    parsed = json.loads(text)
    return parsed if isinstance(parsed, list) else []


def _errors(diagnostics: Iterable[_Diagnostic]) -> Iterable[str]:
    """The lines of an error; the engine marks only the first, what follows belongs to it."""
    failing = False
    for diagnostic in diagnostics:
        text = diagnostic.message.strip()
        failing = failing or text.startswith("error:") or diagnostic.severity == "error"
        if failing and text and not text.startswith("warning:"):
            yield text.removeprefix("error: ")


def _groups(declared: list[_Group], outputs: _Outputs, steps: list[_Step]) -> Iterable[GroupChange]:
    by_group: dict[str, list[_Step]] = {}
    for step in steps:
        state = step.new_state or step.old_state or _State()
        slot = state.inputs.get("slot")
        if isinstance(slot, str):
            by_group.setdefault(slot.rpartition("-")[0], []).append(step)
    there: dict[str, list[Endpoint]] = {}
    for endpoint in outputs.endpoints:
        there.setdefault(endpoint.slot.rpartition("-")[0], []).append(endpoint)
    new = {group.name: group for group in declared}
    for name in dict.fromkeys([*new, *there, *by_group]):
        yield _change(
            name,
            new.get(name),
            there.get(name, []),
            by_group.get(name, []),
            outputs.max_usd_per_hour.groups.get(name, 0.0),
        )


def _change(
    name: str,
    group: _Group | None,
    there: list[Endpoint],
    steps: list[_Step],
    usd_before: float,
) -> GroupChange:
    ops = [step.op for step in steps]
    after = group.count if group else 0
    speeds = [endpoint.realtime for endpoint in there if endpoint.realtime]
    first = steps[0] if steps else None
    old = first.old_state.inputs if first and first.old_state else {}
    return GroupChange(
        name=name,
        cloud=group.cloud if group else there[0].cloud if there else str(old.get("cloud", "")),
        machine=_machine(group.gpu) if group else there[0].gpu if there else "",
        # Not all that is in the state is in the outputs: an `up` may have been cut off.
        before=after - ops.count("create") + ops.count("delete"),
        after=after,
        usd_before=usd_before,
        usd_after=after * group.gpu.max_usd_per_hour if group and group.gpu else 0.0,
        replaced=tuple(_replaced(step) for step in steps if step.op == "replace"),
        adapted=ops.count("update"),
        realtime=sum(speeds) / len(speeds) if speeds else None,
    )


def _machine(gpu: _Gpu | None) -> str:
    if gpu is None:
        return ""
    what = " or ".join(gpu.names) or (f"GPU with {gpu.vram_gb:g} GB" if gpu.vram_gb else "GPU")
    if gpu.count > 1:
        what = f"machine with {gpu.count} × {what}"
    return f"{what} (spot)" if gpu.spot else what


def _replaced(step: _Step) -> Replaced:
    old, new = step.old_state or _State(), step.new_state or _State()
    reasons: list[str] = []
    for key in dict.fromkeys(step.replace_reasons or ()):
        if key == "failure":
            reasons.append(f"its machine has failed: {old.outputs.get('failure') or 'it is gone'}")
        elif key == "want":
            reasons += _wants(old, new)
        elif key in ("fingerprint", "prefix"):
            reasons.append("the stack's token, certificate or name is another")
        else:
            reasons.append(_from_to(key, old.inputs.get(key), new.inputs.get(key)))
    return Replaced(str(new.inputs.get("slot", "")), tuple(dict.fromkeys(reasons)))


def _wants(old: _State, new: _State) -> Iterable[str]:
    """What is asked of the machine that the present one does not have."""
    was, wanted = old.inputs.get("want") or {}, new.inputs.get("want") or {}
    price, cap = old.outputs.get("usdPerHour") or 0.0, wanted.get("maxUsdPerHour")
    if cap is not None and price > cap:
        yield f"it costs ${price:.2f}/h, above the cap of ${cap:.2f}/h"
        return
    for key in sorted({*was, *wanted}):
        if was.get(key) != wanted.get(key):
            yield _from_to(key, was.get(key), wanted.get(key))


def _from_to(key: str, old: object, new: object) -> str:
    return f"{key} {_word(old)} → {_word(new)}"


def _word(value: object) -> str:
    if value is None:
        return "any"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Mapping | list):
        return ", ".join(str(one) for one in value)
    return str(value)
