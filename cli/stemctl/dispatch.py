"""Spreads a run's tracks over the workers, and brings their stems home.

Each worker has three lanes, for one track each: uploading, computing, downloading. So the next
track is there when one is done, and no worker holds more than it can soon begin. A track that
fails is tried on other workers; a worker that cannot be used is set aside; a place in the output
folder gets a whole track or nothing. The client names the jobs, so that asking again for the same
is the same job, also for the next run.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

import anyio
from anyio import to_thread
from stemserve.schema import Job

from stemctl.backlog import Backlog, Errand
from stemctl.client import RefusedError, UnreachableError, Worker
from stemctl.errors import InputError, WorkerError
from stemctl.outputs import Origin, Record, Staging, cannot_write, put_in_place
from stemctl.progress import Watcher
from stemctl.report import End, Outcome, Report, left
from stemctl.track import Track
from stemctl.trip import JobFailedError, computed, download, job_request, post, results, upload

TRIES = 3
STRIKES = 5
"""Failures (5xx) in a row of a worker until it is set aside; more than one bad track can cause."""
BUSY_PAUSE_S = 5.0
BUSY_FOR_S = 1800.0
"""A worker whose queue is full of others' jobs for so long is set aside."""
RENEW_PAUSE_S = 300.0
GOODBYE_S = 10.0
"""How long a stopped run may take to cancel its jobs."""

NO_SECOND_TRY = frozenset({"not-audio", "cancelled"})
"""Types of a job's error that another worker would not mend."""


class _SetAsideError(Exception):
    """The worker was set aside while the track waited for a lane there."""


class _Lanes:
    """A worker's room: one track in each lane."""

    def __init__(self) -> None:
        self.uploading = anyio.Semaphore(1)
        self.computing = anyio.Semaphore(1)
        self.downloading = anyio.Semaphore(1)


