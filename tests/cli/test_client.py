"""The client against a server that answers by script: what is tried again, and what is not."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from stemctl.errors import InputError, WorkerError
from stemctl.fleet.stack import Endpoint
from stemctl.worker.client import RefusedError, UnreachableError, Worker
from stemserve.schema import JobRequest, ResultFile

Reply = tuple[int, bytes, dict[str, str]]

JOBS = b'{"jobs": [], "total": 0}'


class Script(http.server.ThreadingHTTPServer):
    """Answers with the replies in their order, the last again and again; keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Scripted)
        self.replies: list[Reply] = []
        self.sent: list[tuple[str, bytes, dict[str, str]]] = []


class Scripted(http.server.BaseHTTPRequestHandler):
    """One request to a `Script`."""

    server: Script
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.sent.append((f"{self.command} {self.path}", body, dict(self.headers)))
        replies = self.server.replies
        status, content, headers = replies.pop(0) if len(replies) > 1 else replies[0]
        if status == 0:  # gone in mid-answer
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def script() -> Iterator[Script]:
    with Script() as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.02,))
        serving.start()
        yield server
        server.shutdown()
        serving.join()


def call(script: Script, use: Callable[[Worker], Any], attempts: int = 3) -> Any:  # noqa: ANN401
    """What ``use`` gets from a client of the script."""
    url = f"http://127.0.0.1:{script.server_port}"

    async def run() -> Any:  # noqa: ANN401
        endpoint = Endpoint(slot="w", url=url)
        async with Worker(endpoint, "hush", attempts=attempts) as worker:
            return await use(worker)

    return anyio.run(run)


def problem(status: int, detail: str = "So it is.", **more: object) -> bytes:
    return json.dumps(
        {"type": "so", "title": "So", "status": status, "detail": detail, **more}
    ).encode()


@pytest.mark.parametrize("passing", [(500, b"", {}), (503, b"<html>", {}), (0, b"", {})])
def test_what_may_pass_is_tried_again(script: Script, passing: Reply) -> None:
    script.replies = [passing, (200, JOBS, {})]
    assert call(script, lambda worker: worker.jobs()).total == 0
    assert len(script.sent) == 2
    assert all(headers["Authorization"] == "Bearer hush" for _, _, headers in script.sent)


def test_a_full_queue_is_asked_again_when_it_says(script: Script) -> None:
    script.replies = [(429, problem(429), {"Retry-After": "0"})] * 2 + [(200, JOBS, {})]
    assert call(script, lambda worker: worker.jobs()).total == 0
    script.replies = [(429, problem(429), {"Retry-After": "0"})]
    with pytest.raises(RefusedError) as caught:
        call(script, lambda worker: worker.jobs())
    assert (caught.value.status, caught.value.pause_s) == (429, 0.0)
    assert len(script.sent) == 6


@pytest.mark.parametrize("status", [400, 404, 409, 422, 507])
def test_what_will_not_pass_is_told_at_once_in_the_workers_words(
    script: Script, status: int
) -> None:
    script.replies = [(status, problem(status, "Name another.", choices=["a", "b"]), {})]
    with pytest.raises(RefusedError, match=r"worker w: Name another. .there is: a, b.") as caught:
        call(script, lambda worker: worker.jobs())
    assert caught.value.kind == "so"
    assert len(script.sent) == 1


def test_no_answer_at_all_names_the_worker_and_the_doctor(script: Script) -> None:
    script.replies = [(0, b"", {})]
    with pytest.raises(UnreachableError, match=r"worker w at http.*stemctl doctor"):
        call(script, lambda worker: worker.jobs(), attempts=2)


def test_an_answer_of_something_else_is_told(script: Script) -> None:
    script.replies = [(200, b"<html>It works!</html>", {})]
    with pytest.raises(WorkerError, match=r"is http.* a worker, and of the same version"):
        call(script, lambda worker: worker.jobs())
    script.replies = [(404, b"<html>", {})]
    with pytest.raises(RefusedError, match="/jobs: 404 Not Found"):
        call(script, lambda worker: worker.jobs())


def test_a_worker_of_another_version_is_understood(script: Script) -> None:
    script.replies = [(200, JOBS.replace(b"{", b'{"novel": 1, ', 1), {})]
    assert call(script, lambda worker: worker.jobs()).total == 0
    created = b'{"job_id": "j", "status": "pending", "message": "", "novel": 1}'
    script.replies = [(200, created, {})]
    request = JobRequest(input_sha256="0" * 64, preset="center", bit_depth=None)
    call(script, lambda worker: worker.post(request))
    assert json.loads(script.sent[-1][1]) == {"input_sha256": "0" * 64, "preset": "center"}


def test_a_redirect_does_not_carry_the_token_away(script: Script) -> None:
    script.replies = [(302, b"", {"Location": "http://127.0.0.1:1/"})]
    with pytest.raises(RefusedError):
        call(script, lambda worker: worker.jobs())
    assert len(script.sent) == 1


def test_odd_job_ids_stay_in_their_place(script: Script) -> None:
    script.replies = [(404, problem(404), {})]
    with pytest.raises(RefusedError):
        call(script, lambda worker: worker.job("../jobs?x=1#y"))
    assert script.sent[0][0] == "GET /job/..%2Fjobs%3Fx%3D1%23y"


CONTENT = bytes(range(256)) * 5000
FILE = ResultFile(
    name="vocals.wav",
    stem="vocals",
    size=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)


@pytest.mark.parametrize("first", [(200, CONTENT[:-1], {}), (200, CONTENT[::-1], {}), (0, b"", {})])
def test_a_damaged_download_is_fetched_again(script: Script, tmp_path: Path, first: Reply) -> None:
    script.replies = [first, (200, CONTENT, {})]
    place = tmp_path / "vocals.wav"
    told: list[int] = []
    call(script, lambda worker: worker.download("j", FILE, place, told.append))
    assert place.read_bytes() == CONTENT
    assert told[-1] == len(CONTENT)


def test_a_download_that_stays_damaged_is_an_error(script: Script, tmp_path: Path) -> None:
    script.replies = [(200, CONTENT[:-1], {})]
    with pytest.raises(WorkerError, match="arrived damaged"):
        call(script, lambda worker: worker.download("j", FILE, tmp_path / "v", print))


def test_an_upload_that_is_cut_short_is_sent_again_whole(script: Script, tmp_path: Path) -> None:
    song = tmp_path / "song.wav"
    song.write_bytes(CONTENT)
    there = json.dumps({"sha256": FILE.sha256, "size": len(CONTENT)}).encode()
    script.replies = [(404, problem(404), {}), (500, b"", {}), (201, there, {})]
    told: list[int] = []
    call(script, lambda worker: worker.upload(song, FILE.sha256, told.append))
    assert [(what.split()[0], body == CONTENT) for what, body, _ in script.sent] == [
        ("GET", False),
        ("PUT", True),
        ("PUT", True),
    ]
    script.replies, script.sent = [(200, there, {})], []
    call(script, lambda worker: worker.upload(song, FILE.sha256, told.append))
    assert len(script.sent) == 1, "the worker has it"


def test_a_file_that_shrinks_while_it_is_sent_is_the_inputs_fault(
    script: Script, tmp_path: Path
) -> None:
    song = tmp_path / "song.wav"
    song.write_bytes(CONTENT * 9)
    script.replies = [(404, problem(404), {}), (201, b"", {})]

    def shrink(sent: int) -> None:
        song.write_bytes(b"")

    with pytest.raises(InputError, match="changed while it was sent"):
        call(script, lambda worker: worker.upload(song, FILE.sha256, shrink))
