"""Jobs: posting, following, cancelling and forgetting them."""

from __future__ import annotations

import secrets
from typing import Annotated, Literal

from anyio import from_thread
from anyio.to_thread import run_sync
from fastapi import APIRouter, Query

from stemserve.errors import (
    DiskFullError,
    EndingError,
    JobEndedError,
    JobExistsError,
    JobRunningError,
    NoSuchInputError,
    NoSuchJobError,
    NotReadyError,
    PresetUnavailableError,
    QueueFullError,
    UnknownNameError,
)
from stemserve.jobs.job import resolve
from stemserve.jobs.store import QueueLimits
from stemserve.jobs.told import row, told
from stemserve.problems import declared
from stemserve.routes.parts import Caller, Worker
from stemserve.schema import (
    Deleted,
    Job,
    JobCreated,
    JobId,
    JobRequest,
    Jobs,
    JobStatus,
    Logs,
)

router = APIRouter(tags=["jobs"])

_MESSAGES = {
    JobStatus.PENDING: "The job waits for its turn.",
    JobStatus.RUNNING: "The job is running.",
    JobStatus.COMPLETED: "The job is completed.",
    JobStatus.FAILED: "The job failed.",
}


@router.post(
    "/job",
    responses=declared(
        UnknownNameError,
        NoSuchInputError,
        PresetUnavailableError,
        JobExistsError,
        QueueFullError,
        NotReadyError,
        EndingError,
        DiskFullError,
    ),
)
def post_job(request: JobRequest, worker: Worker, caller: Caller) -> JobCreated:
    """Queue a job. The same job posted again is the job that is there."""
    if not worker.runner.presets:
        raise NotReadyError(f"Models not ready: {worker.runner.unready}")
    settings = worker.settings
    content = resolve(request, worker.runner.presets, settings.preset, strict=settings.strict)
    by_content = content.digest() if content.input_sha256 else secrets.token_hex(16)
    job_id = request.job_id or by_content
    hook = None if request.webhook_url is None else str(request.webhook_url)
    if hook is not None:
        worker.runner.webhooks.check(hook)
    limits = QueueLimits(settings.queue_limit, settings.caller_queue_limit or settings.queue_limit)
    with worker.retention.removing_nothing(), worker.lease.taking_work():
        if content.input_sha256 is not None:
            worker.retention.use_input(content.input_sha256)
        parts = [worker.inputs.path(part.input_sha256) for part in content.parts]
        job = worker.store.add(job_id, content, request.input_name, limits, caller)
        if parts and job.status is JobStatus.PENDING:
            worker.runner.files(job.job_id).hold(parts)
        if hook is not None:
            worker.runner.webhooks.add(job.job_id, hook)
    if worker.runner.shared.complete_waiting(job, worker.runner.device):
        job = worker.store.get(job_id)
        from_thread.run(worker.runner.show, job_id)
    from_thread.run_sync(worker.runner.wake)
    from_thread.run_sync(worker.runner.webhooks.wake)
    return JobCreated(job_id=job.job_id, status=job.status, message=_MESSAGES[job.status])


@router.get("/job/{job_id}", responses=declared(NoSuchJobError))
def get_job(job_id: JobId, worker: Worker) -> Job:
    """How far a job is, and which results it has."""
    return told(worker.store.get(job_id))


@router.post(
    "/job/{job_id}/cancel", responses=declared(NoSuchJobError, JobEndedError, DiskFullError)
)
async def cancel_job(job_id: JobId, worker: Worker) -> Job:
    """End a job that waits or runs; it is failed then, with the error type ``cancelled``."""
    job = await run_sync(worker.store.cancel, job_id)
    await worker.runner.cancel(job_id)
    await worker.runner.show(job_id)
    return told(job)


@router.delete("/job/{job_id}", responses=declared(NoSuchJobError, JobRunningError, DiskFullError))
def delete_job(job_id: JobId, worker: Worker) -> Deleted:
    """Forget a job that does not run; delete its results, and an input that no other job has."""
    unused = worker.store.delete(job_id)
    worker.deliveries.give_up(job_id)
    worker.runner.files(job_id).delete()
    from_thread.run_sync(worker.runner.changes.gone, job_id)
    if unused is not None:
        worker.retention.drop_input(unused)
    return Deleted(job_id=job_id)


@router.get("/job/{job_id}/logs", responses=declared(NoSuchJobError))
def get_logs(
    job_id: JobId, worker: Worker, offset: Annotated[int, Query(ge=0, description="In bytes")] = 0
) -> Logs:
    """The job's log from a byte offset on; go on from the offset in the answer."""
    job = worker.store.get(job_id)
    logs, end = worker.runner.files(job_id).read_log(offset)
    return Logs(logs=logs, offset=end, status=job.status)


@router.get("/jobs")
def get_jobs(
    worker: Worker,
    status: Annotated[
        JobStatus | Literal[""] | None, Query(description="Only these; none or empty: all")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many")] = 50,
) -> Jobs:
    """The newest jobs, of one status or of any."""
    jobs, total = worker.store.newest(JobStatus(status) if status else None, limit)
    return Jobs(jobs=[row(job) for job in jobs], total=total)
