"""A worker of known speed, as a program: `python -m tests.workers.emulated --speed 4 --scale 60`.

It keeps the contract of `stemserve.schema`, with jobs that take their time and nothing else: an
input is a WAV file, whose header tells how long it is and whose content names it; a stem's sample
is a function of that, of the stem and of the frame, so that any worker gives the same for any
range. Prints its port, then serves until it is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from stemserve.schema import JobRequest, JobStatus, part_ranges

STEMS = ("vocals", "instrumental")
SEGMENT_S = 300
HEADER = struct.Struct("<4sI4s 4sIHHIIHH 4sI")
Answer = Callable[[Request], Awaitable[Response]]
STARTED = "2026-01-01T00:00:00Z"


def wav(samples: bytes, rate: int) -> bytes:
    """Mono samples of 16 bits as a file."""
    size = len(samples)
    return (
        HEADER.pack(
            *(b"RIFF", HEADER.size - 8 + size, b"WAVE"),
            *(b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16),
            *(b"data", size),
        )
        + samples
    )


def stem_samples(digest: str, stem: str, start: int, end: int) -> bytes:
    """The samples of a stem of the input of that digest."""
    seed = int(hashlib.sha256(f"{digest}{stem}".encode()).hexdigest()[:8], 16)
    frames = np.arange(start, end, dtype=np.uint64) + np.uint64(seed)
    mixed = (frames * np.uint64(2654435761)) >> np.uint64(7)
    return (mixed & np.uint64(0xFFFF)).astype("<u2").tobytes()


@dataclass
class Job:
    """One job: what is asked, and when it ran."""

    request: JobRequest
    digest: str
    rate: int
    span: tuple[int, int]
    todo: int
    """Frames that must be computed."""
    posted: float
    began: float | None = None
    took: float = 0.0
    status: JobStatus = JobStatus.PENDING
    error_type: str | None = None
    ends: list[int] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Of sound."""
        return (self.span[1] - self.span[0]) / self.rate


