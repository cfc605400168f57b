"""The dead man's switch: for how long a worker may go on without work, or without a word.

Two limits, each of which may be off. Idle: nothing waits, runs, or is on its way in or out. Lease:
nobody has renewed it, and no job has got any further. What runs is let finish beyond the lease,
as long as a job that hangs could take to be given up; then the worker ends all the same.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import anyio
from anyio.to_thread import run_sync
from starlette.types import ASGIApp, Receive, Scope, Send

from stemserve.errors import EndingError, StemserveError
from stemserve.jobs.store import Store
from stemserve.schema import JobStatus
from stemserve.settings import Settings

OVERTIME_S = 2 * 3600.0
"""What is under way when the lease ends gets so long; a job that hangs is given up before that."""

LOOK_S = 1.0
"""Between two looks at what the worker does."""

_TRANSFERS = re.compile(r"/inputs/|/result/|/job/[^/]+/segments/")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Doing:
    """What the worker does. ``progress`` changes whenever a running job gets further."""

    waiting: int
    running: int
    progress: Hashable = None


def doing(store: Store) -> Doing:
    """What the worker does, by its jobs. If they cannot be read: nothing that gets further."""
    try:
        # In this order: a job that begins between the two is counted twice, not left out.
        waiting, running = store.count(JobStatus.PENDING), store.running()
    except (StemserveError, sqlite3.Error, ValueError) as error:
        _log.debug("the jobs cannot be read: %s", error)
        return Doing(waiting=1, running=0)
    progress = tuple(
        (job.job_id, job.attempts, job.tasks, job.details.completed_segments, job.details.percent)
        for job in running
    )
    return Doing(waiting, len(running), progress)


class Lease:
    """How long the worker may still go on. All but `transferring` may be called from any thread."""

    def __init__(
        self,
        idle_s: float | None,
        lease_s: float | None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Either limit is in seconds, None: there is none. ``now`` never goes back."""
        self._idle_s = idle_s
        self._lease_s = lease_s
        self._now = now
        self._lock = threading.Lock()
        self._used_at = self._renewed_at = now()
        self._transfers = 0
        self._progress: Hashable = None
        self._over: str | None = None
        self._closed: str | None = None

    @classmethod
    def of(cls, settings: Settings) -> Lease:
        """The limits of the settings."""
        idle, lease = settings.idle_minutes, settings.lease_hours
        return cls(idle and idle * 60, lease and lease * 3600)

    @contextmanager
    def taking_work(self) -> Iterator[None]:
        """Within this a job is queued: the worker does not begin to end in between.

        Raises:
            EndingError: it has begun.
        """
        with self._lock:
            self._check_on()
            yield
            self._used_at = self._now()

    @contextmanager
    def transferring(self) -> Iterator[None]:
        """Within this something is on its way in or out; for the event loop's thread alone."""
        self._transfers += 1
        try:
            yield
        finally:
            self._transfers -= 1
            self._used_at = self._now()

    def close(self, reason: str) -> None:
        """Take no more work: the worker is about to end."""
        with self._lock:
            self._closed = self._closed or reason

    @property
    def transfers(self) -> int:
        """How much is on its way in or out; for the event loop's thread alone."""
        return self._transfers

    def renew(self, *, expect_work: bool = False) -> None:
        """Begin the lease anew, and with ``expect_work`` the time that may pass without work.

        Raises:
            EndingError: it is too late.
        """
        with self._lock:
            self._check_on()
            self._renewed_at = self._now()
            if expect_work:
                self._used_at = self._renewed_at

    def idle_seconds(self, now_doing: Doing) -> float:
        """For how long there has been nothing to do."""
        with self._lock:
            now = self._now()
            self._see(now_doing, now)
            return now - self._used_at

    def ends_at(self) -> datetime | None:
        """When the lease ends if it is not renewed; None: never."""
        if self._lease_s is None:
            return None
        with self._lock:
            left = self._renewed_at + self._lease_s - self._now()
        return datetime.now(UTC) + timedelta(seconds=left)

    def check(self, look: Callable[[], Doing]) -> str | None:
        """Why the worker is to end now, None: it goes on. From the first reason on, it ends."""
        with self._lock:
            if self._over is None:
                now_doing, now = look(), self._now()
                self._see(now_doing, now)
                self._over = self._reason(now_doing, now)
            return self._over

    async def over(self, look: Callable[[], Doing]) -> str:
        """Why the worker is to end, once it is."""
        while True:
            reason = await run_sync(self.check, look)
            if reason is not None:
                return reason
            await anyio.sleep(LOOK_S)

    def _see(self, now_doing: Doing, now: float) -> None:
        if now_doing.waiting or now_doing.running or self._transfers:
            self._used_at = now
        if now_doing.running and now_doing.progress != self._progress:
            self._progress = now_doing.progress
            self._renewed_at = now

    def _reason(self, now_doing: Doing, now: float) -> str | None:
        if self._idle_s is not None and now - self._used_at >= self._idle_s:
            return f"there was nothing to do for {self._idle_s / 60:g} min"
        if self._lease_s is not None:
            busy = now_doing.running or self._transfers
            if now - self._renewed_at >= self._lease_s + (OVERTIME_S if busy else 0):
                return f"the lease of {self._lease_s / 3600:g} h was not renewed"
        return None

    def _check_on(self) -> None:
        if reason := self._over or self._closed:
            raise EndingError(f"The worker ends itself: {reason}. Use another.")


class CountTransfers:
    """Tells the lease of every upload and download that is under way."""

    def __init__(self, app: ASGIApp, lease: Lease) -> None:
        self._app = app
        self._lease = lease

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on."""
        if scope["type"] == "http" and _TRANSFERS.match(scope["path"]):
            with self._lease.transferring():
                await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, send)
