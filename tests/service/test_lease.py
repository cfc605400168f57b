"""A worker ends its own machine when nobody needs it, and never while it has work to do."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from stemserve.errors import EndingError
from stemserve.lease import OVERTIME_S, Doing, Lease
from stemserve.machine import end_machine, find_machine
from stemserve.settings import Settings

from tests.service.worker import STAND_IN, eventually, post, running_worker, until

IDLE_S, LEASE_S = 900.0, 7200.0
SOON = 0.002
"""Minutes that are over as soon as the worker looks."""

LATER = timedelta(seconds=0.1)
"""More than two looks at one end differ."""

steps = st.floats(1, 4000)


class WorkersLife(RuleBasedStateMachine):
    """Anything may happen to a worker, in any order, at any pace."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.lease = Lease(IDLE_S, LEASE_S, lambda: self.time)
        self.transfers = ExitStack()
        self.under_way = 0
        self.waiting = self.running = self.progress = 0
        self.used_at = self.renewed_at = 0.0
        self.over: str | None = None

    @property
    def active(self) -> bool:
        return bool(self.waiting or self.running or self.under_way)

    @rule(seconds=steps)
    def time_goes_by(self, seconds: float) -> None:
        """However long, the worker has looked just before."""
        self.time += seconds
        if self.active:
            self.used_at = self.time

    @precondition(lambda self: self.over is None)
    @rule()
    def a_job_is_posted(self) -> None:
        """It waits."""
        with self.lease.taking_work():
            self.waiting += 1
        self.used_at = self.time

    @precondition(lambda self: self.waiting and not self.running)
    @rule()
    def a_job_begins(self) -> None:
        """It runs."""
        self.waiting, self.running = self.waiting - 1, 1
        self._further()

    @precondition(lambda self: self.running)
    @rule()
    def a_job_gets_further(self) -> None:
        """A window more."""
        self._further()

    @precondition(lambda self: self.running)
    @rule()
    def a_job_ends(self) -> None:
        """However it ended."""
        self.running = 0
        self.used_at = self.time

    @rule()
    def a_transfer_begins(self) -> None:
        """Up or down."""
        self.transfers.enter_context(self.lease.transferring())
        self.under_way += 1

    @precondition(lambda self: self.under_way)
    @rule()
    def all_transfers_end(self) -> None:
        """Or are broken off."""
        self.transfers.close()
        self.under_way = 0
        self.used_at = self.time

    @precondition(lambda self: self.over is None)
    @rule(expect_work=st.booleans())
    def the_lease_is_renewed(self, expect_work: bool) -> None:
        """By a client."""
        self.lease.renew(expect_work=expect_work)
        self.renewed_at = self.time
        if expect_work:
            self.used_at = self.time

    @invariant()
    def it_ends_when_its_time_is_over_and_not_before(self) -> None:
        """Both limits, each to the second."""
        over = self.lease.check(lambda: Doing(self.waiting, self.running, self.progress))
        if self.over is not None:
            assert over == self.over, "there is no way back"
            return
        busy = bool(self.running or self.under_way)
        idle = not self.active and self.time - self.used_at >= IDLE_S
        late = self.time - self.renewed_at >= LEASE_S + (OVERTIME_S if busy else 0)
        assert (over is not None) == (idle or late)
        self.over = over

    @invariant()
    def what_ends_takes_nothing_more(self) -> None:
        """Neither jobs nor another lease."""
        if self.over is None:
            return
        for late in (self.lease.renew, self.lease.taking_work().__enter__):
            with pytest.raises(EndingError):
                late()

    def _further(self) -> None:
        self.progress += 1
        self.lease.check(lambda: Doing(self.waiting, self.running, self.progress))
        if self.over is None:
            self.renewed_at = self.time


WorkersLife.TestCase.settings = settings(max_examples=60, deadline=None)
test_a_workers_life = WorkersLife.TestCase


def test_without_limits_it_never_ends() -> None:
    time = [0.0]
    lease = Lease(None, None, lambda: time[0])
    time[0] = 1e9
    assert lease.check(lambda: Doing(0, 0)) is None
    assert lease.ends_at() is None


