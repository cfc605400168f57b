"""What there is to see and to do between runs: endpoints, status, jobs, logs, cancel, doctor."""

from __future__ import annotations

import hashlib
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.driving import STEMCTL, TOKEN, endpoints, environment, stemctl
from tests.service.worker import STAND_IN, RunningWorker, eventually, running_worker


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    """A worker over the stand-in for the separation, which holds jobs until they are let go."""
    folder = tmp_path_factory.mktemp("held")
    with running_worker(folder / "w", TOKEN, separation_command=STAND_IN) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def both(worker: RunningWorker, dead_url: str) -> list[str]:
    """The options that name the worker, and an endpoint that nobody serves."""
    return endpoints(worker.url, dead_url)


def post(worker: RunningWorker, order: str, job_id: str) -> str:
    """A job that is there, over an input of its own; its id."""
    content = f"{order} {job_id}\n".encode()
    digest = hashlib.sha256(content).hexdigest()
    with worker.client() as client:
        client.put(f"/inputs/{digest}", content=content).raise_for_status()
        body = {"input_sha256": digest, "job_id": job_id, "input_name": f"{job_id}.wav"}
        client.post("/job", json=body).raise_for_status()
    return job_id


def status_of(worker: RunningWorker, job_id: str) -> str:
    with worker.client() as client:
        return str(client.get(f"/job/{job_id}").json()["status"])


def test_endpoints_say_who_is_alive(worker: RunningWorker, both: list[str], dead_url: str) -> None:
    answer = stemctl("endpoints", *both, "--json")
    assert answer.code == 0
    assert [(row["url"], row["alive"]) for row in answer.json["endpoints"]] == [
        (worker.url, True),
        (dead_url, False),
    ]
    assert worker.url in stemctl("endpoints", *both).out


def test_status_says_what_each_worker_does(worker: RunningWorker, both: list[str]) -> None:
    answer = stemctl("status", *both, "--json")
    assert answer.code == 1, "one does not answer"
    first, second = answer.json["workers"]
    assert first["ready"]
    assert first["status"]["device"] == "stand-in"
    assert (second["alive"], second["status"]) == (False, None)
    assert "does not answer" in second["error"]
    table = stemctl("status", *endpoints(worker.url))
    assert table.code == 0
    assert "center, other" in table.out


def test_nobody_answering_is_exit_code_2(dead_url: str) -> None:
    for command in (["status"], ["cancel", "--all"], ["logs", "x"]):
        assert stemctl(*command, *endpoints(dead_url)).code == 2


def test_jobs_logs_and_cancel(worker: RunningWorker, both: list[str]) -> None:
    held = post(worker, "hold", "held-1")
    eventually(lambda: status_of(worker, held), lambda status: status == "running")
    waiting = post(worker, "copy", "waiting-1")

    jobs = stemctl("jobs", *both, "--json")
    assert jobs.code == 1
    listed = {job["job_id"]: job for job in jobs.json["jobs"]}
    assert listed[held]["status"] == "running"
    assert listed[waiting]["input_name"] == "waiting-1.wav"
    assert "does not answer" in str(jobs.json["errors"])
    assert held in stemctl("jobs", *both).out

    log = stemctl("logs", held, *both, "--json").json
    assert log["worker"] == worker.url.removeprefix("http://")
    assert "task {" in log["logs"]
    assert log["status"] == "running"

    answer = stemctl("cancel", held, "no-such-job", *both, "--json")
    assert answer.code == 1
    errors = {job["job_id"]: job["error"] for job in answer.json["jobs"]}
    assert errors[held] is None
    assert errors["no-such-job"].startswith("no worker has it")
    assert status_of(worker, held) == "failed"
    eventually(lambda: status_of(worker, waiting), lambda status: status == "completed")

    again = stemctl("cancel", held, *endpoints(worker.url))
    assert again.code == 2
    ends = stemctl("logs", waiting, "--follow", *endpoints(worker.url))
    assert ends.code == 0
    assert "task {" in ends.out


def test_following_a_log_ends_with_the_job(worker: RunningWorker) -> None:
    held = post(worker, "hold", "held-2")
    eventually(lambda: status_of(worker, held), lambda status: status == "running")
    worker.let_go(held)
    log = stemctl("logs", held, "--follow", "--json", *endpoints(worker.url)).json
    assert log["status"] == "completed"


def test_cancelling_all_leaves_nothing_waiting_or_running(worker: RunningWorker) -> None:
    names = [post(worker, "hold", f"held-{number}") for number in (3, 4)]
    answer = stemctl("cancel", "--all", *endpoints(worker.url), "--json")
    assert answer.code == 0
    assert {job["job_id"] for job in answer.json["jobs"]} == set(names)
    assert {status_of(worker, name) for name in names} == {"failed"}
    answer = stemctl("cancel", "--all", *endpoints(worker.url))
    assert (answer.code, answer.out) == (0, "no job waits or runs\n")


def test_cancel_needs_names_or_all(worker: RunningWorker) -> None:
    for words in ([], ["x", "--all"]):
        answer = stemctl("cancel", *words, *endpoints(worker.url))
        assert answer.code == 2
        assert "--all" in answer.err


def test_a_job_that_nobody_has_is_told(both: list[str]) -> None:
    answer = stemctl("logs", "../../etc/passwd", *both)
    assert answer.code == 2
    assert "no worker has a job ../../etc/passwd" in answer.err


def test_doctor_says_of_each_worker_what_is_wrong(worker: RunningWorker, both: list[str]) -> None:
    answer = stemctl("doctor", *both)
    assert answer.code == 1
    room, good, dead = answer.out.splitlines()
    assert room.startswith("✓ out: ")
    assert good.startswith("✓ worker ")
    assert dead.startswith("✗ worker ")
    assert stemctl("doctor", *endpoints(worker.url)).code == 0
    refused = stemctl("doctor", *endpoints(worker.url), "--json", token="wrong")
    assert refused.code == 1
    assert "token is refused" in refused.json["findings"][1]["detail"]


def test_a_terminal_sees_bars(worker: RunningWorker, tmp_path: Path) -> None:
    (tmp_path / "song.wav").write_text("copy")
    ours, theirs = pty.openpty()
    seen = b""
    with subprocess.Popen(
        [STEMCTL, "submit", "song.wav", "--format", "flac", *endpoints(worker.url)],
        cwd=tmp_path,
        env=environment() | {"TERM": "xterm"},
        stderr=theirs,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(theirs)
        try:
            while piece := os.read(ours, 65536):
                seen += piece
        except OSError:  # Linux's way to say that the other end is closed
            pass
        shown, _ = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0
    assert "1 of 1 tracks" in seen.decode()
    assert worker.url.removeprefix("http://") in seen.decode()
    assert "song.wav" in shown
