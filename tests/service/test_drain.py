"""The end of a worker in good order: what runs may end, what waits is kept, no more is taken."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx

from tests.service.test_faults import halfway
from tests.service.test_jobs import is_problem
from tests.service.worker import (
    STAND_IN,
    RunningWorker,
    ended,
    eventually,
    post,
    running_worker,
    until,
    upload,
)

LONG_S = 600


def drain(worker: RunningWorker, client: httpx.Client) -> None:
    """Tell the worker to end, and wait until it takes no more work."""
    worker.process.send_signal(signal.SIGTERM)
    eventually(lambda: client.get("/ready").status_code, lambda status: status == 503)


def test_what_runs_may_end_and_what_waits_is_kept(data_dir: Path) -> None:
    with running_worker(data_dir, separation_command=STAND_IN, drain_seconds=LONG_S) as worker:
        worker.wait_ready()
        with worker.client() as client:
            held, waiting = post(client, b"hold"), post(client, b"copy")
            halfway(client, held)
            body = {"input_sha256": upload(client, b"copy"), "job_id": "late"}
            drain(worker, client)
            refused = client.post("/job", json=body)
            is_problem(refused, 503, "worker-ending")
            assert int(refused.headers["retry-after"]) > 0
            assert client.get(f"/job/{held}").json()["status"] == "running"
            worker.let_go(held)
        assert worker.process.wait(60) == 0
    with running_worker(data_dir, separation_command=STAND_IN) as again, again.client() as client:
        assert client.get(f"/job/{held}").json()["status"] == "completed"
        assert ended(client, waiting)["status"] == "completed"
        assert client.get("/job/late").status_code == 404


def test_what_does_not_end_in_time_is_handed_back(data_dir: Path) -> None:
    with running_worker(data_dir, separation_command=STAND_IN, drain_seconds=0.5) as worker:
        worker.wait_ready()
        with worker.client() as client:
            held = post(client, b"hold")
            halfway(client, held)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(60) == 0
    with running_worker(data_dir, separation_command=STAND_IN) as again, again.client() as client:
        until(client, held, "running")
        again.let_go(held)
        assert ended(client, held)["status"] == "completed"


def test_a_second_signal_ends_it_at_once(data_dir: Path) -> None:
    with running_worker(data_dir, separation_command=STAND_IN, drain_seconds=LONG_S) as worker:
        worker.wait_ready()
        with worker.client() as client:
            held = post(client, b"hold")
            halfway(client, held)
            drain(worker, client)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(60) == 0
    with running_worker(data_dir, separation_command=STAND_IN) as again, again.client() as client:
        until(client, held, "running")
