"""A disk that is full: what does not fit is refused, and what is there stays."""

from __future__ import annotations

import hashlib
import io
import random
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path

import httpx
import pytest

from tests.service.test_jobs import is_problem
from tests.service.worker import STAND_IN, ended, eventually, post, running_worker, upload

SIZE = 8 * 2**20

IN_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


def may_mount() -> bool:
    """Whether this system lets a process of ours mount something that only itself sees."""
    if shutil.which("unshare") is None:
        return False
    attempt = [*IN_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", tempfile.gettempdir()]
    return subprocess.run(attempt, capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not may_mount(), reason="no mount namespaces on this system")


def on_a_small_disk(data_dir: Path) -> tuple[str, ...]:
    """The command that runs a worker with a file system of `SIZE` bytes as data directory."""
    data_dir.mkdir()
    script = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'
    return (*IN_NAMESPACE, "sh", "-c", script, "sh", str(SIZE), str(data_dir))


def put(client: httpx.Client, content: bytes) -> httpx.Response:
    """Upload ``content`` under its name."""
    return client.put(f"/inputs/{hashlib.sha256(content).hexdigest()}", content=content)


@pytest.mark.parametrize("keep_free", [0, 2**20])
def test_a_full_disk_loses_nothing(data_dir: Path, keep_free: int) -> None:
    with running_worker(
        data_dir,
        separation_command=STAND_IN,
        keep_free=keep_free,
        wrapper=on_a_small_disk(data_dir),
    ) as worker:
        worker.wait_ready()
        with worker.client() as client:
            before = ended(client, post(client, b"copy before"))
            kept = upload(client, b"x" * 2**20)

            is_problem(put(client, b"y" * 2 * SIZE), 507, "disk-full")

            def pieces() -> list[bytes]:
                return [b"z" * 2**16] * (2 * SIZE // 2**16)

            content = b"".join(pieces())
            sha256 = hashlib.sha256(content).hexdigest()
            answer = client.put(f"/inputs/{sha256}", content=iter(pieces()))
            is_problem(answer, 507, "disk-full")

            assert client.get(f"/inputs/{kept}").status_code == 200
            assert client.get(f"/job/{before['job_id']}").json() == before
            result = client.get(f"/result/{before['job_id']}", params={"file": "vocals.wav"})
            assert result.content == b"copy before"
            assert ended(client, post(client, b"copy after"))["status"] == "completed"


def test_results_that_do_not_fit_fail_their_job_alone(data_dir: Path) -> None:
    seconds = 10
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(random.Random(0).randbytes(44_100 * 4 * seconds))
    with (
        running_worker(data_dir, keep_free=0, wrapper=on_a_small_disk(data_dir)) as worker,
        worker.client() as client,
    ):
        worker.wait_ready()
        job = ended(client, post(client, sound.getvalue(), bit_depth="32f"))
        assert (job["status"], job["error_type"]) == ("failed", "disk-full")
        job = ended(client, post(client, sound.getvalue(), format="mp3", stems=["vocals"]))
        assert job["status"] == "completed"


def test_a_store_without_room_says_so_and_recovers(data_dir: Path) -> None:
    with running_worker(
        data_dir,
        separation_command=STAND_IN,
        keep_free=0,
        wrapper=on_a_small_disk(data_dir),
    ) as worker:
        worker.wait_ready()
        with worker.client() as client:
            first = ended(client, post(client, b"copy first"))
            again = upload(client, b"copy again")
            filler = Path(f"/proc/{worker.process.pid}/root{data_dir}/filler")
            size = 2**20
            with filler.open("wb", buffering=0) as file:
                while size:
                    try:
                        file.write(b"f" * size)
                    except OSError:
                        size //= 2

            def posted() -> httpx.Response:
                return client.post(
                    "/job", json={"input_sha256": again, "interval_cut": str(next(counter))}
                )

            counter = iter(range(1, 10**6))
            answer = eventually(posted, lambda answer: answer.status_code not in (200, 429))
            is_problem(answer, 507, "disk-full")
            assert client.get("/health").status_code == 200
            filler.unlink()
            for row in client.get("/jobs").json()["jobs"]:
                assert ended(client, row["job_id"])["status"] == "completed"
            assert client.get(f"/job/{first['job_id']}").json() == first
