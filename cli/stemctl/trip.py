"""One track's way over one worker: what is sent, what is asked, waited for, and brought back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import anyio
from anyio import to_thread
from stemserve.schema import Job, JobRequest, JobStatus, ResultFile

from stemctl.client import RefusedError, Worker
from stemctl.errors import InputError, WorkerError
from stemctl.objects import SCHEME, sign
from stemctl.outputs import Origin, file_origin, url_origin
from stemctl.progress import Watcher
from stemctl.track import Track

FIRST_POLL_S = 0.1
SLOWEST_POLL_S = 1.0
STALLED_AFTER_S = 3600.0
"""A job that has not got any further for so long is given up."""


class JobFailedError(WorkerError):
    """A job ended without results. ``kind`` is the stable word for why."""

    type = "job-failed"

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


async def upload(worker: Worker, track: Track, watcher: Watcher) -> Origin:
    """Send a track's file, unless the worker has it or will fetch the URL itself.

    Raises:
        InputError: the file cannot be read, or was changed meanwhile.
    """
    if track.path is None:
        return url_origin(track.url or "")
    try:
        watcher.moved(worker.slot, track, "reading", 0)
        origin = await to_thread.run_sync(file_origin, track.path, abandon_on_cancel=True)
        size = origin.size or 1

        def moved(sent: int) -> None:
            watcher.moved(worker.slot, track, "uploading", sent / size)

        await worker.upload(track.path, origin.sha256, moved)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error
    return origin


async def job_request(track: Track, origin: Origin) -> JobRequest:
    """The job of a track. Its id says what is asked and of what, so that asking twice is one job.

    The place is in it too: two tracks with the same bytes do not share a job.

    Raises:
        InputError: an object in S3 cannot be signed for.
    """
    url = track.url
    if url and url.startswith(SCHEME):
        url = await to_thread.run_sync(sign, url)
    asked = track.wanted.model_dump_json() + origin.sha256 + track.place
    return JobRequest.model_validate(
        {
            "input_url": url,
            "input_sha256": None if url else origin.sha256,
            "input_name": track.name,
            "job_id": hashlib.sha256(asked.encode()).hexdigest()[:32],
            **track.wanted.asked,
        }
    )


async def post(worker: Worker, track: Track, request: JobRequest) -> None:
    """Queue the job, or find it there.

    An earlier run may have posted it for an object in S3, whose URL was another: a job by that id
    is the same all the same, unless it failed, as by a URL that lasts no longer.
    """
    try:
        await worker.post(request)
    except RefusedError as error:
        job_id = str(request.job_id)
        if error.status != 409 or not (track.url or "").startswith(SCHEME):
            raise
        if (await worker.job(job_id)).status is JobStatus.FAILED:
            await worker.delete(job_id)
            await worker.post(request)


async def computed(worker: Worker, track: Track, job_id: str, watcher: Watcher) -> Job:
    """The job once it is completed.

    Raises:
        JobFailedError: it failed.
        WorkerError: it is not there any more, or does not get any further.
    """
    pause, last, seen = FIRST_POLL_S, anyio.current_time(), None
    while True:
        job = await worker.job(job_id)
        if job.status is JobStatus.COMPLETED:
            return job
        if job.status is JobStatus.FAILED:
            reason = job.error or job.error_type or "it failed without a reason"
            raise JobFailedError(reason, job.error_type or "")
        stage = "waiting" if job.status is JobStatus.PENDING else "computing"
        watcher.moved(worker.slot, track, stage, job.details.percent / 100)
        now = anyio.current_time()
        if seen != (seen := (job.status, job.details)):
            last = now
        elif now - last > STALLED_AFTER_S:
            await worker.cancel(job_id)
            raise WorkerError(f"worker {worker.slot}: no progress for {STALLED_AFTER_S:.0f} s")
        await anyio.sleep(pause)
        pause = min(pause * 1.5, SLOWEST_POLL_S)


def results(worker: Worker, job: Job, track: Track) -> tuple[ResultFile, ...]:
    """A completed job's files that are wanted; what else there is, is left there.

    Raises:
        WorkerError: one is missing.
    """
    by_name = {file.name: file for file in job.results}
    missing = [name for name in track.wanted.file_names if name not in by_name]
    if missing:
        raise WorkerError(f"worker {worker.slot} has made no {', '.join(missing)}")
    return tuple(by_name[name] for name in track.wanted.file_names)


async def download(
    worker: Worker,
    track: Track,
    job_id: str,
    files: Sequence[ResultFile],
    to: Path,
    watcher: Watcher,
) -> None:
    """Bring files of a job into a folder; may raise OSError."""
    total = sum(file.size for file in files) or 1
    done = 0
    for file in files:

        def moved(got: int, before: int = done) -> None:
            watcher.moved(worker.slot, track, "downloading", (before + got) / total)

        await worker.download(job_id, file, to / file.name, moved)
        done += file.size
