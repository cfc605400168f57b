"""Jobs by their ids, whichever worker has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
from stemserve.schema import JobStatus

from stemctl.errors import WorkerError
from stemctl.fleet.stack import Endpoint, Fleet
from stemctl.worker.client import RefusedError, Worker
from stemctl.worker.probe import ask_all

AT_MOST = 1000
POLL_S = 0.5


async def find_job(fleet: Fleet, job_id: str) -> Endpoint:
    """The worker that has a job.

    Raises:
        WorkerError: none has it, of those that answer.
    """
    answers = await ask_all(fleet, lambda worker: worker.job(job_id))
    for endpoint, answer in answers:
        if not isinstance(answer, WorkerError):
            return endpoint
    silent = [str(a) for _, a in answers if isinstance(a, WorkerError) and not _is_missing(a)]
    raise WorkerError(
        f"no worker has a job {job_id}: see `stemctl jobs`"
        + "".join(f"; {reason}" for reason in silent)
    )


async def read_log(
    endpoint: Endpoint,
    token: str | None,
    job_id: str,
    tell: Callable[[str], object],
    *,
    follow: bool,
) -> JobStatus:
    """Give a job's log to ``tell``, piece by piece; ``follow``: until the job has ended."""
    offset = 0
    async with Worker(endpoint, token) as worker:
        while True:
            answer = await worker.logs(job_id, offset)
            if answer.logs:
                tell(answer.logs)
            moved = answer.offset > offset
            offset = answer.offset
            ended = answer.status in (JobStatus.COMPLETED, JobStatus.FAILED)
            if not moved and (ended or not follow):
                return answer.status
            if not moved:
                await anyio.sleep(POLL_S)


async def unended_jobs(fleet: Fleet) -> list[str]:
    """Every job that waits or runs, on the workers that answer.

    Raises:
        WorkerError: none answers.
    """

    async def unended(worker: Worker) -> list[str]:
        rows = [
            row
            for status in (JobStatus.PENDING, JobStatus.RUNNING)
            for row in (await worker.jobs(AT_MOST, status)).jobs
        ]
        return [row.job_id for row in rows]

    answers = await ask_all(fleet, unended)
    errors = [answer for _, answer in answers if isinstance(answer, WorkerError)]
    if len(errors) == len(answers):
        raise errors[0]
    found = [
        name for _, answer in answers if not isinstance(answer, WorkerError) for name in answer
    ]
    return list(dict.fromkeys(found))


async def cancel_jobs(fleet: Fleet, job_ids: Sequence[str]) -> dict[str, str | None]:
    """By job: None where it was cancelled, else why it could not be."""

    async def cancel(worker: Worker) -> dict[str, str | None]:
        ended: dict[str, str | None] = {}
        for job_id in job_ids:
            try:
                await worker.cancel(job_id)
                ended[job_id] = None
            except RefusedError as error:
                if not _is_missing(error):
                    ended[job_id] = str(error)
        return ended

    outcome: dict[str, str | None] = {}
    errors: list[str] = []
    for _, answer in await ask_all(fleet, cancel):
        if isinstance(answer, WorkerError):
            errors.append(str(answer))
            continue
        for job_id, why in answer.items():
            if job_id not in outcome or why is None:
                outcome[job_id] = why
    unknown = "; ".join(["no worker has it", *errors])
    return {job_id: outcome.get(job_id, unknown) for job_id in job_ids}


def _is_missing(error: WorkerError) -> bool:
    return isinstance(error, RefusedError) and error.status == 404
