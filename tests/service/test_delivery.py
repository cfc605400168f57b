"""What a worker sends to where its caller wants it, and fetches from there."""

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
from stemserve.carrying.delivery import Cargo, Deliveries
from stemserve.carrying.fetches import Fetches
from stemserve.carrying.transfers import AT_ONCE, KNOWN
from stemserve.errors import (
    NoSuchDeliveryError,
    NoSuchFetchError,
    TooManyDeliveriesError,
    TooManyFetchesError,
)
from stemserve.schema import DeliveryStatus, FetchStatus

from tests.service.worker import STAND_IN, RunningWorker, ended, eventually, post, running_worker

SECRET = "hidden-mark"


@dataclass
class Taker:
    """A store that takes what is put there, as its paths say, and gives it."""

    url: str = ""
    taken: dict[str, bytes] = field(default_factory=dict)
    heads: list[dict[str, str]] = field(default_factory=list)
    tries: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    """What did not come whole."""
    go: threading.Event = field(default_factory=threading.Event)
    """Lets ``/held`` and ``/late`` go on."""


class Handler(BaseHTTPRequestHandler):
    """``/403``, ``/flaky/N`` (N times 503), ``/to``, ``/held``, and ``/late``, which reads late."""

    taker: Taker

    def do_PUT(self) -> None:
        taker, size = self.taker, int(self.headers["Content-Length"])
        taker.tries.append(self.path)
        taker.heads.append({name.lower(): value for name, value in self.headers.items()})
        path = self.path.partition("?")[0]
        word, _, rest = path.strip("/").partition("/")
        if word == "late":
            taker.go.wait(30)
        if len(body := self.rfile.read(size)) < size:
            taker.cut.append(path)
            return
        if word == "held":
            taker.go.wait(30)
        status = {"403": 403, "to": 307}.get(word, 200)
        if word == "flaky" and len(taker.tries) <= int(rest):
            status = 503
        if status == 200:
            taker.taken[path] = body
        self.answer(status, b"")

    def do_GET(self) -> None:
        content = self.taker.taken.get(self.path.partition("?")[0])
        self.answer(404 if content is None else 200, content or b"")

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status == 307:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def taking() -> Iterator[Taker]:
    """A store on a free loopback port."""
    taker = Taker()
    handler = type("Handler", (Handler,), {"taker": taker})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
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
    again = eventually(
        lambda: deliver(client, job, f"{url}another-{SECRET}"),
        lambda answer: answer.json()["sent"] == answer.json()["size"],  # sent, but not taken yet
    )
    assert (again.status_code, again.json()["status"]) == (202, "sending")
    other = deliver(client, job, f"{taker.url}/other")
    assert (other.status_code, other.json()["type"]) == (409, "delivery-running")
    taker.go.set()
    assert eventually(lambda: taker.taken)
    assert len(taker.tries) == 1


def test_no_more_than_so_many_are_under_way() -> None:
    deliveries = Deliveries()
    files = [
        Cargo("job", f"{number}.wav", 1, lambda: iter([b"1"])) for number in range(AT_ONCE + KNOWN)
    ]
    under_way = [deliveries.begin(one, "http://host/a") for one in files[:AT_ONCE]]
    with pytest.raises(TooManyDeliveriesError):
        deliveries.begin(files[AT_ONCE], "http://host/a")
    assert under_way[0] is not None
    under_way[0].status = DeliveryStatus.DELIVERED
    for one in files[AT_ONCE:]:  # what has ended is forgotten, the oldest first
        begun = deliveries.begin(one, "http://host/a")
        assert begun is not None
        begun.status = DeliveryStatus.DELIVERED
    with pytest.raises(NoSuchDeliveryError):
        deliveries.find("job", files[0].name)
    assert deliveries.find("job", files[1].name).status is DeliveryStatus.SENDING
    assert deliveries.find("job", files[-1].name).status is DeliveryStatus.DELIVERED


