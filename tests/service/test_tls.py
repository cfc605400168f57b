"""HTTPS on a bare port: with the stack's certificate, and for whoever trusts that alone."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from stemfleet.clouds.base import Certificate
from stemfleet.clouds.trust import trust_only
from stemfleet.identity import make_certificate

from tests.service.test_auth import serve
from tests.service.worker import STAND_IN, RunningWorker, ended, eventually, post, running_worker

TOKEN = "the-token"


@dataclass(frozen=True)
class SecureWorker:
    """A worker that shows a certificate."""

    certificate: Certificate
    worker: RunningWorker

    @property
    def url(self) -> str:
        """Where it is, by its address."""
        return self.worker.url.replace("http:", "https:")

    def client(self, verify: ssl.SSLContext) -> httpx.Client:
        """A client that sends its token to whom it believes."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.Client(
            base_url=self.url, headers=headers, verify=verify, timeout=30, trust_env=False
        )


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureWorker]:
    """One for the module's tests."""
    made = make_certificate()
    with running_worker(
        tmp_path_factory.mktemp("worker") / "data",
        TOKEN,
        separation_command=STAND_IN,
        tls_cert=made.certificate,
        tls_key=made.key,
    ) as running:
        one = SecureWorker(made, running)
        with one.client(trust_only(made.ca)) as client:
            eventually(lambda: client.get("/ready").is_success)
        yield one


def test_who_trusts_the_stack_is_served_whatever_the_address(secure: SecureWorker) -> None:
    with secure.client(trust_only(secure.certificate.ca)) as client:
        assert ended(client, post(client, b"copy"))["status"] == "completed"


def test_nobody_else_is_believed_and_the_token_is_sent_to_nobody_else(
    secure: SecureWorker,
) -> None:
    for context in (trust_only(make_certificate().ca), httpx.create_ssl_context()):
        with secure.client(context) as client, pytest.raises(httpx.ConnectError, match="VERIFY"):
            client.get("/status")


def test_a_certificate_of_the_stack_for_another_name_is_not_a_workers(
    secure: SecureWorker,
) -> None:
    strict = ssl.create_default_context(cadata=secure.certificate.ca)
    with secure.client(strict) as client, pytest.raises(httpx.ConnectError, match="mismatch"):
        client.get("/status")


def test_plain_http_gets_no_answer(secure: SecureWorker) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{secure.worker.url}/health", trust_env=False)


def test_the_key_is_nowhere_to_be_seen(secure: SecureWorker) -> None:
    kept = [path for path in secure.worker.data_dir.rglob("*") if path.is_file()]
    assert kept
    line = secure.certificate.key.splitlines()[1]
    for path in [*kept, secure.worker.log]:
        assert line.encode() not in path.read_bytes()
    separation = secure.worker.separation()
    assert line not in str(separation.environ()) + " ".join(separation.cmdline())


GIVEN = make_certificate()


@pytest.mark.parametrize(
    "variables",
    [
        {"STEMSERVE_TLS_CERT": GIVEN.certificate},
        {"STEMSERVE_TLS_KEY": GIVEN.key},
        {"STEMSERVE_TLS_CERT": "no PEM", "STEMSERVE_TLS_KEY": GIVEN.key},
        {"STEMSERVE_TLS_CERT": GIVEN.certificate, "STEMSERVE_TLS_KEY": make_certificate().key},
        {"STEMSERVE_TLS_CERT": GIVEN.certificate, "STEMSERVE_TLS_KEY": "no PEM"},
    ],
)
def test_a_certificate_of_no_use_is_named_and_not_shown(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    done = serve(tmp_path, "--port", "0", **variables)
    assert done.returncode == 2
    assert "STEMSERVE_TLS_CERT" in done.stderr
    assert "Traceback" not in done.stderr
    for given in (GIVEN.key, GIVEN.certificate):
        assert given.splitlines()[1] not in done.stderr + done.stdout
    assert not list(tmp_path.glob(".tls*"))


def test_what_a_killed_start_left_of_a_key_is_removed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".tls-left").write_text(GIVEN.key)
    with running_worker(tmp_path / "data", separation_command=STAND_IN) as running:
        running.wait_ready()
        assert not list((tmp_path / "data").glob(".tls-*"))


def test_a_job_is_followed_over_tls(secure: SecureWorker) -> None:
    with secure.client(trust_only(secure.certificate.ca)) as client:
        eventually(lambda: client.get("/ready").status_code, lambda status: status == 200)
        job_id = post(client, b"copy what is followed")
        with client.stream("GET", f"/job/{job_id}/events") as answer:
            *_, last = [line for line in answer.iter_lines() if line.startswith("data: ")]
    assert '"status":"completed"' in last
