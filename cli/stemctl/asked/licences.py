"""Refusing presets that use weights which nobody has granted a licence for."""

from __future__ import annotations

from collections.abc import Iterable

from stemserve.schema import Preset, Status

from stemctl.errors import InputError

POLICIES = ("any", "granted")


def only_granted(policy: str) -> bool:
    """Whether a policy by that name wants a grant; raises `InputError` if there is no such."""
    if policy not in POLICIES:
        raise InputError(f"--licence {policy}: there is {' and '.join(POLICIES)}")
    return policy == "granted"


def check_granted(name: str, statuses: Iterable[Status]) -> None:
    """Nothing, if on each of the workers all weights of the preset of that name carry a grant.

    Raises:
        InputError: some do not, or a worker does not tell.
    """
    statuses = list(statuses)
    offered = [preset for status in statuses for preset in status.presets]
    for preset in offered:
        if preset.name == name and (reason := _ungranted(preset)):
            others = dict.fromkeys(
                p.name for p in offered if p.available and p.name != name and not _ungranted(p)
            )
            hint = f". With a grant: {', '.join(others)}" if others else ""
            raise InputError(f"preset {name} is refused by --licence granted: {reason}{hint}")


def _ungranted(preset: Preset) -> str | None:
    """Which weights carry no grant, and what is said of their terms."""
    if preset.licences is None:
        return "a worker does not tell the terms of its weights"
    without = [licence for licence in preset.licences if not licence.granted]
    if not without:
        return None
    files = ", ".join(licence.file for licence in without)
    said = " ".join(dict.fromkeys(licence.says for licence in without))
    return f"nobody has granted a licence for {files}. {said}".rstrip(".")
