"""Spreads a run's tracks over the workers, and brings their stems home.

Each worker has three lanes, for one track each: uploading, computing, downloading. So the next
track is there when one is done, and no worker holds more than it can soon begin. A track that
fails is tried on other workers; a worker that cannot be used is set aside; a place in the output
folder gets a whole track or nothing. The client names the jobs, so that asking again for the same
is the same job, also for the next run.
"""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import anyio
from anyio import to_thread
from stemserve.schema import Job, JobRequest, JobStatus, ResultFile

from stemctl.backlog import Backlog, Errand
from stemctl.client import RefusedError, UnreachableError, Worker
from stemctl.errors import InputError, WorkerError
from stemctl.inputs import Track
from stemctl.outputs import (
    Origin,
    Record,
    Staging,
    cannot_write,
    file_origin,
    put_in_place,
    url_origin,
)
from stemctl.report import End, Outcome, Report, left
from stemctl.wanted import Wanted

TRIES = 3
FIRST_POLL_S = 0.1
SLOWEST_POLL_S = 1.0
STALLED_AFTER_S = 3600.0
"""A job that has not got any further for so long is given up."""
BUSY_PAUSE_S = 5.0
BUSY_FOR_S = 1800.0
"""A worker whose queue is full of others' jobs for so long is set aside."""
GOODBYE_S = 10.0
"""How long a stopped run may take to cancel its jobs."""

NO_SECOND_TRY = frozenset({"not-audio", "cancelled"})
"""Types of a job's error that another worker would not mend."""


class Watcher(Protocol):
    """Who is told how a run goes on."""

    def moved(self, slot: str, track: Track, stage: str, fraction: float) -> None:
        """A track is at a stage of its way over a worker; ``fraction`` of it is done, 0 to 1."""
        ...

    def gone(self, slot: str, track: Track) -> None:
        """A track is not with that worker any more."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """A track has ended."""
        ...

    def said(self, message: str) -> None:
        """Something that people should know now."""
        ...


class JobFailedError(WorkerError):
    """A job ended without results. ``kind`` is the stable word for why."""

    type = "job-failed"

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Lanes:
    """A worker's room: one track in each lane."""

    def __init__(self) -> None:
        self.uploading = anyio.Semaphore(1)
        self.computing = anyio.Semaphore(1)
        self.downloading = anyio.Semaphore(1)


