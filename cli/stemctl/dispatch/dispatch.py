"""Spreads a run's tracks over the workers, and brings their stems home.

Each worker has three lanes, for one track each: uploading, computing, downloading. So the next
track is there when one is done, and no worker holds more than it can soon begin. A track that
fails is tried on other workers; a worker that cannot be used is set aside; a place in the output
folder gets a whole track or nothing. The client names the jobs, so that asking again for the same
is the same job, also for the next run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import TaskGroup

from stemctl.dispatch.backlog import Backlog
from stemctl.dispatch.budget import Purse
from stemctl.dispatch.carry import CannotKeepError, Carrier
from stemctl.dispatch.crew import AWAY_FOR_S, BEGUN, Crew, Errand, Member, Trip
from stemctl.dispatch.failures import judge
from stemctl.dispatch.report import End, Outcome, Report, left
from stemctl.dispatch.watch import Watcher
from stemctl.errors import InputError, WorkerError
from stemctl.places.staging import Staging

TRIES = 3
"""So often may a track's job fail."""
MISSES = 10
"""So often may workers fail a track through faults of their own."""
STRIKES = 5
"""Faults in a row of a worker until it is set aside; more than one bad track can cause."""
BUSY_FOR_S = 1800.0
"""A worker whose queue is full of others' jobs for so long is set aside."""
RENEW_PAUSE_S = 300.0
GOODBYE_S = 10.0
"""How long a job may take to be cancelled or deleted, when nobody wants it any more."""


