"""An emulated cloud's time: it passes at a rate of its own, and in leaps when a test says so.

Nothing waits for this clock. A machine's state, a rate limit and a bill are worked out from it when
they are asked for, so an hour of a cloud's time costs a test nothing.
"""

from __future__ import annotations

import threading
import time


class Clock:
    """Seconds since the cloud began. ``rate`` of them pass in each real second; 0: only leaps."""

    def __init__(self, rate: float = 1.0) -> None:
        self._lock = threading.Lock()
        self._rate = rate
        self._at = 0.0
        self._since = time.monotonic()

    @property
    def rate(self) -> float:
        """Of the cloud's seconds in a real one. May be set at any time; no time is lost."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        with self._lock:
            self._at, self._since = self._read(), time.monotonic()
            self._rate = rate

    def now(self) -> float:
        """Seconds of the cloud's time."""
        with self._lock:
            return self._read()

    def advance(self, seconds: float) -> None:
        """Leap forward."""
        with self._lock:
            self._at += seconds

    def _read(self) -> float:
        return self._at + (time.monotonic() - self._since) * self._rate
