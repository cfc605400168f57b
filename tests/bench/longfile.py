"""A long track against a short one through the real worker: memory, disk and speed.

The track is the sample song over and over, in 16-bit WAV; the stems are two, in 32-bit float, so
three hours make 7.6 GB of results. The short one is separated before and after the long one, and
its speeds are averaged, for machines get warm and have other work.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
import wave
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from stemserve.audio.decode import decode, probe

from tests.sample import SONG
from tests.service.worker import RunningWorker, running_worker

SHORT_MINUTES = 5.0
POLL_S = 0.1
PARTIAL = ".partial"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the bench can be told."""
    parser.add_argument("--minutes", type=float, default=180, help="of the long track")
    parser.add_argument("--preset", default="center")
    parser.add_argument("--format", default="wav")


@dataclass
class _Seen:
    """One job: what it took."""

    seconds: float = 0
    cpu: float = 0
    """Seconds of the processor, of all the worker's processes."""
    rss: int = 0
    """The most that the worker's processes held, in bytes."""
    partial: int = 0
    """The most that lay in the job's folder outside of the results' place."""
    folder: int = 0
    """The most that lay in the job's folder at all."""
    results: int = 0


def measure(minutes: float, preset: str, format: str) -> dict[str, float]:  # noqa: A002
    """Figures of one run.

    ``rss_growth_mb``: by how much the peak of the worker's processes is higher with the long track.
    ``tmp_over_results``: the most that lay outside the results' place over the results' size;
    ``disk_over_results``: the most that the job's folder held, over the same. ``realtime``: seconds
    of the long track separated in a second, from the request to the last digest;
    ``realtime_ratio``: the same over that of the short one; ``cpu_ratio``: that ratio by seconds of
    the processor, which other work on the machine moves less.
    """
    with tempfile.TemporaryDirectory(prefix="longfile-") as place:
        folder = Path(place)
        inputs = {
            length: song_of(folder / f"{length:g}.wav", length)
            for length in (SHORT_MINUTES, minutes)
        }
        with running_worker(folder / "data") as worker, worker.client() as client:
            worker.wait_ready()
            request = {"preset": preset, "format": format}
            _job(worker, client, inputs[SHORT_MINUTES], request)  # warms up
            before = _job(worker, client, inputs[SHORT_MINUTES], request)
            long = _job(worker, client, inputs[minutes], request)
            after = _job(worker, client, inputs[SHORT_MINUTES], request)
    short_realtime = 2 * 60 * SHORT_MINUTES / (before.seconds + after.seconds)
    realtime = 60 * minutes / long.seconds
    short_cpu = (before.cpu + after.cpu) / (2 * SHORT_MINUTES)
    figures = {
        "minutes": minutes,
        "realtime": realtime,
        "realtime_short": short_realtime,
        "realtime_ratio": realtime / short_realtime,
        "cpu_ratio": short_cpu / (long.cpu / minutes),
        "rss_mb": long.rss / 1e6,
        "rss_growth_mb": (long.rss - before.rss) / 1e6,
        "tmp_over_results": long.partial / long.results,
        "disk_over_results": long.folder / long.results,
        "results_gb": long.results / 1e9,
    }
    return {name: round(value, 3) for name, value in figures.items()}


def song_of(path: Path, minutes: float) -> Path:
    """Write the sample song, over and over, and give the path back."""
    facts = probe(SONG)
    samples = np.concatenate(list(decode(SONG, facts)))
    data = np.rint(samples * 32767).astype("<i2").tobytes()
    left = round(minutes * 60 * facts.rate) * 2 * facts.channels
    with wave.open(str(path), "wb") as file:
        file.setnchannels(facts.channels)
        file.setsampwidth(2)
        file.setframerate(facts.rate)
        while left:
            file.writeframesraw(data[:left])
            left -= min(left, len(data))
    return path


def _job(worker: RunningWorker, client: httpx.Client, path: Path, request: dict[str, str]) -> _Seen:
    with path.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    with path.open("rb") as content:
        client.put(f"/inputs/{sha256}", content=content, timeout=600).raise_for_status()
    seen = _Seen(cpu=-_cpu(worker.process.pid))
    posted = client.post("/job", json={"input_sha256": sha256, **request}).raise_for_status()
    job_id = posted.json()["job_id"]
    folder = worker.data_dir / "jobs" / job_id
    while True:
        job: dict[str, Any] = client.get(f"/job/{job_id}").raise_for_status().json()
        if job["status"] in ("completed", "failed"):
            break
        seen.rss = max(seen.rss, _rss(worker.process.pid))
        partial = _size(folder / PARTIAL)
        seen.partial = max(seen.partial, partial)
        seen.folder = max(seen.folder, _size(folder))
        time.sleep(POLL_S)
    if job["status"] == "failed":
        raise SystemExit(f"The job failed: {job['error']}")
    seen.seconds = job["elapsed_seconds"]
    seen.cpu += _cpu(worker.process.pid)
    seen.results = sum(result["size"] for result in job["results"])
    print(f"{path.name}: {seen}", file=sys.stderr)
    client.delete(f"/job/{job_id}").raise_for_status()
    return seen


def _rss(pid: int) -> int:
    total = 0
    for process in _processes(pid):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def _cpu(pid: int) -> float:
    total = 0.0
    for process in _processes(pid):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _processes(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


def _size(folder: Path) -> int:
    """Bytes; what is found under two names counts once."""
    sizes: dict[int, int] = {}
    with suppress(FileNotFoundError):
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):
                if path.is_file():
                    found = path.stat()
                    sizes[found.st_ino] = found.st_size
    return sum(sizes.values())
