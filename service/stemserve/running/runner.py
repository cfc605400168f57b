"""Runs the jobs, one after another, on the one separation process, and outlives that process.

What is known of a job is in the store. The process is given one task at a time; when it dies, it is
started again and the job is run again, a few times; when the job is cancelled, it is killed.
"""

from __future__ import annotations

import logging
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
from anyio.abc import TaskGroup
from anyio.to_thread import run_sync

from stemserve.errors import DiskFullError, NoSuchJobError, SeparationDiedError, StemserveError
from stemserve.files import full_disk_told, lock
from stemserve.jobs.job import StoredJob
from stemserve.jobs.jobfiles import JobFiles
from stemserve.jobs.marks import Marks
from stemserve.jobs.store import Store
from stemserve.keeping.inputs import Inputs
from stemserve.logs import about
from stemserve.running.changes import Changes
from stemserve.running.metrics import Metrics
from stemserve.running.process import ATTEMPTS, SeparationProcess
from stemserve.running.shared import SharedResults
from stemserve.running.webhooks import Webhooks
from stemserve.schema import Gpu, JobStatus, Preset
from stemserve.settings import Settings
from stemserve.task import Advanced, Committed, Failed, Finished, Logged, SeparationTask, Started

_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_CANCEL_S = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Current:
    job_id: str
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    left: anyio.Event = field(default_factory=anyio.Event)


