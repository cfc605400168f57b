"""Runs that are hindered: a worker is killed, the user stops, the disk is full, queues are full.

The workers run over the stand-in for the separation, which holds a job until it is let go.
"""

from __future__ import annotations

import hashlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import pytest

from tests.cli.driving import (
    LEDGER,
    STEMCTL,
    TOKEN,
    Answer,
    endpoints,
    environment,
    stemctl,
    tree,
)
from tests.cli.running import finish, submitting
from tests.service.worker import STAND_IN, RunningWorker, eventually, running_worker

Fleet = list[RunningWorker]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Two workers of a test's own."""
    with ExitStack() as running:
        both = [
            running.enter_context(
                running_worker(tmp_path / f"w{i}", TOKEN, separation_command=STAND_IN)
            )
            for i in range(2)
        ]
        for worker in both:
            worker.wait_ready()
        yield both


def songs(folder: Path, count: int, order: str = "hold") -> Path:
    """Inputs for the stand-in: each with the order, and content of its own."""
    folder.mkdir()
    for number in range(count):
        (folder / f"song {number}.wav").write_text(f"{order} {number}")
    return folder


def jobs(worker: RunningWorker, status: str | None = None) -> list[str]:
    with worker.client() as client:
        answer = client.get("/jobs", params={"status": status} if status else {}).json()
    return [job["job_id"] for job in answer["jobs"]]


def let_go(worker: RunningWorker, job_id: str) -> None:
    """Let the stand-in finish a job, if it holds it now."""
    with suppress(FileNotFoundError):
        (worker.data_dir / "jobs" / job_id / "go").touch()


def let_go_until_done(process: subprocess.Popen[str], workers: Fleet) -> Answer:
    def done() -> bool:
        for worker in workers:
            for job_id in jobs(worker, "running"):
                let_go(worker, job_id)
        return process.poll() is not None

    eventually(done)
    return finish(process)


def urls(workers: Fleet) -> list[str]:
    """Options for these workers, and for a format of which stemctl takes the content as it comes:
    the stand-in copies its input, which is no wav."""
    return ["--format", "flac", *endpoints(*(worker.url for worker in workers))]


def test_a_worker_killed_in_mid_job_loses_nothing(tmp_path: Path, out: Path, fleet: Fleet) -> None:
    folder = songs(tmp_path / "in", 4)
    with submitting(["submit", folder, "--out", out, *urls(fleet), "--json"]) as process:
        for worker in fleet:
            eventually(lambda worker=worker: jobs(worker, "running"))  # type: ignore[misc]
        fleet[0].kill()
        answer = let_go_until_done(process, fleet[1:])
    assert answer.code == 0, answer.err
    slots = [worker.url.removeprefix("http://") for worker in fleet]
    assert {track["worker"] for track in answer.json["tracks"]} == {slots[1]}
    # Where the other has raced it, nobody asked it again.
    assert set(answer.json["set_aside"]) <= {slots[0]}
    assert len(tree(out)) == 8


def test_the_last_worker_killed_is_waited_for_until_the_user_has_enough(
    tmp_path: Path, out: Path, fleet: Fleet
) -> None:
    folder, told = songs(tmp_path / "in", 3), tmp_path / "events"
    command = ["submit", folder, "--out", out, *urls(fleet[:1]), "--events", told, "--json"]
    with submitting(command) as process:
        eventually(lambda: jobs(fleet[0], "running"))
        fleet[0].kill()
        eventually(lambda: "no worker is left" in told.read_text())
        process.send_signal(signal.SIGINT)
        answer = finish(process)
    assert answer.code == 130
    assert {track["end"] for track in answer.json["tracks"]} == {"left"}
    assert tree(out) == []


def test_a_worker_that_restarts_goes_on_with_the_job(tmp_path: Path, out: Path) -> None:
    folder = songs(tmp_path / "in", 1)
    data_dir = tmp_path / "w"
    with socket.create_server(("127.0.0.1", 0)) as port:

        def worker() -> AbstractContextManager[RunningWorker]:
            return running_worker(data_dir, TOKEN, at=port, separation_command=STAND_IN)

        with worker() as first:
            first.wait_ready()
            with submitting(["submit", folder, "--out", out, *urls([first]), "--json"]) as process:
                eventually(lambda: jobs(first, "running"))
                first.kill()
                with worker() as again:
                    answer = let_go_until_done(process, [again])
    assert answer.code == 0, answer.err
    assert len(tree(out)) == 2


