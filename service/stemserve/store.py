"""The jobs of a worker, in SQLite: what survives the end of either of its processes.

Each call is one short transaction, and may be made from any thread. Whatever changes a running job
says so only while it still runs: a job that was cancelled meanwhile stays cancelled.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter

from stemserve.errors import (
    DiskFullError,
    JobEndedError,
    JobExistsError,
    JobRunningError,
    NoSuchJobError,
    QueueFullError,
)
from stemserve.files import DISK_FULL
from stemserve.jobs import JobContent, StoredJob
from stemserve.schema import Details, JobStatus, ResultFile, Tasks

CANCELLED = "cancelled"

_BUSY_S = 30.0
"""How long a lock of somebody who looks into the file by hand is waited for."""

_SCHEMA = """
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
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, turn);
CREATE INDEX IF NOT EXISTS jobs_by_input ON jobs (input_sha256);
"""

_QUEUE_AGAIN = """
UPDATE jobs SET status = 'pending', attempts = 0, created_at = ?, started_at = NULL,
    ended_at = NULL, tasks = '{}', details = '{}', results = '[]', error = NULL,
    error_type = NULL, turn = (SELECT max(turn) + 1 FROM jobs)
WHERE job_id = ?
"""

_RESULTS = TypeAdapter(list[ResultFile])


class Store:
    """The table of jobs. Any call may raise `DiskFullError`, having changed nothing."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            path, timeout=_BUSY_S, check_same_thread=False, isolation_level=None
        )
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Fold the write-ahead log into the file."""
        with self._lock:
            self._connection.close()

    def add(
        self, job_id: str, content: JobContent, input_name: str | None, queue_limit: int
    ) -> StoredJob:
        """Queue a job, or find it: the same id with the same content is the same job.

        A failed job is queued again.

        Raises:
            JobExistsError: there is a job of that id with other content.
            QueueFullError: ``queue_limit`` jobs wait already.
        """
        text = content.text()
        with self._transaction() as db:
            row = db.execute("SELECT * FROM jobs WHERE job_id = ?", [job_id]).fetchone()
            if row is not None and row["content"] != text:
                raise JobExistsError(f"Job {job_id} exists and asks for something else.")
            if row is not None and row["status"] != JobStatus.FAILED:
                return _job(row)
            waiting = _count(db, JobStatus.PENDING)
            if waiting >= queue_limit:
                raise QueueFullError(f"{waiting} jobs wait already; try again later.")
            now = time.time()
            if row is not None:
                db.execute(_QUEUE_AGAIN, [now, job_id])
            else:
                db.execute(
                    "INSERT INTO jobs (job_id, content, input_sha256, input_name, status,"
                    " created_at) VALUES (?, ?, ?, ?, ?, ?)",
                    [job_id, text, content.input_sha256, input_name, JobStatus.PENDING, now],
                )
            return _get(db, job_id)

    def get(self, job_id: str) -> StoredJob:
        """The job; raises `NoSuchJobError`."""
        with self._transaction() as db:
            return _get(db, job_id)

    def newest(self, status: JobStatus | None, limit: int) -> tuple[list[StoredJob], int]:
        """The newest jobs, and how many there are without the limit."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT * FROM jobs WHERE ?1 IS NULL OR status = ?1 ORDER BY turn DESC LIMIT ?2",
                [status, limit],
            ).fetchall()
            return [_job(row) for row in rows], _count(db, status)

    def running(self) -> list[StoredJob]:
        """The jobs that run; found at once, however many there are."""
        with self._transaction() as db:
            return [_job(row) for row in db.execute("SELECT * FROM jobs WHERE status = 'running'")]

    def count(self, status: JobStatus) -> int:
        """How many jobs are in that status."""
        with self._transaction() as db:
            return _count(db, status)

    def delete(self, job_id: str) -> str | None:
        """Forget a job; raises `NoSuchJobError`, and `JobRunningError` while it runs.

        Returns the input that no job has any more, if there is one.
        """
        with self._transaction() as db:
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
        with self._transaction() as db:
            job = _get(db, job_id)
            if job.status in (JobStatus.COMPLETED, JobStatus.FAILED):
                raise JobEndedError(f"Job {job_id} is {job.status} already.")
            _end(db, job_id, JobStatus.FAILED, "The job was cancelled.", CANCELLED)
            return _get(db, job_id)

    def claim(self) -> StoredJob | None:
        """The job that waits the longest, now running; None when none waits."""
        with self._transaction() as db:
            row = db.execute(
                "SELECT job_id FROM jobs WHERE status = 'pending' ORDER BY turn LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE jobs SET status = 'running', started_at = coalesce(started_at, ?)"
                " WHERE job_id = ?",
                [time.time(), row["job_id"]],
            )
            return _get(db, row["job_id"])

    def is_running(self, job_id: str) -> bool:
        """Whether the job runs; false for one that is gone."""
        with self._transaction() as db:
            return _is_running(db, job_id)

    def requeue(self) -> int:
        """Let every running job wait again: whoever ran it is gone. Returns how many."""
        with self._transaction() as db:
            return db.execute(
                "UPDATE jobs SET status = 'pending' WHERE status = 'running'"
            ).rowcount

    def fetched(self, job_id: str, sha256: str) -> None:
        """Note under which name the input of a job was stored."""
        with self._transaction() as db:
            db.execute("UPDATE jobs SET input_sha256 = ? WHERE job_id = ?", [sha256, job_id])

    def advance(
        self, job_id: str, tasks: Tasks, details: Details, duration_seconds: float | None
    ) -> None:
        """Note how far a running job is."""
        with self._transaction() as db:
            db.execute(
                "UPDATE jobs SET tasks = ?, details = ?,"
                " duration_seconds = coalesce(?, duration_seconds)"
                " WHERE job_id = ? AND status = 'running'",
                [tasks.model_dump_json(), details.model_dump_json(), duration_seconds, job_id],
            )

    def finish(self, job_id: str, results: list[ResultFile], duration_seconds: float) -> None:
        """Note the results of a running job, which is now completed."""
        with self._transaction() as db:
            if not _is_running(db, job_id):
                return
            job = _get(db, job_id)
            total = max(job.details.total_segments, 1)
            details = Details(completed_segments=total, total_segments=total, percent=100)
            db.execute(
                "UPDATE jobs SET results = ?, details = ?, duration_seconds = ? WHERE job_id = ?",
                [
                    _RESULTS.dump_json(results).decode(),
                    details.model_dump_json(),
                    duration_seconds,
                    job_id,
                ],
            )
            _end(db, job_id, JobStatus.COMPLETED, None, None)

    def fail(self, job_id: str, error: str, error_type: str) -> None:
        """Note why a running job failed."""
        with self._transaction() as db:
            if _is_running(db, job_id):
                _end(db, job_id, JobStatus.FAILED, error, error_type)

    def interrupted(self, job_id: str, error: str, error_type: str, limit: int) -> StoredJob | None:
        """Note that a running job lost its process.

        It waits again, first in the queue, unless this happened for the ``limit``-th time.
        Returns the job as it is then; None if it did not run.
        """
        with self._transaction() as db:
            if not _is_running(db, job_id):
                return None
            job = _get(db, job_id)
            db.execute("UPDATE jobs SET attempts = attempts + 1 WHERE job_id = ?", [job_id])
            if job.attempts + 1 < limit:
                db.execute("UPDATE jobs SET status = 'pending' WHERE job_id = ?", [job_id])
            else:
                _end(db, job_id, JobStatus.FAILED, error, error_type)
            return _get(db, job_id)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError) and _is_disk_full(error):
                    raise DiskFullError(DISK_FULL) from error
                raise


def _is_disk_full(error: sqlite3.OperationalError) -> bool:
    # The write-ahead log fails with FULL; the files beside it may fail with an I/O error instead.
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _count(db: sqlite3.Connection, status: JobStatus | None) -> int:
    row = db.execute(
        "SELECT count(*) FROM jobs WHERE ?1 IS NULL OR status = ?1", [status]
    ).fetchone()
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
        [status, time.time(), error, error_type, job_id],
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
    )