class Runner:
    """Runs what waits in ``store``. All but `files` is for the event loop's thread alone."""

    def __init__(self, settings: Settings, store: Store, inputs: Inputs) -> None:
        self._settings = settings
        self._store = store
        self._inputs = inputs
        self.marks = Marks(store)
        """Which segments of the jobs are on the disk."""
        self.changes = Changes()
        """Who follows jobs."""
        self.metrics = Metrics()
        self.webhooks = Webhooks(settings, store, self.files)
        self.shared = SharedResults(store, self.files, self.marks)
        self._woken = anyio.Event()
        self._current: _Current | None = None
        self._draining = False
        self.started = Started(device="", presets=[])
        """What the separation process said last when it came up."""
        self.gpu: Gpu | None = None
        self.device = "starting"
        self.presets: list[Preset] = []
        """As the separation process last told them; empty until it was up once."""
        self.unready: str | None = (
            f"The separation process is starting, and loads the preset {settings.preset}."
        )
        """Why no job could be run now; None when one could."""

    def files(self, job_id: str) -> JobFiles:
        """The files of a job."""
        return JobFiles(self._settings.data_dir / "jobs" / job_id)

    def wake(self) -> None:
        """Look for a job that waits."""
        self._woken.set()

    async def cancel(self, job_id: str) -> None:
        """Stop working at a job, which the store calls cancelled; returns once that is done."""
        current = self._current
        if current is not None and current.job_id == job_id:
            current.scope.cancel()
            with anyio.move_on_after(_CANCEL_S):
                await current.left.wait()

    async def drain(self) -> None:
        """Begin no further job; return once none runs."""
        self._draining = True
        self.unready = "The worker is ending."
        if self._current is not None:
            await self._current.left.wait()

    async def run(self) -> None:
        """Run jobs until cancelled; the separation process is gone then."""
        held = lock(path := self._settings.data_dir / "separation.lock")
        while held is None:
            self.unready = "The separation process of an earlier run has not ended yet."
            await anyio.sleep(0.1)
            held = lock(path)
        pause = _PAUSE_S
        with held:
            async with anyio.create_task_group() as group:
                while True:
                    try:
                        process = await self._start(group, held.fileno())
                    except SeparationDiedError as error:
                        self.unready = f"{error} The worker's log says more."
                        _log.error("%s Trying again in %g s.", error, pause)
                        await anyio.sleep(pause)
                        pause = min(2 * pause, _LONGEST_PAUSE_S)
                        continue
                    pause = _PAUSE_S
                    await self._run_jobs(process)

    async def _start(self, group: TaskGroup, lock_fd: int) -> SeparationProcess:
        preset = self._settings.preset
        process = await SeparationProcess.start(
            self._settings, group, self._chatter, lock_fd, preload=preset
        )
        group.start_soon(self._wake_at_end, process)
        self.started = process.started
        self.gpu = process.started.gpu
        self.device = process.started.device
        self.presets = process.started.presets
        self.unready = None
        _log.info("separation is up on %s", self.device)
        return process

    async def _wake_at_end(self, process: SeparationProcess) -> None:
        await process.wait()
        self.wake()

    async def _run_jobs(self, process: SeparationProcess) -> None:
        """Run jobs on ``process`` for as long as it lives."""
        try:
            while True:
                await self._run_job(process, await self._next_job(process))
        except SeparationDiedError as error:
            self.unready = f"{error} It is being started again."
            _log.warning("%s Starting it again.", error)
        except DiskFullError as error:
            self.unready = str(error)
            _log.error("%s", error)
            await process.kill()
            await self._requeue()
        finally:
            await process.kill()

    async def _requeue(self) -> None:
        """Let the job that ran wait again, as soon as there is room to write that down."""
        while True:
            await anyio.sleep(_PAUSE_S)
            with suppress(DiskFullError):
                await run_sync(self._store.requeue)
                return

    async def _next_job(self, process: SeparationProcess) -> StoredJob:
        while True:
            self._woken = anyio.Event()
            if process.ended:
                raise SeparationDiedError(await process.last_words())
            job = None if self._draining else await run_sync(self._store.claim)
            if job is not None:
                return job
            await self._woken.wait()

    async def _run_job(self, process: SeparationProcess, job: StoredJob) -> None:
        current = self._current = _Current(job.job_id)
        try:
            with current.scope, about(job.job_id):
                await self._separate(process, job)
            if current.scope.cancelled_caught:
                await self._abandon(process, job)
                self._log(job.job_id, "cancelled")
            await self.show(job.job_id)
            if process.busy:
                raise SeparationDiedError(f"Job {job.job_id} was cancelled.")
        except DiskFullError:
            await self._abandon(process, job)
            raise
        finally:
            self._current = None
            current.left.set()

    async def _abandon(self, process: SeparationProcess, job: StoredJob) -> None:
        """Remove what there is of a job's results, once nobody writes there any more."""
        if process.busy:
            await process.kill()
        await run_sync(self.files(job.job_id).clear)

    async def _separate(self, process: SeparationProcess, job: StoredJob) -> None:
        await self.show(job.job_id)
        if not await run_sync(self._store.is_running, job.job_id):
            return  # cancelled before `cancel` could see it here
        try:
            path = await self._input(job)
            job = replace(job, input_sha256=path.name)  # an input's name is its digest
            if await run_sync(self.shared.complete, job, path.name, self.device):
                return
            task = self._task(job, path)
        except (StemserveError, OSError) as error:
            await self._fail(job, str(error), getattr(error, "type", "input-unreadable"))
            return
        self._log(job.job_id, f"separating with {job.content.preset} on {self.device}")
        _log.info("job %s: separating", job.job_id)
        try:
            await process.send(task)
            while not await self._note(job, await process.event(self._settings.stall_timeout)):
                pass
        except SeparationDiedError as error:
            await self._interrupted(process, job, error)
            raise

    async def _input(self, job: StoredJob) -> Path:
        """The job's input on disk, fetched if it is not there yet."""
        sha256, url = job.input_sha256, job.content.input_url
        if sha256 is not None and (url is None or self._inputs.find(sha256) is not None):
            return self._inputs.path(sha256)
        from stemserve.carrying.fetch import fetch  # its HTTP client would slow every start down

        self._log(job.job_id, "fetching the input")
        async with aclosing(fetch(str(url), self._settings)) as chunks:
            found = await self._inputs.store(chunks)
        await run_sync(self._store.fetched, job.job_id, found.sha256)
        self._log(job.job_id, f"fetched {found.size} bytes")
        return self._inputs.path(found.sha256)

    def _task(self, job: StoredJob, path: Path) -> SeparationTask:
        files = self.files(job.job_id)
        folder = files.folder
        with full_disk_told():
            folder.mkdir(parents=True, exist_ok=True)
        task = job.content.task(
            job.job_id,
            path,
            folder,
            input_sha256=job.input_sha256,
            input_name=job.input_name,
            part=lambda sha256: files.held(sha256) or self._inputs.path(sha256),
        )
        limits = {
            "longest_seconds": self._settings.duration_limit,
            "most_channels": self._settings.channel_limit,
        }
        return task.model_copy(update={**limits, "keep_partial": True})

    async def _note(self, job: StoredJob, event: object) -> bool:
        """Write an event down; True if it is the job's last."""
        match event:
            case Advanced(tasks=tasks, details=details, duration_seconds=length, vram_used=vram):
                if self.gpu is not None and vram is not None:
                    self.gpu = self.gpu.model_copy(update={"vram_used": vram})
                with suppress(DiskFullError):  # the separation will meet it too, and clean up
                    await run_sync(self._store.advance, job.job_id, tasks, details, length)
                await self.show(job.job_id)
            case Committed(segments=segments):
                with suppress(DiskFullError):
                    await run_sync(self.marks.put, job.job_id, segments)
            case Logged(line=line):
                self._log(job.job_id, line)
            case Finished(results=results, duration_seconds=length):
                key = self.shared.key(job.content, job.input_sha256 or "", self.device)
                await run_sync(self._store.finish, job.job_id, results, length, key)
                await run_sync(self.files(job.job_id).let_go)
                self._log(job.job_id, "completed")
                _log.info("job %s: completed", job.job_id)
                return True
            case Failed(error=error, error_type=error_type):
                await self._fail(job, error, error_type)
                return True
        return False

    async def _fail(self, job: StoredJob, error: str, error_type: str) -> None:
        await run_sync(self._store.fail, job.job_id, error, error_type)
        self._log(job.job_id, f"failed ({error_type}): {error}")
        _log.info("job %s: failed (%s)", job.job_id, error_type)

    async def _interrupted(
        self, process: SeparationProcess, job: StoredJob, error: SeparationDiedError
    ) -> None:
        message = f"{error} That happened {ATTEMPTS} times over this job; its log says more."
        after = await run_sync(self._store.interrupted, job.job_id, message, error.type, ATTEMPTS)
        if after is None:
            return
        self._log(job.job_id, f"attempt {after.attempts} of {ATTEMPTS}: {error}")
        if after.status is JobStatus.FAILED:
            await self._abandon(process, job)
        await self.show(job.job_id)

    async def show(self, job_id: str) -> None:
        """Bring progress.txt up to date, and tell whoever is to know of the job's state."""
        with suppress(NoSuchJobError):
            job = await run_sync(self._store.get, job_id)
            self.changes.tell(job)
            self.metrics.see(job)
            if job.ended_at is not None:
                self.webhooks.wake()
            try:
                await run_sync(self.files(job_id).show, job)
            except (OSError, DiskFullError) as error:
                _log.warning("job %s: no progress.txt: %s", job_id, error)

    def _chatter(self, line: str) -> None:
        if self._current is None:
            _log.info("separation: %s", line)
        else:
            self._log(self._current.job_id, line)

    def _log(self, job_id: str, line: str) -> None:
        try:
            self.files(job_id).log(line)
        except OSError as error:
            _log.warning("job %s: no log: %s", job_id, error)