class Dispatch:
    """One run. `run` returns when every track has ended, or the run was stopped.

    ``serves`` says by slot which presets the worker can serve.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        serves: Mapping[str, frozenset[str]],
        staging: Staging,
        watcher: Watcher,
    ) -> None:
        self._workers = workers
        self._serves = serves
        self._staging = staging
        self._watcher = watcher
        self._scope = anyio.CancelScope()
        self._goodbye = anyio.CancelScope(shield=True)
        self._begun: dict[str, tuple[Worker, str]] = {}
        self._busy_since: dict[str, float] = {}
        self._strikes: Counter[str] = Counter()
        self.report = Report(str(staging.out))

    async def run(self, tracks: Sequence[Track]) -> Report:
        """Bring all tracks home, as far as that is possible."""
        self._backlog = Backlog(tracks, self._serves)
        async with anyio.create_task_group() as watching:
            watching.start_soon(self._stop_on_signal)
            watching.start_soon(self._renew_leases)
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

    async def _renew_leases(self) -> None:
        """Tell the workers, again and again, that somebody still wants them."""

        async def renew(worker: Worker) -> None:
            with suppress(WorkerError):  # an older one has no lease, and one that is gone none too
                await worker.renew_lease()

        while True:
            async with anyio.create_task_group() as renewing:
                for worker in self._workers:
                    if worker.slot not in self.report.set_aside:
                        renewing.start_soon(renew, worker)
            await anyio.sleep(RENEW_PAUSE_S)

    async def _cancel_begun(self) -> None:
        async def cancel(worker: Worker, job_id: str) -> None:
            with suppress(WorkerError):  # it has ended, or the worker is not to be had
                await worker.cancel(job_id)

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
        hindrance: Exception | None = None
        try:
            await self._separate(worker, errand.track, lanes)
        except (WorkerError, InputError, _SetAsideError) as error:
            hindrance = error
            self._begun.pop(errand.track.place, None)
        finally:
            self._watcher.gone(worker.slot, errand.track)
        match hindrance:
            case _SetAsideError():
                await self._backlog.put_back(errand)
            case InputError():
                await self._end(self._failure(errand.track, None, hindrance))
            case JobFailedError() if hindrance.kind in NO_SECOND_TRY:
                await self._end(self._failure(errand.track, worker, hindrance))
            case RefusedError():
                await self._refused(worker, errand, hindrance)
            case WorkerError():
                full = isinstance(hindrance, JobFailedError) and hindrance.kind == "disk-full"
                if full or isinstance(hindrance, UnreachableError):
                    await self._set_aside(worker, hindrance)
                await self._retry(worker, errand, hindrance)

    async def _refused(self, worker: Worker, errand: Errand, error: RefusedError) -> None:
        if error.status == 429:
            now = anyio.current_time()
            if now - self._busy_since.setdefault(worker.slot, now) > BUSY_FOR_S:
                await self._set_aside(worker, error)
            await self._backlog.put_back(errand)
        elif error.status in (401, 403, 507):
            await self._set_aside(worker, error)
            await self._backlog.put_back(errand)
        else:
            if error.status >= 500:
                self._strikes[worker.slot] += 1
                if self._strikes[worker.slot] >= STRIKES:
                    await self._set_aside(worker, error)
            await self._retry(worker, errand, error)

    async def _retry(self, worker: Worker, errand: Errand, error: WorkerError) -> None:
        errand.tried.append(worker.slot)
        if len(errand.tried) >= TRIES:
            await self._end(self._failure(errand.track, worker, error))
        else:
            name = errand.track.name
            self._watcher.said(f"{name} failed on {worker.slot}, back into the queue: {error}")
            await self._backlog.put_back(errand)

    async def _set_aside(self, worker: Worker, error: WorkerError) -> None:
        if worker.slot not in self.report.set_aside:
            self.report.set_aside[worker.slot] = str(error)
            self._watcher.said(f"worker {worker.slot} is set aside: {error}")
            await self._backlog.set_aside(worker.slot)

    async def _end(self, outcome: Outcome) -> None:
        self.report.outcomes.append(outcome)
        self._watcher.ended(outcome)
        await self._backlog.finish()

    def _failure(self, track: Track, worker: Worker | None, error: Exception) -> Outcome:
        slot = worker.slot if worker else None
        return Outcome(track.name, End.FAILED, track.place, slot, error=str(error))

    async def _separate(self, worker: Worker, track: Track, lanes: _Lanes) -> None:
        """The whole way of a track: up, computed, down, in place."""
        try:
            origin = await upload(worker, track, self._watcher)
            request = await job_request(track, origin)
            job_id = str(request.job_id)
            self._begun[track.place] = worker, job_id
            try:
                await post(worker, track, request)
                self._busy_since.pop(worker.slot, None)
            except RefusedError as error:
                if error.status == 429:
                    self._watcher.moved(worker.slot, track, "waiting", 0)
                    await anyio.sleep(min(error.pause_s or BUSY_PAUSE_S, BUSY_FOR_S))
                raise
            await lanes.computing.acquire()
        finally:
            lanes.uploading.release()
        try:
            if worker.slot in self.report.set_aside:
                raise _SetAsideError
            job = await computed(worker, track, job_id, self._watcher)
            await lanes.downloading.acquire()
        finally:
            lanes.computing.release()
        try:
            await self._bring_home(worker, track, job, origin)
        finally:
            lanes.downloading.release()

    async def _bring_home(self, worker: Worker, track: Track, job: Job, origin: Origin) -> None:
        files = results(worker, job, track)
        record = Record(wanted=track.wanted, origin=origin, files=files)
        try:
            staged = await to_thread.run_sync(self._staging.track, job.job_id)
            await download(worker, track, job.job_id, files, staged, self._watcher)
            await to_thread.run_sync(put_in_place, staged, self._staging.out, track, record)
        except OSError as error:
            # Nothing that comes after could be kept either.
            self.report.error = cannot_write(error, self._staging.out)
            self._scope.cancel()
            await anyio.lowlevel.checkpoint()
        seconds, length = job.elapsed_seconds, job.duration_seconds
        realtime = length / seconds if length and seconds else None
        with anyio.CancelScope(shield=True):  # what is in place is reported, whatever comes
            await self._end(
                Outcome(track.name, End.DONE, track.place, worker.slot, seconds, realtime)
            )
        self._begun.pop(track.place, None)
        self._strikes[worker.slot] = 0
        with anyio.move_on_after(GOODBYE_S, shield=True), suppress(WorkerError):
            # If it fails: the stems are home, and the worker may keep its own.
            await worker.delete(job.job_id)
