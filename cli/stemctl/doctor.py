"""What is needed between a song and its stems, looked at one after the other."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from stemctl.asked.words import unknown
from stemctl.engine import find_engine
from stemctl.errors import InputError, StackError, StemctlError
from stemctl.fleet.clouds import ask_clouds, markets
from stemctl.fleet.stack import Fleet, find_fleet, find_project, read_fleet, stack_outputs
from stemctl.fleet.state import held_lock
from stemctl.places.bucket import bucket_of
from stemctl.places.objects import list_objects
from stemctl.places.outputs import cannot_write
from stemctl.worker.probe import Probe, probe_fleet

LITTLE_ROOM = 1_000_000_000
"""Bytes; about ten songs in wav with two stems each."""

SKEW_S = 60.0
"""Presigned URLs and leases go wrong by some minutes; answers themselves take seconds."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. Where it is not ok, ``detail`` says what to do."""

    check: str
    ok: bool
    detail: str


def examine(
    project: Path | None, stack: str, urls: Sequence[str], out: Path, preset: str | None
) -> list[Finding]:
    """Everything that can be found; what rests on something that is missing is left out."""
    findings: list[Finding] = [look_at_out(out, LITTLE_ROOM)]
    try:
        fleet = find_fleet(project, stack, urls) if urls else _fleet(project, stack, findings)
    except StemctlError as error:
        findings.append(Finding(error.type, False, str(error)))
        return [*findings, *(_keys() if isinstance(error, StackError) else ())]
    return [*findings, *(_finding(probe, preset) for probe in anyio.run(probe_fleet, fleet))]


def look_at_out(out: Path, needed: int) -> Finding:
    """Whether the output folder can be written to, and has room for ``needed`` bytes."""
    if bucket := bucket_of(out):
        try:
            next(list_objects(bucket.url("")), None)
        except InputError as error:
            return Finding("out", False, str(error))
        return Finding("out", True, f"{bucket} can be listed")
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    try:
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "is a file")
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"stemctl")
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding("out", False, cannot_write(error, there))
    room = f"{free / 1e9:.1f} GB left in {out.absolute()}"
    if free < needed:
        return Finding("out", False, f"only {room}: free some, or choose another --out")
    return Finding("out", True, room)


def _fleet(project: Path | None, stack: str, findings: list[Finding]) -> Fleet:
    engine = find_engine()
    findings.append(Finding("engine", True, f"Pulumi {engine.version}, {engine.origin}"))
    folder = find_project(project)
    findings.append(Finding("project", True, str(folder.absolute())))
    if lock := held_lock(folder, stack):
        findings.append(Finding("lock", False, f"stack {stack}: {lock}"))
    fleet = read_fleet(stack_outputs(folder, stack), stack)
    count = len(fleet.endpoints)
    price = f"{fleet.usd_per_hour:.2f} $/h"
    findings.append(Finding("stack", True, f"{stack}: {count} endpoints, {price}"))
    return fleet


def _keys() -> list[Finding]:
    """The clouds that could be rented from, where there is no fleet."""
    with_key = ask_clouds(markets(), lambda cloud: cloud).given
    if not with_key:
        return []
    told = f"there is a key for {' and '.join(with_key)}, which `stemctl offers` tries"
    return [Finding("keys", True, f"{told}: name a group there, `pulumi up`")]


def _finding(probe: Probe, preset: str | None) -> Finding:
    name = f"worker {probe.endpoint.slot}"
    if probe.status is None:
        return Finding(name, False, probe.error or "it does not say how it is")
    if abs(probe.clock_s) > SKEW_S:
        ahead = "ahead of" if probe.clock_s > 0 else "behind"
        return Finding(
            name,
            False,
            f"its clock is {abs(probe.clock_s):.0f} s {ahead} this machine's: set the one that is "
            "wrong, or signed URLs and leases end at the wrong time",
        )
    if not probe.ready:
        return Finding(name, False, f"is not ready: {probe.error}; wait, or see its log")
    wanted = preset or probe.status.default_preset
    there = {one.name: one for one in probe.status.presets}
    if wanted not in there:
        return Finding(name, False, unknown("preset", wanted, list(there)))
    if not there[wanted].available:
        return Finding(name, False, f"cannot serve preset {wanted}: {there[wanted].lacks}")
    presets = [one.name for one in probe.status.presets if one.available]
    return Finding(
        name, True, f"ready at {probe.endpoint.url}, {probe.status.device}: {', '.join(presets)}"
    )
