"""What became of each track of a run, for people and for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from stemctl.asked.track import Track


class End(StrEnum):
    """How a track ended."""

    DONE = "done"
    THERE = "there"
    """It had been done before."""
    FAILED = "failed"
    LEFT = "left"
    """The run ended before it was this track's turn."""


@dataclass(frozen=True)
class Outcome:
    """One track's end. ``seconds`` is the workers' time for it, ``realtime`` its length by that.

    Several workers that have shared in it stand in ``worker`` with commas between them.
    """

    name: str
    end: End
    place: str | None = None
    worker: str | None = None
    seconds: float | None = None
    realtime: float | None = None
    error: str | None = None
    length: float | None = None
    """Seconds of sound."""
    tries: int = 0
    """How often it, or a part of it, went to a worker."""
    usd: float | None = None
    """What the workers' seconds for it have cost."""
    sent: int = 0
    """Bytes to the workers."""
    got: int = 0
    """Bytes from them."""


@dataclass
class Report:
    """A whole run's end."""

    out: str
    outcomes: list[Outcome] = field(default_factory=list)
    set_aside: dict[str, str] = field(default_factory=dict)
    """Workers that were given up, and why."""
    error: str | None = None
    """What ended the run before its time."""
    signal: int | None = None

    def count(self, *ends: End) -> int:
        """How many tracks ended so."""
        return sum(outcome.end in ends for outcome in self.outcomes)

    @property
    def exit_code(self) -> int:
        """0: all are done; 1: some; 2: none; 128 + signal: stopped."""
        if self.signal is not None:
            return 128 + self.signal
        good = self.count(End.DONE, End.THERE)
        if good == len(self.outcomes) and not self.error:
            return 0
        return 1 if good else 2

    def as_json(self) -> dict[str, Any]:
        """The report as one JSON object."""
        return {
            "out": self.out,
            "tracks": [vars(outcome) for outcome in self.outcomes],
            "set_aside": self.set_aside,
            "error": self.error,
            "exit_code": self.exit_code,
        }

    def summary(self) -> str:
        """The run in a line."""
        words = {
            End.DONE: "done",
            End.THERE: "done before",
            End.FAILED: "failed",
            End.LEFT: "left: the same command does them",
        }
        parts = [f"{self.count(end)} {word}" for end, word in words.items() if self.count(end)]
        return ", ".join(parts)


def left(tracks: Sequence[Track], reason: str | None = None) -> list[Outcome]:
    """The outcomes of tracks that nobody took on."""
    return [Outcome(track.name, End.LEFT, track.place, error=reason) for track in tracks]
