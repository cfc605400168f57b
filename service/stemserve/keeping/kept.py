"""What the table of jobs says of inputs and results that are kept, and that some are no longer."""

from __future__ import annotations

import json

from stemserve.jobs.store import Store
from stemserve.schema import JobStatus


class KeptJobs:
    """The jobs of ``store``, by what is kept of them."""

    def __init__(self, store: Store) -> None:
        self._database = store.database

    def inputs_needed(self) -> set[str]:
        """The inputs of the jobs that wait or run."""
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT DISTINCT input_sha256 FROM jobs WHERE status IN ('pending', 'running')"
            ).fetchall()
        return {row["input_sha256"] for row in rows if row["input_sha256"]}

    def ended(self) -> dict[str, int]:
        """The jobs that are over, and how many bytes of results they have."""
        with self._database.reading() as db:
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
        with self._database.writing() as db:
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
        with self._database.reading() as db:
            row = db.execute(
                "SELECT status FROM jobs WHERE job_id = ? AND NOT results_gone", [job_id]
            ).fetchone()
        return None if row is None else JobStatus(row["status"])
