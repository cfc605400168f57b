"""Results that a worker sends to where its caller wants them."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from stemserve.delivery import AT_ONCE, KNOWN, Deliveries
from stemserve.errors import NoSuchDeliveryError, TooManyDeliveriesError
from stemserve.schema import DeliveryStatus, ResultFile

from tests.service.worker import STAND_IN, RunningWorker, ended, eventually, post, running_worker

SECRET = "hidden-mark"


@dataclass
class Taker:
    """A store that takes what is put there, as its paths say."""

    url: str = ""
    taken: dict[str, bytes] = field(default_factory=dict)
    heads: list[dict[str, str]] = field(default_factory=list)
    tries: list[str] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    """Lets ``/held`` end."""


@contextmanager
def taking() -> Iterator[Taker]:
    """A store on a free loopback port: ``/403``, ``/flaky/N`` (N times 503), ``/to``, ``/held``."""
    taker = Taker()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            path = self.path.partition("?")[0]
            taker.tries.append(self.path)
            taker.heads.append({name.lower(): value for name, value in self.headers.items()})
            body = self.rfile.read(int(self.headers["Content-Length"]))
            word, _, rest = path.strip("/").partition("/")
            status = 200
            if word == "403":
                status = 403
            elif word == "to":
                status = 307
            elif word == "flaky" and len(taker.tries) <= int(rest):
                status = 503
            elif word == "held":
                taker.go.wait(30)
            if status == 200:
                taker.taken[path] = body
            self.send_response(status)
            if status == 307:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        taker.url = f"http://127.0.0.1:{server.server_port}"
        serving = threading.Thread(target=server.serve_forever, args=(0.02,))
        serving.start()
        yield taker
        taker.go.set()
        server.shutdown()
        serving.join()


@pytest.fixture
def taker() -> Iterator[Taker]:
    """A store for one test."""
    with taking() as running:
        yield running


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    """A worker that may reach loopback."""
    data_dir = tmp_path_factory.mktemp("worker") / "data"
    with running_worker(
        data_dir, "the-token", separation_command=STAND_IN, fetch_private=True, fetch_timeout=8
    ) as running:
        running.wait_ready()
        yield running


@pytest.fixture(scope="module")
def job(worker: RunningWorker) -> dict[str, Any]:
    """A completed job."""
    with worker.client() as client:
        return ended(client, post(client, b"copy for deliveries"))


def deliver(
    client: httpx.Client, job: dict[str, Any], url: str, file: str | None = None
) -> httpx.Response:
    """Ask for a delivery of the job's first result."""
    name = file or job["results"][0]["name"]
    answer = client.post(f"/result/{job['job_id']}/deliver", json={"file": name, "url": url})
    assert SECRET not in answer.text
    return answer


def delivered(client: httpx.Client, job: dict[str, Any], url: str) -> dict[str, Any]:
    """The delivery once it is over."""
    answer = deliver(client, job, url)
    assert answer.status_code == 202, answer.text

    def look() -> dict[str, Any]:
        found = client.get(
            f"/result/{job['job_id']}/deliver", params={"file": job["results"][0]["name"]}
        )
        assert SECRET not in found.text
        state: dict[str, Any] = found.json()
        return state

    return eventually(look, lambda state: state["status"] != "sending")


def test_a_result_gets_where_it_is_wanted(
    client: httpx.Client, worker: RunningWorker, job: dict[str, Any], taker: Taker
) -> None:
    [result, *_] = job["results"]
    content = client.get(f"/result/{job['job_id']}", params={"file": result["name"]}).content
    state = delivered(client, job, f"{taker.url}/a%20key?signature={SECRET}")
    assert taker.taken == {"/a%20key": content}
    assert taker.tries == [f"/a%20key?signature={SECRET}"]
    md5 = hashlib.md5(content).digest()
    assert (state["status"], state["sent"], state["size"]) == ("delivered", *[len(content)] * 2)
    assert state["md5"] == md5.hex()
    [head] = taker.heads
    assert head["content-md5"] == base64.b64encode(md5).decode()
    assert head["content-length"] == str(len(content))
    assert "transfer-encoding" not in head
    assert "authorization" not in head
    # Asked again it is sent again: what lies there may have been taken away since.
    assert delivered(client, job, f"{taker.url}/a%20key")["status"] == "delivered"
    assert len(taker.tries) == 2


@pytest.mark.parametrize(
    ("path", "tries", "told"),
    [
        ("/403", 1, "answers 403"),
        ("/to", 1, "answers 307"),
        ("/flaky/9", 4, "answers 503"),
        ("/held", 1, "longer than 8 s"),
    ],
)
def test_what_a_store_does_not_take_is_told_after_a_bounded_time(
    client: httpx.Client, job: dict[str, Any], taker: Taker, path: str, tries: int, told: str
) -> None:
    state = delivered(client, job, f"{taker.url}{path}?signature={SECRET}")
    assert (state["status"], state["error_type"]) == ("failed", "delivery-failed")
    assert told in state["error"]
    assert len(taker.tries) == tries
    assert taker.taken == {}


