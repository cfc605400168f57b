"""How each worker of a fleet is, asked all at once; one that does not answer holds up none."""

from __future__ import annotations

import anyio
from pydantic import BaseModel, ConfigDict
from stemserve.schema import Status

from stemctl.client import Worker
from stemctl.errors import WorkerError
from stemctl.stack import Endpoint, Fleet

AT_ONCE = 32
ATTEMPTS = 2


class Probe(BaseModel):
    """What one worker said. Without ``status`` it is of no use, and ``error`` says why."""

    model_config = ConfigDict(frozen=True)

    endpoint: Endpoint
    alive: bool = False
    """It is there, whether or not it takes our token."""
    ready: bool = False
    status: Status | None = None
    error: str | None = None


async def probe_fleet(fleet: Fleet) -> list[Probe]:
    """Ask every worker whether it is there, ready, and what it can do; in the fleet's order."""
    limit = anyio.CapacityLimiter(AT_ONCE)
    answers: dict[int, Probe] = {}

    async def ask(place: int, endpoint: Endpoint) -> None:
        async with limit:
            answers[place] = await probe(endpoint, fleet.token)

    async with anyio.create_task_group() as asking:
        for place, endpoint in enumerate(fleet.endpoints):
            asking.start_soon(ask, place, endpoint)
    return [answers[place] for place in sorted(answers)]


async def probe(endpoint: Endpoint, token: str | None) -> Probe:
    """Ask one worker."""
    async with Worker(endpoint, token, attempts=ATTEMPTS) as worker:
        try:
            await worker.health()
        except WorkerError as error:
            return Probe(endpoint=endpoint, error=str(error))
        try:
            status = await worker.status()
            ready = await worker.ready()
        except WorkerError as error:
            return Probe(endpoint=endpoint, alive=True, error=str(error))
    return Probe(
        endpoint=endpoint, alive=True, ready=ready.ready, status=status, error=ready.reason
    )
