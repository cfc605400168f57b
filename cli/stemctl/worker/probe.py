"""Questions to every worker of a fleet at once; one that does not answer holds up no other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import anyio
from pydantic import BaseModel, ConfigDict
from stemserve.schema import Status

from stemctl.errors import WorkerError
from stemctl.fleet.stack import Endpoint, Fleet
from stemctl.worker.client import Worker

AT_ONCE = 200
ATTEMPTS = 2

Answer = TypeVar("Answer")


async def ask_all(
    fleet: Fleet, question: Callable[[Worker], Awaitable[Answer]]
) -> list[tuple[Endpoint, Answer | WorkerError]]:
    """Each worker's answer, or why there is none, in the fleet's order."""
    limit = anyio.CapacityLimiter(AT_ONCE)
    answers: dict[int, Answer | WorkerError] = {}

    async def ask(number: int, endpoint: Endpoint) -> None:
        async with limit, Worker(endpoint, fleet.token, attempts=ATTEMPTS) as worker:
            try:
                answers[number] = await question(worker)
            except WorkerError as error:
                answers[number] = error

    async with anyio.create_task_group() as asking:
        for number, endpoint in enumerate(fleet.endpoints):
            asking.start_soon(ask, number, endpoint)
    return [(endpoint, answers[number]) for number, endpoint in enumerate(fleet.endpoints)]


class Probe(BaseModel):
    """How one worker is. Without ``status`` it is of no use, and ``error`` says why."""

    model_config = ConfigDict(frozen=True)

    endpoint: Endpoint
    alive: bool = False
    """It is there, whether or not it takes our token."""
    ready: bool = False
    status: Status | None = None
    error: str | None = None
    clock_s: float = 0.0
    """How far its clock is ahead of ours, as far as its answer's way leaves that certain."""


async def probe_fleet(fleet: Fleet) -> list[Probe]:
    """Ask every worker whether it is there, ready, and what it can do."""
    answers = await ask_all(fleet, _probe)
    return [
        Probe(endpoint=endpoint, error=str(answer)) if isinstance(answer, WorkerError) else answer
        for endpoint, answer in answers
    ]


async def _probe(worker: Worker) -> Probe:
    asked = datetime.now(UTC)
    health = await worker.health()
    clock_s = _ahead(health.timestamp, asked, datetime.now(UTC))
    try:
        status = await worker.status()
        ready = await worker.ready()
    except WorkerError as error:
        return Probe(endpoint=worker.endpoint, alive=True, error=str(error))
    return Probe(
        endpoint=worker.endpoint,
        alive=True,
        ready=ready.ready,
        status=status,
        error=ready.reason,
        clock_s=clock_s,
    )


def _ahead(told: datetime, asked: datetime, heard: datetime) -> float:
    """Seconds by which a clock is ahead that told its time between two times of ours."""
    told = told if told.tzinfo else told.replace(tzinfo=UTC)
    if told > heard:
        return (told - heard).total_seconds()
    return min(0.0, (told - asked).total_seconds())
