"""What the whole fleet is doing at this moment, and what it has cost so far."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stemserve.schema import Job, JobStatus, Status

from stemctl.errors import InputError, WorkerError
from stemctl.fleet.stack import Endpoint, Fleet
from stemctl.telling.history import read_runs
from stemctl.worker.client import Worker
from stemctl.worker.probe import ask_all


@dataclass(frozen=True)
class Row:
    """One worker. Without ``status`` it does not answer, and ``error`` says why."""

    endpoint: Endpoint
    status: Status | None = None
    job: Job | None = None
    """The one that runs."""
    error: str | None = None

    @property
    def usd(self) -> float:
        """What it has cost since it started; its machine was paid for a little longer."""
        up = self.status.uptime_seconds if self.status else 0.0
        return self.endpoint.usd_per_hour * up / 3600

    @property
    def state(self) -> str:
        """In a word."""
        if self.status is None:
            return "silent"
        if self.job:
            return "separates"
        return "idle" if self.status.models_ready else "starts"


async def look(fleet: Fleet) -> list[Row]:
    """Every worker of the fleet, in its order."""
    answers = await ask_all(fleet, _look)
    return [
        Row(endpoint, error=str(answer))
        if isinstance(answer, WorkerError)
        else Row(endpoint, answer[0], answer[1])
        for endpoint, answer in answers
    ]


async def _look(worker: Worker) -> tuple[Status, Job | None]:
    status = await worker.status()
    running = (await worker.jobs(1, JobStatus.RUNNING)).jobs if status.active_jobs else []
    return status, await worker.job(running[0].job_id) if running else None


@dataclass(frozen=True)
class Running:
    """The run that goes on into an output folder."""

    number: int
    tracks: int
    ended: int
    seconds: float
    """Since it began."""
    usd: float
    """What the fleet has cost since."""
    left_seconds: float | None
    """Until it is done, as it has gone so far; None: it is too early to say."""


def running(out: Path) -> Running | None:
    """The newest run into ``out``, if it goes on now; blocks."""
    try:
        newest = read_runs(out)[0]
    except (InputError, IndexError):
        return None
    if newest["state"] != "running":
        return None
    seconds = time.time() - newest["began"]
    ended = newest["tracks"] - newest["waiting"]
    done = newest["done"]
    left = seconds / done * newest["waiting"] if done else newest["estimate_seconds"]
    usd = newest["usd_rented"]
    return Running(newest["run"], newest["tracks"], ended, seconds, usd, left)


def as_json(rows: Sequence[Row], run: Running | None) -> dict[str, Any]:
    """All of it as one JSON object."""
    return {
        "workers": [
            {
                "slot": row.endpoint.slot,
                "gpu": row.endpoint.gpu,
                "state": row.state,
                "error": row.error,
                "track": row.job and row.job.input_name,
                "percent": row.job and row.job.details.percent,
                "eta_seconds": row.job and row.job.details.eta_seconds,
                "pending": row.status and row.status.pending_jobs,
                "done": row.status and row.status.completed_jobs,
                "usd_per_hour": row.endpoint.usd_per_hour,
                "usd": round(row.usd, 4),
            }
            for row in rows
        ],
        "usd_per_hour": sum(row.endpoint.usd_per_hour for row in rows),
        "usd": round(sum(row.usd for row in rows), 4),
        "run": asdict(run) if run else None,
    }
