"""A job as callers are told of it."""

from __future__ import annotations

from datetime import UTC, datetime

from stemserve.jobs.job import StoredJob
from stemserve.jobs.jobfiles import STATES
from stemserve.schema import Job, JobRow, JobStatus


def told(job: StoredJob) -> Job:
    """The whole job."""
    details = job.details
    if job.status is not JobStatus.RUNNING:  # what a process that is gone expected
        details = details.model_copy(update={"eta_seconds": None})
    return Job(
        job_id=job.job_id,
        status=job.status,
        state=STATES[job.status],
        tasks=job.tasks,
        details=details,
        elapsed_seconds=job.elapsed_seconds,
        error=job.error,
        error_type=job.error_type,
        preset=job.content.preset,
        input_name=job.input_name,
        input_sha256=job.input_sha256,
        duration_seconds=job.duration_seconds,
        results=job.results,
        results_gone=job.results_gone,
    )


def row(job: StoredJob) -> JobRow:
    """The job in a list of many."""
    return JobRow(
        job_id=job.job_id,
        status=job.status,
        created_at=datetime.fromtimestamp(job.created_at, UTC),
        completed_at=None if job.ended_at is None else datetime.fromtimestamp(job.ended_at, UTC),
        preset=job.content.preset,
        input_name=job.input_name,
    )
