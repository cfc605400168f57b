"""What a run would do, without doing it: no worker is asked for work, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stemctl.asked.track import Track
from stemctl.dispatch.report import End, Outcome
from stemctl.fleet.stack import Fleet
from stemctl.inputs.find import Inputs
from stemctl.places.bucket import shown
from stemctl.run import Asked, settled, sorted_out

WOULD_DO = "to do"
MB = 1e6


@dataclass(frozen=True)
class Foreseen:
    """A run that has not been."""

    out: Path
    waiting: list[Track]
    """What would be done."""
    before: list[Outcome]
    """What would not: it is there, or cannot be done."""
    workers: list[str]
    set_aside: dict[str, str]

    @property
    def exit_code(self) -> int:
        """0: all could be done; 1: some; 2: none."""
        failed = sum(outcome.end is End.FAILED for outcome in self.before)
        good = len(self.waiting) + len(self.before) - failed
        return 0 if not failed else 1 if good else 2

    def rows(self) -> Iterator[tuple[object, ...]]:
        """For people: track, end, megabytes, what is wanted, and where it goes or why not."""
        for track in self.waiting:
            size = _size(track)
            megabytes = None if size is None else size / MB
            yield track.name, WOULD_DO, megabytes, track.wanted, shown(self.out, track.place)
        for outcome in self.before:
            where = outcome.error or shown(self.out, outcome.place)
            yield outcome.name, outcome.end, None, None, where

    def as_json(self) -> dict[str, Any]:
        """All of it as one JSON object."""
        tracks = [
            {
                "name": track.name,
                "end": WOULD_DO,
                "place": track.place,
                "files": list(track.files),
                "bytes": _size(track),
                "wanted": track.wanted.model_dump(mode="json"),
            }
            for track in self.waiting
        ]
        tracks += [
            {"name": o.name, "end": o.end, "place": o.place, "error": o.error} for o in self.before
        ]
        return {
            "out": shown(self.out),
            "tracks": tracks,
            "workers": self.workers,
            "set_aside": self.set_aside,
            "exit_code": self.exit_code,
        }

    def summary(self) -> str:
        """The run in a line."""
        there = sum(outcome.end is End.THERE for outcome in self.before)
        failed = len(self.before) - there
        total = sum(_size(track) or 0 for track in self.waiting) / MB
        parts = [f"{len(self.waiting)} to do ({total:.1f} MB to send)"]
        parts += [f"{there} done before"] if there else []
        parts += [f"{failed} cannot be done"] if failed else []
        return f"{', '.join(parts)}, by {len(self.workers)} workers; nothing was sent"


async def foresee(inputs: Inputs, fleet: Fleet, asked: Asked) -> Foreseen:
    """What a run over these inputs would do; raises as `stemctl.run.run` does before its work."""
    plan, aside = await settled(inputs, fleet, asked)
    before, waiting = await sorted_out(inputs, plan, asked)
    return Foreseen(asked.out, waiting, before, list(plan.serves), aside)


def _size(track: Track) -> int | None:
    """Bytes that would be sent; None where a worker fetches it, or it is gone."""
    try:
        return track.path.stat().st_size if track.path else None
    except OSError:
        return None
