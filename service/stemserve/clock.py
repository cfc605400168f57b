"""The time of day as the jobs keep it: it does not jump when somebody sets the clock.

It is the clock's time when the program began, and what has passed since. A difference of two such
times is a length of time, whatever the clock did in between.
"""

from __future__ import annotations

import time

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""It counts while the machine sleeps, where there is such a clock."""

_BEGAN = time.time() - time.clock_gettime(_STEADY)


def now() -> float:
    """Seconds since 1970."""
    return _BEGAN + time.clock_gettime(_STEADY)
