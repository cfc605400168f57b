"""Long tracks over several workers: ranges asked, finished segments kept, parts handed on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from anyio import to_thread
from stemserve.schema import (
    MAX_PARTS,
    Clip,
    Job,
    JobRequest,
    JobStatus,
    Part,
    Range,
    Segments,
    StemFormat,
)

from stemctl.asked.track import Track
from stemctl.dispatch.crew import Trip
from stemctl.dispatch.deposits import deposit, withdraw
from stemctl.dispatch.joining import NoWavError, join, layout
from stemctl.dispatch.long import SEGMENT_SECONDS, About, LongTrack, Span
from stemctl.dispatch.long import Part as Home
from stemctl.dispatch.trip import job_request
from stemctl.dispatch.watch import Watcher
from stemctl.places.outputs import Origin, file_origin
from stemctl.places.staging import Staging
from stemctl.worker.client import BadResultError, RefusedError

MOST_FRAMES = 2**27
"""Of parts that are sent as one file: a gigabyte in stereo, where a worker takes four."""


def joins_here(track: Track, staging: Staging) -> bool:
    """Whether the parts end to end are what is wanted, so that no worker has to make it of them."""
    wanted = track.wanted
    plain = wanted.format is StemFormat.WAV and wanted.clip is not Clip.RESCALE
    return plain and not wanted.sidecar and staging.bucket is None


async def part_request(track: Track, origin: Origin, long: LongTrack, span: Span) -> JobRequest:
    """The job of a span, with samples as the whole track's job keeps them."""
    whole, wanted = await job_request(track, origin), track.wanted
    rate = long.about.rate
    asked = wanted.range or Range()
    start = asked.start_seconds if span.start == long.whole.start else span.start / rate
    end = asked.end_seconds if span.end == long.whole.end else span.end / rate
    fields = {
        **whole.model_dump(exclude_unset=True),
        "job_id": _name(whole, f"{span.start}-{end}"),
        "format": StemFormat.WAV,
        "bit_depth": long.about.sample_format,
        "stems": long.about.stems,
        "clip": Clip.NONE if wanted.clip is Clip.RESCALE else wanted.clip,
        "range": Range(start_seconds=start, end_seconds=end),
    }
    return JobRequest.model_validate(fields)


async def finish_request(
    trip: Trip, origin: Origin, staging: Staging, watcher: Watcher
) -> JobRequest:
    """The job that makes the track of its parts, which are given to the worker before."""
    long, whole = _long(trip), await job_request(trip.track, origin)
    if staging.bucket is None:
        parts = await _send(trip, long, staging, watcher)
    else:
        parts = await withdraw(trip, long, watcher)
    fields = {
        **whole.model_dump(exclude_unset=True),
        "job_id": _name(whole, "".join(part.input_sha256 for part in parts)),
        "parts": parts,
    }
    return JobRequest.model_validate(fields)


async def _send(trip: Trip, long: LongTrack, staging: Staging, watcher: Watcher) -> list[Part]:
    folder = await to_thread.run_sync(staging.track, f"parts-{trip.number}")
    parts = []
    for group in _grouped(long.parts):
        start, end = group[0].span.start, group[-1].span.end
        for stem in long.about.stems:
            path = folder / f"{stem}.wav"
            await to_thread.run_sync(join, [part.files[stem] for part in group], path)
            joined = await to_thread.run_sync(file_origin, path)
            before, size = trip.sent, joined.size or 1

            def moved(sent: int, before: int = before, size: int = size) -> None:
                trip.sent = before + sent
                trip.at("uploading", sent / size)
                watcher.moved(trip)

            await trip.member.worker.upload(path, joined.sha256, moved)
            path.unlink()
            digest = joined.sha256
            parts.append(Part(start_frame=start, end_frame=end, stem=stem, input_sha256=digest))
    return parts


def _grouped(parts: Sequence[Home]) -> list[list[Home]]:
    """Neighbours together, as long as none of their files becomes too large to be sent."""
    groups: list[list[Home]] = []
    frames = 0
    for part in parts:
        frames += part.span.frames
        if not groups or frames > MOST_FRAMES:
            groups.append([])
            frames = part.span.frames
        groups[-1].append(part)
    return groups


