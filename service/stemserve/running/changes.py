"""Who follows a job is told whenever it changes.

An event is the whole job as it is then, and its id says which state that is: nothing is kept for a
follower who comes back, and over restarts of the worker none is told what he knows already, or
misses where the job is now. A state is written down once for all followers; whoever is slow misses
states in between, and waits for nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Self

import anyio
from anyio.to_thread import run_sync
from fastapi.sse import format_sse_event

from stemserve.errors import NoSuchJobError, TooManyListenersError
from stemserve.jobs.job import StoredJob
from stemserve.jobs.told import told
from stemserve.schema import JobStatus

FOLLOWERS = 1000
KEEPALIVE_S = 15.0
"""Proxies end a connection on which nothing comes for longer, a minute as a rule."""

EVENT = "job"
_RETRY_MS = 2000
_KEEPALIVE = format_sse_event(comment="the job goes on")
_OVER = (JobStatus.COMPLETED, JobStatus.FAILED)


def state_id(job: StoredJob) -> str:
    """What tells a state of a job from every other."""
    tasks = "".join(state[0] for state in job.tasks.model_dump().values())
    details = job.details
    return (
        f"{job.created_at:.6f}-{job.attempts}-{job.status}-{tasks}"
        f"-{details.completed_segments}-{details.percent:g}"
    )


@dataclass(frozen=True)
class _State:
    id: str
    event: bytes
    over: bool

    @classmethod
    def of(cls, job: StoredJob) -> Self:
        id_ = state_id(job)
        event = format_sse_event(
            data_str=told(job).model_dump_json(), event=EVENT, id=id_, retry=_RETRY_MS
        )
        return cls(id_, event, job.status in _OVER)


@dataclass
class _Followed:
    followers: int = 0
    now: _State | None = None
    gone: bool = False
    changed: anyio.Event = field(default_factory=anyio.Event)

    def tell(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


class Changes:
    """The jobs that are followed. For the event loop's thread alone."""

    def __init__(self, keepalive_s: float = KEEPALIVE_S, limit: int = FOLLOWERS) -> None:
        self._keepalive_s = keepalive_s
        self._limit = limit
        self._followed: dict[str, _Followed] = {}

    @property
    def count(self) -> int:
        """How many follow; may be asked from any thread."""
        return sum(followed.followers for followed in list(self._followed.values()))

    def tell(self, job: StoredJob) -> None:
        """The job has changed."""
        followed = self._followed.get(job.job_id)
        if followed is not None:
            followed.now = _State.of(job)
            followed.tell()

    def gone(self, job_id: str) -> None:
        """The job was deleted."""
        followed = self._followed.get(job_id)
        if followed is not None:
            followed.gone = True
            followed.tell()

    def check_room(self) -> None:
        """Raise `TooManyListenersError` if nobody more may follow."""
        if self.count >= self._limit:
            raise TooManyListenersError(
                f"{self._limit} callers follow jobs already; ask GET /job/{{id}} now and then."
            )

    async def follow(
        self, job_id: str, seen: str | None, read: Callable[[str], StoredJob]
    ) -> AsyncIterator[bytes]:
        """Events on the wire, until the job is over or gone.

        Args:
            job_id: Of the job.
            seen: The id of the last event that the follower has.
            read: Gives the job; called in a thread.
        """
        followed = self._followed.setdefault(job_id, _Followed())
        followed.followers += 1
        try:
            if followed.now is None:
                job = await run_sync(read, job_id)
                # What was told meanwhile is at least as new.
                followed.now = followed.now or _State.of(job)
            while not followed.gone:
                now, changed = followed.now, followed.changed
                if now.id != seen:
                    seen = now.id
                    yield now.event
                    continue  # it may have changed while that was sent
                if now.over:
                    return
                with anyio.move_on_after(self._keepalive_s) as waiting:
                    await changed.wait()
                if waiting.cancelled_caught:
                    yield _KEEPALIVE
        except NoSuchJobError:
            return
        finally:
            followed.followers -= 1
            if not followed.followers:
                del self._followed[job_id]
