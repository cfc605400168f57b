"""What is finished of a job, segment by segment, while it runs: fetched, or sent elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks
from fastapi import Path as PathParameter
from fastapi.responses import StreamingResponse

from stemserve.carrying.delivery import Cargo, send
from stemserve.errors import (
    DeliveryRunningError,
    NoSuchDeliveryError,
    NoSuchJobError,
    NoSuchSegmentError,
    NotStartedError,
    SegmentsGoneError,
    TooManyDeliveriesError,
)
from stemserve.jobs.marks import SegmentFile
from stemserve.problems import declared
from stemserve.routes.parts import Parts, Worker
from stemserve.schema import (
    MAX_FRAMES,
    Delivery,
    JobId,
    SegmentDeliveryRequest,
    Segments,
    StemName,
)

router = APIRouter(tags=["segments"])

Index = Annotated[int, PathParameter(ge=0, le=MAX_FRAMES, description="Counted from 0")]

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
def get_segment(job_id: JobId, index: Index, stem: StemName, worker: Worker) -> StreamingResponse:
    """One stem of a finished segment. It does not change any more, whatever the job does."""
    found = _open(worker, job_id, index, stem)
    return StreamingResponse(
        found.pieces(), media_type="audio/wav", headers={"Content-Length": str(found.size)}
    )


@router.post(
    "/job/{job_id}/segments/{index}/{stem}/deliver",
    status_code=202,
    responses=declared(*_ERRORS, NoSuchSegmentError, DeliveryRunningError, TooManyDeliveriesError),
)
def deliver_segment(
    job_id: JobId,
    index: Index,
    stem: StemName,
    worker: Worker,
    body: SegmentDeliveryRequest,
    after: BackgroundTasks,
) -> Delivery:
    """Send one stem of a finished segment to a URL, as a result is sent."""
    found = _open(worker, job_id, index, stem)
    found.close()
    worker.retention.use_results(job_id)

    def pieces() -> Iterator[bytes]:
        return _open(worker, job_id, index, stem).pieces()

    cargo = Cargo(job_id, _file(index, stem), found.size, pieces)
    delivery = worker.deliveries.begin(cargo, str(body.url))
    if delivery is not None:
        after.add_task(send, delivery, str(body.url), worker.settings)
    return worker.deliveries.find(job_id, cargo.name)


@router.get(
    "/job/{job_id}/segments/{index}/{stem}/deliver", responses=declared(NoSuchDeliveryError)
)
def get_segment_delivery(job_id: JobId, index: Index, stem: StemName, worker: Worker) -> Delivery:
    """How far that is."""
    return worker.deliveries.find(job_id, _file(index, stem))


def _open(worker: Parts, job_id: str, index: int, stem: str) -> SegmentFile:
    runner = worker.runner
    folder = runner.files(job_id).folder
    return runner.marks.open(worker.store.get(job_id), folder, index, stem)


def _file(index: int, stem: str) -> str:
    return f"{index}/{stem}.wav"
