"""What a connection may cost: slow, large and many callers are cut, and the others are served."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import psutil
import pytest

from tests.service.test_jobs import is_problem
from tests.service.worker import STAND_IN, RunningWorker, ended, eventually, post, running_worker

HEADER_LIMIT = 4096
CONNECTIONS = 8
DEADLINE_S = 30


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    """A worker with narrow limits."""
    data_dir = tmp_path_factory.mktemp("worker") / "data"
    with running_worker(
        data_dir,
        separation_command=STAND_IN,
        connection_limit=CONNECTIONS,
        header_limit=HEADER_LIMIT,
        header_timeout=1,
        body_limit=2048,
        body_timeout=1,
        upload_stall=1,
        upload_rate=1000,
        download_stall=1,
        keep_alive=3,
    ) as running:
        running.wait_ready()
        yield running


def connected(worker: RunningWorker) -> socket.socket:
    """A bare connection to the worker."""
    port = int(worker.url.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)


def answer_to(connection: socket.socket, drip: Callable[[], bytes] = lambda: b"") -> bytes:
    """All that comes until the worker closes; meanwhile ``drip`` is sent, a piece at a time."""
    said = b""
    connection.settimeout(0.02)
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        with suppress(TimeoutError):
            try:
                if not (piece := connection.recv(65536)):
                    return said
                said += piece
            except ConnectionError:
                return said
        with suppress(OSError):
            connection.sendall(drip())
    raise AssertionError(f"the connection was not closed; it said {said!r}")


def told(said: bytes) -> dict[str, Any]:
    """The problem in a bare answer, which closes the connection."""
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"connection: close" in head.lower()
    problem: dict[str, Any] = json.loads(body)
    assert head.startswith(f"HTTP/1.1 {problem['status']} ".encode())
    return problem


@pytest.mark.parametrize("sent", [b"", b"GET /hea", b"GET /health HTTP/1.1\r\n"])
def test_a_head_that_does_not_come(worker: RunningWorker, sent: bytes) -> None:
    with connected(worker) as connection:
        connection.sendall(sent)
        assert told(answer_to(connection))["type"] == "request-timeout"


def test_a_head_that_drips(worker: RunningWorker) -> None:
    with connected(worker) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        assert told(answer_to(connection, lambda: b"x"))["type"] == "request-timeout"


def test_a_second_head_that_drips(worker: RunningWorker) -> None:
    with connected(worker) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        said = b""
        while b"healthy" not in said:
            said += connection.recv(65536)
        connection.sendall(b"G")
        said = answer_to(connection)
        assert told(said[said.index(b"HTTP/1.1") :])["type"] == "request-timeout"


@pytest.mark.parametrize(
    "head",
    [
        b"X-Long: " + b"x" * HEADER_LIMIT + b"\r\n",
        b"".join(b"X-%d: 1\r\n" % n for n in range(101)),
    ],
)
def test_a_head_that_is_too_long(worker: RunningWorker, head: bytes) -> None:
    with connected(worker) as connection:
        connection.sendall(
            b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n" + head + b"\r\n"
        )
        problem = told(answer_to(connection))
    assert (problem["status"], problem["type"]) == (431, "headers-too-large")


def test_a_head_without_an_end(worker: RunningWorker) -> None:
    with connected(worker) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX-Long: ")
        problem = told(answer_to(connection, lambda: b"x" * HEADER_LIMIT))
    assert (problem["status"], problem["type"]) == (431, "headers-too-large")


def test_what_is_no_http(worker: RunningWorker) -> None:
    with connected(worker) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert told(answer_to(connection))["status"] == 400


def test_a_body_that_is_too_long(client: httpx.Client) -> None:
    is_problem(client.post("/job", content=b" " * 4096), 413, "request-too-large")


def test_a_body_that_drips(worker: RunningWorker) -> None:
    with connected(worker) as connection:
        connection.sendall(
            b"POST /job HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        )
        assert told(answer_to(connection, lambda: b" "))["type"] == "request-timeout"


def test_an_upload_that_drips(worker: RunningWorker) -> None:
    with connected(worker) as connection:
        connection.sendall(
            b"PUT /inputs/" + b"0" * 64 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            b"Content-Length: 100000\r\n\r\n"
        )
        problem = told(answer_to(connection, lambda: b"x"))
    assert problem["type"] == "upload-stalled"
    assert "1000 bytes a second" in problem["detail"]
    assert not list((worker.data_dir / "inputs").glob(".*"))


def test_a_download_that_nobody_takes(worker: RunningWorker, client: httpx.Client) -> None:
    job_id = post(client, b"copy" + b" " * 50_000_000)
    ended(client, job_id)
    with connected(worker) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = f"GET /result/{job_id} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        connection.sendall(request.encode())
        port = connection.getsockname()[1]
        assert connection.recv(1)
        eventually(lambda: open_ports(worker), lambda ports: port not in ports)


def open_ports(worker: RunningWorker) -> set[int]:
    """The other ends of the worker's connections."""
    found = psutil.Process(worker.process.pid).net_connections("tcp")
    return {one.raddr.port for one in found if one.raddr and one.status == "ESTABLISHED"}


def test_more_connections_than_there_may_be(worker: RunningWorker) -> None:
    with ExitStack() as open_ones:
        mine = [open_ones.enter_context(connected(worker)) for _ in range(CONNECTIONS + 1)]
        said = [answer_to(connection) for connection in mine]
    types = [told(one)["type"] for one in said]
    assert "too-many-connections" in types
    with worker.client() as client:
        assert client.get("/health").status_code == 200
