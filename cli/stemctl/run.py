"""A run: one call of stemctl over many tracks, from what was asked to what came of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread

from stemctl.asked.track import Track
from stemctl.dispatch.budget import Estimate, estimate
from stemctl.dispatch.crew import Errand, Member
from stemctl.dispatch.delivery import Contents
from stemctl.dispatch.deposits import remove_parts
from stemctl.dispatch.dispatch import Dispatch
from stemctl.dispatch.lookout import Look, Newcomers, look_out
from stemctl.dispatch.report import End, Outcome, Report
from stemctl.dispatch.signals import heed_signals
from stemctl.dispatch.watch import Watcher, Watchers
from stemctl.errors import InputError, WorkerError
from stemctl.fleet.stack import Fleet
from stemctl.inputs.find import Inputs
from stemctl.inputs.headers import song_lengths
from stemctl.inputs.plan import Plan, make_plan
from stemctl.money.speeds import kind_of_work, learn
from stemctl.places.bucket import bucket_of
from stemctl.places.outputs import is_done
from stemctl.places.staging import Staging
from stemctl.telling.events import Events
from stemctl.telling.history import command_line
from stemctl.telling.ledger import Ledger
from stemctl.telling.progress import shown
from stemctl.telling.tables import LedgerError
from stemctl.worker.client import Worker
from stemctl.worker.probe import Probe, probe_fleet

MODELS_FOR_S = 60.0
"""How long workers that have just started get to say which presets they can serve."""


@dataclass(frozen=True)
class Asked:
    """What the command line asks of a run as a whole."""

    out: Path
    overwrite: bool = False
    granted: bool = False
    """Refuse presets whose weights carry no grant."""
    budget: float | None = None
    """What the workers may cost in all, in USD, as long as the run lasts."""


async def run(
    inputs: Inputs,
    fleet: Fleet,
    asked: Asked,
    *,
    look: Look | None = None,
    events: Events | None = None,
) -> Report:
    """Bring the stems of all inputs home, as far as that is possible.

    Args:
        inputs: What to separate.
        fleet: The workers there are.
        asked: How, and where the stems go.
        look: Gives the fleet as it is later, so that workers may come and go.
        events: Are told how it goes.

    Raises:
        InputError: a preset or stem that no worker can serve, or that is refused, or no place for
            the output.
        WorkerError: no worker can be used.
    """
    plan, aside = await settled(inputs, fleet, asked)
    with Staging(asked.out) as staging:
        before, waiting = await sorted_out(inputs, plan, asked)
        errands = await to_thread.run_sync(_errands, waiting)
        async with AsyncExitStack() as stack:
            watchers: list[Watcher] = [stack.enter_context(shown(errands, len(before)))]
            watcher = Watchers(watchers)
            if events is not None:
                watchers.append(events)
            members = [
                Member(
                    await stack.enter_async_context(Worker(endpoint, fleet.token)),
                    plan.serves[endpoint.slot],
                    speed=endpoint.realtime,
                )
                for endpoint in fleet.endpoints
                if plan.serves.get(endpoint.slot)
            ]
            ledger = _open_ledger(staging, plan, watcher, estimate(errands, members), asked.budget)
            if ledger is not None:
                watchers.append(stack.enter_context(ledger))
            _tell(watcher, plan, aside, before)
            dispatch = Dispatch(staging, watcher, errands, asked.budget)
            for member in members:
                dispatch.join(member)
            newcomers = Newcomers(
                presets={track.wanted.preset for track in plan.tracks},
                granted=asked.granted,
                open_worker=stack.enter_async_context,
            )
            async with anyio.create_task_group() as beside:
                beside.start_soon(heed_signals, dispatch, watcher)
                beside.start_soon(look_out, dispatch, look or partial(_same, fleet), newcomers)
                report = await dispatch.run()
                beside.cancel_scope.cancel()
            report.set_aside = aside | report.set_aside
            report.outcomes = _in_order(plan.tracks, [*before, *report.outcomes])
            if staging.bucket is not None:
                try:
                    done = _done(plan.tracks, report)
                    await to_thread.run_sync(remove_parts, staging.bucket, done)
                except InputError as error:
                    watcher.said(f"parts of long tracks may be left in the bucket: {error}")
            if kept := staging.kept:
                watcher.said(
                    f"of {kept} long tracks there are finished parts in {staging.folder}: "
                    "the same command goes on with them"
                )
            watcher.finished(report)
            await to_thread.run_sync(_learn, plan.tracks, dispatch)
    if ledger is not None and ledger.trouble:
        print(f"stemctl: {ledger.trouble}", file=sys.stderr)
    return report


async def settled(inputs: Inputs, fleet: Fleet, asked: Asked) -> tuple[Plan, dict[str, str]]:
    """What is wanted of each input, and which workers are of no use for it, and why.

    Raises:
        InputError: a preset or stem that no worker can serve, or that is refused.
        WorkerError: no worker can be used.
    """
    probes = await _probe(fleet)
    statuses = {probe.endpoint.slot: probe.status for probe in probes if probe.status}
    if not statuses:
        reasons = "; ".join(dict.fromkeys(probe.error or "" for probe in probes))
        raise WorkerError(f"no worker can be used: {reasons}")
    plan = make_plan(inputs.songs, statuses, granted=asked.granted)
    aside = {p.endpoint.slot: p.error or "" for p in probes if not p.status}
    aside |= {slot: why for slot, why in plan.lacking.items() if slot not in plan.serves}
    return plan, aside


async def sorted_out(inputs: Inputs, plan: Plan, asked: Asked) -> tuple[list[Outcome], list[Track]]:
    """The outcomes of what needs no worker or may not have one, and the tracks that are left.

    Raises:
        InputError: the bucket cannot be looked into.
    """
    before = [Outcome(bad.name, End.FAILED, error=bad.reason) for bad in inputs.unusable]
    waiting: list[Track] = []
    bucket = bucket_of(asked.out)
    contents = None
    if bucket is not None:
        contents = await to_thread.run_sync(Contents, bucket, plan.tracks)
    sources = await to_thread.run_sync(_sources, plan.tracks)
    for track in plan.tracks:
        outcome = await to_thread.run_sync(_before, track, asked, contents, sources)
        if outcome:
            before.append(outcome)
        else:
            waiting.append(track)
    return before, waiting


def _sources(tracks: Sequence[Track]) -> frozenset[str]:
    return frozenset(os.path.realpath(track.path) for track in tracks if track.path)


def _errands(tracks: Sequence[Track]) -> list[Errand]:
    """Tracks that wait, with how long they are; blocks."""
    lengths = song_lengths([track.path for track in tracks])
    return [Errand(track, one.seconds) for track, one in zip(tracks, lengths, strict=True)]


def _tell(
    watcher: Watcher, plan: Plan, aside: Mapping[str, str], before: Sequence[Outcome]
) -> None:
    """What is known before anything is sent."""
    for slot, reason in aside.items():
        watcher.said(f"worker {slot} is set aside: {reason}")
    for slot in plan.lacking.keys() & plan.serves.keys():
        watcher.said(f"worker {slot} gets a part of the tracks: {plan.lacking[slot]}")
    for outcome in before:
        watcher.ended(outcome)


def _learn(tracks: Sequence[Track], dispatch: Dispatch) -> None:
    """Keep how fast the workers were, for later quotes."""
    gpus = {member.slot: member.worker.endpoint.gpu for member in dispatch.members}
    kinds = {t.place: kind_of_work(t.wanted.preset, t.wanted.stems) for t in tracks}
    learn(
        (gpus[one.worker], kinds[one.place], one.length, one.seconds)
        for one in dispatch.report.outcomes
        if one.end is End.DONE and one.worker in gpus and one.place and one.length and one.seconds
    )


def _open_ledger(
    staging: Staging,
    plan: Plan,
    watcher: Watcher,
    expected: Estimate | None,
    budget: float | None,
) -> Ledger | None:
    try:
        return Ledger(
            *(staging.out, staging.folder.name, command_line(), plan.tracks, expected, budget)
        )
    except LedgerError as error:
        watcher.said(f"this run is not written down: {error}")
        return None


async def _same(fleet: Fleet) -> Fleet:
    return fleet


async def _probe(fleet: Fleet) -> list[Probe]:
    """Every worker, once those that have just started know their presets."""
    deadline = anyio.current_time() + MODELS_FOR_S
    while True:
        probes = await probe_fleet(fleet)
        known = all(probe.status is None or probe.status.presets for probe in probes)
        if known or anyio.current_time() > deadline:
            return probes
        await anyio.sleep(0.5)


def _before(
    track: Track, asked: Asked, contents: Contents | None, sources: AbstractSet[str]
) -> Outcome | None:
    """The outcome of a track that needs no worker any more, or may not have one.

    ``sources``: the files that are to be separated, which none may be written over.
    """
    try:
        if contents is None:
            for path in (asked.out / file for file in track.files):
                if path.exists() and os.path.realpath(path) in sources:
                    raise InputError(f"{path} is an input itself: choose another --out or --output")
            done = is_done(asked.out, track, overwrite=asked.overwrite)
        else:
            done = contents.is_done(track, overwrite=asked.overwrite)
        if done:
            return Outcome(track.name, End.THERE, track.place)
    except InputError as error:
        return Outcome(track.name, End.FAILED, track.place, error=str(error))
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        return Outcome(track.name, End.FAILED, track.place, error=reason)
    return None


def _done(tracks: Sequence[Track], report: Report) -> list[Track]:
    there = {one.place for one in report.outcomes if one.end in (End.DONE, End.THERE)}
    return [track for track in tracks if track.place in there]


def _in_order(tracks: Sequence[Track], outcomes: list[Outcome]) -> list[Outcome]:
    """As the inputs were given; what could not be used comes last."""
    order = {track.place: number for number, track in enumerate(tracks)}
    return sorted(outcomes, key=lambda outcome: order.get(outcome.place or "", len(order)))
