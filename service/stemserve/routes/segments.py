"""What is finished of a job, segment by segment, while it runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as PathParameter
from fastapi.responses import StreamingResponse

from stemserve.errors import (
    NoSuchJobError,
    NoSuchSegmentError,
    NotStartedError,
    SegmentsGoneError,
)
from stemserve.problems import declared
from stemserve.routes.parts import Worker
from stemserve.schema import MAX_FRAMES, JobId, Segments, StemName

router = APIRouter(tags=["segments"])

_ERRORS = (NoSuchJobError, NotStartedError, SegmentsGoneError)


@router.get("/job/{job_id}/segments", responses=declared(*_ERRORS))
def get_segments(job_id: JobId, worker: Worker) -> Segments:
    """Which segments are finished, and how their samples are kept."""
    runner = worker.runner
    return runner.marks.of(worker.store.get(job_id), runner.files(job_id).folder)


@router.get(
    "/job/{job_id}/segments/{index}/{stem}",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "The samples as they are kept",
            "content": {"audio/wav": {"schema": {"type": "string", "format": "binary"}}},
        },
        **declared(*_ERRORS, NoSuchSegmentError),
    },
)
def get_segment(
    job_id: JobId,
    index: Annotated[int, PathParameter(ge=0, le=MAX_FRAMES, description="Counted from 0")],
    stem: StemName,
    worker: Worker,
) -> StreamingResponse:
    """One stem of a finished segment. It does not change any more, whatever the job does."""
    runner = worker.runner
    folder = runner.files(job_id).folder
    found = runner.marks.open(worker.store.get(job_id), folder, index, stem)
    return StreamingResponse(
        found.pieces(), media_type="audio/wav", headers={"Content-Length": str(found.size)}
    )
