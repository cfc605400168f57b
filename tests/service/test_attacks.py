"""Requests made to break a worker: each gets its right answer, and the next caller is served."""

from __future__ import annotations

import http.client
import json
import socket
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.service.test_jobs import is_problem
from tests.service.worker import STAND_IN, RunningWorker, post, running_worker, until, upload

HEAD = b"Host: worker\r\nAuthorization: Bearer the-token\r\nContent-Type: application/json\r\n"
SMUGGLED = b"0\r\n\r\nDELETE /job/other HTTP/1.1\r\nHost: worker\r\n\r\n"


def answers(worker: RunningWorker, request: bytes) -> bytes:
    """What the worker says to these bytes until it hangs up."""
    port = int(worker.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        said = b""
        while piece := connection.recv(65536):
            said += piece
    return said


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        b"Content-Length: 4\r\nContent-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: +4\r\n",
        b"Content-Length: 0x4\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: identity, chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: chunked\r\nX: a\0b\r\n",
        b"Host: other\r\n",
    ],
)
def test_no_second_request_is_smuggled_in_a_body(worker: RunningWorker, fields: bytes) -> None:
    said = answers(worker, b"POST /job HTTP/1.1\r\n" + HEAD + fields + b"\r\n" + SMUGGLED)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in said.lower()
    assert json.loads(said.rpartition(b"\r\n")[2])["type"] == "bad-request"


def test_an_upgrade_is_not_taken(worker: RunningWorker) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    assert httpx.get(f"{worker.url}/status", headers=upgrade).status_code == 401
    assert httpx.get(f"{worker.url}/health", headers=upgrade).status_code == 200


def body(sha256: str, rest: str) -> bytes:
    """A job's request with more fields, written by hand."""
    return f'{{"input_sha256": "{sha256}", "stems": ["vocals"], {rest}}}'.encode()


@pytest.mark.parametrize(
    ("rest", "status", "word"),
    [
        ('"range": {"start_seconds": NaN}', 422, "invalid-request"),
        ('"range": {"end_seconds": Infinity}', 422, "invalid-request"),
        ('"range": {"end_seconds": -1e999}', 422, "invalid-request"),
        (f'"range": {{"start_seconds": {"9" * 5000}}}', 400, "bad-request"),
        (f'"range": {"[" * 20000}', 400, "bad-request"),
        (f'"range": {chr(123) + chr(34) + "a" + chr(34) + ":" + chr(123)}', 422, "invalid-request"),
        (f'"range": {"[" * 400 + "]" * 400}', 422, "invalid-request"),
        ('"input_name": "\\ud800"', 422, "invalid-request"),
        ('"__proto__": {"admin": true}', 422, "invalid-request"),
        ('"job_id": "good", "job_id": "../bad"', 422, "invalid-request"),
        ('"job_id": "a\\u0000"', 422, "invalid-request"),
        ('"job_id": "a\\n"', 422, "invalid-request"),
        ('"stems": ["../../vocals"]', 422, "invalid-request"),
        ('"preset": "../center"', 422, "invalid-request"),
        ('"interval_cut": "' + "1," * 2000 + '"', 422, "invalid-request"),
        ('"input_name": "' + "a" * 256 + '"', 422, "invalid-request"),
    ],
)
def test_json_that_means_harm(
    client: httpx.Client, worker: RunningWorker, rest: str, status: int, word: str
) -> None:
    content = body(upload(client, b"copy"), rest)
    headers = {"Content-Type": "application/json"}
    problem = is_problem(client.post("/job", content=content, headers=headers), status, word)
    assert len(problem["detail"]) < 1000
    assert client.get("/health").status_code == 200
    assert "Traceback" not in worker.log.read_text()


def test_a_form_of_another_site_is_no_job(client: httpx.Client) -> None:
    """A page elsewhere can send these types without asking first."""
    content = body(upload(client, b"copy"), '"mono": false')
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = client.post("/job", content=content, headers={"Content-Type": media_type})
        assert answer.status_code == 422
    answer = client.options("/job", headers={"Origin": "https://page.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "name", ["../../out.wav", "\0", "\u202egpj.exe", "a\r\nSet-Cookie: b", "…" * 255]
)
def test_a_name_of_an_input_is_only_shown(
    client: httpx.Client, worker: RunningWorker, name: str
) -> None:
    until(client, post(client, b"copy"), "completed")
    before = {path.name for path in worker.data_dir.iterdir()}
    job_id = post(client, f"copy {name}".encode(), input_name=name)
    job = until(client, job_id, "completed")
    assert job["input_name"] == name
    assert {path.name for path in worker.data_dir.iterdir()} == before
    answer = client.get(f"/result/{job_id}")
    assert "set-cookie" not in answer.headers
    assert answer.headers["content-disposition"] == 'attachment; filename="instrumental.mp3"'


def test_no_wrong_token_is_told_from_another(worker: RunningWorker) -> None:
    sent = ["the-toke", "the-tokeN", "the-token-", "x", "x" * 5000, "\xe4", "Bearer the-token"]
    said = set()
    for token in (None, *sent):
        headers = {} if token is None else {b"Authorization": f"Bearer {token}".encode()}
        answer = httpx.get(f"{worker.url}/job/a", headers=headers)
        kept = {name: value for name, value in answer.headers.items() if name != "date"}
        said.add((answer.status_code, answer.content, tuple(sorted(kept.items()))))
    assert len(said) == 1


def test_ten_thousand_jobs_at_once_are_each_answered_rightly(data_dir: Path) -> None:
    """As many as may wait are taken, the others are told so, and callers of health are served."""
    limit = 100
    with running_worker(
        data_dir, "the-token", separation_command=STAND_IN, queue_limit=limit
    ) as worker:
        worker.wait_ready()
        with worker.client() as client:
            until(client, post(client, b"hang"), "running")
            sha256 = upload(client, b"copy")
            answered: Counter[int] = Counter()
            port = int(worker.url.rpartition(":")[2])
            caller = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            headers = {"Authorization": "Bearer the-token", "Content-Type": "application/json"}
            for number in range(10_000):
                content = json.dumps({"input_sha256": sha256, "job_id": f"job-{number}"})
                caller.request("POST", "/job", content, headers)
                answer = caller.getresponse()
                told = json.loads(answer.read())
                answered[answer.status] += 1
                assert answer.status == (200 if number < limit else 429), told
                if answer.status == 429:
                    assert int(answer.headers["Retry-After"]) > 0
                if number % 1000 == 0:
                    assert client.get("/health").status_code == 200
            assert answered == {200: limit, 429: 10_000 - limit}
            assert client.get("/jobs", params={"status": "pending"}).json()["total"] == limit
