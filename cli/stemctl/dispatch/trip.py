"""The steps of a trip: what is sent to a worker, asked of it, waited for, and brought back."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import anyio
from anyio import to_thread
from stemserve.schema import (
    Delivery,
    DeliveryStatus,
    Fetch,
    FetchStatus,
    Job,
    JobRequest,
    JobStatus,
    ResultFile,
    StemFormat,
)

from stemctl.asked.track import Track
from stemctl.dispatch.crew import LOOKS_EVERY_S, SHOWS, Trip
from stemctl.dispatch.failures import JobFailedError
from stemctl.dispatch.joining import NoWavError, layout
from stemctl.dispatch.watch import Watcher
from stemctl.errors import InputError, WorkerError
from stemctl.places.objects import SCHEME, sign
from stemctl.places.outputs import Origin, file_origin, url_origin
from stemctl.worker.client import BadResultError, RefusedError

FIRST_POLL_S = 0.1
STALLED_AFTER_S = 3600.0
"""A job that has not got any further for so long is given up."""

Transfer = TypeVar("Transfer", Delivery, Fetch)

Follow = Callable[[Job], Awaitable[bool]]
"""Told of a job while it runs; says whether it has brought enough."""


async def read_origin(trip: Trip, watcher: Watcher) -> Origin:
    """Which input it is.

    Raises:
        InputError: the file cannot be read.
    """
    track = trip.track
    if track.path is None:
        return url_origin(track.url or "")
    try:
        trip.at("reading", 0)
        watcher.moved(trip)
        return await to_thread.run_sync(file_origin, track.path, abandon_on_cancel=True)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error


async def upload(trip: Trip, origin: Origin, watcher: Watcher) -> None:
    """Send a track's file, unless the worker has it or will fetch the URL itself.

    Raises:
        InputError: the file cannot be read, or was changed meanwhile.
    """
    if trip.track.path is None:
        return
    size = origin.size or 1

    def moved(sent: int) -> None:
        trip.sent = sent
        trip.at("uploading", sent / size)
        watcher.moved(trip)

    try:
        trip.at("uploading", 0)
        watcher.moved(trip)
        await trip.member.worker.upload(trip.track.path, origin.sha256, moved)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error


def job_name(track: Track, origin: Origin) -> str:
    """The id of a track's job. It says what is asked and of what: asking twice is one job.

    The place is in it too: two tracks with the same bytes do not share a job.
    """
    asked = track.wanted.model_dump_json() + origin.sha256 + track.place
    return hashlib.sha256(asked.encode()).hexdigest()[:32]


async def job_request(track: Track, origin: Origin) -> JobRequest:
    """The job of a track.

    Raises:
        InputError: an object in S3 cannot be signed for.
    """
    url = track.url
    if url and url.startswith(SCHEME):
        url = await to_thread.run_sync(sign, url)
    return JobRequest.model_validate(
        {
            "input_url": url,
            "input_sha256": None if url else origin.sha256,
            "input_name": track.name,
            "job_id": job_name(track, origin),
            **track.wanted.asked,
        }
    )


async def post(trip: Trip, request: JobRequest) -> None:
    """Queue the job, or find it there.

    An earlier run may have posted it for an object in S3, whose URL was another: a job by that id
    is the same all the same, unless it failed, as by a URL that lasts no longer.
    """
    worker, job_id = trip.member.worker, str(request.job_id)
    trip.job_id = job_id
    trip.errand.jobs.discard((trip.member, job_id))
    try:
        await worker.post(request)
    except RefusedError as error:
        if error.status != 409 or not (trip.track.url or "").startswith(SCHEME):
            raise
        if (await worker.job(job_id)).status is JobStatus.FAILED:
            await worker.delete(job_id)
            await worker.post(request)


async def computed(trip: Trip, job_id: str, watcher: Watcher, follow: Follow) -> Job | None:
    """The job once it is completed; None: it has brought enough before its end.

    Raises:
        JobFailedError: it failed.
        WorkerError: it is not there any more, or does not get any further.
    """
    worker, pause = trip.member.worker, FIRST_POLL_S
    while True:
        job = await worker.job(job_id)
        trip.took = job.elapsed_seconds
        if job.duration_seconds is not None and trip.span is None:
            trip.errand.seconds = job.duration_seconds
        if job.status is JobStatus.FAILED:
            trip.job_id = None  # it stays there, with its log
            reason = job.error or job.error_type or "it failed without a reason"
            raise JobFailedError(reason, job.error_type or "")
        waits = job.status is JobStatus.PENDING
        trip.at("waiting" if waits else "computing", job.details.percent / 100)
        watcher.moved(trip)
        if await follow(job):
            if trip.fraction > SHOWS:
                trip.member.learn(trip.fraction * trip.asked, trip.took)
            return None
        if job.status is JobStatus.COMPLETED:
            trip.member.learn(trip.asked, trip.took)
            return job
        if time.monotonic() - trip.moved > STALLED_AFTER_S:
            raise WorkerError(f"worker {worker.slot}: no progress for {STALLED_AFTER_S:.0f} s")
        if not waits and trip.fraction > SHOWS and trip.speed:
            pause = min(max(trip.seconds_left / trip.speed, 0.05), LOOKS_EVERY_S)
        else:
            pause = min(pause * 1.5, LOOKS_EVERY_S)
        await anyio.sleep(pause)


def results(trip: Trip, job: Job) -> tuple[ResultFile, ...]:
    """A completed job's files that are wanted; what else there is, is left there.

    Raises:
        BadResultError: one is missing.
    """
    by_name = {file.name: file for file in job.results}
    names = trip.track.wanted.file_names
    missing = [name for name in names if name not in by_name]
    if missing:
        raise BadResultError(f"worker {trip.slot} has made no {', '.join(missing)}")
    return tuple(by_name[name] for name in names)


async def download(
    trip: Trip, job: Job, files: Sequence[ResultFile], to: Path, watcher: Watcher
) -> None:
    """Bring files of a job into a folder, and see that they can be what was asked.

    Raises:
        BadResultError: they cannot.
        OSError: the folder cannot be written.
    """
    total, before = sum(file.size for file in files) or 1, trip.got
    done = 0
    for file in files:

        def moved(got: int, at: int = done) -> None:
            trip.got = before + at + got
            trip.at("downloading", (at + got) / total)
            watcher.moved(trip)

        await trip.member.worker.download(job.job_id, file, to / file.name, moved)
        done += file.size
    if trip.track.wanted.format is StemFormat.WAV:
        paths = [to / file.name for file in files if file.stem]
        await to_thread.run_sync(check_wavs, trip, paths, job.duration_seconds)


async def transferred(
    trip: Trip,
    state: Transfer,
    look: Callable[[], Awaitable[Transfer]],
    moved: Callable[[int], None] = lambda _bytes: None,
) -> Transfer:
    """How what a worker sends or fetches has ended, beginning with how it is.

    ``look`` asks how it is, ``moved`` is told of the bytes that have gone.

    Raises:
        WorkerError: it does not get any further.
    """
    pause, gone, since = FIRST_POLL_S, -1, time.monotonic()
    while state.status in (DeliveryStatus.SENDING, FetchStatus.FETCHING):
        now = state.sent if isinstance(state, Delivery) else state.size
        moved(now)
        if now != gone:
            gone, since = now, time.monotonic()
        elif time.monotonic() - since > STALLED_AFTER_S:
            raise WorkerError(f"worker {trip.slot}: no progress for {STALLED_AFTER_S:.0f} s")
        await anyio.sleep(pause)
        pause = min(pause * 1.5, LOOKS_EVERY_S)
        state = await look()
    return state


def check_wavs(trip: Trip, paths: Sequence[Path], seconds: float | None) -> None:
    """Nothing, if all files are as long as that; blocks.

    Raises:
        BadResultError: one is not, or is no WAV file.
    """
    for path in paths:
        try:
            found = layout(path)
        except NoWavError as error:
            raise BadResultError(f"worker {trip.slot}: {path.name}: {error}") from error
        if seconds is not None and abs(found.frames - seconds * found.rate) >= 1:
            length = found.frames / found.rate
            raise BadResultError(
                f"worker {trip.slot}: {path.name} has {length:.3f} s, not {seconds:.3f} s"
            )
