"""How the worker is: alive, ready, and what it can do."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from stemserve.errors import EndingError, StemserveError
from stemserve.jobs.job import find_preset
from stemserve.lease import doing
from stemserve.problems import declared
from stemserve.routes.parts import Parts, Worker
from stemserve.schema import Health, JobStatus, Lease, Ready, Status

router = APIRouter(tags=["worker"])
open_router = APIRouter(tags=["worker"])
"""What needs no token."""

_STARTED = time.monotonic()


@open_router.get("/health")
async def health() -> Health:
    """The server is up."""
    return Health(timestamp=datetime.now(UTC))


@router.get("/ready", response_model=Ready, responses={503: {"model": Ready}})
async def ready(worker: Worker) -> JSONResponse:
    """Whether the separation is up and can serve the default preset."""
    reason = _unready(worker)
    answer = Ready(ready=reason is None, reason=reason)
    return JSONResponse(answer.model_dump(mode="json"), 200 if answer.ready else 503)


@router.get("/status")
def status(worker: Worker) -> Status:
    """What the worker does and can do."""
    return Status(
        models_ready=_unready(worker) is None,
        active_jobs=worker.store.count(JobStatus.RUNNING),
        completed_jobs=worker.runner.metrics.completed,
        uptime_seconds=time.monotonic() - _STARTED,
        pending_jobs=worker.store.count(JobStatus.PENDING),
        queue_limit=worker.settings.queue_limit,
        version=version("stemfleet"),
        device=worker.runner.device,
        default_preset=worker.settings.preset,
        presets=worker.runner.presets,
        idle_seconds=worker.lease.idle_seconds(doing(worker.store)),
        lease_ends_at=worker.lease.ends_at(),
        gpu=worker.runner.gpu,
        weights=worker.runner.started.weights,
        versions=worker.runner.started.versions,
    )


@router.post("/lease", responses=declared(EndingError))
def renew_lease(
    worker: Worker,
    expect_work: Annotated[
        bool, Query(description="It was not idle till now: it will be given work soon")
    ] = False,
) -> Lease:
    """Let the worker go on: its lease begins anew. It may still end for want of work."""
    worker.lease.renew(expect_work=expect_work)
    return Lease(lease_ends_at=worker.lease.ends_at())


def _unready(worker: Parts) -> str | None:
    if worker.runner.unready is not None:
        return worker.runner.unready
    try:
        find_preset(worker.settings.preset, worker.runner.presets)
    except StemserveError as error:
        return str(error)
    return None
