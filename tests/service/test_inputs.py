"""Uploads: whole under their own name, or not there at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.test_jobs import is_problem
from tests.service.worker import RunningWorker, running_worker, upload


def named(content: bytes) -> str:
    """The address of an input of that content."""
    return f"/inputs/{hashlib.sha256(content).hexdigest()}"


def nothing_left(worker: RunningWorker) -> bool:
    """Whether no unfinished upload lies about."""
    return not list((worker.data_dir / "inputs").glob(".*"))


def test_an_upload_is_new_once(client: httpx.Client, worker: RunningWorker) -> None:
    content = bytes(range(256)) * 20_000
    is_problem(client.get(named(content)), 404, "no-such-input")
    first = client.put(named(content), content=content)
    assert first.status_code == 201
    assert first.json()["size"] == len(content)
    assert client.put(named(content), content=content).status_code == 200
    assert client.get(named(content)).json() == first.json()
    stored = worker.data_dir / "inputs" / first.json()["sha256"]
    assert stored.read_bytes() == content
    assert nothing_left(worker)


def test_an_upload_without_a_length(client: httpx.Client) -> None:
    pieces = [b"piece %d" % i for i in range(1000)]

    def body() -> Iterator[bytes]:
        yield from pieces

    assert client.put(named(b"".join(pieces)), content=body()).status_code == 201


def test_an_empty_upload(client: httpx.Client) -> None:
    assert client.put(named(b""), content=b"").status_code == 201


def test_content_under_a_wrong_name_is_not_kept(
    client: httpx.Client, worker: RunningWorker
) -> None:
    answer = client.put("/inputs/" + "3" * 64, content=b"something else")
    problem = is_problem(answer, 422, "digest-mismatch")
    assert hashlib.sha256(b"something else").hexdigest() in problem["detail"]
    assert client.get("/inputs/" + "3" * 64).status_code == 404
    assert nothing_left(worker)


@pytest.mark.parametrize("name", ["..", "A" * 64, "0" * 63, "0" * 65, "..%2f" + "0" * 61])
def test_a_name_that_is_no_digest(client: httpx.Client, name: str) -> None:
    assert client.put(f"/inputs/{name}", content=b"x").status_code in (404, 405, 422)


def test_an_input_larger_than_the_limit(data_dir: Path) -> None:
    with running_worker(data_dir, input_limit=3_000_000) as worker, worker.client() as client:
        content = b"x" * 5_000_000
        is_problem(client.put(named(content), content=content), 413, "input-too-large")

        def body() -> Iterator[bytes]:
            for start in range(0, len(content), 100_000):
                yield content[start : start + 100_000]

        is_problem(client.put(named(content), content=body()), 413, "input-too-large")
        assert nothing_left(worker)
        upload(client, b"y" * 3_000_000)


def test_room_is_kept_free(data_dir: Path) -> None:
    with running_worker(data_dir, keep_free=2**60) as worker, worker.client() as client:
        is_problem(client.put(named(b"x"), content=b"x"), 507, "disk-full")
        assert nothing_left(worker)
