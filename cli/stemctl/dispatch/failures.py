"""Whose fault a failure was, and so what becomes of the track and of the worker."""

from __future__ import annotations

from dataclasses import dataclass

from stemctl.errors import InputError, WorkerError
from stemctl.worker.client import BadResultError, RefusedError, UnreachableError

NO_SECOND_TRY = frozenset({"not-audio", "cancelled", "empty-range"})
"""Types of a job's error that another worker would not mend."""

NOT_ITS_FAULT = frozenset(
    {"fetch-failed", "input-too-large", "track-too-long", "too-many-channels", "bad-part"}
)
"""Types of a job's error that come of the track: such as a URL that is dead everywhere."""

BUSY = 429
LOCKED_OUT = frozenset({401, 403})
LOST = frozenset({404, 410})
"""The worker knows nothing of what it was given before."""
FULL = 507


class JobFailedError(WorkerError):
    """A job ended without results. ``kind`` is the stable word for why."""

    type = "job-failed"

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class DeliveryFailedError(WorkerError):
    """A worker could not put a stem where it is wanted."""

    type = "delivery-failed"


class PartsGoneError(WorkerError):
    """Parts of a long track are no longer where workers have put them."""

    type = "parts-gone"


@dataclass(frozen=True)
class Verdict:
    """What follows from a failure. Without any of it, the track is simply tried elsewhere."""

    hopeless: bool = False
    """No other worker could do the track either."""
    failed: bool = False
    """It counts as a failure of the track's job."""
    strike: bool = False
    """It counts against the worker."""
    aside: bool = False
    """The worker gets no more tracks."""
    may_return: bool = False
    """It is asked again later whether it is well."""
    busy: bool = False
    """The worker has too much to do for others."""


def judge(error: WorkerError | InputError) -> Verdict:
    """What follows from what hindered a trip."""
    match error:
        case InputError():
            return Verdict(hopeless=True)
        case JobFailedError() if error.kind in NO_SECOND_TRY:
            return Verdict(hopeless=True)
        case JobFailedError(kind="disk-full"):
            return Verdict(aside=True)
        case PartsGoneError():
            return Verdict(failed=True)
        case JobFailedError() if error.kind in NOT_ITS_FAULT:
            return Verdict(failed=True)
        case JobFailedError() | DeliveryFailedError():
            return Verdict(failed=True, strike=True)
        case UnreachableError():
            # It may have died of the track, so that the track must not go round all of them.
            return Verdict(failed=True, aside=True, may_return=True)
        case BadResultError():
            return Verdict(aside=True)
        case RefusedError():
            return _refused(error.status)
    return Verdict(strike=True)


def _refused(status: int) -> Verdict:
    if status == BUSY:
        return Verdict(busy=True)
    if status in LOCKED_OUT or status == FULL:
        return Verdict(aside=True)
    if status in LOST or status >= 500:
        return Verdict(strike=True)
    return Verdict(failed=True)
