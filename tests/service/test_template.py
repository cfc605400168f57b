"""The calls of the Docker template's client, word for word, on the real separation.

The client knows no token and nothing that the template did not have. It is written anew here; what
it must find is the template's table of calls.
"""

from __future__ import annotations

import threading
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest

from tests.service.worker import DEADLINE_S, RunningWorker, eventually, running_worker

RATE = 44_100
SECONDS = 4


class DemucsClient:
    """Submits a URL, polls, downloads; as a program of the template's time would."""

    def __init__(self, host: str, port: int) -> None:
        self.base_url = f"http://{host}:{port}"

    def wait_for_health(self) -> bool:
        """Whether the server came up."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            try:
                answer = httpx.get(f"{self.base_url}/health", timeout=5)
                if answer.status_code == 200 and answer.json()["status"] == "healthy":
                    return True
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        return False

    def submit(self, **request: object) -> str:
        """Post a job; retried while the models are not ready."""
        end = time.monotonic() + DEADLINE_S
        while True:
            answer = httpx.post(f"{self.base_url}/job", json=request, timeout=30)
            if answer.status_code != 503 or time.monotonic() > end:
                break
            time.sleep(0.05)
        answer.raise_for_status()
        assert answer.status_code == 200
        body = answer.json()
        assert body["status"] == "pending"
        assert body["message"]
        return str(body["job_id"])

    def wait(self, job_id: str) -> dict[str, Any]:
        """Poll until the job is over."""
        end = time.monotonic() + DEADLINE_S
        percent = -1.0
        while time.monotonic() < end:
            answer = httpx.get(f"{self.base_url}/job/{job_id}", timeout=30)
            answer.raise_for_status()
            job: dict[str, Any] = answer.json()
            assert job["details"]["percent"] >= percent
            percent = job["details"]["percent"]
            if job["status"] in ("completed", "failed"):
                return job
            assert job["status"] in ("pending", "running")
            assert job["state"] in ("idle", "demucs")
            assert job["error"] is None
            time.sleep(0.02)
        raise TimeoutError(job_id)

    def download(self, job_id: str, file: str, to: Path) -> None:
        """Fetch one result."""
        url = f"{self.base_url}/result/{job_id}"
        with httpx.stream("GET", url, params={"file": file}, timeout=30) as answer:
            answer.raise_for_status()
            with to.open("wb") as output:
                for chunk in answer.iter_bytes():
                    output.write(chunk)


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """Serves the files of a folder on loopback; gives its URL."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def song_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a short stereo song is served."""
    folder = tmp_path_factory.mktemp("songs")
    time_axis = np.arange(RATE * SECONDS) / RATE
    voice = np.sin(2 * np.pi * 330 * time_axis)
    band = np.sin(2 * np.pi * 880 * time_axis)
    stereo = np.stack([voice + band, voice - band], axis=1) * 0.3
    with wave.open(str(folder / "song.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((stereo * 32767).astype("<i2").tobytes())
    (folder / "empty.wav").touch()
    (folder / "page.html").write_text("<html>no song here</html>")
    with file_server(folder) as url:
        yield url


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    """A worker without a token, over the real separation."""
    with running_worker(tmp_path_factory.mktemp("worker") / "data", fetch_private=True) as running:
        yield running


@pytest.fixture
def demucs(worker: RunningWorker) -> DemucsClient:
    """The template's client of `worker`."""
    client = DemucsClient("127.0.0.1", int(worker.url.rpartition(":")[2]))
    assert client.wait_for_health()
    return client


def frames(path: Path) -> tuple[int, int, int]:
    """Length in frames, sample rate and channels of a sound file."""
    with av.open(path) as container:
        decoded = list(container.decode(audio=0))
    return sum(f.samples for f in decoded), decoded[0].sample_rate, decoded[0].layout.nb_channels


def test_a_url_becomes_an_instrumental(demucs: DemucsClient, song_url: str, tmp_path: Path) -> None:
    job_id = demucs.submit(input_url=f"{song_url}/song.wav")
    job = demucs.wait(job_id)
    assert job["status"] == "completed", job["error"]
    assert job["state"] == "completed"
    assert set(job["tasks"]) == {"models", "cutting", "inference", "conversion"}
    assert set(job["tasks"].values()) <= {"running", "no_work", "done"}
    assert job["details"]["percent"] == 100
    assert job["details"]["completed_segments"] == job["details"]["total_segments"]
    assert job["elapsed_seconds"] > 0
    demucs.download(job_id, "instrumental.mp3", tmp_path / "instrumental.mp3")
    length, rate, channels = frames(tmp_path / "instrumental.mp3")
    assert (rate, channels) == (RATE, 1)
    assert abs(length - RATE * SECONDS) < RATE / 10
    demucs.download(job_id, "vocals.wav", tmp_path / "vocals.wav")
    assert frames(tmp_path / "vocals.wav") == (RATE * SECONDS, RATE, 2)


def test_cut_points_make_segments_and_all_stems_are_there(
    demucs: DemucsClient, song_url: str
) -> None:
    job_id = demucs.submit(
        input_url=f"{song_url}/song.wav", interval_cut="1,2.5", all_stems=True, job_id="mine_1"
    )
    assert job_id == "mine_1"
    job = demucs.wait(job_id)
    assert job["details"] == {"completed_segments": 3, "total_segments": 3, "percent": 100}
    for stem in ("vocals", "drums", "bass", "other", "instrumental"):
        url = f"{demucs.base_url}/result/{job_id}"
        assert httpx.get(url, params={"file": f"{stem}.wav"}).status_code == 200
    missing = httpx.get(f"{demucs.base_url}/result/{job_id}", params={"file": "guitar.wav"})
    assert missing.status_code == 404
    assert "drums.wav" in missing.text


def test_the_log_the_list_and_the_end(demucs: DemucsClient, song_url: str) -> None:
    job_id = demucs.submit(input_url=f"{song_url}/song.wav")
    demucs.wait(job_id)
    base = demucs.base_url
    logs = httpx.get(f"{base}/job/{job_id}/logs", params={"offset": 0}).json()
    assert set(logs) == {"logs", "offset", "status"}
    assert logs["offset"] == len(logs["logs"].encode())
    listed = httpx.get(f"{base}/jobs", params={"status": "completed", "limit": 50}).json()
    row = next(row for row in listed["jobs"] if row["job_id"] == job_id)
    assert row["status"] == "completed"
    assert row["created_at"] <= row["completed_at"]
    assert listed["total"] >= 1
    status = httpx.get(f"{base}/status").json()
    assert status["status"] == "running"
    assert status["models_ready"] is True
    assert status["completed_jobs"] >= 1
    assert status["uptime_seconds"] > 0
    assert httpx.delete(f"{base}/job/{job_id}").json() == {"status": "deleted", "job_id": job_id}
    assert httpx.get(f"{base}/job/{job_id}").status_code == 404


@pytest.mark.parametrize(
    ("path", "error_type", "told"),
    [
        ("page.html", "not-audio", ""),
        ("empty.wav", "not-audio", "empty"),
        ("none.wav", "fetch-failed", "404"),
    ],
)
def test_a_url_without_a_song_fails_with_a_sentence(
    demucs: DemucsClient, song_url: str, path: str, error_type: str, told: str
) -> None:
    job = demucs.wait(demucs.submit(input_url=f"{song_url}/{path}"))
    assert (job["status"], job["state"], job["error_type"]) == ("failed", "error", error_type)
    assert told in job["error"]
    assert "\n" not in job["error"].strip()
    assert "Traceback" not in job["error"]


def test_progress_txt_lies_beside_the_results(
    demucs: DemucsClient, worker: RunningWorker, song_url: str
) -> None:
    job_id = demucs.submit(input_url=f"{song_url}/song.wav")
    demucs.wait(job_id)
    folder = worker.data_dir / "jobs" / job_id
    wanted = {
        "progress.txt",
        "demucs.log",
        "vocals.wav",
        "instrumental.wav",
        "instrumental.mp3",
        "separation.json",
    }
    eventually(lambda: {path.name for path in folder.iterdir()}, lambda names: names == wanted)