def _name(whole: JobRequest, more: str) -> str:
    return hashlib.sha256(f"{whole.job_id}{more}".encode()).hexdigest()[:32]


def _long(trip: Trip) -> LongTrack:
    long = trip.errand.long
    assert long is not None  # noqa: S101 (who asks has seen that)
    return long


class Follower:
    """Follows one job, and has its segments brought home as they are finished.

    That is into the output folder, or into the bucket.
    """

    def __init__(
        self, trip: Trip, request: JobRequest, staging: Staging, key: str, watcher: Watcher
    ) -> None:
        self._trip = trip
        self._job_id = str(request.job_id)
        self._staging = staging
        self._key = key
        self._watcher = watcher
        self._seen = 0
        self._mute = request.parts is not None
        """There are no segments to be fetched."""
        self.digests: dict[str, str] = {}
        """Of the results of a job of the whole track, by file."""

    async def __call__(self, job: Job) -> bool:
        """Fetch what is new; whether all that the trip is to bring is home."""
        trip, done = self._trip, job.details.completed_segments
        over = job.status is JobStatus.COMPLETED
        if self._mute or (job.details.total_segments < 2 and trip.span is None):
            return False
        known = trip.errand.long is not None and trip in trip.errand.long.claims
        if known and done <= self._seen and not over:
            return False
        if over and trip.span is None and not joins_here(trip.track, self._staging):
            return False  # its results are smaller than the samples that are missing
        try:
            told = await trip.member.worker.segments(self._job_id)
            if _too_many(told):
                self._mute = True
                return False
            long = await self._begin(told)
            await self._fetch(long, told, over=over)
        except RefusedError as error:
            if error.status == 409:
                return False
            if error.status not in (404, 410) or trip.span is not None:
                raise
            self._mute = True  # an older worker, or one that keeps nothing: its results will do
            return False
        self._seen = done
        if over and trip.span is None:
            self.digests = {file.name: file.sha256 for file in job.results}
        return not long.missing(long.claims[trip])

    async def _begin(self, told: Segments) -> LongTrack:
        errand = self._trip.errand
        if errand.long is None:
            about = About(
                rate=told.rate,
                start_frame=told.start_frame,
                end_frame=told.end_frame,
                sample_format=told.sample_format,
                stems=tuple(told.stems),
            )
            folder = self._staging.parts(self._key)
            errand.long = await to_thread.run_sync(LongTrack.begin, folder, about)
        errand.long.claims.setdefault(self._trip, errand.long.whole)
        return errand.long

    async def _fetch(self, long: LongTrack, told: Segments, *, over: bool) -> None:
        trip = self._trip
        if over and long.claims[trip].end == long.whole.end:
            await to_thread.run_sync(long.settle_end, told.end_frame)
        for segment in told.segments:
            span = Span(segment.start_frame, segment.end_frame)
            if span.start >= long.claims[trip].end or long.missing(span) != [span]:
                continue
            staged = await to_thread.run_sync(long.staged, span, str(trip.number))
            if (bucket := self._staging.bucket) is not None:
                await deposit(trip, self._job_id, told, segment, bucket, staged)
                trip.bore |= await to_thread.run_sync(long.add, span, staged)
                continue
            for stem in long.about.stems:
                path, before = staged / f"{stem}.wav", trip.got

                def moved(got: int, before: int = before) -> None:
                    trip.got = before + got
                    trip.goes_on()

                await trip.member.worker.segment(self._job_id, segment.index, stem, path, moved)
                await to_thread.run_sync(_check, trip, path, span, long.about.rate)
            trip.bore |= await to_thread.run_sync(long.add, span, staged)


def _too_many(told: Segments) -> bool:
    """Whether they are more than could be told to the worker that joins them."""
    seconds = (told.end_frame - told.start_frame) / told.rate
    return (seconds / SEGMENT_SECONDS + 2) * len(told.stems) > MAX_PARTS


def _check(trip: Trip, path: Path, span: Span, rate: int) -> None:
    try:
        found = layout(path)
    except NoWavError as error:
        raise BadResultError(f"worker {trip.slot}: a segment: {error}") from error
    if (found.frames, found.rate) != (span.frames, rate):
        raise BadResultError(
            f"worker {trip.slot}: a segment has {found.frames} frames, not {span.frames}"
        )