class Dispatch:
    """One run. `run` returns when every track has ended, or the run was stopped."""

    def __init__(
        self,
        staging: Staging,
        watcher: Watcher,
        errands: Sequence[Errand],
        budget: float | None = None,
    ) -> None:
        self._watcher = watcher
        self._staging = staging
        self._errands = errands
        self._crew = Crew()
        self.purse = Purse(self._crew, budget)
        self._backlog = Backlog(self._crew, errands, self.purse.affords)
        self._carrier = Carrier(staging, self._backlog, watcher)
        self._scope = anyio.CancelScope()
        self._serving: TaskGroup | None = None
        self._byes: TaskGroup | None = None
        self.report = Report(staging.shown)

    @property
    def members(self) -> list[Member]:
        """All workers that the run has had."""
        return self._crew.members

    async def run(self) -> Report:
        """Bring all tracks home, as far as that is possible."""
        async with anyio.create_task_group() as renewing:
            renewing.start_soon(self._renew_leases)
            async with anyio.create_task_group() as self._byes:
                with self._scope:
                    async with anyio.create_task_group() as self._serving:
                        for member in self.members:
                            self._serving.start_soon(self._serve, member)
                self._serving = None
                for errand in self._errands:
                    self._leave_all(errand)
                self._byes.cancel_scope.deadline = anyio.current_time() + GOODBYE_S
            renewing.cancel_scope.cancel()
        stopped = self._scope.cancel_called or self._backlog.closed
        reason = None if stopped else self._why_left()
        rest = [errand.track for errand in self._errands if not errand.ended]
        self.report.outcomes += left(rest, reason)
        for outcome in self.report.outcomes[-len(rest) :] if rest else ():
            self._watcher.ended(outcome)
        return self.report

    def _why_left(self) -> str:
        if self.purse.budget is None or not self.purse.refused:
            return "no worker was left to try it"
        return (
            f"it would have passed the budget of ${self.purse.budget:.2f}: the same command does "
            "it, with a budget of its own"
        )

    def join(self, member: Member) -> None:
        """A worker that gets tracks from now on; before `run` or while it runs."""
        self.purse.spent()
        self._crew.members.append(member)
        self._watcher.joined(member.worker.endpoint)
        if self._serving is not None:
            self._serving.start_soon(self._serve, member)

    async def come_back(self, member: Member) -> None:
        """A worker that was set aside is well again."""
        while member.unleft:
            errand, job_id = member.unleft.pop()
            if errand.long is not None and not errand.ended:
                await self._cancel(member, job_id)
            elif errand.ended or errand.trips:
                await self._leave(member, job_id)
            else:
                errand.jobs.add((member, job_id))  # the next try may go on with it
        member.aside, member.strikes, member.may_return = None, 0, False
        self.report.set_aside.pop(member.slot, None)
        self._watcher.joined(member.worker.endpoint)
        await self._backlog.look()

    async def let_go(self, member: Member, reason: str) -> None:
        """A worker that gets no more tracks, and may finish what it has begun."""
        self.purse.spent()
        member.gone, member.may_return = True, False
        if member.aside is None:
            member.aside = reason
            self._watcher.aside(member.slot, reason)
        await self._backlog.look()

    async def drain(self) -> None:
        """Let the tracks that are computed end, and begin no others."""
        await self._backlog.close()
        for trip in list(self._backlog.trips):
            if trip.stage not in BEGUN:
                trip.scope.cancel()

    def stop(self) -> None:
        """End all trips; again: do not even wait until their jobs are cancelled."""
        if self._scope.cancel_called and self._byes is not None:
            self._byes.cancel_scope.cancel()
        self._scope.cancel()

    async def _renew_leases(self) -> None:
        """Tell the workers, again and again, that somebody still wants them."""

        async def renew(member: Member) -> None:
            with suppress(WorkerError):  # an older one has no lease, and one that is gone none too
                await member.worker.renew_lease()

        while True:
            async with anyio.create_task_group() as renewing:
                for member in self.members:
                    if member.aside is None:
                        renewing.start_soon(renew, member)
            await anyio.sleep(RENEW_PAUSE_S)

    async def _serve(self, member: Member) -> None:
        async with anyio.create_task_group() as carrying:
            while True:
                await member.lanes.uploading.acquire()
                trip = await self._backlog.take(member)
                if trip is None:
                    member.lanes.uploading.release()
                    return
                carrying.start_soon(self._carry, trip)

    async def _carry(self, trip: Trip) -> None:
        """Take one trip, and deal with whatever hinders it."""
        errand, hindrance, home = trip.errand, None, False
        try:
            with trip.scope:
                self._watcher.moved(trip)
                home = await self._carrier.carry(trip)
        except (WorkerError, InputError) as error:
            hindrance = error
        except CannotKeepError as error:
            # A trip that has lost may find its place gone: the winner has cleared up.
            if not (errand.ended or trip.scope.cancel_called):
                self.report.error = str(error)
                self._scope.cancel()
        finally:
            errand.spent(trip)
            with anyio.CancelScope(shield=True):
                self._watcher.over(trip, None if hindrance is None else str(hindrance))
                if home:
                    trip.member.strikes = 0
                    self._end(_outcome(errand, End.DONE, ", ".join(errand.bearers)))
                elif hindrance is not None:
                    await self._hindered(trip, hindrance)
                    await self._leave_at_once(trip)
                for other in _superfluous(errand):
                    other.scope.cancel()
                await self._backlog.over(trip)
            if trip.job_id is not None:
                errand.jobs.add((trip.member, trip.job_id))
                if errand.long is not None and not errand.ended:
                    self._say_goodbye(self._cancel, errand, trip.member, trip.job_id)
            if errand.long is None or errand.ended:
                self._leave_all(errand)

    async def _leave_at_once(self, trip: Trip) -> None:
        """Leave a job that may still run, before another trip finds it and sees it cancelled."""
        if trip.job_id is not None and not trip.member.may_return:
            await self._leave(trip.member, trip.job_id)
            trip.job_id = None

    def _leave_all(self, errand: Errand) -> None:
        """Let the workers forget the jobs of trips that are over.

        Of a track that is still shared they keep them: with its last job a worker forgets an input.
        """
        while errand.jobs:
            self._say_goodbye(self._leave, errand, *errand.jobs.pop())

    def _say_goodbye(
        self,
        how: Callable[[Member, str], Coroutine[Any, Any, None]],
        errand: Errand,
        member: Member,
        job_id: str,
    ) -> None:
        if member.may_return:  # it does not answer
            member.unleft.append((errand, job_id))
        elif self._byes is not None:
            self._byes.start_soon(how, member, job_id)

    async def _cancel(self, member: Member, job_id: str) -> None:
        with anyio.move_on_after(GOODBYE_S), suppress(WorkerError):  # it may be over
            await member.worker.cancel(job_id)

    async def _leave(self, member: Member, job_id: str) -> None:
        """Let a worker forget a job. If it fails, it may keep it."""
        with anyio.move_on_after(GOODBYE_S):
            with suppress(WorkerError):
                await member.worker.delete(job_id)
                return
            with suppress(WorkerError):  # it still runs, or the worker is not to be had
                await member.worker.cancel(job_id)
            with suppress(WorkerError):
                await member.worker.delete(job_id)

    async def _hindered(self, trip: Trip, error: WorkerError | InputError) -> None:
        verdict, errand, member = judge(error), trip.errand, trip.member
        if verdict.busy:
            now = anyio.current_time()
            member.busy_since = member.busy_since or now
            if now - member.busy_since > BUSY_FOR_S:
                await self._set_aside(member, str(error), may_return=True)
            return
        failed = verdict.failed and not (verdict.may_return and trip.bore)  # it has not died of it
        (errand.failed if failed else errand.missed).append(member.slot)
        member.strikes += verdict.strike
        if verdict.aside or member.strikes >= STRIKES:
            await self._set_aside(member, str(error), may_return=verdict.may_return)
        if errand.ended or errand.homing is not None:
            return
        given_up = len(errand.failed) >= TRIES or len(errand.missed) >= MISSES
        others = [one for one in errand.trips if one is not trip]
        if verdict.hopeless or (given_up and not others):
            errand.ended = True
            slot = None if isinstance(error, InputError) else trip.slot
            self._end(_outcome(errand, End.FAILED, slot, str(error)))
        else:
            name = errand.track.name
            self._watcher.said(f"{name} failed on {trip.slot}, back into the queue: {error}")

    async def _set_aside(self, member: Member, reason: str, *, may_return: bool) -> None:
        if member.aside is not None:
            return
        member.aside, member.may_return = reason, may_return
        member.failing_since = member.failing_since or time.monotonic()
        self.report.set_aside[member.slot] = reason
        self._watcher.aside(member.slot, reason)
        self._watcher.said(f"worker {member.slot} is set aside: {reason}")
        for trip in list(member.trips):
            trip.scope.cancel()
        if self._crew.deserted and any(one.may_return for one in self.members):
            self._watcher.said(
                f"no worker is left: waiting {AWAY_FOR_S / 60:.0f} minutes for one to come back; "
                "Ctrl-C ends the run"
            )
        await self._backlog.look()

    async def deserted(self) -> None:
        """Return once nobody gets tracks."""
        await self._backlog.deserted()

    def _end(self, outcome: Outcome) -> None:
        self.report.outcomes.append(outcome)
        self._watcher.ended(outcome)


def _superfluous(errand: Errand) -> list[Trip]:
    """Trips on their way that can bring nothing any more."""
    if errand.ended:
        return [trip for trip in errand.trips if trip is not errand.homing]
    if errand.long is None or errand.long.missing():
        return []
    return [
        trip
        for trip in errand.trips
        if trip in errand.long.claims and trip is not errand.homing and trip.stage != "downloading"
    ]


def _outcome(errand: Errand, end: End, slot: str | None, error: str | None = None) -> Outcome:
    seconds = errand.took if end is End.DONE else None
    return Outcome(
        errand.track.name,
        end,
        errand.track.place,
        slot,
        seconds,
        errand.seconds / seconds if seconds and errand.seconds else None,
        error,
        length=errand.seconds,
        tries=errand.told,
        usd=errand.usd,
        sent=errand.sent,
        got=errand.got,
    )
