"""The jobs of a worker, in SQLite: what survives the end of either of its processes.

Each call is one short transaction, and may be made from any thread. Whatever changes a running job
says so only while it still runs: a job that was cancelled meanwhile stays cancelled.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from stemserve import clock
from stemserve.database import Database
from stemserve.errors import (
    JobEndedError,
    JobExistsError,
    JobRunningError,
    NoSuchJobError,
    QueueFullError,
)
from stemserve.jobs import JobContent, StoredJob
from stemserve.schema import Details, JobStatus, ResultFile, Tasks

CANCELLED = "cancelled"

_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    turn INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL UNIQUE,
    content TEXT NOT NULL,
    input_sha256 TEXT,
    input_name TEXT,
    status TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    tasks TEXT NOT NULL DEFAULT '{}',
    details TEXT NOT NULL DEFAULT '{}',
    duration_seconds REAL,
    results TEXT NOT NULL DEFAULT '[]',
    error TEXT,
    error_type TEXT
);
"""

_COLUMNS = {
    "caller": "TEXT",
    "reached": "INTEGER NOT NULL DEFAULT 0",
    "result_key": "TEXT",
    "results_gone": "INTEGER NOT NULL DEFAULT 0",
}
"""What the table has got since its first version. ``caller``: who posted the job. ``reached``: the
most segments that were finished when a process died over it. ``result_key``: of all that its
results depend on."""

_INDICES = """
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, turn);
CREATE INDEX IF NOT EXISTS jobs_by_input ON jobs (input_sha256);
CREATE INDEX IF NOT EXISTS jobs_by_caller ON jobs (status, caller);
CREATE INDEX IF NOT EXISTS jobs_by_result ON jobs (result_key);
"""

_QUEUE_AGAIN = """
UPDATE jobs SET status = 'pending', attempts = 0, reached = 0, caller = ?, created_at = ?,
    result_key = NULL, results_gone = 0,
    started_at = NULL,
    ended_at = NULL, tasks = '{}', details = '{}', results = '[]', error = NULL,
    error_type = NULL, turn = (SELECT max(turn) + 1 FROM jobs)
WHERE job_id = ?
"""

_RESULTS = TypeAdapter(list[ResultFile])


@dataclass(frozen=True)
class QueueLimits:
    """How many jobs may wait: of all callers, and of one."""

    all: int
    caller: int