def test_ctrl_c_once_lets_running_tracks_end_and_begins_no_others(
    tmp_path: Path, out: Path, fleet: Fleet
) -> None:
    folder = songs(tmp_path / "in", 5)
    told = tmp_path / "events"
    command = ["submit", folder, "--out", out, *urls(fleet), "--events", told, "--json"]
    with submitting(command) as process:
        for worker in fleet:
            eventually(lambda worker=worker: jobs(worker, "running") and jobs(worker, "pending"))  # type: ignore[misc]
            # Only what stemctl itself has seen running is let end.
            slot = worker.url.removeprefix("http://")
            begun = f'"worker": "{slot}", "stage": "computing"'
            eventually(lambda begun=begun: begun in told.read_text())  # type: ignore[misc]
        process.send_signal(signal.SIGINT)
        for worker in fleet:
            eventually(lambda worker=worker: not jobs(worker, "pending"))  # type: ignore[misc]
            assert jobs(worker, "running")
        answer = let_go_until_done(process, fleet)
    assert answer.code == 130
    tracks = [track["end"] for track in answer.json["tracks"]]
    assert (tracks.count("done"), tracks.count("left")) == (2, 3)
    assert "Ctrl-C again" in answer.err


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_a_stopped_run_leaves_nothing_behind_and_the_same_command_does_the_rest(
    tmp_path: Path, out: Path, fleet: Fleet, signals: list[signal.Signals]
) -> None:
    folder = songs(tmp_path / "in", 5)
    command = ["submit", folder, "--out", out, *urls(fleet), "--json"]
    with submitting(command) as process:
        for worker in fleet:
            eventually(lambda worker=worker: jobs(worker, "running"))  # type: ignore[misc]
        (first,) = jobs(fleet[0], "running")

        def one_is_home() -> bool:
            let_go(fleet[0], first)
            return any(out.glob("song*"))

        eventually(one_is_home)
        for number in signals:
            process.send_signal(number)
            eventually(lambda: not any(jobs(worker, "pending") for worker in fleet))
        answer = finish(process)
    assert answer.code == 128 + signals[0]
    tracks = [track["end"] for track in answer.json["tracks"]]
    done = tracks.count("done")
    assert done >= 1
    assert tracks.count("left") == 5 - done
    assert len(tree(out)) == 2 * done
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [LEDGER]
    for worker in fleet:
        assert not jobs(worker, "running")
        assert not jobs(worker, "pending")

    with submitting(command) as process:
        answer = let_go_until_done(process, fleet)
    assert answer.code == 0, answer.err
    tracks = [track["end"] for track in answer.json["tracks"]]
    assert tracks.count("there") == done
    assert tracks.count("done") == 5 - done
    assert len(tree(out)) == 10


def test_a_run_killed_with_9_leaves_what_the_next_one_clears_away(
    tmp_path: Path, out: Path, fleet: Fleet
) -> None:
    folder = songs(tmp_path / "in", 2)
    command = ["submit", folder, "--out", out, *urls(fleet), "--json"]
    with submitting(command) as process:
        eventually(lambda: jobs(fleet[0], "running"))
        process.kill()
        process.wait()
    assert any(path.name.startswith(".") for path in out.iterdir())
    with submitting(command) as process:
        answer = let_go_until_done(process, fleet)
    assert answer.code == 0, answer.err
    assert len(tree(out)) == 4
    assert sorted(path.name for path in out.iterdir()) == [LEDGER, "song 0", "song 1"]


def test_a_job_that_fails_is_tried_on_another_worker(
    tmp_path: Path, out: Path, fleet: Fleet
) -> None:
    folder = songs(tmp_path / "in", 1, order="fail reason")
    answer = stemctl("submit", folder, "--out", out, *urls(fleet), "--json")
    assert answer.code == 2
    assert "told to fail" in answer.json["tracks"][0]["error"]
    assert answer.err.count("back into the queue") == 2
    assert all(jobs(worker, "failed") for worker in fleet)


def test_a_job_that_kills_the_separation_is_given_up_in_the_end(
    tmp_path: Path, out: Path, fleet: Fleet
) -> None:
    folder = songs(tmp_path / "in", 1, order="die 9")
    (folder / "good.wav").write_text("copy")
    answer = stemctl("submit", folder, "--out", out, *urls(fleet), "--json")
    assert answer.code == 1
    assert {name.split("/")[0] for name in tree(out)} == {"good"}


def test_a_full_queue_is_waited_for(tmp_path: Path, out: Path) -> None:
    folder = songs(tmp_path / "in", 1, order="copy")
    held = songs(tmp_path / "held", 2)
    one = running_worker(tmp_path / "w", TOKEN, separation_command=STAND_IN, queue_limit=1)
    with one as worker:
        worker.wait_ready()
        hold = ["submit", held, "--out", tmp_path / "other", *urls([worker])]
        with submitting(hold) as first:
            eventually(lambda: jobs(worker, "running") and jobs(worker, "pending"))
            with submitting(["submit", folder, "--out", out, *urls([worker]), "--json"]) as second:
                sent = hashlib.sha256((folder / "song 0.wav").read_bytes()).hexdigest()
                with worker.client() as client:
                    eventually(lambda: client.get(f"/inputs/{sent}").is_success)
                assert second.poll() is None
                let_go_until_done(first, [worker])
                answer = let_go_until_done(second, [worker])
    assert answer.code == 0, answer.err


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare: no small disk of our own")
def test_a_full_disk_ends_the_run_with_nothing_half_written(tmp_path: Path, fleet: Fleet) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.wav").write_text("copy\n" + name * 100_000)
    out = tmp_path / "small disk"
    out.mkdir()
    script = (
        'mount -t tmpfs -o size=320k tmpfs "$1"; shift; "$@"; code=$?; '
        'find "$SMALL" -mindepth 1 >&2; exit $code'
    )
    call = [STEMCTL, "submit", str(folder), "--out", str(out), *urls(fleet[:1])]
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, "sh", str(out), *call],
        env=environment() | {"SMALL": str(out)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"stemctl: no room left in {out}: free some" in done.stderr
    there = [line for line in done.stderr.splitlines() if line.startswith(f"{out}/")]
    assert f"{out}/a/vocals.flac" in there
    assert not [line for line in there if "/b" in line or "/.stemctl-" in line]
