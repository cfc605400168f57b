"""The table of jobs: how it looks in SQL, and a row of it as a job."""

from __future__ import annotations

import sqlite3

from pydantic import TypeAdapter

from stemserve import clock
from stemserve.errors import NoSuchJobError
from stemserve.jobs.job import JobContent, StoredJob
from stemserve.schema import Details, JobStatus, ResultFile, Tasks

TABLE = """
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

COLUMNS = {
    "caller": "TEXT",
    "reached": "INTEGER NOT NULL DEFAULT 0",
    "result_key": "TEXT",
    "results_gone": "INTEGER NOT NULL DEFAULT 0",
}
"""What the table has got since its first version. ``caller``: who posted the job. ``reached``: the
most segments that were finished when a process died over it. ``result_key``: of all that its
results depend on."""

INDICES = """
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, turn);
CREATE INDEX IF NOT EXISTS jobs_by_input ON jobs (input_sha256);
CREATE INDEX IF NOT EXISTS jobs_by_caller ON jobs (status, caller);
CREATE INDEX IF NOT EXISTS jobs_by_result ON jobs (result_key);
"""

QUEUE_AGAIN = """
UPDATE jobs SET status = 'pending', attempts = 0, reached = 0, caller = ?, created_at = ?,
    result_key = NULL, results_gone = 0,
    started_at = NULL,
    ended_at = NULL, tasks = '{}', details = '{}', results = '[]', error = NULL,
    error_type = NULL, turn = (SELECT max(turn) + 1 FROM jobs)
WHERE job_id = ?
"""

RESULTS = TypeAdapter(list[ResultFile])


def count(db: sqlite3.Connection, status: JobStatus | None) -> int:
    """How many jobs are in that status, or at all."""
    if status is None:
        row = db.execute("SELECT count(*) FROM jobs").fetchone()
    else:
        row = db.execute("SELECT count(*) FROM jobs WHERE status = ?", [status]).fetchone()
    return int(row[0])


def end(
    db: sqlite3.Connection,
    job_id: str,
    status: JobStatus,
    error: str | None,
    error_type: str | None,
) -> None:
    """Note that a job is over."""
    db.execute(
        "UPDATE jobs SET status = ?, ended_at = ?, error = ?, error_type = ? WHERE job_id = ?",
        [status, clock.now(), error, error_type, job_id],
    )


def is_running(db: sqlite3.Connection, job_id: str) -> bool:
    """Whether the job runs; false for one that is gone."""
    row = db.execute("SELECT status FROM jobs WHERE job_id = ?", [job_id]).fetchone()
    return row is not None and row["status"] == JobStatus.RUNNING


def get(db: sqlite3.Connection, job_id: str) -> StoredJob:
    """The job; raises `NoSuchJobError`."""
    row = db.execute("SELECT * FROM jobs WHERE job_id = ?", [job_id]).fetchone()
    if row is None:
        raise NoSuchJobError(f"There is no job {job_id}; GET /jobs lists those there are.")
    return job_of(row)


def job_of(row: sqlite3.Row) -> StoredJob:
    """The job that a row tells of."""
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
        results=RESULTS.validate_json(row["results"]),
        error=row["error"],
        error_type=row["error_type"],
        results_gone=bool(row["results_gone"]),
    )
