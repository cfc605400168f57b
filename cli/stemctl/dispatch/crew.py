"""Who carries a run's tracks, and what is on its way: workers, errands and trips.

An errand is a track until it is home or given up; a trip is one try of it, or of a part of it, over
one worker. All of it is for the event loop's thread alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import count
from statistics import median

import anyio

from stemctl.asked.track import Track
from stemctl.dispatch.long import LongTrack, Span
from stemctl.worker.client import Worker

STAGES = ("reading", "uploading", "waiting", "computing", "downloading")
"""Of a trip, in their order. From ``waiting`` on the worker has the track."""
BEGUN = ("computing", "downloading")
LOOKS_EVERY_S = 1.0
"""A job is looked at so often; until then it goes on as it did."""
AWAY_FOR_S = 600.0
"""So long may all workers be of no use at once, as when this machine's network is gone."""
SHOWS = 0.02
"""From this part of a job on its speed shows."""

_numbers = count(1)


@dataclass(eq=False)
class Errand:
    """A track on its way, and who has failed at it."""

    track: Track
    seconds: float
    """Its length: a guess, until a worker has told it."""
    failed: list[str] = field(default_factory=list)
    """Slots of workers on which its job failed, once for each time."""
    missed: list[str] = field(default_factory=list)
    """Slots of workers that could not be used with it, through no fault of the track."""
    long: LongTrack | None = None
    """Set once it is known to have several segments."""
    trips: list[Trip] = field(default_factory=list)
    """Those on their way."""
    told: int = 0
    """How many trips there were."""
    jobs: set[tuple[Member, str]] = field(default_factory=set)
    """Those that workers still know of trips that are over."""
    homing: Trip | None = None
    """The trip that puts it in its place."""
    ended: bool = False
    bearers: list[str] = field(default_factory=list)
    """Slots of the workers to which its stems are due."""
    took: float = 0.0
    """Their seconds for it."""
    usd: float = 0.0
    """What all trips have cost."""
    sent: int = 0
    """Bytes, of all trips."""
    got: int = 0

    @property
    def tried(self) -> list[str]:
        """The slots that others go before."""
        return self.failed + self.missed

    def spent(self, trip: Trip) -> None:
        """Count what a trip has come to."""
        self.usd += trip.usd
        self.sent += trip.sent
        self.got += trip.got
        if trip.bore:
            if not trip.member.aside:
                trip.member.failing_since = None
            self.took += trip.took
            if trip.slot not in self.bearers:
                self.bearers.append(trip.slot)


class Lanes:
    """A worker's room: one track in each lane."""

    def __init__(self) -> None:
        self.uploading = anyio.Semaphore(1)
        self.computing = anyio.Semaphore(1)
        self.downloading = anyio.Semaphore(1)


@dataclass(eq=False)
class Member:
    """A worker in the run."""

    worker: Worker
    serves: frozenset[str]
    """The presets that it can serve."""
    lanes: Lanes = field(default_factory=Lanes)
    trips: list[Trip] = field(default_factory=list)
    strikes: int = 0
    """Faults in a row."""
    busy_since: float | None = None
    aside: str | None = None
    """Why it gets no more tracks."""
    may_return: bool = False
    failing_since: float | None = None
    """When it was set aside first, if it has brought nothing since."""
    unleft: list[tuple[Errand, str]] = field(default_factory=list)
    """Jobs of trips that are over, of which it could not be told."""
    gone: bool = False
    """It is not in the fleet any more, and costs nothing."""
    speed: float | None = None
    """Seconds of sound a second, as its jobs have shown of late."""

    @property
    def slot(self) -> str:
        """Its name."""
        return self.worker.slot

    @property
    def idle(self) -> bool:
        """Whether it has nothing to compute and nothing on the way to that."""
        return all(trip.stage == "downloading" for trip in self.trips)

    def learn(self, seconds: float, took: float) -> None:
        """A job of so many seconds of sound took it so long."""
        if seconds > 0 and took > 0:
            shown = seconds / took
            self.speed = shown if self.speed is None else (self.speed + shown) / 2


