"""The real separation, killed in mid-job: the results are those of an undisturbed run."""

from __future__ import annotations

import io
import random
import signal
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.service.worker import RunningWorker, ended, eventually, post, running_worker

SECONDS = 30
RATE = 44_100
CUTS = "4,8,12,16,20,24,28"


@pytest.fixture(scope="module")
def song() -> bytes:
    """Half a minute of stereo noise: long enough to be interrupted."""
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(random.Random(0).randbytes(RATE * 4 * SECONDS))
    return sound.getvalue()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, song: bytes) -> dict[str, str]:
    """The SHA-256 of each result of a run that nothing disturbs."""
    data_dir = tmp_path_factory.mktemp("undisturbed") / "data"
    with running_worker(data_dir) as worker, worker.client() as client:
        worker.wait_ready()
        return digests(client, post(client, song))


@pytest.fixture
def worker(data_dir: Path) -> Iterator[RunningWorker]:
    """A worker of the test's own, over the real separation."""
    with running_worker(data_dir) as running:
        running.wait_ready()
        yield running


def digests(client: httpx.Client, job_id: str) -> dict[str, str]:
    """The SHA-256 of each result, once the job is completed."""
    job = ended(client, job_id)
    assert job["status"] == "completed", job
    return {result["name"]: result["sha256"] for result in job["results"] if result["stem"]}


def in_mid_job(client: httpx.Client, job_id: str) -> None:
    """Wait until some of the job is done, and see that not all is."""

    def percent() -> float:
        return float(client.get(f"/job/{job_id}").json()["details"]["percent"])

    assert 0 < eventually(percent) < 100


def test_the_separation_killed(
    worker: RunningWorker, client: httpx.Client, song: bytes, undisturbed: dict[str, str]
) -> None:
    job_id = post(client, song)
    in_mid_job(client, job_id)
    worker.separation().kill()
    assert digests(client, job_id) == undisturbed
    assert "attempt 1 of 3" in client.get(f"/job/{job_id}/logs").json()["logs"]


def test_the_api_killed(
    worker: RunningWorker, client: httpx.Client, song: bytes, undisturbed: dict[str, str]
) -> None:
    job_id = post(client, song, interval_cut=CUTS)

    def segments() -> int:
        return int(client.get(f"/job/{job_id}").json()["details"]["completed_segments"])

    assert 0 < eventually(segments) < 8
    orphans = psutil.Process(worker.process.pid).children(recursive=True)
    assert orphans
    worker.kill()
    eventually(lambda: [p for p in orphans if p.is_running()], lambda left: not left)
    with running_worker(worker.data_dir) as again, again.client() as client_again:
        assert digests(client_again, job_id) == undisturbed
        assert "goes on at" in client_again.get(f"/job/{job_id}/logs").json()["logs"]


def test_the_gpu_fails(
    client: httpx.Client, worker: RunningWorker, song: bytes, undisturbed: dict[str, str]
) -> None:
    worker.kill()
    command = (sys.executable, str(Path(__file__).with_name("losing.py")))
    with running_worker(worker.data_dir, separation_command=command) as losing:
        losing.wait_ready()
        with losing.client() as ours:
            job_id = post(ours, song, interval_cut=CUTS)
            assert digests(ours, job_id) == undisturbed
            logs = ours.get(f"/job/{job_id}/logs").json()["logs"]
    assert "illegal memory access" in logs
    assert "lost its GPU" in logs
    assert "goes on at 4.0 s" in logs


def test_killed_before_the_end_was_noted(
    worker: RunningWorker, client: httpx.Client, song: bytes, undisturbed: dict[str, str]
) -> None:
    """The results are in their place: nothing is separated again."""
    job_id = post(client, song)
    in_mid_job(client, job_id)
    worker.process.send_signal(signal.SIGSTOP)
    folder = worker.data_dir / "jobs" / job_id
    eventually((folder / "separation.json").exists)
    worker.kill()
    with running_worker(worker.data_dir) as again, again.client() as client_again:
        assert digests(client_again, job_id) == undisturbed
        logs = client_again.get(f"/job/{job_id}/logs").json()["logs"]
        eventually(lambda: not (folder / ".partial").exists())
    assert f"goes on at {SECONDS:.1f} s" in logs


def test_a_track_beyond_the_limits_is_refused(data_dir: Path, song: bytes) -> None:
    with (
        running_worker(data_dir, duration_limit=SECONDS - 1, channel_limit=1) as worker,
        worker.client() as client,
    ):
        worker.wait_ready()
        job = ended(client, post(client, song))
        assert (job["status"], job["error_type"]) == ("failed", "too-many-channels")
        assert "2 channels" in job["error"]
        mono = bytearray(song)
        mono[22:24] = b"\x01\x00"  # twice as long, then
        mono[32:34] = b"\x02\x00"
        job = ended(client, post(client, bytes(mono)))
        assert (job["status"], job["error_type"]) == ("failed", "track-too-long")


def test_a_real_job_is_cancelled_and_leaves_nothing_half_done(
    worker: RunningWorker, client: httpx.Client, song: bytes
) -> None:
    job_id = post(client, song)
    in_mid_job(client, job_id)
    assert client.post(f"/job/{job_id}/cancel").json()["error_type"] == "cancelled"
    left = {path.name for path in (worker.data_dir / "jobs" / job_id).iterdir()}
    assert left == {"progress.txt", "demucs.log"}
