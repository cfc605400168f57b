"""The jobs of a worker, in SQLite: what survives the end of either of its processes.

Each call is one short transaction, and may be made from any thread. Whatever changes a running job
says so only while it still runs: a job that was cancelled meanwhile stays cancelled.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from stemserve import clock
from stemserve.errors import (
    JobEndedError,
    JobExistsError,
    JobRunningError,
    QueueFullError,
)
from stemserve.jobs import jobtable
from stemserve.jobs.database import Database
from stemserve.jobs.job import JobContent, StoredJob
from stemserve.schema import Details, JobStatus, ResultFile, Tasks

CANCELLED = "cancelled"


@dataclass(frozen=True)
class QueueLimits:
    """How many jobs may wait: of all callers, and of one."""

    all: int
    caller: int


class Store:
    """The table of jobs. Any call may raise `DiskFullError`, having changed nothing."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path, jobtable.TABLE, jobtable.COLUMNS, jobtable.INDICES)
        """For those who keep something beside a job, in tables of their own."""
        self._writing = self.database.writing
        self._reading = self.database.reading

    def close(self) -> None:
        """Fold the write-ahead log into the file."""
        self.database.close()

    def add(
        self,
        job_id: str,
        content: JobContent,
        input_name: str | None,
        limits: QueueLimits,
        caller: str | None = None,
    ) -> StoredJob:
        """Queue a job, or find it: the same id with the same content is the same job.

        A failed job is queued again, and so is one whose results are gone.

        Raises:
            JobExistsError: there is a job of that id with other content.
            QueueFullError: as many jobs wait already as may, or as many of that caller.
        """
        text = content.text()
        with self._writing() as db:
            row = db.execute("SELECT * FROM jobs WHERE job_id = ?", [job_id]).fetchone()
            if row is not None and row["content"] != text:
                raise JobExistsError(f"Job {job_id} exists and asks for something else.")
            if row is not None and row["status"] != JobStatus.FAILED and not row["results_gone"]:
                return jobtable.job_of(row)
            _check_queue(db, limits, caller)
            now = clock.now()
            if row is not None:
                db.execute(jobtable.QUEUE_AGAIN, [caller, now, job_id])
            else:
                db.execute(
                    "INSERT INTO jobs (job_id, content, input_sha256, input_name, status,"
                    " created_at, caller) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [
                        job_id,
                        text,
                        content.input_sha256,
                        input_name,
                        JobStatus.PENDING,
                        now,
                        caller,
                    ],
                )
            return jobtable.get(db, job_id)

    def get(self, job_id: str) -> StoredJob:
        """The job; raises `NoSuchJobError`."""
        with self._reading() as db:
            return jobtable.get(db, job_id)

    def newest(self, status: JobStatus | None, limit: int) -> tuple[list[StoredJob], int]:
        """The newest jobs, and how many there are without the limit."""
        where, given = ("", []) if status is None else (" WHERE status = ?", [status])
        with self._reading() as db:
            rows = db.execute(
                f"SELECT * FROM jobs{where} ORDER BY turn DESC LIMIT ?",  # noqa: S608 (no input)
                [*given, limit],
            ).fetchall()
            total = jobtable.count(db, status)
        return [jobtable.job_of(row) for row in rows], total

    def running(self) -> list[StoredJob]:
        """The jobs that run; found at once, however many there are."""
        with self._reading() as db:
            return [
                jobtable.job_of(row)
                for row in db.execute("SELECT * FROM jobs WHERE status = 'running'")
            ]

    def count(self, status: JobStatus) -> int:
        """How many jobs are in that status."""
        with self._reading() as db:
            return jobtable.count(db, status)

    def delete(self, job_id: str) -> str | None:
        """Forget a job; raises `NoSuchJobError`, and `JobRunningError` while it runs.

        Returns the input that no job has any more, if there is one.
        """
        with self._writing() as db:
            job = jobtable.get(db, job_id)
            if job.status is JobStatus.RUNNING:
                raise JobRunningError(f"Job {job_id} is running; cancel it before deleting it.")
            db.execute("DELETE FROM jobs WHERE job_id = ?", [job_id])
            left = db.execute(
                "SELECT 1 FROM jobs WHERE input_sha256 = ? LIMIT 1", [job.input_sha256]
            ).fetchone()
            return job.input_sha256 if left is None else None

    def cancel(self, job_id: str) -> StoredJob:
        """End a job that waits or runs; raises `NoSuchJobError`, and `JobEndedError` else."""
        with self._writing() as db:
            job = jobtable.get(db, job_id)
            if job.status in (JobStatus.COMPLETED, JobStatus.FAILED):
                raise JobEndedError(f"Job {job_id} is {job.status} already.")
            jobtable.end(db, job_id, JobStatus.FAILED, "The job was cancelled.", CANCELLED)
            return jobtable.get(db, job_id)

    def claim(self) -> StoredJob | None:
        """The job that waits the longest, now running; None when none waits."""
        with self._writing() as db:
            row = db.execute(
                "SELECT job_id FROM jobs WHERE status = 'pending' ORDER BY turn LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE jobs SET status = 'running', started_at = coalesce(started_at, ?)"
                " WHERE job_id = ?",
                [clock.now(), row["job_id"]],
            )
            return jobtable.get(db, row["job_id"])

    def is_running(self, job_id: str) -> bool:
        """Whether the job runs; false for one that is gone."""
        with self._reading() as db:
            return jobtable.is_running(db, job_id)

    def take(self, job_id: str) -> bool:
        """Let a job that waits run, whatever waits before it; false if it does not wait."""
        with self._writing() as db:
            return bool(
                db.execute(
                    "UPDATE jobs SET status = 'running', started_at = coalesce(started_at, ?)"
                    " WHERE job_id = ? AND status = 'pending'",
                    [clock.now(), job_id],
                ).rowcount
            )

    def put_back(self, job_id: str) -> None:
        """Let a running job wait again."""
        with self._writing() as db:
            db.execute(
                "UPDATE jobs SET status = 'pending' WHERE job_id = ? AND status = 'running'",
                [job_id],
            )

    def with_results(self, result_key: str) -> StoredJob | None:
        """A completed job that has results of that key."""
        with self._reading() as db:
            row = db.execute(
                "SELECT * FROM jobs WHERE result_key = ? AND status = 'completed'"
                " AND NOT results_gone ORDER BY turn DESC LIMIT 1",
                [result_key],
            ).fetchone()
        return None if row is None else jobtable.job_of(row)

    def requeue(self) -> int:
        """Let every running job wait again: whoever ran it is gone. Returns how many."""
        with self._writing() as db:
            return db.execute(
                "UPDATE jobs SET status = 'pending' WHERE status = 'running'"
            ).rowcount

    def fetched(self, job_id: str, sha256: str) -> None:
        """Note under which name the input of a job was stored."""
        with self._writing() as db:
            db.execute("UPDATE jobs SET input_sha256 = ? WHERE job_id = ?", [sha256, job_id])

    def advance(
        self, job_id: str, tasks: Tasks, details: Details, duration_seconds: float | None
    ) -> None:
        """Note how far a running job is."""
        with self._writing() as db:
            db.execute(
                "UPDATE jobs SET tasks = ?, details = ?,"
                " duration_seconds = coalesce(?, duration_seconds)"
                " WHERE job_id = ? AND status = 'running'",
                [tasks.model_dump_json(), details.model_dump_json(), duration_seconds, job_id],
            )

    def finish(
        self,
        job_id: str,
        results: list[ResultFile],
        duration_seconds: float,
        result_key: str | None = None,
    ) -> None:
        """Note the results of a running job, which is now completed."""
        with self._writing() as db:
            if not jobtable.is_running(db, job_id):
                return
            job = jobtable.get(db, job_id)
            total = max(job.details.total_segments, 1)
            details = Details(completed_segments=total, total_segments=total, percent=100)
            db.execute(
                "UPDATE jobs SET results = ?, details = ?, duration_seconds = ?, result_key = ?"
                " WHERE job_id = ?",
                [
                    jobtable.RESULTS.dump_json(results).decode(),
                    details.model_dump_json(),
                    duration_seconds,
                    result_key,
                    job_id,
                ],
            )
            jobtable.end(db, job_id, JobStatus.COMPLETED, None, None)

    def fail(self, job_id: str, error: str, error_type: str) -> None:
        """Note why a running job failed."""
        with self._writing() as db:
            if jobtable.is_running(db, job_id):
                jobtable.end(db, job_id, JobStatus.FAILED, error, error_type)

    def interrupted(self, job_id: str, error: str, error_type: str, limit: int) -> StoredJob | None:
        """Note that a running job lost its process.

        It waits again, first in the queue, unless this happened for the ``limit``-th time without
        a segment more in between. Returns the job as it is then; None if it did not run.
        """
        with self._writing() as db:
            if not jobtable.is_running(db, job_id):
                return None
            job = jobtable.get(db, job_id)
            done = job.details.completed_segments
            reached = db.execute("SELECT reached FROM jobs WHERE job_id = ?", [job_id]).fetchone()
            attempts = 1 if done > reached[0] else job.attempts + 1
            db.execute(
                "UPDATE jobs SET attempts = ?, reached = max(reached, ?) WHERE job_id = ?",
                [attempts, done, job_id],
            )
            if attempts < limit:
                db.execute("UPDATE jobs SET status = 'pending' WHERE job_id = ?", [job_id])
            else:
                jobtable.end(db, job_id, JobStatus.FAILED, error, error_type)
            return jobtable.get(db, job_id)


def _check_queue(db: sqlite3.Connection, limits: QueueLimits, caller: str | None) -> None:
    waiting = jobtable.count(db, JobStatus.PENDING)
    if waiting >= limits.all:
        raise QueueFullError(f"{waiting} jobs wait already; try again later.")
    if caller is not None and limits.caller < limits.all:
        own = db.execute(
            "SELECT count(*) FROM jobs WHERE status = 'pending' AND caller = ?", [caller]
        ).fetchone()[0]
        if own >= limits.caller:
            raise QueueFullError(f"{own} of your jobs wait already; try again later.")