class Store:
    """The table of jobs. Any call may raise `DiskFullError`, having changed nothing."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path, _TABLE, _COLUMNS, _INDICES)
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
                return _job(row)
            _check_queue(db, limits, caller)
            now = clock.now()
            if row is not None:
                db.execute(_QUEUE_AGAIN, [caller, now, job_id])
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
            return _get(db, job_id)

    def get(self, job_id: str) -> StoredJob:
        """The job; raises `NoSuchJobError`."""
        with self._reading() as db:
            return _get(db, job_id)

    def newest(self, status: JobStatus | None, limit: int) -> tuple[list[StoredJob], int]:
        """The newest jobs, and how many there are without the limit."""
        where, given = ("", []) if status is None else (" WHERE status = ?", [status])
        with self._reading() as db:
            rows = db.execute(
                f"SELECT * FROM jobs{where} ORDER BY turn DESC LIMIT ?",  # noqa: S608 (no input)
                [*given, limit],
            ).fetchall()
            total = _count(db, status)
        return [_job(row) for row in rows], total

    def running(self) -> list[StoredJob]:
        """The jobs that run; found at once, however many there are."""
        with self._reading() as db:
            return [_job(row) for row in db.execute("SELECT * FROM jobs WHERE status = 'running'")]

    def count(self, status: JobStatus) -> int:
        """How many jobs are in that status."""
        with self._reading() as db:
            return _count(db, status)

    def delete(self, job_id: str) -> str | None:
        """Forget a job; raises `NoSuchJobError`, and `JobRunningError` while it runs.

        Returns the input that no job has any more, if there is one.
        """
        with self._writing() as db:
            job = _get(db, job_id)
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
            job = _get(db, job_id)
            if job.status in (JobStatus.COMPLETED, JobStatus.FAILED):
                raise JobEndedError(f"Job {job_id} is {job.status} already.")
            _end(db, job_id, JobStatus.FAILED, "The job was cancelled.", CANCELLED)
            return _get(db, job_id)

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
            return _get(db, row["job_id"])

    def is_running(self, job_id: str) -> bool:
        """Whether the job runs; false for one that is gone."""
        with self._reading() as db:
            return _is_running(db, job_id)

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
        return None if row is None else _job(row)

    def inputs_needed(self) -> set[str]:
        """The inputs of the jobs that wait or run."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT DISTINCT input_sha256 FROM jobs WHERE status IN ('pending', 'running')"
            ).fetchall()
        return {row["input_sha256"] for row in rows if row["input_sha256"]}

    def ended(self) -> dict[str, int]:
        """The jobs that are over, and how many bytes of results they have."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT job_id, results FROM jobs WHERE status IN ('completed', 'failed')"
            ).fetchall()
        return {
            row["job_id"]: sum(result["size"] for result in json.loads(row["results"]))
            for row in rows
        }

    def let_go(self, job_id: str) -> bool:
        """Note that a completed job's results are gone; forget one that has none. Whether it was
        over.
        """
        with self._writing() as db:
            row = db.execute("SELECT * FROM jobs WHERE job_id = ?", [job_id]).fetchone()
            if row is None or row["status"] in (JobStatus.PENDING, JobStatus.RUNNING):
                return False
            if row["status"] == JobStatus.FAILED or row["results_gone"]:
                db.execute("DELETE FROM jobs WHERE job_id = ?", [job_id])
            else:
                db.execute(
                    "UPDATE jobs SET results = '[]', results_gone = 1 WHERE job_id = ?", [job_id]
                )
            return True

    def status(self, job_id: str) -> JobStatus | None:
        """Where a job is; None if there is none, or nothing is kept of it."""
        with self._reading() as db:
            row = db.execute(
                "SELECT status FROM jobs WHERE job_id = ? AND NOT results_gone", [job_id]
            ).fetchone()
        return None if row is None else JobStatus(row["status"])

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
            if not _is_running(db, job_id):
                return
            job = _get(db, job_id)
            total = max(job.details.total_segments, 1)
            details = Details(completed_segments=total, total_segments=total, percent=100)
            db.execute(
                "UPDATE jobs SET results = ?, details = ?, duration_seconds = ?, result_key = ?"
                " WHERE job_id = ?",
                [
                    _RESULTS.dump_json(results).decode(),
                    details.model_dump_json(),
                    duration_seconds,
                    result_key,
                    job_id,
                ],
            )
            _end(db, job_id, JobStatus.COMPLETED, None, None)

    def fail(self, job_id: str, error: str, error_type: str) -> None:
        """Note why a running job failed."""
        with self._writing() as db:
            if _is_running(db, job_id):
                _end(db, job_id, JobStatus.FAILED, error, error_type)

    def interrupted(self, job_id: str, error: str, error_type: str, limit: int) -> StoredJob | None:
        """Note that a running job lost its process.

        It waits again, first in the queue, unless this happened for the ``limit``-th time without
        a segment more in between. Returns the job as it is then; None if it did not run.
        """
        with self._writing() as db:
            if not _is_running(db, job_id):
                return None
            job = _get(db, job_id)
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
                _end(db, job_id, JobStatus.FAILED, error, error_type)
            return _get(db, job_id)


def _check_queue(db: sqlite3.Connection, limits: QueueLimits, caller: str | None) -> None:
    waiting = _count(db, JobStatus.PENDING)
    if waiting >= limits.all:
        raise QueueFullError(f"{waiting} jobs wait already; try again later.")
    if caller is not None and limits.caller < limits.all:
        own = db.execute(
            "SELECT count(*) FROM jobs WHERE status = 'pending' AND caller = ?", [caller]
        ).fetchone()[0]
        if own >= limits.caller:
            raise QueueFullError(f"{own} of your jobs wait already; try again later.")


def _count(db: sqlite3.Connection, status: JobStatus | None) -> int:
    if status is None:
        row = db.execute("SELECT count(*) FROM jobs").fetchone()
    else:
        row = db.execute("SELECT count(*) FROM jobs WHERE status = ?", [status]).fetchone()
    return int(row[0])


def _end(
    db: sqlite3.Connection,
    job_id: str,
    status: JobStatus,
    error: str | None,
    error_type: str | None,
) -> None:
    db.execute(
        "UPDATE jobs SET status = ?, ended_at = ?, error = ?, error_type = ? WHERE job_id = ?",
        [status, clock.now(), error, error_type, job_id],
    )


def _is_running(db: sqlite3.Connection, job_id: str) -> bool:
    row = db.execute("SELECT status FROM jobs WHERE job_id = ?", [job_id]).fetchone()
    return row is not None and row["status"] == JobStatus.RUNNING


def _get(db: sqlite3.Connection, job_id: str) -> StoredJob:
    row = db.execute("SELECT * FROM jobs WHERE job_id = ?", [job_id]).fetchone()
    if row is None:
        raise NoSuchJobError(f"There is no job {job_id}; GET /jobs lists those there are.")
    return _job(row)


def _job(row: sqlite3.Row) -> StoredJob:
    return StoredJob(
        job_id=row["job_id"],
        content=JobContent.model_validate_json(row["content"]),
        input_sha256=row["input_sha256"],
        input_name=row["input_name"],
        status=JobStatus(row["status"]),
        attempts=row["attempts"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        tasks=Tasks.model_validate_json(row["tasks"]),
        details=Details.model_validate_json(row["details"]),
        duration_seconds=row["duration_seconds"],
        results=_RESULTS.validate_json(row["results"]),
        error=row["error"],
        error_type=row["error_type"],
        results_gone=bool(row["results_gone"]),
    )
