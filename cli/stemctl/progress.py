"""How a run shows itself while it goes on: bars on a terminal, else a line now and then.

All of it goes to standard error; standard output is for what the run has come to.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from stemctl.report import End, Outcome
from stemctl.track import Track

LINE_EVERY_S = 15.0

SHARES = {"computing": (0.05, 0.9), "downloading": (0.95, 0.05)}
"""By stage: how much of a track is done when it begins, and how much the stage is worth."""

SHOWN_FIRST = ("computing", "downloading", "uploading", "reading", "waiting")


class Watcher(Protocol):
    """Who is told how a run goes on."""

    def moved(self, slot: str, track: Track, stage: str, fraction: float) -> None:
        """A track is at a stage of its way over a worker; ``fraction`` of it is done, 0 to 1."""
        ...

    def gone(self, slot: str, track: Track) -> None:
        """A track is not with that worker any more."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """A track has ended."""
        ...

    def said(self, message: str) -> None:
        """Something that people should know now."""
        ...


@contextmanager
def shown(total: int, slots: Sequence[str]) -> Iterator[Watcher]:
    """Show a run of ``total`` tracks over the workers in ``slots``, while within."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        bars = Bars(console, total, slots)
        with Live(Group(bars.overall, bars.workers), console=console, transient=True):
            yield bars
    else:
        yield Lines(total)


class _OnTheWay:
    """What is where, and how far all of it together is."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.ended_count = 0
        self.on: dict[str, dict[str, tuple[Track, str, float]]] = defaultdict(dict)

    def moved(self, slot: str, track: Track, stage: str, fraction: float) -> None:
        """A track is at a stage."""
        self.on[slot][track.place] = track, stage, min(max(fraction, 0.0), 1.0)

    def gone(self, slot: str, track: Track) -> None:
        """A track is not there any more."""
        self.on[slot].pop(track.place, None)

    @property
    def tracks_done(self) -> float:
        """How many tracks are done, with the parts of those on their way."""
        parts = 0.0
        for _, stage, fraction in chain.from_iterable(on.values() for on in self.on.values()):
            begun, worth = SHARES.get(stage, (0.0, 0.0))
            parts += begun + worth * fraction
        return min(self.ended_count + parts, self.total)


class Lines(_OnTheWay):
    """For logs and pipes: a line for each track that ends, and one now and then between."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self._last = time.monotonic()

    def moved(self, slot: str, track: Track, stage: str, fraction: float) -> None:
        """A track is at a stage."""
        super().moved(slot, track, stage, fraction)
        if time.monotonic() - self._last > LINE_EVERY_S:
            self.said(
                f"{self.tracks_done:.1f} of {self.total} tracks; {slot}: {stage} {track.name}"
            )

    def ended(self, outcome: Outcome) -> None:
        """A track has ended."""
        self.ended_count += 1
        self.said(f"[{self.ended_count}/{self.total}] {line(outcome)}")

    def said(self, message: str) -> None:
        """Print a line."""
        self._last = time.monotonic()
        print(message, file=sys.stderr, flush=True)


class Bars(_OnTheWay):
    """For a terminal: one bar for all with the time that is left, below it one for each worker."""

    def __init__(self, console: Console, total: int, slots: Sequence[str]) -> None:
        super().__init__(total)
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
        self._all = self.overall.add_task(self._count(), total=total)
        self._tasks = {
            slot: self.workers.add_task("", total=1.0, slot=slot, stage="", track="")
            for slot in slots
        }

    def _count(self) -> str:
        return f"{self.ended_count} of {self.total} tracks"

    def moved(self, slot: str, track: Track, stage: str, fraction: float) -> None:
        """A track is at a stage."""
        super().moved(slot, track, stage, fraction)
        self._show(slot)

    def gone(self, slot: str, track: Track) -> None:
        """A track is not there any more."""
        super().gone(slot, track)
        self._show(slot)

    def ended(self, outcome: Outcome) -> None:
        """A track has ended."""
        self.ended_count += 1
        self.overall.update(self._all, description=self._count(), completed=self.tracks_done)
        if outcome.end is End.FAILED:
            self.said(line(outcome))

    def said(self, message: str) -> None:
        """Print a line above the bars."""
        self.console.print(message, markup=False)

    def _show(self, slot: str) -> None:
        ranked = sorted(self.on[slot].values(), key=lambda on: SHOWN_FIRST.index(on[1]))
        name, stage, fraction = "", "", 0.0
        if ranked:
            track, stage, fraction = ranked[0]
            name = track.name
        self.workers.update(self._tasks[slot], completed=fraction, stage=stage, track=name)
        self.overall.update(self._all, completed=self.tracks_done)


def line(outcome: Outcome) -> str:
    """A track's end in a line."""
    if outcome.end is End.DONE:
        facts = [f"worker {outcome.worker}", f"{outcome.seconds or 0:.1f} s"]
        if outcome.realtime:
            facts.append(f"{outcome.realtime:.1f} × realtime")
        return f"done: {outcome.name} ({', '.join(facts)})"
    reason = f": {outcome.error}" if outcome.error else ""
    return f"{outcome.end}: {outcome.name}{reason}"
