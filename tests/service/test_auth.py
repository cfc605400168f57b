"""Who is served: nobody without the token, and nobody from outside where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.service.worker import STAND_IN, RunningWorker, eventually, running_worker

CALLS = [
    ("GET", "/ready"),
    ("GET", "/status"),
    ("POST", "/job"),
    ("GET", "/job/a"),
    ("GET", "/job/a/logs"),
    ("POST", "/job/a/cancel"),
    ("DELETE", "/job/a"),
    ("GET", "/jobs"),
    ("GET", "/result/a"),
    ("PUT", "/inputs/" + "0" * 64),
    ("GET", "/inputs/" + "0" * 64),
    ("GET", "/openapi.json"),
    ("GET", "/nothing"),
    ("GET", "/%2fhealth"),
    ("GET", "/health/"),
]


@pytest.mark.parametrize(
    "sent",
    [
        None,
        "",
        "Bearer",
        "Bearer the-toke",
        "Bearer the-token2",
        "Bearer THE-TOKEN",
        "Basic the-token",
        "the-token",
        "Bearer the token",
        b"Bearer \xff\xfe",
    ],
)
def test_a_wrong_token_opens_nothing(worker: RunningWorker, sent: str | bytes | None) -> None:
    headers: dict[bytes, bytes] = {}
    if sent is not None:
        headers[b"Authorization"] = sent if isinstance(sent, bytes) else sent.encode()
    with httpx.Client(base_url=worker.url, headers=headers, trust_env=False) as stranger:
        for method, path in CALLS:
            answer = stranger.request(method, path)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["type"] == "unauthorized"


def test_the_right_token_opens(worker: RunningWorker) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} the-token"}
        assert httpx.get(worker.url + "/status", headers=headers).status_code == 200


def test_health_is_open(worker: RunningWorker) -> None:
    answer = httpx.get(worker.url + "/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "healthy"


def test_the_page_is_open_and_may_do_nothing_that_it_does_not_do(worker: RunningWorker) -> None:
    answer = httpx.get(worker.url + "/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    for rule in (
        "default-src 'none'",
        "frame-ancestors 'none'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
    ):
        assert rule in policy.split("; ")
    assert answer.headers["referrer-policy"] == "no-referrer"
    for path in ("/", "/health", "/status", "/nothing"):
        given = httpx.get(worker.url + path).headers
        assert given["x-content-type-options"] == "nosniff"


FOREIGN = [
    {"Host": "rebound.example"},
    {"Host": "127.0.0.1.example"},
    {"Host": "10.0.0.1:8185"},
    {"Host": ""},
    {"Origin": "https://page.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
]


def test_other_pages_do_not_reach_a_worker_without_a_token(data_dir: Path) -> None:
    with running_worker(data_dir, separation_command=STAND_IN) as worker, worker.client() as client:
        eventually(lambda: _answers(worker.url))
        for headers in FOREIGN:
            for method, path in [("POST", "/lease"), ("GET", "/jobs"), ("GET", "/health")]:
                answer = client.request(method, path, headers=headers)
                assert answer.status_code == 403, (headers, path)
                assert answer.json()["type"] == "foreign-page"
        for own in ("127.0.0.1", "localhost", "[::1]"):
            same = {"Host": f"{own}:7", "Origin": f"http://{own}:7"}
            assert client.get("/jobs", headers=same).status_code == 200


def test_a_refused_upload_is_answered_while_it_is_sent(worker: RunningWorker) -> None:
    answer = httpx.put(worker.url + "/inputs/" + "0" * 64, content=b"x" * 20_000_000)
    assert answer.status_code == 401
    assert not list((worker.data_dir / "inputs").iterdir())


def test_the_token_is_nowhere_to_be_seen(worker: RunningWorker) -> None:
    httpx.get(worker.url + "/status", headers={"Authorization": "Bearer the-token"})
    separation = worker.separation()
    assert "the-token" not in worker.log.read_text()
    assert "the-token" not in " ".join(separation.cmdline())
    assert "STEMSERVE_TOKEN" not in separation.environ()


@pytest.mark.parametrize("text", ["old,new", "old new", " new ,, old\n", "new\told"])
def test_each_of_several_tokens_opens_and_nothing_else(data_dir: Path, text: str) -> None:
    with running_worker(data_dir, text, separation_command=STAND_IN) as worker:
        eventually(lambda: _answers(worker.url))
        for token in ("old", "new"):
            headers = {"Authorization": f"Bearer {token}"}
            assert httpx.get(worker.url + "/status", headers=headers).status_code == 200
        for token in ("old,new", ",", "ol", "newold"):
            headers = {"Authorization": f"Bearer {token}"}
            assert httpx.get(worker.url + "/status", headers=headers).status_code == 401


def _answers(url: str) -> bool:
    try:
        return httpx.get(url + "/health").status_code == 200
    except httpx.TransportError:
        return False


def serve(tmp_path: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a worker that is expected to refuse."""
    return subprocess.run(
        [sys.executable, "-m", "stemserve", "serve", "--data-dir", str(tmp_path), *flags],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
@pytest.mark.parametrize("token", [{}, {"STEMSERVE_TOKEN": ""}])
def test_no_token_no_service_beyond_this_machine(
    tmp_path: Path, host: str, token: dict[str, str]
) -> None:
    done = serve(tmp_path, "--host", host, "--port", "0", **token)
    assert done.returncode == 2
    assert "STEMSERVE_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "variables", "told"),
    [
        (("--port", "70000"), {}, "port"),
        ((), {"STEMSERVE_TOKEN": " ,"}, "token"),
        ((), {"STEMSERVE_QUEUE_LIMIT": "many"}, "queue_limit"),
        (("--queue-limit", "0"), {}, "queue_limit"),
        (("--preset", "No Such!"), {}, "preset"),
        (("--socket-fd", "99"), {}, "99"),
        (("--host", "host.invalid"), {}, "host.invalid"),
        (("--data-dir", "/dev/null/here"), {}, "data_dir"),
    ],
)
def test_a_setting_of_no_use_is_named(
    tmp_path: Path, flags: tuple[str, ...], variables: dict[str, str], told: str
) -> None:
    done = serve(tmp_path, *flags, **{"STEMSERVE_TOKEN": "the-token", **variables})
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "the-token" not in done.stderr + done.stdout