class Cloud(ThreadingHTTPServer):
    """Both clouds' answers to a machine that wants to end; notes what was asked of it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.daemon_threads = True
        self.calls: list[tuple[str, str, Any, str | None]] = []
        self.answers: list[tuple[int, str]] = []
        """The next ones; then 200."""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        assert isinstance(self.server, Cloud)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(content) if content else None
        given = self.headers["Authorization"]
        self.server.calls.append((self.command, self.path, body, given))
        status, text = self.server.answers.pop(0) if self.server.answers else (200, "{}")
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    do_DELETE = do_PUT = do_POST = _answer  # noqa: N815 - the parent looks for these

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        pass


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """One that agrees to everything."""
    server = Cloud()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


KEY = "the-machines-own-key"
VAST = {"CONTAINER_ID": "4711", "CONTAINER_API_KEY": KEY}
RUNPOD = {"RUNPOD_POD_ID": "ab12", "RUNPOD_API_KEY": KEY}
VAST_CALLS = [
    ("DELETE", "/api/v0/instances/4711/", {}),
    ("PUT", "/api/v0/instances/4711/", {"state": "stopped"}),
]
RUNPOD_CALLS = [
    ("DELETE", "/v2/pods/ab12", None),
    ("POST", "/v2/pods/ab12/action", {"action": "stop"}),
]


def end(cloud: Cloud, environment: dict[str, str]) -> list[tuple[str, str, Any]]:
    """Let a machine end itself that is not ended; what it has asked for."""
    machine = find_machine(Settings(vast_url=cloud.url, runpod_url=cloud.url + "/"), environment)
    assert machine is not None
    assert KEY not in repr(machine)

    async def run() -> None:
        await end_machine(machine, pause_s=0, linger_s=0)

    anyio.run(run)
    assert {given for *_, given in cloud.calls} == {f"Bearer {KEY}"}
    return [call[:3] for call in cloud.calls]


@pytest.mark.parametrize(("environment", "calls"), [(VAST, VAST_CALLS), (RUNPOD, RUNPOD_CALLS)])
@pytest.mark.parametrize(
    ("answers", "destroys"),
    [
        ([], 1),
        ([(403, '{"detail": "no"}')], 1),
        ([(404, "")], 1),
        ([(200, '{"success": false}')], 1),
        ([(503, ""), (429, ""), (200, "{}")], 3),
        ([(500, "<html>")] * 5, 5),
    ],
)
def test_a_machine_asks_for_its_destruction_and_then_for_a_stop(
    cloud: Cloud,
    caplog: pytest.LogCaptureFixture,
    environment: dict[str, str],
    calls: list[tuple[str, str, Any]],
    answers: list[tuple[int, str]],
    destroys: int,
) -> None:
    cloud.answers = list(answers)
    with caplog.at_level(logging.WARNING):
        asked = end(cloud, environment)
    destroy, stop = calls
    assert asked == [destroy] * destroys + [stop]
    assert "could not be ended" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("environment", [VAST, RUNPOD])
def test_a_cloud_that_never_answers_is_given_up(environment: dict[str, str]) -> None:
    with Cloud() as nobody:
        url = nobody.url
    machine = find_machine(Settings(vast_url=url, runpod_url=url), environment)
    assert machine is not None
    anyio.run(lambda: end_machine(machine, pause_s=0, linger_s=0))


@pytest.mark.parametrize(
    "environment",
    [{}, {"RUNPOD_API_KEY": "the account's"}, {"CONTAINER_ID": "1"}, {"RUNPOD_POD_ID": "a"}],
)
def test_a_machine_that_nobody_rents_out_is_none(environment: dict[str, str]) -> None:
    assert find_machine(Settings(), environment) is None


@pytest.mark.parametrize(
    ("idle", "lease", "why"),
    [(SOON, None, "nothing to do"), (None, SOON / 60, "was not renewed")],
)
def test_a_worker_of_nobodys_machine_just_ends(
    data_dir: Path, idle: float | None, lease: float | None, why: str
) -> None:
    with running_worker(
        data_dir, separation_command=STAND_IN, idle_minutes=idle, lease_hours=lease
    ) as worker:
        assert worker.process.wait(60) == 0
        assert why in worker.log.read_text()


def test_a_worker_of_a_rented_machine_ends_that(
    data_dir: Path, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in VAST.items():
        monkeypatch.setenv(name, value)
    with running_worker(
        data_dir, separation_command=STAND_IN, idle_minutes=SOON, vast_url=cloud.url
    ) as worker:
        eventually(lambda: cloud.calls)
        eventually(lambda: "agrees to destroy it" in worker.log.read_text())
        assert worker.process.poll() is None, "the cloud gets its time to end the machine"
        assert KEY not in worker.log.read_text()
        assert KEY not in str(worker.separation().environ())
        with worker.client() as client:
            assert client.post("/lease").json()["type"] == "worker-ending"
    assert [call[0] for call in cloud.calls] == ["DELETE"]


def slow_upload(url: str, more: threading.Event) -> None:
    """An upload that goes on until ``more`` is set."""

    def pieces() -> Iterator[bytes]:
        while not more.wait(0.05):
            yield b"x"

    httpx.put(f"{url}/inputs/{'0' * 64}", content=pieces(), timeout=60, trust_env=False)


def test_neither_a_job_nor_an_upload_is_idleness(data_dir: Path) -> None:
    with running_worker(data_dir, separation_command=STAND_IN, idle_minutes=10) as worker:
        worker.wait_ready()
        with worker.client() as client:

            def idle() -> float:
                return float(client.get("/status").json()["idle_seconds"])

            eventually(idle)
            job = post(client, b"hold")
            assert [idle() for _ in range(5)] == [0] * 5
            until(client, job, "running")
            assert [idle() for _ in range(5)] == [0] * 5
            worker.let_go(job)
            until(client, job, "completed")
            eventually(idle)

            over = threading.Event()
            upload = threading.Thread(target=slow_upload, args=(worker.url, over))
            upload.start()
            eventually(idle, lambda seconds: seconds == 0)
            assert [idle() for _ in range(5)] == [0] * 5
            over.set()
            upload.join()
            eventually(idle)


def test_a_lease_is_renewed_by_whoever_asks(data_dir: Path) -> None:
    with running_worker(data_dir, separation_command=STAND_IN, lease_hours=12) as worker:
        worker.wait_ready()
        with worker.client() as client:

            def renewed(**params: bool) -> datetime:
                answer = client.post("/lease", params=params).json()
                return datetime.fromisoformat(answer["lease_ends_at"])

            before = ends_at(client)
            eventually(renewed, lambda after: after - before > LATER)
            eventually(lambda: ends_at(client) - before > LATER)

            def idle() -> float:
                return float(client.get("/status").json()["idle_seconds"])

            eventually(idle, lambda seconds: seconds > 3)
            renewed(expect_work=True)
            assert idle() < 3


def ends_at(client: httpx.Client) -> datetime:
    """When the worker's lease ends."""
    return datetime.fromisoformat(client.get("/status").json()["lease_ends_at"])


def test_a_job_that_gets_further_renews_the_lease(data_dir: Path) -> None:
    with running_worker(data_dir, separation_command=STAND_IN, lease_hours=12) as worker:
        worker.wait_ready()
        with worker.client() as client:
            before = ends_at(client)
            post(client, b"hold")
            eventually(lambda: ends_at(client), lambda after: after - before > LATER)


def test_a_worker_without_a_lease_says_so(data_dir: Path) -> None:
    with running_worker(data_dir, separation_command=STAND_IN) as worker:
        worker.wait_ready()
        with worker.client() as client:
            assert client.post("/lease").json() == {"lease_ends_at": None}
            assert client.get("/status").json()["lease_ends_at"] is None


def test_limits_that_are_none_are_refused(data_dir: Path) -> None:
    with running_worker(data_dir, idle_minutes=0) as worker:
        assert worker.process.wait(60) == 2
        assert "idle_minutes" in worker.log.read_text()