def test_no_more_than_so_many_inputs_are_fetched_at_once() -> None:
    fetches = Fetches()
    names = [f"{number:064x}" for number in range(AT_ONCE + KNOWN)]
    under_way = [fetches.begin(name) for name in names[:AT_ONCE]]
    assert fetches.begin(names[0]) is None
    with pytest.raises(TooManyFetchesError):
        fetches.begin(names[AT_ONCE])
    assert under_way[0] is not None
    under_way[0].status = FetchStatus.FETCHED
    for name in names[AT_ONCE:]:
        begun = fetches.begin(name)
        assert begun is not None
        begun.status = FetchStatus.FETCHED
    with pytest.raises(NoSuchFetchError):
        fetches.find(names[0])
    assert fetches.find(names[1]).status is FetchStatus.FETCHING
    assert fetches.find(names[-1]).status is FetchStatus.FETCHED


def fetched(client: httpx.Client, sha256: str, url: str) -> dict[str, Any]:
    """The fetch of an input once it is over."""
    answer = client.post(f"/inputs/{sha256}/fetch", json={"input_url": url})
    assert answer.status_code == 202, answer.text
    assert SECRET not in answer.text

    def look() -> dict[str, Any]:
        state: dict[str, Any] = client.get(f"/inputs/{sha256}/fetch").json()
        assert SECRET not in str(state)
        return state

    return eventually(look, lambda state: state["status"] != "fetching")


def test_an_input_is_fetched_before_a_job_asks_for_it(
    client: httpx.Client, worker: RunningWorker, taker: Taker
) -> None:
    content = b"copy that lay in a store"
    taker.taken["/a key"] = taker.taken["/a%20key"] = content
    sha256 = hashlib.sha256(content).hexdigest()
    never = client.get(f"/inputs/{sha256}/fetch")
    assert (never.status_code, never.json()["type"]) == (404, "no-such-fetch")
    url = f"{taker.url}/a%20key?signature={SECRET}"
    state = fetched(client, sha256, url)
    assert (state["status"], state["size"]) == ("fetched", len(content))
    assert client.get(f"/inputs/{sha256}").json()["size"] == len(content)
    taker.taken.clear()  # what is there is not asked for again
    again = client.post(f"/inputs/{sha256}/fetch", json={"input_url": url})
    assert (again.status_code, again.json()["status"]) == (202, "fetched")
    assert ended(client, post(client, content))["status"] == "completed"
    assert SECRET not in worker.log.read_text()


def test_what_is_not_the_input_that_was_named_is_not_kept(
    client: httpx.Client, worker: RunningWorker, taker: Taker
) -> None:
    taker.taken["/other"] = b"something else"
    sha256 = hashlib.sha256(b"what was wanted").hexdigest()
    for path, word in (("/other", "digest-mismatch"), ("/none", "fetch-failed")):
        state = fetched(client, sha256, f"{taker.url}{path}?signature={SECRET}")
        assert (state["status"], state["error_type"]) == ("failed", word)
        assert state["error"]
    assert client.get(f"/inputs/{sha256}").status_code == 404
    assert not list((worker.data_dir / "inputs").glob(".*"))
    assert SECRET not in worker.log.read_text()


def test_the_files_of_a_job_that_is_deleted_do_not_arrive_later(
    client: httpx.Client, worker: RunningWorker, taker: Taker
) -> None:
    job = ended(client, post(client, b"copy" + bytes(32 * 2**20)))
    assert deliver(client, job, f"{taker.url}/late").status_code == 202
    eventually(lambda: taker.tries)
    assert client.delete(f"/job/{job['job_id']}").status_code == 200
    taker.go.set()
    eventually(lambda: taker.cut)
    assert taker.taken == {}
    assert "is not delivered" in eventually(
        worker.log.read_text, lambda log: f"{job['job_id']} was deleted" in log
    )


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
        inner = fetched(client, "0" * 64, f"{taker.url}/a?{SECRET}")
        assert "private address" in inner["error"]
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
