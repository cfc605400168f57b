"""Either process of a worker is killed in mid-job, or misbehaves: no job is lost."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.service.worker import (
    STAND_IN,
    RunningWorker,
    ended,
    eventually,
    post,
    running_worker,
    until,
)


@pytest.fixture
def worker(data_dir: Path) -> Iterator[RunningWorker]:
    """A worker of the test's own, over the stand-in."""
    with running_worker(data_dir, separation_command=STAND_IN) as running:
        running.wait_ready()
        yield running


def halfway(client: httpx.Client, job_id: str) -> None:
    """Wait until the separation works at the job."""

    def percent() -> float:
        return float(client.get(f"/job/{job_id}").json()["details"]["percent"])

    eventually(percent)


def test_the_api_killed_in_mid_job(worker: RunningWorker, client: httpx.Client) -> None:
    job_id = post(client, b"hold")
    waiting = post(client, b"copy")
    halfway(client, job_id)
    orphan = worker.separation()
    worker.kill()
    eventually(orphan.is_running, lambda runs: not runs)
    with running_worker(worker.data_dir, separation_command=STAND_IN) as again:
        again.let_go(job_id)
        with again.client() as client_again:
            assert ended(client_again, job_id)["status"] == "completed"
            assert ended(client_again, waiting)["status"] == "completed"


def test_the_separation_killed_in_mid_job(worker: RunningWorker, client: httpx.Client) -> None:
    job_id = post(client, b"hold")
    halfway(client, job_id)
    worker.separation().kill()
    worker.let_go(job_id)
    assert ended(client, job_id)["status"] == "completed"
    assert "attempt 1 of 3" in client.get(f"/job/{job_id}/logs").json()["logs"]


def test_the_separation_killed_between_jobs(worker: RunningWorker, client: httpx.Client) -> None:
    before = worker.separation()
    before.kill()
    eventually(worker.separation, lambda process: process != before)
    worker.wait_ready()
    job = ended(client, post(client, b"copy"))
    assert job["status"] == "completed"


def test_it_dies_twice_over_a_job(worker: RunningWorker, client: httpx.Client) -> None:
    assert ended(client, post(client, b"die 2"))["status"] == "completed"


def test_it_dies_over_a_job_whenever_it_runs(worker: RunningWorker, client: httpx.Client) -> None:
    job_id = post(client, b"die 99")
    after = post(client, b"copy")
    job = ended(client, job_id)
    assert (job["status"], job["error_type"]) == ("failed", "separation-died")
    assert "SIGKILL, as the system does when memory runs out" in job["error"]
    assert "3 times" in job["error"]
    eventually(lambda: "attempt 3 of 3" in client.get(f"/job/{job_id}/logs").json()["logs"])
    progress = worker.data_dir / "jobs" / job_id / "progress.txt"
    eventually(progress.read_text, lambda text: '"state": "error"' in text)
    assert ended(client, after)["status"] == "completed"


def test_a_line_without_an_end(worker: RunningWorker, client: httpx.Client) -> None:
    job = ended(client, post(client, b"flood"))
    assert job["error_type"] == "separation-died"
    assert ended(client, post(client, b"copy"))["status"] == "completed"


def test_a_separation_that_hangs_is_started_again(data_dir: Path) -> None:
    with running_worker(data_dir, separation_command=STAND_IN, stall_timeout=1) as worker:
        worker.wait_ready()
        with worker.client() as client:
            job = ended(client, post(client, b"hang"))
            assert job["error_type"] == "separation-died"
            assert "said nothing" in job["error"]
            assert ended(client, post(client, b"copy"))["status"] == "completed"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("false",), "exit code 1"),
        (("no-such-program",), "no-such-program"),
        (("echo", "{}"), "exit code 0"),
        (("sleep", "60"), "said nothing"),
    ],
)
def test_a_separation_that_does_not_come_up(
    data_dir: Path, command: tuple[str, ...], told: str
) -> None:
    with (
        running_worker(data_dir, separation_command=command, start_timeout=0.5) as worker,
        worker.client() as client,
    ):
        assert client.get("/health").status_code == 200

        def reason() -> str:
            answer = client.get("/ready")
            assert answer.status_code == 503
            assert not answer.json()["ready"]
            return str(answer.json()["reason"])

        eventually(reason, lambda text: told in text)
        assert not client.get("/status").json()["models_ready"]
        answer = client.post("/job", json={"input_sha256": "0" * 64})
        assert answer.status_code == 503
        assert answer.json()["type"] == "not-ready"
        assert int(answer.headers["retry-after"]) > 0


def test_sigterm_ends_both_and_keeps_the_job(worker: RunningWorker, client: httpx.Client) -> None:
    job_id = post(client, b"hang")
    halfway(client, job_id)
    separation = worker.separation()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(20) == 0
    assert not separation.is_running() or separation.status() == psutil.STATUS_ZOMBIE
    with running_worker(worker.data_dir, separation_command=STAND_IN) as again:
        again.wait_ready()
        with again.client() as client_again:
            until(client_again, job_id, "running")


def refusal(data_dir: Path) -> str:
    """What a worker says that cannot start on that data directory."""
    done = subprocess.run(
        [sys.executable, "-m", "stemserve", "serve", "--port", "0", "--data-dir", str(data_dir)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return done.stderr


def test_two_workers_do_not_share_a_data_directory(worker: RunningWorker) -> None:
    assert "another worker" in refusal(worker.data_dir)


def test_a_broken_job_store_is_named(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "jobs.sqlite3").write_bytes(b"no database at all" * 1000)
    assert "jobs.sqlite3" in refusal(data_dir)
    assert (data_dir / "jobs.sqlite3").read_bytes() == b"no database at all" * 1000


def test_a_caller_that_goes_away_in_mid_upload(worker: RunningWorker, client: httpx.Client) -> None:
    sha256 = "2" * 64
    port = int(worker.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as raw:
        head = (
            f"PUT /inputs/{sha256} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000000\r\n\r\n"
        )
        raw.sendall(head.encode() + b"x" * 3_000_000)
        eventually(lambda: list((worker.data_dir / "inputs").iterdir()))
    eventually(lambda: list((worker.data_dir / "inputs").iterdir()), lambda files: not files)
    assert client.get(f"/inputs/{sha256}").status_code == 404
