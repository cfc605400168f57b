"""What is needed between a song and its stems, looked at one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from stemctl.engine import find_engine
from stemctl.errors import StemctlError
from stemctl.probe import Probe, probe_fleet
from stemctl.stack import Fleet, find_fleet, find_project, read_fleet, stack_outputs


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. Where it is not ok, ``detail`` says what to do."""

    check: str
    ok: bool
    detail: str


def examine(project: Path | None, stack: str, urls: Sequence[str]) -> list[Finding]:
    """Everything that can be found; what rests on something that is missing is left out."""
    findings: list[Finding] = []
    try:
        fleet = find_fleet(project, stack, urls) if urls else _fleet(project, stack, findings)
    except StemctlError as error:
        return [*findings, Finding(error.type, False, str(error))]
    findings += [_finding(probe) for probe in anyio.run(probe_fleet, fleet)]
    return findings


def _fleet(project: Path | None, stack: str, findings: list[Finding]) -> Fleet:
    engine = find_engine()
    findings.append(Finding("engine", True, f"Pulumi {engine.version}, {engine.origin}"))
    folder = find_project(project)
    findings.append(Finding("project", True, str(folder.absolute())))
    fleet = read_fleet(stack_outputs(folder, stack), stack)
    count = len(fleet.endpoints)
    price = f"{fleet.usd_per_hour:.2f} $/h"
    findings.append(Finding("stack", True, f"{stack}: {count} endpoints, {price}"))
    return fleet


def _finding(probe: Probe) -> Finding:
    name = f"worker {probe.endpoint.slot}"
    if probe.status is None:
        return Finding(name, False, probe.error or "it does not say how it is")
    if not probe.ready:
        return Finding(name, False, f"is not ready: {probe.error}; wait, or see its log")
    presets = [preset.name for preset in probe.status.presets if preset.available]
    return Finding(
        name, True, f"ready at {probe.endpoint.url}, {probe.status.device}: {', '.join(presets)}"
    )
