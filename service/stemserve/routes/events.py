"""Following a job: its changes as they come, over one connection."""

from __future__ import annotations

from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header
from fastapi.responses import Response, StreamingResponse

from stemserve.errors import NoSuchJobError, TooManyListenersError
from stemserve.problems import declared
from stemserve.routes.parts import Worker
from stemserve.running.changes import EVENT, state_id
from stemserve.schema import Job, JobId, JobStatus

router = APIRouter(tags=["jobs"])

_EVENT = {
    "type": "object",
    "required": ["event", "id", "data"],
    "properties": {
        "event": {"const": EVENT},
        "id": {"type": "string"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": f"#/components/schemas/{Job.__name__}"},
        },
        "retry": {"type": "integer"},
    },
}
"""As OpenAPI describes events: by their fields."""


@router.get(
    "/job/{job_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events named `job`, whose data is the body of "
            "`GET /job/{id}` as it is then: at once, and at each change until the job is over. An "
            "id stands for a state of the job: whoever sends the last one that he has as "
            "`Last-Event-ID`, also after a restart of the worker, gets the state now unless it is "
            "still that one. Comments keep the connection alive",
            "content": {"text/event-stream": {"schema": _EVENT}},
        },
        204: {"description": "The last event told that the job was over: there will be no more"},
        **declared(NoSuchJobError, TooManyListenersError),
    },
)
async def get_events(
    job_id: JobId,
    worker: Worker,
    last_event_id: Annotated[
        str | None, Header(max_length=200, description="Of the event that came last")
    ] = None,
) -> Response:
    """Follow a job until it is over."""
    changes = worker.runner.changes
    changes.check_room()
    job = await run_sync(worker.store.get, job_id)
    if last_event_id == state_id(job) and job.status in (JobStatus.COMPLETED, JobStatus.FAILED):
        return Response(status_code=204)  # which ends the tries of a browser to connect again
    return StreamingResponse(
        changes.follow(job_id, last_event_id, worker.store.get),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
