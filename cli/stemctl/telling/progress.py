"""How a run shows itself while it goes on: bars on a terminal, else a line now and then.

All of it goes to standard error; standard output is for what the run has come to.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from stemctl.dispatch.crew import Errand, Trip
from stemctl.dispatch.report import End, Outcome, Report
from stemctl.dispatch.watch import Watcher
from stemctl.fleet.stack import Endpoint

LINE_EVERY_S = 15.0

SHARES = {"computing": (0.05, 0.9), "downloading": (0.95, 0.05)}
"""By stage: how much of a track is done when it begins, and how much the stage is worth."""

SHOWN_FIRST = ("computing", "downloading", "uploading", "reading", "waiting")


@contextmanager
def shown(errands: Sequence[Errand], others: int) -> Iterator[Watcher]:
    """Show a run over ``errands``, and so many tracks that end without a worker, while within."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        bars = Bars(console, errands, others)
        with Live(Group(bars.overall, bars.workers), console=console, transient=True):
            yield bars
    else:
        yield Lines(errands, others)


class _OnTheWay:
    """What is where, and how far all of it together is: by seconds of sound, not by tracks."""

    def __init__(self, errands: Sequence[Errand], others: int) -> None:
        self.total = len(errands) + others
        self.seconds = {errand.track.place: errand.seconds for errand in errands}
        self.all_seconds = sum(self.seconds.values())
        self.ended_count = 0
        self.ended_seconds = 0.0
        self.on: dict[str, list[Trip]] = {}

    def joined(self, endpoint: Endpoint) -> None:
        """A worker gets tracks from now on."""
        self.on.setdefault(endpoint.slot, [])

    def aside(self, slot: str, reason: str) -> None:
        """A worker gets none any more."""

    def moved(self, trip: Trip) -> None:
        """A trip has got further."""
        trips = self.on.setdefault(trip.slot, [])
        if trip not in trips:
            trips.append(trip)

    def over(self, trip: Trip, error: str | None) -> None:
        """A trip has ended."""
        trips = self.on.get(trip.slot, [])
        if trip in trips:
            trips.remove(trip)

    def ended(self, outcome: Outcome) -> None:
        """A track has ended."""
        if outcome.end is End.LEFT:
            return
        self.ended_count += 1
        self.ended_seconds += self.seconds.pop(outcome.place or "", 0.0)

    def finished(self, report: Report) -> None:
        """The run has ended."""

    @property
    def done(self) -> float:
        """How much of all is done, 0 to 1."""
        if not self.all_seconds:
            return 1.0 if self.ended_count >= self.total else 0.0
        return min(self.ended_seconds + self._on_the_way(), self.all_seconds) / self.all_seconds

    def _on_the_way(self) -> float:
        """Seconds of sound, of tracks that have not ended."""
        by_track: dict[str, float] = {}
        for trip in (trip for trips in self.on.values() for trip in trips):
            begun, worth = SHARES.get(trip.stage, (0.0, 0.0))
            place, part = trip.track.place, begun + worth * min(trip.fraction, 1.0)
            if place not in self.seconds:
                continue
            if trip.span is None:
                by_track[place] = max(by_track.get(place, 0.0), part * self.seconds[place])
            else:
                by_track[place] = by_track.get(place, 0.0) + part * trip.asked
        return sum(min(part, self.seconds[place]) for place, part in by_track.items())


class Lines(_OnTheWay):
    """For logs and pipes: a line for each track that ends, and one now and then between."""

    def __init__(self, errands: Sequence[Errand], others: int) -> None:
        super().__init__(errands, others)
        self._last = time.monotonic()

    def moved(self, trip: Trip) -> None:
        """A trip has got further."""
        super().moved(trip)
        if time.monotonic() - self._last > LINE_EVERY_S:
            self.said(
                f"{100 * self.done:.0f} %, {self.ended_count} of {self.total} tracks; "
                f"{trip.slot}: {trip.stage} {trip.track.name}"
            )

    def ended(self, outcome: Outcome) -> None:
        """A track has ended."""
        super().ended(outcome)
        if outcome.end is not End.LEFT:
            self.said(f"[{self.ended_count}/{self.total}] {line(outcome)}")

    def said(self, message: str) -> None:
        """Print a line."""
        self._last = time.monotonic()
        print(message, file=sys.stderr, flush=True)


class Bars(_OnTheWay):
    """For a terminal: one bar for all with the time that is left, below it one for each worker."""

    def __init__(self, console: Console, errands: Sequence[Errand], others: int) -> None:
        super().__init__(errands, others)
        self.console = console
        self.overall = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            speed_estimate_period=600,
        )
        self.workers = Progress(
            TextColumn("{task.fields[slot]}", markup=False),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.fields[stage]}"),
            TextColumn("{task.fields[track]}", markup=False, table_column=Column(no_wrap=True)),
        )
        self._all = self.overall.add_task("", total=1.0)
        self._tasks: dict[str, TaskID] = {}
        self._show_all()

    def joined(self, endpoint: Endpoint) -> None:
        """A worker gets a bar of its own."""
        super().joined(endpoint)
        slot = endpoint.slot
        if slot not in self._tasks:
            self._tasks[slot] = self.workers.add_task("", total=1.0, slot=slot, stage="", track="")

    def aside(self, slot: str, reason: str) -> None:
        """A worker has no bar any more."""
        if slot in self._tasks:
            self.workers.remove_task(self._tasks.pop(slot))

    def moved(self, trip: Trip) -> None:
        """A trip has got further."""
        super().moved(trip)
        self._show(trip.slot)

    def over(self, trip: Trip, error: str | None) -> None:
        """A trip has ended."""
        super().over(trip, error)
        self._show(trip.slot)

    def ended(self, outcome: Outcome) -> None:
        """A track has ended."""
        super().ended(outcome)
        self._show_all()
        if outcome.end is End.FAILED:
            self.said(line(outcome))

    def said(self, message: str) -> None:
        """Print a line above the bars."""
        self.console.print(message, markup=False)

    def _show(self, slot: str) -> None:
        ranked = sorted(self.on.get(slot, ()), key=lambda trip: SHOWN_FIRST.index(trip.stage))
        name, stage, fraction = "", "", 0.0
        if ranked:
            name, stage, fraction = ranked[0].track.name, ranked[0].stage, ranked[0].fraction
        if slot in self._tasks:
            self.workers.update(self._tasks[slot], completed=fraction, stage=stage, track=name)
        self._show_all()

    def _show_all(self) -> None:
        count = f"{self.ended_count} of {self.total} tracks"
        self.overall.update(self._all, description=count, completed=self.done)


def line(outcome: Outcome) -> str:
    """A track's end in a line."""
    if outcome.end is End.DONE:
        facts = [f"worker {outcome.worker}", f"{outcome.seconds or 0:.1f} s"]
        if outcome.realtime:
            facts.append(f"{outcome.realtime:.1f} × realtime")
        return f"done: {outcome.name} ({', '.join(facts)})"
    reason = f": {outcome.error}" if outcome.error else ""
    return f"{outcome.end}: {outcome.name}{reason}"
