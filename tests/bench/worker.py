"""What a caller of a worker waits for: answers while it separates, transfers, a long queue.

Answers are timed while a real separation keeps the machine busy. Transfers are held against a bare
static server in a process of its own, over the same loopback and disk, in turns.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from tests.bench.longfile import song_of
from tests.service.worker import (
    STAND_IN,
    RunningWorker,
    ended,
    eventually,
    post,
    running_worker,
    until,
    upload,
)

ROUNDS = 3
PAUSE_S = 0.005
BARE = """
import http.server, os, sys
class Files(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_PUT(self):
        left = int(self.headers["Content-Length"])
        with open(self.translate_path(self.path), "wb") as file:
            while left:
                piece = self.rfile.read(min(left, 1 << 20))
                file.write(piece)
                left -= len(piece)
            file.flush()
            os.fsync(file.fileno())
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_): pass
os.chdir(sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
print(server.server_port, flush=True)
server.serve_forever()
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the bench can be told."""
    parser.add_argument("--minutes", type=float, default=20, help="of the track it is busy with")
    parser.add_argument("--calls", type=int, default=2000, help="that are timed, of each kind")
    parser.add_argument("--megabytes", type=int, default=256, help="of a transfer")
    parser.add_argument("--jobs", type=int, default=10_000, help="in the queue")


def measure(minutes: float, calls: int, megabytes: int, jobs: int) -> dict[str, float]:
    """Figures of one run.

    ``p50_job_ms``, ``p99_job_ms``, ``p99_health_ms``: of GET /job/{id} and /health while it
    separates; ``busy_cores``: what the separation used of the processor meanwhile.
    ``upload_ratio``, ``download_ratio``: bytes a second over those of the bare server, which syncs
    what it takes to the disk as well. ``accept_s``: posting ``jobs`` jobs one after another by one
    caller; ``list_ms``: GET /jobs then; ``rss_mb``: what the API holds in memory then.
    """
    with tempfile.TemporaryDirectory(prefix="worker-") as place:
        folder = Path(place)
        figures = {
            **_answers(folder, minutes, calls),
            **_transfers(folder, megabytes),
            **_queue(folder, jobs),
        }
    return {name: round(value, 3) for name, value in figures.items()}


def _answers(folder: Path, minutes: float, calls: int) -> dict[str, float]:
    content = song_of(folder / "song.wav", minutes).read_bytes()
    with running_worker(folder / "busy") as worker, worker.client() as client:
        worker.wait_ready()
        job_id = post(client, content, all_stems=True, format="flac")
        eventually(lambda: client.get(f"/job/{job_id}").json()["details"]["percent"] > 0)
        separation = psutil.Process(worker.separation().pid)
        began, cpu = time.perf_counter(), _cpu(separation)
        taken: dict[str, list[float]] = {f"/job/{job_id}": [], "/health": []}
        connection = http.client.HTTPConnection(urlsplit(worker.url).netloc)
        for _ in range(calls):
            for path, times in taken.items():
                time.sleep(PAUSE_S)
                start = time.perf_counter()
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                times.append(1000 * (time.perf_counter() - start))
                if answer.status != http.client.OK:
                    raise SystemExit(f"{path} answers {answer.status}")
        busy = (_cpu(separation) - cpu) / (time.perf_counter() - began)
        if client.get(f"/job/{job_id}").json()["status"] != "running":
            raise SystemExit("The job ended too early: give --minutes more.")
        job, health = taken.values()
    return {
        "p50_job_ms": statistics.median(job),
        "p99_job_ms": statistics.quantiles(job, n=100)[98],
        "p99_health_ms": statistics.quantiles(health, n=100)[98],
        "busy_cores": busy,
    }


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _transfers(folder: Path, megabytes: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {"up": [], "down": [], "bare_up": [], "bare_down": []}
    with (
        running_worker(folder / "transfers", separation_command=STAND_IN) as worker,
        _bare_server(folder / "bare") as bare,
        worker.client() as client,
    ):
        worker.wait_ready()
        for number in range(ROUNDS):
            content = f"copy {number}".encode() + b" " * (megabytes << 20)
            sha256 = hashlib.sha256(content).hexdigest()
            seconds["bare_up"].append(_put(bare, f"/{sha256}", content))
            seconds["up"].append(_put(worker.url, f"/inputs/{sha256}", content))
            body = {"input_sha256": sha256, "stems": ["drums"]}
            job_id = client.post("/job", json=body).json()["job_id"]
            ended(client, job_id)
            seconds["bare_down"].append(_get(bare, f"/{sha256}", len(content)))
            path = f"/result/{job_id}?file=drums.wav"
            seconds["down"].append(_get(worker.url, path, len(content)))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "upload_ratio": medians["bare_up"] / medians["up"],
        "download_ratio": medians["bare_down"] / medians["down"],
        "upload_mb_s": megabytes / medians["up"],
        "download_mb_s": megabytes / medians["down"],
    }


@contextmanager
def _bare_server(folder: Path) -> Iterator[str]:
    folder.mkdir()
    server = subprocess.Popen(
        [sys.executable, "-c", BARE, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


def _put(url: str, path: str, content: bytes) -> float:
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    start = time.perf_counter()
    connection.request("PUT", path, body=content)
    status = connection.getresponse().status
    if status != http.client.CREATED:
        raise SystemExit(f"{path} answers {status}")
    return time.perf_counter() - start


def _get(url: str, path: str, size: int) -> float:
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    start = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    buffer = memoryview(bytearray(1 << 20))
    left = size
    while left and (count := answer.readinto(buffer)):
        left -= count
    if left:
        raise SystemExit(f"{path} lacks {left} bytes")
    return time.perf_counter() - start


def _queue(folder: Path, jobs: int) -> dict[str, float]:
    with (
        running_worker(folder / "queue", separation_command=STAND_IN, queue_limit=jobs) as worker,
        worker.client() as client,
    ):
        worker.wait_ready()
        until(client, post(client, b"hold"), "running")
        sha256 = upload(client, b"copy")
        start = time.perf_counter()
        for number in range(jobs):
            body = {"input_sha256": sha256, "job_id": f"job-{number}"}
            answer = client.post("/job", json=body)
            if answer.status_code != httpx.codes.OK:
                raise SystemExit(f"job {number}: {answer.text}")
        accept_s = time.perf_counter() - start
        listed = [_list(client, jobs) for _ in range(20)]
        return {
            "accept_s": accept_s,
            "list_ms": statistics.median(listed),
            "rss_mb": _rss(worker) / 1e6,
        }


def _list(client: httpx.Client, jobs: int) -> float:
    start = time.perf_counter()
    total = client.get("/jobs").json()["total"]
    if total != jobs + 1:
        raise SystemExit(f"{total} jobs are listed, not {jobs + 1}")
    return 1000 * (time.perf_counter() - start)


def _rss(worker: RunningWorker) -> int:
    return int(psutil.Process(worker.process.pid).memory_info().rss)
