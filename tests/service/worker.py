"""A worker that really runs, for tests: the program, its port, its data directory."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

DEADLINE_S = 180.0

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in.py")))
"""A ``separation_command`` that obeys its inputs, see there."""

T = TypeVar("T")


def eventually(
    look: Callable[[], T], done: Callable[[T], bool] = bool, deadline_s: float = DEADLINE_S
) -> T:
    """What ``look`` gives once ``done`` says yes to it; fails with the last look after a while."""
    end = time.monotonic() + deadline_s
    while not done(seen := look()):
        assert time.monotonic() < end, f"waited {deadline_s} s in vain; last seen: {seen!r}"
        time.sleep(0.02)
    return seen


@dataclass
class RunningWorker:
    """One worker process and how to call it."""

    url: str
    token: str | None
    data_dir: Path
    log: Path
    """Its standard output and error."""
    process: subprocess.Popen[bytes]

    def client(self) -> httpx.Client:
        """A client with the worker's token."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def wait_ready(self) -> None:
        """Return once the worker could run a job."""
        with self.client() as client:

            def ready() -> int:
                assert self.process.poll() is None, self.log.read_text()
                return client.get("/ready").status_code

            eventually(ready, lambda status: status == 200)

    def separation(self) -> psutil.Process:
        """The separation process that is there now."""

        def children() -> list[psutil.Process]:
            return psutil.Process(self.process.pid).children()

        return eventually(children)[-1]

    def let_go(self, job_id: str) -> None:
        """End the waiting of a job that was ordered to hold, and runs or is about to."""
        folder = self.data_dir / "jobs" / job_id
        eventually(folder.is_dir)  # a job is called running before its folder is made
        (folder / "go").touch()

    def kill(self) -> None:
        """End the API with SIGKILL, and nothing else."""
        self.process.kill()
        self.process.wait()


def upload(client: httpx.Client, content: bytes) -> str:
    """Upload an input; returns its SHA-256."""
    sha256 = hashlib.sha256(content).hexdigest()
    answer = client.put(f"/inputs/{sha256}", content=content)
    assert answer.status_code in (200, 201), answer.text
    return sha256


def post(client: httpx.Client, content: bytes, **request: object) -> str:
    """Post a job over an input of that content; returns the job's id."""
    answer = client.post("/job", json={"input_sha256": upload(client, content), **request})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["job_id"])


def until(client: httpx.Client, job_id: str, *statuses: str) -> dict[str, Any]:
    """The job, once it is in one of the statuses."""

    def look() -> dict[str, Any]:
        answer = client.get(f"/job/{job_id}")
        assert answer.status_code == 200, answer.text
        job: dict[str, Any] = answer.json()
        return job

    return eventually(look, lambda job: job["status"] in statuses)


def ended(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """The job, once it is over."""
    return until(client, job_id, "completed", "failed")


@contextmanager
def running_worker(
    data_dir: Path,
    token: str | None = None,
    *,
    wrapper: tuple[str, ...] = (),
    at: socket.socket | None = None,
    **settings: object,
) -> Iterator[RunningWorker]:
    """A worker on a free loopback port, ended afterwards.

    Args:
        data_dir: Its data directory; a second worker on the same one goes on where this one ended.
        token: The token it demands; None serves openly.
        wrapper: A command that runs the worker as its last arguments.
        at: A listening socket of the caller's; while no worker serves it, calls wait.
        settings: More settings of `stemserve.settings.Settings`, by name.
    """
    with at.dup() if at else socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        given = {"data_dir": data_dir, "socket_fd": listening.fileno(), "token": token, **settings}
        environment = dict(os.environ)
        for name, value in given.items():
            if value is not None:
                text = json.dumps(value) if isinstance(value, tuple | list | bool) else str(value)
                environment[f"STEMSERVE_{name.upper()}"] = text
        log = data_dir.with_name(f"{data_dir.name}.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*wrapper, sys.executable, "-m", "stemserve", "serve"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[listening.fileno()],
            )
    worker = RunningWorker(f"http://127.0.0.1:{port}", token, data_dir, log, process)
    try:
        yield worker
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
