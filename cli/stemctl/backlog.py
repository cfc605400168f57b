"""The tracks that wait for a worker. Workers pull: each takes the next when it has room."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import anyio

from stemctl.track import Track


@dataclass
class Errand:
    """A track on its way, and which workers have failed at it."""

    track: Track
    tried: list[str] = field(default_factory=list)
    """Slots, once for each try."""


class Backlog:
    """Who waits, who may take whom, and when there is no more to come.

    A track goes only to workers that can serve its preset, and to one that has failed at it only
    when no live one is left that has not. ``serves`` says by slot which presets that are.
    """

    def __init__(self, tracks: Iterable[Track], serves: Mapping[str, frozenset[str]]) -> None:
        self.waiting = deque(Errand(track) for track in tracks)
        self.alive = set(serves)
        self._serves = serves
        self._out = 0
        self._changed = anyio.Condition()

    async def take(self, slot: str) -> Errand | None:
        """The next track for a worker; None when none will come any more, or it was set aside.

        What was taken must be handed back by `put_back` or `finish`.
        """
        async with self._changed:
            while slot in self.alive:
                for errand in self.waiting:
                    able = self._able(errand.track)
                    if slot in able and (slot not in errand.tried or able <= set(errand.tried)):
                        self.waiting.remove(errand)
                        self._out += 1
                        return errand
                if not self._out and not any(slot in self._able(e.track) for e in self.waiting):
                    break
                await self._changed.wait()
        return None

    def _able(self, track: Track) -> set[str]:
        """The live workers that can serve its preset."""
        return {slot for slot in self.alive if track.wanted.preset in self._serves[slot]}

    async def put_back(self, errand: Errand) -> None:
        """A track that another worker shall try."""
        async with self._changed:
            self._out -= 1
            self.waiting.append(errand)
            self._changed.notify_all()

    async def finish(self) -> None:
        """A track that was taken has ended, in whichever way."""
        async with self._changed:
            self._out -= 1
            self._changed.notify_all()

    async def set_aside(self, slot: str) -> None:
        """A worker that gets no more tracks."""
        async with self._changed:
            self.alive.discard(slot)
            self._changed.notify_all()
