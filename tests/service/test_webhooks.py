"""A caller's own server hears of a job's end: signed, until it has heard, and nobody else does."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr, ValidationError
from stemserve.running.webhooks import keys, signed
from stemserve.schema import Job, JobStatus
from stemserve.settings import Settings

from tests.service.worker import (
    STAND_IN,
    RunningWorker,
    ended,
    eventually,
    post,
    running_worker,
    until,
)

TOKENS = ("first-token", "second-token")
QUERY = "key=nobody-may-read-this"


@dataclass
class Heard:
    """One message."""

    path: str
    headers: dict[str, str]
    body: bytes

    def is_signed_with(self, key: bytes) -> bool:
        """Whether one of the signatures is of that key, and of now."""
        at = self.headers["webhook-timestamp"]
        assert abs(time.time() - int(at)) < 300
        content = f"{self.headers['webhook-id']}.{at}.".encode() + self.body
        digest = hmac.new(key, content, hashlib.sha256).digest()
        expected = f"v1,{base64.b64encode(digest).decode()}"
        return expected in self.headers["webhook-signature"].split(" ")


@dataclass
class Receiver:
    """A caller's server, and what it is to answer next; 204 when nothing is said."""

    port: int = 0
    heard: list[Heard] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    def url(self, path: str) -> str:
        """An address of it."""
        return f"http://127.0.0.1:{self.port}/{path}?{QUERY}"

    def at(self, path: str, count: int = 1) -> list[Heard]:
        """What came to that path, once it is so much."""
        return eventually(
            lambda: [one for one in self.heard if one.path.startswith(f"/{path}?")],
            lambda found: len(found) >= count,
        )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A server on loopback."""
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            made.heard.append(Heard(self.path, headers, body))
            self.send_response(made.answers.pop(0) if made.answers else 204)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def sender(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    """A worker with two tokens, which may post to loopback."""
    with running_worker(
        tmp_path_factory.mktemp("worker") / "data",
        TOKENS[0],
        separation_command=STAND_IN,
        fetch_allowed=("127.0.0.1/32",),
    ) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def asking(sender: RunningWorker) -> Iterator[httpx.Client]:
    """A client of it."""
    with sender.client() as ours:
        yield ours


def derived(token: str) -> bytes:
    """The key of a token, as the documentation has it."""
    return hmac.new(token.encode(), b"stemserve webhook", hashlib.sha256).digest()


def twice_trusting(data_dir: Path) -> AbstractContextManager[RunningWorker]:
    """A worker with two tokens that may post anywhere."""
    return running_worker(
        data_dir, " ".join(TOKENS), separation_command=STAND_IN, fetch_private=True
    )


def log_of(client: httpx.Client, job_id: str, words: str) -> str:
    """A job's log, once it has these words."""
    return eventually(
        lambda: str(client.get(f"/job/{job_id}/logs").json()["logs"]), lambda text: words in text
    )


def test_the_end_of_a_job_is_told(asking: httpx.Client, receiver: Receiver) -> None:
    job_id = post(asking, b"copy for a webhook", webhook_url=receiver.url("done"))
    (message,) = receiver.at("done")
    assert message.is_signed_with(derived(TOKENS[0]))
    assert not message.is_signed_with(derived("another"))
    job = Job.model_validate_json(message.body)
    assert (job.job_id, job.status) == (job_id, JobStatus.COMPLETED)
    assert job == Job.model_validate(asking.get(f"/job/{job_id}").json())
    log_of(asking, job_id, "delivered")
    # The same job, asked for again, is told again: under an id of its own.
    again = post(asking, b"copy for a webhook", webhook_url=receiver.url("done"))
    assert again == job_id
    first, second = receiver.at("done", 2)
    assert first.headers["webhook-id"] != second.headers["webhook-id"]


def test_so_is_its_failure(asking: httpx.Client, receiver: Receiver) -> None:
    post(asking, b"fail not-audio for a webhook", webhook_url=receiver.url("failed"))
    (message,) = receiver.at("failed")
    job = Job.model_validate_json(message.body)
    assert job.status is JobStatus.FAILED


