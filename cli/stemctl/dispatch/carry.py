"""A trip from its beginning to its end: up, computed, down, in place.

Short tracks go the straight way. Of a track with several segments each is brought home when it is
finished, so that a worker that vanishes takes one segment with it at most, and others can share in
the rest: what is missing is asked for as ranges, and the parts are put together at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import anyio
from anyio import to_thread
from stemserve.schema import Job, JobRequest, ResultFile

from stemctl.dispatch.backlog import Backlog
from stemctl.dispatch.crew import Trip
from stemctl.dispatch.delivery import deliver
from stemctl.dispatch.deposits import remove_parts
from stemctl.dispatch.joining import NoWavError, join
from stemctl.dispatch.long import LongTrack
from stemctl.dispatch.sharing import Follower, finish_request, joins_here, part_request
from stemctl.dispatch.trip import (
    computed,
    download,
    job_name,
    job_request,
    post,
    read_origin,
    results,
    upload,
)
from stemctl.dispatch.watch import Watcher
from stemctl.errors import InputError, WorkerError
from stemctl.places.bucket import Bucket
from stemctl.places.outputs import Origin, Record, cannot_write, put_in_place
from stemctl.places.staging import Staging
from stemctl.worker.client import RefusedError

BUSY_PAUSE_S = 5.0
LONGEST_BUSY_PAUSE_S = 300.0


class CannotKeepError(Exception):
    """The output cannot be written: nothing that comes after could be kept either."""


class Carrier:
    """Carries trips. On entry to `carry` the worker's uploading lane is the trip's."""

    def __init__(self, staging: Staging, backlog: Backlog, watcher: Watcher) -> None:
        self._staging = staging
        self._backlog = backlog
        self._watcher = watcher

    async def carry(self, trip: Trip) -> bool:
        """Whether the track is in its place now; else a part of it is home, or another was faster.

        Raises:
            InputError: the track's file cannot be used.
            WorkerError: the worker could not do it.
            CannotKeepError: the output cannot be written.
        """
        lanes, errand = trip.member.lanes, trip.errand
        try:
            origin = await read_origin(trip, self._watcher)
            key = job_name(trip.track, origin)
            await self._take_up(trip, key)
            if errand.long is not None and errand.long.folder != self._staging.parts(key):
                with _forgetting(trip):
                    raise NoWavError("it was changed while it was separated")
            long = errand.long
            if long and not long.missing() and self._joins_here(trip):
                return await self._join(trip, origin, None)
            await upload(trip, origin, self._watcher)
            request = await self._request(trip, origin)
            follower = Follower(trip, request, self._staging, key, self._watcher)
            await self._post(trip, request)
            await lanes.computing.acquire()
        finally:
            lanes.uploading.release()
        try:
            with self._keeping():
                job = await computed(trip, str(request.job_id), self._watcher, follower)
            if job is not None and trip.span is not None:
                raise WorkerError(f"worker {trip.slot}: a part of it ended without all segments")
            if job is not None:
                await lanes.downloading.acquire()
        finally:
            lanes.computing.release()
        if job is None:
            long = errand.long
            complete = long is not None and not long.missing()
            return complete and self._joins_here(trip) and await self._join(trip, origin, follower)
        try:
            return await self._bring_home(trip, job, origin)
        finally:
            lanes.downloading.release()

    def _joins_here(self, trip: Trip) -> bool:
        return joins_here(trip.track, self._staging)

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Tell an `OSError` in the block, and one of a bucket, as `CannotKeepError`."""
        try:
            yield
        except OSError as error:
            raise CannotKeepError(cannot_write(error, self._staging.out)) from error
        except InputError as error:
            if self._staging.bucket is None:
                raise
            raise CannotKeepError(str(error)) from error

    async def _take_up(self, trip: Trip, key: str) -> None:
        """Go on with what an earlier run has fetched of a long track."""
        errand = trip.errand
        if errand.long is not None or len(errand.trips) > 1:
            return
        errand.long = await to_thread.run_sync(LongTrack.found, self._staging.parts(key))
        if errand.long is not None and (free := errand.long.free()):
            home = len(errand.long.parts)
            self._watcher.said(f"{trip.track.name}: {home} parts of it are home already")
            trip.span = errand.long.claims[trip] = free[0]
            await self._backlog.share(errand)

    async def _request(self, trip: Trip, origin: Origin) -> JobRequest:
        long = trip.errand.long
        if long is not None and trip.span is not None:
            return await part_request(trip.track, origin, long, trip.span)
        if long is not None and not long.missing():
            with self._keeping(), _forgetting(trip):
                return await finish_request(trip, origin, self._staging, self._watcher)
        return await job_request(trip.track, origin)

    async def _post(self, trip: Trip, request: JobRequest) -> None:
        try:
            await post(trip, request)
        except RefusedError as error:
            if error.status == 429:
                trip.at("waiting", 0)
                self._watcher.moved(trip)
                await anyio.sleep(min(error.pause_s or BUSY_PAUSE_S, LONGEST_BUSY_PAUSE_S))
            raise
        trip.member.busy_since = None
        trip.at("waiting", 0)
        self._watcher.moved(trip)

    async def _bring_home(self, trip: Trip, job: Job, origin: Origin) -> bool:
        files = results(trip, job)
        if self._staging.bucket is not None:
            return await self._deliver(trip, job, origin, files, self._staging.bucket)
        with self._keeping():
            staged = await to_thread.run_sync(self._staging.track, f"{job.job_id}-{trip.number}")
            await download(trip, job, files, staged, self._watcher)
            return await self._put(trip, staged, origin, files)

    async def _deliver(
        self, trip: Trip, job: Job, origin: Origin, files: Sequence[ResultFile], bucket: Bucket
    ) -> bool:
        errand = trip.errand
        if errand.homing is not None or errand.ended:
            return False
        errand.homing = trip
        try:
            with self._keeping():
                await deliver(trip, job, files, bucket, origin, self._watcher)
                if errand.long is not None:
                    await to_thread.run_sync(remove_parts, bucket, [trip.track])
        except WorkerError:
            trip.job_id = None  # its results stay there, for the next try
            raise
        finally:
            errand.homing = None
        await self._end(trip)
        return True

    async def _join(self, trip: Trip, origin: Origin, follower: Follower | None) -> bool:
        """Put the parts of a track end to end, and these in its place."""
        errand, long, wanted = trip.errand, trip.errand.long, trip.track.wanted
        if long is None or errand.homing is not None or errand.ended:
            return False
        errand.homing = trip
        errand.seconds = long.whole.frames / long.about.rate
        trip.at("downloading", 1)
        self._watcher.moved(trip)
        try:
            with self._keeping(), _forgetting(trip):
                staged = await to_thread.run_sync(self._staging.track, f"joined-{trip.number}")
                files = []
                for stem, name in zip(wanted.stems, wanted.file_names, strict=True):
                    parts = [part.files[stem] for part in long.parts]
                    size, sha256 = await to_thread.run_sync(join, parts, staged / name)
                    files.append(ResultFile(name=name, stem=stem, size=size, sha256=sha256))
                told = follower.digests if follower else {}
                if any(told.get(file.name, file.sha256) != file.sha256 for file in files):
                    raise NoWavError("its parts are not its result")
                return await self._put(trip, staged, origin, tuple(files))
        finally:
            errand.homing = None

    async def _put(
        self, trip: Trip, staged: Path, origin: Origin, files: tuple[ResultFile, ...]
    ) -> bool:
        errand, track, out = trip.errand, trip.track, self._staging.out
        if errand.homing not in (None, trip) or errand.ended:
            return False
        errand.homing = trip
        try:
            record = Record(wanted=track.wanted, origin=origin, files=files)
            await to_thread.run_sync(put_in_place, staged, out, track, record)
        finally:
            errand.homing = None
        await self._end(trip)
        return True

    async def _end(self, trip: Trip) -> None:
        errand = trip.errand
        errand.ended = trip.bore = True
        if errand.long is not None:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(errand.long.remove)


@contextmanager
def _forgetting(trip: Trip) -> Iterator[None]:
    """Let a track begin anew whose parts turn out to be no parts of it."""
    errand = trip.errand
    try:
        yield
    except NoWavError as error:
        for other in errand.trips:
            if other is not trip:
                other.scope.cancel()
        if errand.long is not None:
            errand.long.remove()
            errand.long = None
        raise WorkerError(f"the parts of {trip.track.name} do not fit: {error}") from error
