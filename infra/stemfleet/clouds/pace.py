"""The patience that a cloud asks for: calls to one of its endpoints keep a least time apart.

All threads of a process take their turns from one `Pace`, so a fleet that is rented by several of
them does not run into the limit that each alone would keep.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping

CLOCK_VARIABLE = "STEMFLEET_CLOUD_CLOCK"
"""How many seconds of the cloud's time pass in one of ours: 1, but on an emulated cloud."""


def clock_rate() -> float:
    """Seconds of the cloud's time in one of ours."""
    return float(os.environ.get(CLOCK_VARIABLE) or 1.0)


class Pace:
    """Turns at the endpoints of one account. All seconds are the cloud's."""

    def __init__(self, spacing: Mapping[str, float]) -> None:
        """``spacing``: the least seconds between two calls, by the endpoint's name."""
        self._spacing = spacing
        self._rate = clock_rate()
        self._lock = threading.Lock()
        self._free_at: dict[str, float] = {}

    @property
    def scale(self) -> float:
        """How long a second of the cloud's time takes."""
        return 1 / self._rate

    def now(self) -> float:
        """Seconds of the cloud's time, from any beginning."""
        return time.monotonic() * self._rate

    def sleep(self, seconds: float) -> None:
        """Let so much of the cloud's time pass."""
        if seconds > 0:
            time.sleep(seconds * self.scale)

    def await_turn(self, endpoint: str) -> None:
        """Return when the endpoint may be called."""
        while True:
            with self._lock:
                now = self.now()
                wait = self._free_at.get(endpoint, 0.0) - now
                if wait <= 0:
                    self._free_at[endpoint] = now + self._spacing.get(endpoint, 0.0)
                    return
            self.sleep(wait)

    def hold(self, endpoint: str, seconds: float) -> None:
        """The cloud wants no call to the endpoint for so long, from any thread."""
        with self._lock:
            until = self.now() + seconds
            self._free_at[endpoint] = max(self._free_at.get(endpoint, 0.0), until)