@dataclass(eq=False)
class Trip:
    """One try of an errand over a worker; ``span``: only a part of it."""

    errand: Errand
    member: Member
    span: Span | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    number: int = field(default_factory=_numbers.__next__)
    stage: str = "reading"
    fraction: float = 0.0
    since: float = field(default_factory=time.monotonic)
    """When the stage began."""
    moved: float = field(default_factory=time.monotonic)
    """When it last got further."""
    seen: float = field(default_factory=time.monotonic)
    """When it was last looked at."""
    job_id: str | None = None
    """Its job, while the worker may have it."""
    took: float = 0.0
    """The worker's seconds for it so far."""
    sent: int = 0
    """Bytes."""
    got: int = 0
    bore: bool = False
    """Whether it has brought the track, or a part of it."""

    @property
    def usd(self) -> float:
        """What the worker's seconds cost."""
        return self.took / 3600 * self.member.worker.endpoint.usd_per_hour

    @property
    def track(self) -> Track:
        """What is carried."""
        return self.errand.track

    @property
    def slot(self) -> str:
        """Over which worker."""
        return self.member.slot

    @property
    def brings(self) -> Span | None:
        """What of a long track it is to bring; what was given to others since is not in it."""
        long = self.errand.long
        return self.span if long is None else long.claims.get(self, self.span)

    @property
    def seconds(self) -> float:
        """How much sound it is about."""
        long = self.errand.long
        if long is not None and (span := long.claims.get(self)):
            return span.frames / long.about.rate
        return self.errand.seconds

    def at(self, stage: str, fraction: float) -> None:
        """It is at a stage; ``fraction`` of that is done."""
        now = self.seen = time.monotonic()
        if stage != self.stage:
            self.stage, self.since, self.moved = stage, now, now
        elif fraction != self.fraction:
            self.moved = now
        self.fraction = fraction

    def goes_on(self) -> None:
        """It gets further, though its stage does not show it."""
        self.moved = time.monotonic()

    def left(self, now: float) -> float | None:
        """In how many seconds it will be over at its worker; None: nobody knows.

        What has not got further for a while may stay where it is for as long again.
        """
        stuck = max(now - self.moved - 2 * LOOKS_EVERY_S, 0.0)
        if self.stage == "downloading":
            return stuck
        if self.stage == "computing":
            speed = self.speed
            return None if speed is None else max(self.seconds_left / speed, stuck)
        before = [trip for trip in self.member.trips if trip.stage == "computing"]
        known = [left for trip in before if (left := trip.left(now)) is not None]
        if self.member.speed is None:
            return sum(known) if known else None
        return max(sum(known) + self.seconds / self.member.speed, stuck)

    @property
    def speed(self) -> float | None:
        """Seconds of sound a second that its worker makes of it, or is known to make."""
        if self.fraction > SHOWS and self.took:
            return self.fraction * self.asked / self.took
        return self.member.speed

    @property
    def asked(self) -> float:
        """Seconds of sound that its job is about."""
        long = self.errand.long
        if long is None or self.span is None:
            return self.errand.seconds
        return self.span.frames / long.about.rate

    @property
    def seconds_left(self) -> float:
        """Of the sound that it is to bring, what is not computed yet."""
        left = self.asked * (1 - self.fraction)
        if self.stage == "computing" and self.speed:
            left -= min(time.monotonic() - self.seen, LOOKS_EVERY_S) * self.speed
        long = self.errand.long
        if long is not None and (claim := long.claims.get(self)):
            end = (self.span or long.whole).end
            left -= (end - claim.end) / long.about.rate  # given to others since
        return max(left, 0.0)


class Crew:
    """The workers of a run that get tracks."""

    def __init__(self) -> None:
        self.members: list[Member] = []

    def able(self, track: Track) -> list[Member]:
        """Those that can serve a track's preset."""
        return [one for one in self.members if not one.aside and track.wanted.preset in one.serves]

    @property
    def deserted(self) -> bool:
        """Whether nobody gets tracks now."""
        return all(one.aside for one in self.members)

    def waits_for(self, member: Member) -> bool:
        """Whether a worker that is set aside may still come back to this run."""
        if not member.may_return or not self.deserted:
            return member.may_return
        since = max(one.failing_since or 0.0 for one in self.members if one.may_return)
        return time.monotonic() - since < AWAY_FOR_S

    def speed(self, member: Member) -> float | None:
        """A worker's speed, or as long as it has shown none, what the others are like."""
        if member.speed is not None:
            return member.speed
        known = [one.speed for one in self.members if one.speed is not None]
        return median(known) if known else None
