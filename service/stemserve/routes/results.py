"""The files that a job made: fetched, or sent to where the caller wants them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Query, Request
from fastapi.responses import FileResponse

from stemserve.carrying.delivery import MEDIA_TYPES, Cargo, send
from stemserve.errors import (
    BadRangeError,
    DeliveryRunningError,
    NoSuchDeliveryError,
    NoSuchFileError,
    NoSuchJobError,
    NotCompletedError,
    ResultsGoneError,
    TooManyDeliveriesError,
)
from stemserve.names import nearest
from stemserve.problems import declared
from stemserve.routes.parts import Parts, Worker
from stemserve.schema import Delivery, DeliveryRequest, JobId, JobStatus, ResultFile

router = APIRouter(tags=["results"])


_PIECE = 2**20
"""Large: each is read in a thread, and waits for one."""


class _Result(FileResponse):
    chunk_size = _PIECE


_BYTES = {name: {"schema": {"type": "string", "format": "binary"}} for name in MEDIA_TYPES.values()}


_ERRORS = (NotCompletedError, NoSuchJobError, NoSuchFileError, ResultsGoneError)


@router.get(
    "/result/{job_id}",
    response_class=FileResponse,
    responses={
        200: {"description": "The file; a Range is honoured", "content": _BYTES},
        206: {"description": "The part of the file that was asked for", "content": _BYTES},
        **declared(*_ERRORS, BadRangeError),
    },
)
def get_result(
    job_id: JobId,
    worker: Worker,
    request: Request,
    file: Annotated[str, Query(description="Name of a result")] = "instrumental.mp3",
) -> FileResponse:
    """One result of a completed job."""
    result, path = _find(worker, job_id, file)
    if not _is_range_of(request.headers.get("range", "bytes=0-"), result.size):
        raise BadRangeError(f"{file} has {result.size} bytes; ask for one range of them.")
    worker.retention.use_results(job_id)
    return _Result(
        path,
        media_type=MEDIA_TYPES.get(path.suffix),
        filename=result.name,
        headers={"ETag": f'"{result.sha256}"'},
    )


@router.post(
    "/result/{job_id}/deliver",
    status_code=202,
    responses=declared(*_ERRORS, DeliveryRunningError, TooManyDeliveriesError),
)
def deliver_result(
    job_id: JobId, worker: Worker, body: DeliveryRequest, after: BackgroundTasks
) -> Delivery:
    """Send one result to a URL. While it is on its way there, asking again changes nothing."""
    result, path = _find(worker, job_id, body.file)
    worker.retention.use_results(job_id)
    cargo = Cargo(job_id, result.name, result.size, lambda: _pieces(path))
    delivery = worker.deliveries.begin(cargo, str(body.url))
    if delivery is not None:
        after.add_task(send, delivery, str(body.url), worker.settings)
    return worker.deliveries.find(job_id, body.file)


@router.get("/result/{job_id}/deliver", responses=declared(NoSuchDeliveryError))
def get_delivery(
    job_id: JobId, worker: Worker, file: Annotated[str, Query(description="Name of a result")]
) -> Delivery:
    """How far a delivery is."""
    return worker.deliveries.find(job_id, file)


def _find(worker: Parts, job_id: str, file: str) -> tuple[ResultFile, Path]:
    """A result of a completed job, and where it lies."""
    job = worker.store.get(job_id)
    if job.status is not JobStatus.COMPLETED:
        reason = f" {job.error}" if job.error else ""
        raise NotCompletedError(f"Job {job_id} is {job.status}, not completed.{reason}")
    if job.results_gone:
        raise ResultsGoneError(
            f"The results of job {job_id} are no longer kept; post the job again, and it runs"
            " again."
        )
    # The name is looked up among the results, never joined to a path as it came.
    result = next((result for result in job.results if result.name == file), None)
    if result is None:
        choices = nearest(file, [result.name for result in job.results])
        raise NoSuchFileError(
            f"Job {job_id} has no such file; it has {', '.join(choices)}.", choices
        )
    path = worker.runner.files(job_id).folder / result.name
    if not path.is_file():
        raise NoSuchFileError(f"{file} of job {job_id} was removed from the disk.", [])
    return result, path


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _is_range_of(text: str, size: int) -> bool:
    """Whether ``text`` is one range with bytes in it, of a file of ``size`` bytes."""
    match = re.fullmatch(r"bytes=(\d{1,18})?-(\d{1,18})?", text.replace(" ", ""))
    if match is None or match.group(1) is match.group(2) is None:
        return False
    if match.group(1) is None:
        return int(match.group(2)) > 0
    return int(match.group(1)) < max(size, 1) and (
        match.group(2) is None or int(match.group(1)) <= int(match.group(2))
    )