def test_a_fault_that_passes_is_outlasted(
    client: httpx.Client, job: dict[str, Any], taker: Taker
) -> None:
    assert delivered(client, job, f"{taker.url}/flaky/2")["status"] == "delivered"
    assert len(taker.tries) == 3


def test_a_delivery_under_way_is_one_and_shows_its_progress(
    client: httpx.Client, job: dict[str, Any], taker: Taker
) -> None:
    url = f"{taker.url}/held?signature="
    assert deliver(client, job, f"{url}{SECRET}").json()["status"] == "sending"
    eventually(lambda: taker.tries)
    again = deliver(client, job, f"{url}another-{SECRET}")
    assert (again.status_code, again.json()["status"]) == (202, "sending")
    assert again.json()["sent"] == again.json()["size"]  # sent, but not taken yet
    other = deliver(client, job, f"{taker.url}/other")
    assert (other.status_code, other.json()["type"]) == (409, "delivery-running")
    taker.go.set()
    assert eventually(lambda: taker.taken)
    assert len(taker.tries) == 1


def test_no_more_than_so_many_are_under_way() -> None:
    deliveries = Deliveries()
    results = [
        ResultFile(name=f"{number}.wav", stem=None, size=1, sha256="0" * 64)
        for number in range(AT_ONCE + KNOWN)
    ]
    under_way = [deliveries.begin("job", one, "http://host/a") for one in results[:AT_ONCE]]
    with pytest.raises(TooManyDeliveriesError):
        deliveries.begin("job", results[AT_ONCE], "http://host/a")
    assert under_way[0] is not None
    under_way[0].status = DeliveryStatus.DELIVERED
    for one in results[AT_ONCE:]:  # what has ended is forgotten, the oldest first
        begun = deliveries.begin("job", one, "http://host/a")
        assert begun is not None
        begun.status = DeliveryStatus.DELIVERED
    with pytest.raises(NoSuchDeliveryError):
        deliveries.find("job", results[0].name)
    assert deliveries.find("job", results[1].name).status is DeliveryStatus.SENDING
    assert deliveries.find("job", results[-1].name).status is DeliveryStatus.DELIVERED


def test_what_cannot_be_delivered_is_a_problem(
    client: httpx.Client, job: dict[str, Any], taker: Taker
) -> None:
    for path, url, file, status, word in (
        (job["job_id"], taker.url, "../secret", 404, "no-such-file"),
        ("nobody", taker.url, "vocals.wav", 404, "no-such-job"),
        (job["job_id"], f"ftp://127.0.0.1/?{SECRET}", "vocals.wav", 422, "invalid-request"),
    ):
        answer = deliver(client, {"job_id": path}, url, file)
        assert (answer.status_code, answer.json()["type"]) == (status, word)
    never = client.get(f"/result/{job['job_id']}/deliver", params={"file": "never.wav"})
    assert (never.status_code, never.json()["type"]) == (404, "no-such-delivery")
    assert taker.tries == []


def test_no_result_is_sent_to_private_addresses(data_dir: Path, taker: Taker) -> None:
    with (
        running_worker(data_dir, separation_command=STAND_IN) as closed,
        closed.client() as client,
    ):
        closed.wait_ready()
        job = ended(client, post(client, b"copy for nobody"))
        for url in (taker.url, taker.url.replace("127.0.0.1", "localhost"), "http://[::1]/"):
            state = delivered(client, job, f"{url}/a?{SECRET}")
            assert "private address" in state["error"]
    assert taker.tries == []


def test_a_worker_that_is_told_to_stop_ends_its_deliveries(data_dir: Path, taker: Taker) -> None:
    with (
        running_worker(
            data_dir, separation_command=STAND_IN, fetch_private=True, drain_seconds=60
        ) as leaving,
        leaving.client() as client,
    ):
        leaving.wait_ready()
        job = ended(client, post(client, b"copy before the end"))
        assert deliver(client, job, f"{taker.url}/held").status_code == 202
        eventually(lambda: taker.tries)
        leaving.process.terminate()
        eventually(lambda: client.post("/lease").status_code == 503)
        assert leaving.process.poll() is None
        taker.go.set()
        leaving.process.wait(30)
    assert list(taker.taken) == ["/held"]
    assert "is delivered" in leaving.log.read_text()


def test_the_secrets_of_a_delivery_are_kept_nowhere(
    client: httpx.Client, worker: RunningWorker, job: dict[str, Any], taker: Taker
) -> None:
    for path in ("/a", "/403", "/flaky/1"):
        delivered(client, job, f"{taker.url}{path}?signature={SECRET}")
    delivered(client, job, f"http://127.0.0.1:1/?signature={SECRET}")
    assert SECRET not in worker.log.read_text()
    for file in worker.data_dir.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes()