class Dispatch:
    """One run. `run` returns when every track has ended, or the run was stopped."""

    def __init__(
        self, workers: Sequence[Worker], wanted: Wanted, staging: Staging, watcher: Watcher
    ) -> None:
        self._workers = workers
        self._wanted = wanted
        self._staging = staging
        self._watcher = watcher
        self._scope = anyio.CancelScope()
        self._goodbye = anyio.CancelScope(shield=True)
        self._begun: dict[str, tuple[Worker, str]] = {}
        self._busy_since: dict[str, float] = {}
        self.report = Report(str(staging.out))

    async def run(self, tracks: Sequence[Track]) -> Report:
        """Bring all tracks home, as far as that is possible."""
        self._backlog = Backlog(tracks, [worker.slot for worker in self._workers])
        async with anyio.create_task_group() as watching:
            watching.start_soon(self._stop_on_signal)
            with self._scope:
                async with anyio.create_task_group() as serving:
                    for worker in self._workers:
                        serving.start_soon(self._serve, worker)
            self._goodbye.deadline = anyio.current_time() + GOODBYE_S
            with self._goodbye:
                await self._cancel_begun()
            watching.cancel_scope.cancel()
        ended = {outcome.place for outcome in self.report.outcomes}
        reason = None if self._scope.cancel_called else "no worker was left to try it"
        self.report.outcomes += left([t for t in tracks if t.place not in ended], reason)
        return self.report

    async def _stop_on_signal(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                if self.report.signal is not None:
                    self._goodbye.cancel()
                    return
                self.report.signal = number
                self._watcher.said("stopping: the jobs of this run are cancelled")
                self._scope.cancel()

    async def _cancel_begun(self) -> None:
        async def cancel(worker: Worker, job_id: str) -> None:
            try:
                await worker.cancel(job_id)
            except WorkerError:
                return  # it is not there, has ended, or the worker is not to be had

        async with anyio.create_task_group() as cancelling:
            for worker, job_id in self._begun.values():
                cancelling.start_soon(cancel, worker, job_id)

    async def _serve(self, worker: Worker) -> None:
        lanes = _Lanes()
        async with anyio.create_task_group() as carrying:
            while True:
                await lanes.uploading.acquire()
                errand = await self._backlog.take(worker.slot)
                if errand is None:
                    return
                carrying.start_soon(self._carry, worker, errand, lanes)

    async def _carry(self, worker: Worker, errand: Errand, lanes: _Lanes) -> None:
        """Take one track over a worker, and deal with whatever hinders it."""
        try:
            await self._end(await self._separate(worker, errand.track, lanes))
        except UnreachableError as error:
            await self._set_aside(worker, str(error))
            await self._retry(worker, errand, error)
        except RefusedError as error:
            await self._refused(worker, errand, error)
        except JobFailedError as error:
            if error.kind in NO_SECOND_TRY:
                await self._end(self._failure(errand.track, worker, error))
            else:
                await self._retry(worker, errand, error)
                if error.kind == "disk-full":
                    await self._set_aside(worker, str(error))
        except InputError as error:
            await self._end(self._failure(errand.track, None, error))
        except WorkerError as error:
            await self._retry(worker, errand, error)
        finally:
            self._watcher.gone(worker.slot, errand.track)
        self._begun.pop(errand.track.place, None)

    async def _refused(self, worker: Worker, errand: Errand, error: RefusedError) -> None:
        if error.status == 429:
            await self._backlog.put_back(errand)
            now = anyio.current_time()
            if now - self._busy_since.setdefault(worker.slot, now) > BUSY_FOR_S:
                await self._set_aside(worker, str(error))
        elif error.status in (401, 403) or error.status >= 500:
            await self._backlog.put_back(errand)
            await self._set_aside(worker, str(error))
        else:
            await self._retry(worker, errand, error)

    async def _retry(self, worker: Worker, errand: Errand, error: WorkerError) -> None:
        errand.tried.append(worker.slot)
        if len(errand.tried) >= TRIES:
            await self._end(self._failure(errand.track, worker, error))
        else:
            self._watcher.said(
                f"{errand.track.name} goes back into the queue: {worker.slot} said: {error}"
            )
            await self._backlog.put_back(errand)

    async def _set_aside(self, worker: Worker, reason: str) -> None:
        if worker.slot not in self.report.set_aside:
            self.report.set_aside[worker.slot] = reason
            self._watcher.said(f"set aside: {reason}")
            await self._backlog.set_aside(worker.slot)

    async def _end(self, outcome: Outcome) -> None:
        self.report.outcomes.append(outcome)
        self._watcher.ended(outcome)
        await self._backlog.finish()

    def _failure(self, track: Track, worker: Worker | None, error: Exception) -> Outcome:
        slot = worker.slot if worker else None
        return Outcome(track.name, End.FAILED, track.place, slot, error=str(error))

    async def _separate(self, worker: Worker, track: Track, lanes: _Lanes) -> Outcome:
        """The whole way of a track: up, computed, down, in place."""
        try:
            origin = await self._upload(worker, track)
            request = self._request(track, origin)
            job_id = str(request.job_id)
            self._begun[track.place] = worker, job_id
            try:
                await worker.post(request)
                self._busy_since.pop(worker.slot, None)
            except RefusedError as error:
                if error.status == 429:
                    await anyio.sleep(min(error.pause_s or BUSY_PAUSE_S, BUSY_FOR_S))
                raise
            await lanes.computing.acquire()
        finally:
            lanes.uploading.release()
        try:
            job = await self._computed(worker, track, job_id)
            await lanes.downloading.acquire()
        finally:
            lanes.computing.release()
        try:
            await self._bring_home(worker, track, job, origin)
        finally:
            lanes.downloading.release()
        seconds = job.elapsed_seconds
        length = job.duration_seconds
        realtime = length / seconds if length and seconds else None
        return Outcome(track.name, End.DONE, track.place, worker.slot, seconds, realtime)

    async def _upload(self, worker: Worker, track: Track) -> Origin:
        if track.path is None:
            return url_origin(track.url or "")
        path = track.path
        try:
            self._watcher.moved(worker.slot, track, "reading", 0)
            origin = await to_thread.run_sync(file_origin, path, abandon_on_cancel=True)
            size = origin.size or 1
            await worker.upload(
                path,
                origin.sha256,
                lambda sent: self._watcher.moved(worker.slot, track, "uploading", sent / size),
            )
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}") from error
        return origin

    def _request(self, track: Track, origin: Origin) -> JobRequest:
        """The job of a track. Its id says what is asked, so that asking twice is one job."""
        asked = self._wanted.model_dump_json() + origin.sha256 + track.place
        return JobRequest.model_validate(
            {
                "input_url": track.url,
                "input_sha256": None if track.url else origin.sha256,
                "input_name": track.name,
                "job_id": hashlib.sha256(asked.encode()).hexdigest()[:32],
                **self._wanted.model_dump(),
            }
        )

    async def _computed(self, worker: Worker, track: Track, job_id: str) -> Job:
        """The job once it is completed."""
        pause, last, seen = FIRST_POLL_S, anyio.current_time(), None
        while True:
            job = await worker.job(job_id)
            if job.status is JobStatus.COMPLETED:
                return job
            if job.status is JobStatus.FAILED:
                reason = job.error or job.error_type or "it failed without a reason"
                raise JobFailedError(reason, job.error_type or "")
            stage = "waiting" if job.status is JobStatus.PENDING else "computing"
            self._watcher.moved(worker.slot, track, stage, job.details.percent / 100)
            now = anyio.current_time()
            if seen != (seen := (job.status, job.details)):
                last = now
            elif now - last > STALLED_AFTER_S:
                await worker.cancel(job_id)
                raise WorkerError(
                    f"worker {worker.slot}: the job has not moved for {STALLED_AFTER_S:.0f} s"
                )
            await anyio.sleep(pause)
            pause = min(pause * 1.5, SLOWEST_POLL_S)

    async def _bring_home(self, worker: Worker, track: Track, job: Job, origin: Origin) -> None:
        by_name = {file.name: file for file in job.results}
        missing = [name for name in self._wanted.file_names if name not in by_name]
        if missing:
            raise WorkerError(f"worker {worker.slot} has made no {', '.join(missing)}")
        files = tuple(by_name[name] for name in self._wanted.file_names)
        record = Record(wanted=self._wanted, origin=origin, files=files)
        try:
            staged = await to_thread.run_sync(self._staging.track, job.job_id)
            await self._download(worker, track, job, files, staged)
            place = self._staging.out / track.place
            await to_thread.run_sync(put_in_place, staged, place, record)
        except OSError as error:
            # Nothing that comes after could be kept either.
            self.report.error = cannot_write(error, self._staging.out)
            self._scope.cancel()
            await anyio.lowlevel.checkpoint()
        try:
            await worker.delete(job.job_id)
        except WorkerError:
            return  # the stems are home; what the worker keeps, it clears away itself

    async def _download(
        self, worker: Worker, track: Track, job: Job, files: Sequence[ResultFile], to: Path
    ) -> None:
        total = sum(file.size for file in files) or 1
        done = 0
        for file in files:
            before = done

            def moved(got: int, before: int = before) -> None:
                self._watcher.moved(worker.slot, track, "downloading", (before + got) / total)

            await worker.download(job.job_id, file, to / file.name, moved)
            done += file.size
