"""A slot's label: its identity in state, and what its machine carries on its cloud.

The last part begins with a hash of what cannot change in place. A slot of which such a thing
changes is another slot, and the machine with the old label can never be taken for the new one. It
ends with the stack's identity, which tells its machines from those of a stack of the same name on
another computer.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass

from stemfleet.clouds.base import GpuFilter

GROUP_NAME = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
"""A group's name: what a label, a directory and a host name can all hold."""

NEXT_MACHINE = frozenset(("max_usd_per_hour", "reliability", "inet_down_mbps"))
"""Conditions that a machine is chosen by, and that are no reason to give up the one there is. (Its
price is one if it is above the cap.)"""

_NAME = r"[A-Za-z0-9_-]{1,64}"
_PART = re.compile(_NAME)
_LABEL = re.compile(
    rf"(?P<project>{_NAME})\.(?P<stack>{_NAME})\.(?P<slot>{GROUP_NAME}-\d+)"
    r"\.[0-9a-f]{8}(?P<identity>[0-9a-f]{6})"
)


def stack_prefix(project: str, stack: str) -> str:
    """What the labels of one stack begin with, and no other stack's do.

    Raises:
        ValueError: a name holds a dot, which separates the parts of a label.
    """
    for kind, name in (("project", project), ("stack", stack)):
        if not _PART.fullmatch(name):
            raise ValueError(
                f"the {kind} name {name!r} cannot be part of a label: "
                "use letters, digits, '-' and '_', at most 64 of them"
            )
    return f"{project}.{stack}."


@dataclass(frozen=True)
class LabelParts:
    """Whose machine it is that carries a label."""

    project: str
    stack: str
    slot: str
    identity: str


def parse_label(label: str) -> LabelParts | None:
    """The parts of a label; None: a machine with it is none of this program's."""
    found = _LABEL.fullmatch(label)
    return LabelParts(*found.group("project", "stack", "slot", "identity")) if found else None


def slot_label(
    prefix: str,
    slot: str,
    *,
    preset: str,
    image: str | None,
    want: GpuFilter,
    token: str,
    certificate: str = "",
    idle_minutes: float | None = None,
    lease_hours: float | None = None,
) -> str:
    """``{project}.{stack}.{group}-{i}.{hash8}{identity6}``.

    ``token`` and ``certificate`` are the fingerprints of what a worker is given once, at its start,
    as are the limits after which it ends its own machine. Of the filter and of the limits only what
    is asked for is in the hash, so that a new kind of wish leaves the labels there are as they are;
    and not `NEXT_MACHINE`.
    """
    anything = asdict(GpuFilter())
    asked = {
        key: value
        for key, value in asdict(want).items()
        if key not in NEXT_MACHINE and value != anything[key]
    }
    limits = {"idle": idle_minutes, "lease": lease_hours}
    ends = {key: value for key, value in limits.items() if value is not None}
    fixed = [preset, image, asked, token + certificate, *([ends] if ends else [])]
    text = json.dumps(fixed, sort_keys=True)
    return f"{prefix}{slot}.{hashlib.sha256(text.encode()).hexdigest()[:8]}{identity(token)}"


def identity(token: str) -> str:
    """What labels hold of the stack whose token has this fingerprint."""
    return token[:6]
