"""What a worker fetches for an input_url, and what it does not."""

from __future__ import annotations

import gzip
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import httpcore
import httpx
import pytest
from stemserve.carrying.fetch import check_address, fetch
from stemserve.errors import FetchError
from stemserve.settings import Settings

from tests.service.worker import STAND_IN, RunningWorker, ended, running_worker, until


class Handler(BaseHTTPRequestHandler):
    """``/ok`` an input; ``/hops/N`` redirects N times; ``/to/URL`` and ``/loop`` once and for ever.

    ``/big`` is without end; ``/slow`` trickles, ``/drip`` its headers; ``/packed`` unpacks to much.
    """

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_GET(self) -> None:
        """Answer one request."""
        self.asked.append(f"{self.path} for {self.headers['Host']}")
        word, _, rest = self.path.strip("/").partition("/")
        if word == "hops" and int(rest) > 0:
            self.redirect(f"/hops/{int(rest) - 1}")
        elif word == "to":
            self.redirect(rest)
        elif word == "loop":
            self.redirect("/loop")
        elif word == "drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            self.pour("slow")
        elif word == "packed":
            body = gzip.compress(bytes(10**7))
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        elif word in ("big", "slow"):
            self.send_response(200)
            self.end_headers()
            self.pour(word)
        else:
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"copy")

    def redirect(self, target: str) -> None:
        """Send the caller elsewhere."""
        self.send_response(302)
        self.send_header("Location", target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def pour(self, how: str) -> None:
        """Write until the caller hangs up."""
        self.close_connection = True
        pause = threading.Event()
        try:
            while True:
                self.wfile.write(b"x" * (2**16 if how == "big" else 1))
                if how == "slow":
                    pause.wait(0.01)
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[str]]]:
    """An HTTP(S) server on loopback: its URL, and what it was asked for."""
    asked: list[str] = []
    handler = type("Handler", (Handler,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def source() -> Iterator[tuple[str, list[str]]]:
    """The server to fetch from."""
    with serving() as served:
        yield served


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    """A worker that may fetch from loopback, within narrow limits."""
    data_dir = tmp_path_factory.mktemp("worker") / "data"
    with running_worker(
        data_dir,
        separation_command=STAND_IN,
        fetch_private=True,
        input_limit=2_000_000,
        fetch_timeout=5,
    ) as running:
        running.wait_ready()
        yield running


def fetched(client: httpx.Client, url: str) -> dict[str, Any]:
    """The job over that URL, once it is over."""
    answer = client.post("/job", json={"input_url": url})
    assert answer.status_code == 200, answer.text
    return ended(client, answer.json()["job_id"])


def test_redirects_are_followed_to_a_bound(
    client: httpx.Client, source: tuple[str, list[str]]
) -> None:
    url, _ = source
    assert fetched(client, f"{url}/hops/5")["status"] == "completed"
    job = fetched(client, f"{url}/hops/6")
    assert job["error_type"] == "fetch-failed"
    assert "redirects" in job["error"]


def test_two_jobs_over_one_url_are_two(client: httpx.Client, source: tuple[str, list[str]]) -> None:
    url, _ = source
    first, second = fetched(client, f"{url}/ok"), fetched(client, f"{url}/ok")
    assert first["job_id"] != second["job_id"]
    assert first["input_sha256"] == second["input_sha256"]


def test_a_named_host_is_asked_under_its_name(
    client: httpx.Client, source: tuple[str, list[str]]
) -> None:
    url, asked = source
    by_name = url.replace("127.0.0.1", "localhost")
    assert fetched(client, f"{by_name}/named")["status"] == "completed"
    assert any(line.startswith("/named for localhost:") for line in asked)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_https_is_checked_against_the_name_not_the_address(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -keyout key.pem -out certificate.pem"
        " -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with (
        serving(tls) as (url, _),
        running_worker(data_dir, separation_command=STAND_IN, fetch_private=True) as worker,
        worker.client() as client,
    ):
        worker.wait_ready()
        by_name = url.replace("127.0.0.1", "localhost")
        assert fetched(client, f"{by_name}/ok")["status"] == "completed"
        job = fetched(client, f"{url}/ok")
        assert job["error_type"] == "fetch-failed"
        assert "certificate" in job["error"].lower()
        assert fetched(client, f"{by_name}/to/{by_name}/ok")["status"] == "completed"
        job = fetched(client, f"{by_name}/to/{by_name.replace('https', 'http')}/ok")
        assert "from https to http" in job["error"]


@pytest.mark.parametrize(
    ("path", "error_type", "told"),
    [
        ("/big", "input-too-large", "2000000"),
        ("/slow", "fetch-failed", "longer than 5 s"),
        ("/drip", "fetch-failed", "longer than 5 s"),
        ("/loop", "fetch-failed", "redirects more than 5 times"),
        ("/packed", "fetch-failed", "content encoding"),
        ("/to/ftp://example.com/a", "fetch-failed", "cannot be fetched"),
        ("/to/file:///etc/passwd", "fetch-failed", "cannot be fetched"),
    ],
)
def test_limits(
    client: httpx.Client,
    worker: RunningWorker,
    source: tuple[str, list[str]],
    path: str,
    error_type: str,
    told: str,
) -> None:
    job = fetched(client, source[0] + path)
    assert (job["status"], job["error_type"]) == ("failed", error_type)
    assert told in job["error"]
    assert not list((worker.data_dir / "inputs").glob(".*"))


def test_the_secrets_of_a_url_are_not_logged(
    client: httpx.Client, worker: RunningWorker, source: tuple[str, list[str]]
) -> None:
    url, asked = source
    signed = url.replace("http://", "http://user:hidden-word@") + "/ok?signature=hidden-mark"
    job = fetched(client, signed)
    assert job["status"] == "completed"
    assert any("hidden-mark" in line for line in asked)
    log = client.get(f"/job/{job['job_id']}/logs").json()["logs"]
    assert "hidden" not in worker.log.read_text() + log + str(job)


def test_hosts_that_do_not_answer(client: httpx.Client) -> None:
    for url in ("http://127.0.0.1:1/", "http://host.invalid/a"):
        assert fetched(client, url)["error_type"] == "fetch-failed"


def test_a_job_can_be_cancelled_while_it_fetches(data_dir: Path) -> None:
    with (
        serving() as (url, _),
        running_worker(data_dir, separation_command=STAND_IN, fetch_private=True) as worker,
        worker.client() as client,
    ):
        worker.wait_ready()
        before = worker.separation()
        job_id = client.post("/job", json={"input_url": f"{url}/slow"}).json()["job_id"]
        until(client, job_id, "running")
        assert client.post(f"/job/{job_id}/cancel").json()["error_type"] == "cancelled"
        assert fetched(client, f"{url}/ok")["status"] == "completed"
        assert worker.separation() == before


def test_private_addresses_are_not_asked(data_dir: Path) -> None:
    with (
        serving() as (url, asked),
        running_worker(data_dir, separation_command=STAND_IN) as worker,
        worker.client() as client,
    ):
        worker.wait_ready()
        for refused in (url, url.replace("127.0.0.1", "localhost"), "http://[::1]/", "http://0/"):
            job = fetched(client, refused)
            assert job["error_type"] == "fetch-failed"
            assert "private address" in job["error"]
        assert asked == []


def test_an_allowed_network_is_asked_and_no_other(data_dir: Path) -> None:
    allowed = ["127.0.0.1/32"]
    with (
        serving() as (url, asked),
        running_worker(data_dir, separation_command=STAND_IN, fetch_allowed=allowed) as worker,
        worker.client() as client,
    ):
        worker.wait_ready()
        assert fetched(client, f"{url}/ok")["status"] == "completed"
        asked.clear()
        for other in ("127.0.0.2", "0.0.0.0", "[::ffff:127.0.0.3]", "169.254.169.254"):
            job = fetched(client, f"{url}/to/{url.replace('127.0.0.1', other)}/secret")
            assert "private address" in job["error"]
        assert all(line.startswith("/to/") for line in asked)


def test_a_name_that_leads_elsewhere_the_second_time_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The connection goes to the address that was checked, whatever the name means by then."""
    answers = {"rebound.example": ["93.184.215.14", "127.0.0.1"]}
    resolved = []
    tried = []

    def resolver(host: bytes | str, port: int, *_: object, **__: object) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else str(host)
        resolved.append(name)
        address = answers[name].pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    async def connect(_self: object, host: str, *_: object, **__: object) -> None:
        tried.append(host)
        raise httpcore.ConnectError("no internet here")

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    monkeypatch.setattr("httpcore._backends.auto.AutoBackend.connect_tcp", connect)

    async def fetch_it() -> None:
        async for _ in fetch("http://rebound.example/song", Settings(data_dir=tmp_path)):
            pass

    with pytest.raises(FetchError, match="cannot be fetched"):
        anyio.run(fetch_it)
    assert (resolved, tried) == (["rebound.example"], ["93.184.215.14"])
    answers["rebound.example"] = ["127.0.0.1"]
    with pytest.raises(FetchError, match="private address"):
        anyio.run(fetch_it)
    assert tried == ["93.184.215.14"]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::10.0.0.1",
        "2002:7f00:1::",
        "2001:0:1::1",
        "fec0::1",
        "fd00:ec2::254",
        "2001:db8::1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "198.18.0.1",
    ],
)
def test_addresses_that_are_not_of_the_internet(address: str) -> None:
    with pytest.raises(FetchError):
        check_address(address)


@pytest.mark.parametrize(
    "address",
    ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::93.184.215.14"],
)
def test_addresses_of_the_internet(address: str) -> None:
    check_address(address)