class EmulatedWorker:
    """The state and the routes."""

    def __init__(self, speed: float, scale: float) -> None:
        self.speed, self.scale = speed, scale
        self.garbage: str | None = None
        self.inputs: dict[str, tuple[int, int, int]] = {}
        """By digest: rate, frames, bytes."""
        self.jobs: dict[str, Job] = {}
        self.waiting: list[str] = []
        self.running: str | None = None
        self.free_at = 0.0

    def frames_done(self, job: Job) -> int:
        """Of those to be computed."""
        if job.status is JobStatus.COMPLETED:
            return job.todo
        if job.began is None:
            return 0
        ran = (time.monotonic() - job.began) * self.speed * self.scale
        return min(int(ran * job.rate), job.todo)

    def advance(self) -> None:
        """Let pass what time has passed: jobs begin and end when they should, to the microsecond.

        So a busy machine, on which a process wakes late, makes no worker slower than it is.
        """
        now = time.monotonic()
        while True:
            if self.running is not None:
                job = self.jobs[self.running]
                took = job.todo / job.rate / self.speed / self.scale
                if job.began is None or job.began + took > now:
                    return
                job.status, job.took, self.free_at = JobStatus.COMPLETED, took, job.began + took
                self.running = None
            if not self.waiting:
                return
            self.running = self.waiting.pop(0)
            job = self.jobs[self.running]
            job.status, job.began = JobStatus.RUNNING, max(job.posted, self.free_at)

    def told(self, name: str) -> dict[str, Any]:
        """The job as the contract has it."""
        job = self.jobs[name]
        done = self.frames_done(job)
        at = job.span[0] + (job.span[1] - job.span[0] - job.todo) + done
        finished = sum(end <= at for end in job.ends)
        over = job.status is JobStatus.COMPLETED
        total = len(job.ends) + 1
        took = job.took
        if job.status is JobStatus.RUNNING and job.began is not None:
            took = time.monotonic() - job.began
        states = {JobStatus.COMPLETED: "completed", JobStatus.FAILED: "error"}
        return {
            "job_id": name,
            "status": job.status,
            "state": states.get(job.status, "demucs"),
            "tasks": {},
            "details": {
                "completed_segments": total if over else finished,
                "total_segments": total,
                "percent": 100 if over else min(99.0, 100 * done / max(job.todo, 1)),
            },
            "elapsed_seconds": took,
            "error": job.error_type and f"The job failed: {job.error_type}.",
            "error_type": job.error_type,
            "preset": "center",
            "input_sha256": job.digest,
            "duration_seconds": job.seconds,
            "results": self.results(job) if over else [],
        }

    def results(self, job: Job) -> list[dict[str, Any]]:
        """The files of a job, as they are announced."""
        files = []
        for stem in job.request.stems or STEMS:
            data = self.file(job, stem)
            digest = hashlib.sha256(data).hexdigest()
            if self.garbage == "digest":
                digest = hashlib.sha256(b"another").hexdigest()
            name = f"{stem}.{job.request.format}"
            files.append({"name": name, "stem": stem, "size": len(data), "sha256": digest})
        return files if self.garbage != "missing" else files[:1]

    def file(self, job: Job, stem: str) -> bytes:
        """One result."""
        start, end = job.span
        if self.garbage == "length":
            end -= (end - start) // 3
        return wav(stem_samples(job.digest, stem, start, end), job.rate)

    async def health(self, request: Request) -> Response:
        """GET /health."""
        return JSONResponse({"status": "healthy", "timestamp": STARTED})

    async def ready(self, request: Request) -> Response:
        """GET /ready."""
        return JSONResponse({"ready": True})

    async def lease(self, request: Request) -> Response:
        """POST /lease."""
        return JSONResponse({"lease_ends_at": None})

    async def status(self, request: Request) -> Response:
        """GET /status."""
        preset = {"name": "center", "description": "", "stems": list(STEMS), "available": True}
        return JSONResponse(
            {
                "models_ready": True,
                "active_jobs": int(self.running is not None),
                "completed_jobs": 0,
                "uptime_seconds": 1,
                "pending_jobs": len(self.waiting),
                "queue_limit": 16,
                "version": "0",
                "device": "emulated",
                "default_preset": "center",
                "presets": [preset | {"licences": []}],
            }
        )

    async def get_input(self, request: Request) -> Response:
        """GET /inputs/{sha256}."""
        digest = request.path_params["sha256"]
        if digest not in self.inputs:
            return problem(404, "no-such-input")
        return JSONResponse({"sha256": digest, "size": self.inputs[digest][2]})

    async def put_input(self, request: Request) -> Response:
        """PUT /inputs/{sha256}."""
        digest, body = request.path_params["sha256"], await request.body()
        if hashlib.sha256(body).hexdigest() != digest:
            return problem(400, "digest-mismatch")
        rate = struct.unpack_from("<I", body, 24)[0]
        frames = (len(body) - HEADER.size) // 2
        self.inputs[digest] = rate, frames, len(body)
        return JSONResponse({"sha256": digest, "size": len(body)})

    async def post(self, request: Request) -> Response:
        """POST /job."""
        asked = JobRequest.model_validate_json(await request.body())
        name = asked.job_id or ""
        known = self.jobs.get(name)
        if known is None or known.status is JobStatus.FAILED:
            digest = asked.input_sha256 or ""
            if digest not in self.inputs:
                return problem(404, "no-such-input")
            rate, frames, _ = self.inputs[digest]
            start, end = 0, frames
            if asked.range is not None:
                start = int(asked.range.start_seconds * rate + 0.5)
                if asked.range.end_seconds is not None:
                    end = min(int(asked.range.end_seconds * rate + 0.5), frames)
            given = sum(b - a for a, b in part_ranges(asked.parts or []))
            grid = SEGMENT_S * rate
            ends = list(range((start // grid + 1) * grid, end, grid))
            todo = end - start - given
            now = time.monotonic()
            self.jobs[name] = Job(asked, digest, rate, (start, end), todo, now, ends=ends)
            self.waiting.append(name)
            self.advance()
        return JSONResponse(
            {"job_id": name, "status": self.jobs[name].status, "message": "Queued."}
        )

    async def get_job(self, request: Request) -> Response:
        """GET /job/{id}."""
        if self.garbage == "html":
            return Response("<html>It works!</html>", media_type="text/html")
        return JSONResponse(self.told(request.path_params["name"]))

    async def cancel(self, request: Request) -> Response:
        """POST /job/{id}/cancel."""
        name = request.path_params["name"]
        job = self.jobs[name]
        if job.status in (JobStatus.COMPLETED, JobStatus.FAILED):
            return problem(409, "job-ended")
        if name in self.waiting:
            self.waiting.remove(name)
        if name == self.running:
            job.took, self.free_at, self.running = (
                self.told(name)["elapsed_seconds"],
                time.monotonic(),
                None,
            )
        job.status, job.error_type = JobStatus.FAILED, "cancelled"
        return JSONResponse(self.told(name))

    async def delete(self, request: Request) -> Response:
        """DELETE /job/{id}."""
        name = request.path_params["name"]
        if self.jobs[name].status is JobStatus.RUNNING:
            return problem(400, "job-running")
        if name in self.waiting:
            self.waiting.remove(name)
        del self.jobs[name]
        return JSONResponse({"status": "deleted", "job_id": name})

    async def result(self, request: Request) -> Response:
        """GET /result/{id}."""
        job = self.jobs[request.path_params["name"]]
        stem = request.query_params["file"].partition(".")[0]
        return Response(self.file(job, stem), media_type="audio/wav")

    async def segments(self, request: Request) -> Response:
        """GET /job/{id}/segments."""
        name = request.path_params["name"]
        job = self.jobs[name]
        if job.began is None:
            return problem(409, "not-started")
        over = job.status is JobStatus.COMPLETED
        at = job.span[1] if over else job.span[0] + self.frames_done(job)
        bounds = [job.span[0], *job.ends, job.span[1]]
        spans = pairwise(bounds)
        return JSONResponse(
            {
                "rate": job.rate,
                "channels": 1,
                "sample_format": "16",
                "stems": list(job.request.stems or STEMS),
                "start_frame": job.span[0],
                "end_frame": job.span[1],
                "segments": [
                    {"index": index, "start_frame": start, "end_frame": end}
                    for index, (start, end) in enumerate(spans)
                    if end <= at and (over or end in job.ends)
                ],
            }
        )

    async def segment(self, request: Request) -> Response:
        """GET /job/{id}/segments/{index}/{stem}."""
        job, index = self.jobs[request.path_params["name"]], request.path_params["index"]
        bounds = [job.span[0], *job.ends, job.span[1]]
        stem = request.path_params["stem"]
        start, end = bounds[index], bounds[index + 1]
        if self.garbage == "length":
            end -= (end - start) // 3
        return Response(wav(stem_samples(job.digest, stem, start, end), job.rate))

    async def control(self, request: Request) -> Response:
        """POST /control: from now on another speed, or garbage of a kind."""
        asked = json.loads(await request.body())
        now = time.monotonic()
        if "speed" in asked:
            if self.running and (began := self.jobs[self.running].began) is not None:
                self.jobs[self.running].began = now - (now - began) * self.speed / asked["speed"]
            self.speed = asked["speed"]
        self.garbage = asked.get("garbage", self.garbage)
        return JSONResponse({})

    def app(self) -> Starlette:
        """The application."""

        def route(path: str, answer: Answer, *methods: str) -> Route:
            async def advanced(request: Request) -> Response:
                self.advance()
                if request.path_params.get("name", "") not in {"", *self.jobs}:
                    return problem(404, "no-such-job")
                return await answer(request)

            return Route(path, advanced, methods=methods or ["GET"])

        return Starlette(
            routes=[
                route("/health", self.health),
                route("/ready", self.ready),
                route("/lease", self.lease, "POST"),
                route("/status", self.status),
                route("/inputs/{sha256}", self.get_input),
                route("/inputs/{sha256}", self.put_input, "PUT"),
                route("/job", self.post, "POST"),
                route("/job/{name}", self.get_job),
                route("/job/{name}", self.delete, "DELETE"),
                route("/job/{name}/cancel", self.cancel, "POST"),
                route("/job/{name}/segments", self.segments),
                route("/job/{name}/segments/{index:int}/{stem}", self.segment),
                route("/result/{name}", self.result),
                route("/control", self.control, "POST"),
            ]
        )


def problem(status: int, kind: str) -> Response:
    """An error's answer."""
    body = {"type": kind, "title": kind, "status": status, "detail": kind}
    return JSONResponse(body, status, media_type="application/problem+json")


async def serve(speed: float, scale: float) -> None:
    """Serve on a free port, which is printed."""
    worker = EmulatedWorker(speed, scale)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        config = uvicorn.Config(worker.app(), log_level="warning", access_log=False, ws="none")
        await uvicorn.Server(config).serve([listening])


def main() -> None:
    """Read the command line, and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speed", type=float, required=True, help="seconds of sound a second")
    parser.add_argument("--scale", type=float, default=1.0, help="by so much time runs faster")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.speed, arguments.scale))


if __name__ == "__main__":
    main()
