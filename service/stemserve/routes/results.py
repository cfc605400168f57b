"""The files that a job made."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse

from stemserve.errors import (
    BadRangeError,
    NoSuchFileError,
    NoSuchJobError,
    NotCompletedError,
    ResultsGoneError,
)
from stemserve.names import nearest
from stemserve.problems import declared
from stemserve.routes.parts import Worker
from stemserve.schema import JobId, JobStatus

router = APIRouter(tags=["results"])

MEDIA_TYPES = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
    ".mp4": "audio/mp4",
    ".json": "application/json",
}


class _Result(FileResponse):
    """In large pieces: each is read in a thread, and waits for one."""

    chunk_size = 2**20


_BYTES = {name: {"schema": {"type": "string", "format": "binary"}} for name in MEDIA_TYPES.values()}


@router.get(
    "/result/{job_id}",
    response_class=FileResponse,
    responses={
        200: {"description": "The file; a Range is honoured", "content": _BYTES},
        206: {"description": "The part of the file that was asked for", "content": _BYTES},
        **declared(
            NotCompletedError, NoSuchJobError, NoSuchFileError, ResultsGoneError, BadRangeError
        ),
    },
)
def get_result(
    job_id: JobId,
    worker: Worker,
    request: Request,
    file: Annotated[str, Query(description="Name of a result")] = "instrumental.mp3",
) -> FileResponse:
    """One result of a completed job."""
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
    if not _is_range_of(request.headers.get("range", "bytes=0-"), result.size):
        raise BadRangeError(f"{file} has {result.size} bytes; ask for one range of them.")
    worker.retention.use_results(job_id)
    return _Result(
        path,
        media_type=MEDIA_TYPES.get(path.suffix),
        filename=result.name,
        headers={"ETag": f'"{result.sha256}"'},
    )


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
