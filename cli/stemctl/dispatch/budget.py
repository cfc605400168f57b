"""What a run costs while it goes on, and which tracks its budget still allows.

All workers of the fleet are paid for as long as the run lasts, whether or not they have something
to do. So the budget is a time at which the run has to be over; a track is given to a worker only if
the worker would be done with it by then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from stemctl.dispatch.crew import Crew, Errand, Member


class Purse:
    """A run's money. Without a ``budget`` (USD) it only counts."""

    def __init__(self, crew: Crew, budget: float | None = None, spent: float = 0.0) -> None:
        self._crew = crew
        self.budget = budget
        self._spent = spent
        self._counted = time.monotonic()
        self.refused = False
        """A track was not given out for want of money."""

    @property
    def usd_per_hour(self) -> float:
        """Of all workers that the fleet has now."""
        return sum(one.worker.endpoint.usd_per_hour for one in self._crew.members if not one.gone)

    def spent(self) -> float:
        """USD so far. To be asked before a worker comes or goes, and now and then."""
        now = time.monotonic()
        self._spent += self.usd_per_hour * (now - self._counted) / 3600
        self._counted = now
        return self._spent

    def affords(self, member: Member, errand: Errand) -> bool:
        """Whether a worker would be done with a track while there is money.

        Before any worker has shown its speed, as long as there is some.
        """
        rate = self.usd_per_hour
        if self.budget is None or not rate:
            return True
        left_s = max(0.0, self.budget - self.spent()) / rate * 3600
        speed = self._crew.speed(member)
        takes = errand.seconds / speed if speed else 0.0
        now = time.monotonic()
        ahead = [trip.left(now) or 0.0 for trip in member.trips if trip.stage != "downloading"]
        affordable = left_s > 0 and max(ahead, default=0.0) + takes <= left_s
        self.refused = self.refused or not affordable
        return affordable


@dataclass(frozen=True)
class Estimate:
    """What a run was expected to take."""

    seconds: float
    usd: float


def estimate(errands: Sequence[Errand], members: Sequence[Member]) -> Estimate | None:
    """What these tracks will take of these workers; None: nobody's speed is known."""
    speeds = [member.speed for member in members if member.speed]
    if not speeds:
        return None
    whole = sum(speeds) * len(members) / len(speeds)
    seconds = sum(errand.seconds for errand in errands) / whole
    rate = sum(member.worker.endpoint.usd_per_hour for member in members)
    return Estimate(seconds, rate * math.ceil(seconds) / 3600)
