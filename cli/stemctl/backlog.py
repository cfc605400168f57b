"""The tracks that wait for a worker. Workers pull: each takes the next when it has room."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import anyio

from stemctl.inputs import Track


@dataclass
class Errand:
    """A track on its way, and which workers have failed at it."""

    track: Track
    tried: list[str] = field(default_factory=list)
    """Slots, once for each try."""


class Backlog:
    """Who waits, who may take whom, and when there is no more to come.

    A track goes to a worker that has failed at it only when no live worker is left that has not.
    """

    def __init__(self, tracks: Iterable[Track], slots: Iterable[str]) -> None:
        self.waiting = deque(Errand(track) for track in tracks)
        self.alive = set(slots)
        self._out = 0
        self._changed = anyio.Condition()

    async def take(self, slot: str) -> Errand | None:
        """The next track for a worker; None when none will come any more, or it was set aside.

        What was taken must be handed back by `put_back` or `finish`.
        """
        async with self._changed:
            while slot in self.alive:
                for errand in self.waiting:
                    if slot not in errand.tried or self.alive <= set(errand.tried):
                        self.waiting.remove(errand)
                        self._out += 1
                        return errand
                if not self.waiting and not self._out:
                    break
                await self._changed.wait()
        return None

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
