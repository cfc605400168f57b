"""The tracks that wait for a worker. Workers pull: each takes the next when it has room.

The longest come first. When none waits, a worker that has nothing to do helps: it takes over what
waits at another worker, it takes the rear of a long track, or it races one that would be slower.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable, Iterable

import anyio

from stemctl.dispatch.crew import BEGUN, Crew, Errand, Member, Trip

LOOK_EVERY_S = 0.25
"""How often an idle worker looks whether it can help."""
WORTH = 0.9
"""A race is worth it where the helper needs no more than this of the time that is left."""


class Backlog:
    """Who waits, who may take whom, and when there is no more to come.

    A track goes only to workers that can serve its preset, and to one that could not do it only
    when no live one is left that has not been tried.
    """

    def __init__(
        self,
        crew: Crew,
        errands: Iterable[Errand],
        affords: Callable[[Member, Errand], bool] = lambda _member, _errand: True,
    ) -> None:
        self._crew = crew
        self._affords = affords
        self.waiting = sorted(errands, key=_shortness)
        """The longest first."""
        self.trips: list[Trip] = []
        """Those on their way."""
        self.closed = False
        self._changed = anyio.Condition()

    async def take(self, member: Member) -> Trip | None:
        """What a worker shall do next; None when nothing will come any more, or it is given up.

        `over` must be called once for each trip.
        """
        async with self._changed:
            while not self.closed and (not member.aside or self._crew.waits_for(member)):
                trip = None
                if not member.aside:
                    trip = self._next(member) or (self._helping(member) if member.idle else None)
                if trip is not None:
                    self.trips.append(trip)
                    member.trips.append(trip)
                    trip.errand.trips.append(trip)
                    trip.errand.told += 1
                    return trip
                if not self.trips and not any(self._could(member, e) for e in self.waiting):
                    break
                with anyio.move_on_after(LOOK_EVERY_S if member.idle else None):
                    await self._changed.wait()
        return None

    async def over(self, trip: Trip) -> None:
        """A trip has ended; its errand waits again, if it has not ended and nobody else has it."""
        errand = trip.errand
        async with self._changed:
            self.trips.remove(trip)
            trip.member.trips.remove(trip)
            errand.trips.remove(trip)
            if errand.long is not None:
                errand.long.claims.pop(trip, None)
            if _is_free(errand) and not errand.ended:
                self._wait(errand)
            elif errand.ended and errand.long is not None and errand in self.waiting:
                self.waiting.remove(errand)
            self._changed.notify_all()

    async def share(self, errand: Errand) -> None:
        """An errand on its way has parts that nobody does: let others have them."""
        async with self._changed:
            if errand.long and errand.long.free():
                self._wait(errand)
            self._changed.notify_all()

    async def close(self) -> None:
        """Give out no more."""
        async with self._changed:
            self.closed = True
            self._changed.notify_all()

    async def deserted(self) -> None:
        """Return once nobody gets tracks."""
        async with self._changed:
            while not self._crew.deserted:
                await self._changed.wait()

    async def look(self) -> None:
        """Something has changed: who may take what, or what there is to take."""
        async with self._changed:
            self._changed.notify_all()

    def _wait(self, errand: Errand) -> None:
        if errand not in self.waiting:
            insort(self.waiting, errand, key=_shortness)

    def _could(self, member: Member, errand: Errand) -> bool:
        """Whether it may come to do it, be it after all others."""
        return errand.track.wanted.preset in member.serves and self._affords(member, errand)

    def _may(self, member: Member, errand: Errand) -> bool:
        if not self._could(member, errand):
            return False
        if not errand.tried:
            return not member.aside
        able = [one for one in self._crew.able(errand.track) if self._affords(one, errand)]
        untried = {one.slot for one in able} - set(errand.tried)
        return member in able and (member.slot in untried or not untried)

    def _next(self, member: Member) -> Trip | None:
        for errand in self.waiting:
            if not self._may(member, errand):
                continue
            free = errand.long.free() if errand.long else []
            if errand.long is not None and not free and errand.long.missing():
                continue  # others have taken all that was left
            trip = Trip(errand, member)
            if errand.long is not None and free:
                trip.span = errand.long.claims[trip] = free[0]
            if len(free) < 2:  # else the rest waits for others
                self.waiting.remove(errand)
            return trip
        return None

    def _helping(self, member: Member) -> Trip | None:
        """What an idle worker does for another: that which would otherwise end the latest."""
        now, speed = time.monotonic(), self._crew.speed(member)
        late = [
            (left, trip)
            for trip in self.trips
            if self._open_to(trip, member) and (left := trip.left(now)) is not None
        ]
        for left, trip in sorted(late, key=lambda one: -one[0]):
            helper = self._split(trip, member, speed)
            if helper is not None:
                return helper
            mine = trip.seconds_left if trip.errand.long else trip.errand.seconds
            if speed is None or mine / speed > WORTH * left:
                continue
            helper = self._same(trip, member)
            if helper is not None:
                if trip.stage not in BEGUN:
                    trip.scope.cancel()
                return helper
        return None

    def _open_to(self, trip: Trip, member: Member) -> bool:
        errand = trip.errand
        return (
            trip.member is not member
            and errand.homing is None
            and not errand.ended
            and all(other.member is not member for other in errand.trips)
            and member.slot not in errand.tried
            and self._may(member, errand)
        )

    def _split(self, trip: Trip, member: Member, speed: float | None) -> Trip | None:
        long = trip.errand.long
        if long is None or trip.stage != "computing" or trip not in long.claims:
            return None
        claim, own = long.claims[trip], trip.speed or 1.0
        at = claim.end - round(trip.seconds_left * long.about.rate)
        span = long.split(trip, at, (own, speed or own))
        if span is None:
            return None
        helper = Trip(trip.errand, member, span)
        long.give(trip, helper, span)
        return helper

    def _same(self, trip: Trip, member: Member) -> Trip | None:
        """The same once more: the first that is home wins."""
        long = trip.errand.long
        if long is None:
            return Trip(trip.errand, member) if len(trip.errand.trips) < 2 else None
        missing = long.missing(long.claims.get(trip))
        taken = list(long.claims.values())
        if len(missing) != 1 or sum(missing[0].end == span.end for span in taken) > 1:
            return None
        helper = Trip(trip.errand, member, missing[0])
        long.claims[helper] = missing[0]
        return helper


def _is_free(errand: Errand) -> bool:
    """Whether there is something of it that nobody is at."""
    long = errand.long
    if long is None or not errand.trips:
        return not errand.trips
    if any(one.stage == "downloading" for one in errand.trips):
        return False
    return bool(long.missing()) or all(one in long.claims for one in errand.trips)


def _shortness(errand: Errand) -> float:
    return -(errand.seconds if errand.long is None else errand.long.seconds_missing)