def test_it_is_told_again_until_it_was_heard_also_by_the_next_worker(
    data_dir: Path, receiver: Receiver
) -> None:
    receiver.answers = [500]
    with (
        running_worker(
            data_dir, " ".join(TOKENS), separation_command=STAND_IN, fetch_private=True
        ) as first,
        httpx.Client(
            base_url=first.url,
            headers={"Authorization": f"Bearer {TOKENS[1]}"},
            timeout=30,
            trust_env=False,
        ) as client,
    ):
        eventually(lambda: client.get("/ready").status_code, lambda status: status == 200)
        job_id = post(client, b"copy", webhook_url=receiver.url("again"))
        receiver.at("again")
        log = log_of(client, job_id, "try 1 of")
        first.kill()
    with running_worker(
        data_dir, " ".join(TOKENS), separation_command=STAND_IN, fetch_private=True
    ) as second:
        refused, heard = receiver.at("again", 2)
        eventually(lambda: "delivered" in second.log.read_text())
    assert refused.headers["webhook-id"] == heard.headers["webhook-id"]
    assert all(heard.is_signed_with(derived(token)) for token in TOKENS)
    for text in (log, second.log.read_text()):
        assert "127.0.0.1" in text
        assert QUERY not in text
        assert not any(token in text for token in TOKENS)


def test_a_worker_that_is_told_to_stop_tells_of_its_last_job(
    data_dir: Path, receiver: Receiver
) -> None:
    with (
        running_worker(
            data_dir, TOKENS[0], separation_command=STAND_IN, fetch_private=True, drain_seconds=50
        ) as worker,
        worker.client() as client,
    ):
        worker.wait_ready()
        job_id = post(client, b"hold to the end", webhook_url=receiver.url("last"))
        until(client, job_id, "running")
        worker.process.terminate()
        worker.let_go(job_id)
        assert worker.process.wait(60) == 0
    assert len(receiver.at("last")) == 1


def test_a_redirect_is_not_followed_and_who_is_gone_is_left_alone(
    asking: httpx.Client, receiver: Receiver
) -> None:
    receiver.answers = [307, 410]
    job_id = post(asking, b"copy for a redirect", webhook_url=receiver.url("moved"))
    receiver.at("moved", 2)
    log = log_of(asking, job_id, "given up")
    assert "it answers 307; try 1 of 8" in log
    assert "given up after 2 tries: it answers 410" in log
    assert {message.path.partition("?")[0] for message in receiver.heard} == {"/moved"}


def test_nothing_is_sent_to_private_addresses(worker: RunningWorker, receiver: Receiver) -> None:
    with worker.client() as client:
        urls = [receiver.url("private"), f"http://localhost:{receiver.port}/private"]
        for number, url in enumerate(urls):
            job_id = post(client, f"copy {number} for nobody".encode(), webhook_url=url)
            ended(client, job_id)
            assert "private address" in log_of(client, job_id, "given up")
    assert receiver.heard == []


def test_what_cannot_be_signed_is_refused(
    data_dir: Path, asking: httpx.Client, receiver: Receiver
) -> None:
    with running_worker(data_dir, separation_command=STAND_IN) as worker, worker.client() as client:
        worker.wait_ready()
        request = {"input_url": "http://a.example/b", "webhook_url": receiver.url("x")}
        answer = client.post("/job", json=request)
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request")
    assert "STEMSERVE_WEBHOOK_SECRET" in answer.json()["detail"]
    for url in ("ftp://a.example/", "http://user:secret@a.example/"):
        answer = asking.post("/job", json=request | {"webhook_url": url})
        assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request")


def test_a_secret_takes_the_place_of_tokens() -> None:
    plain = Settings(token=SecretStr("t"), webhook_secret=SecretStr("words"))
    coded = Settings(webhook_secret=SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    assert keys(plain) == [b"words"]
    # The example of the Standard Webhooks.
    body = b'{"test": 2432232314}'
    headers = signed("msg_p5jXN8AQM9LWM0D4loKWxJek", body, keys(coded), 1614265330)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert plain.secrets() == ["t", "words"]
    with pytest.raises(ValidationError):
        Settings(webhook_secret=SecretStr("whsec_no base64!"))
