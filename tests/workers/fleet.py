"""Emulated workers as processes, and what they separate."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.workers.emulated import STEMS, stem_samples, wav


@dataclass
class Emulated:
    """A worker that runs."""

    url: str
    speed: float
    process: subprocess.Popen[str]

    def control(self, **how: object) -> None:
        """From now on another ``speed``, or ``garbage`` of a kind."""
        httpx.post(f"{self.url}/control", json=how, trust_env=False).raise_for_status()


@contextmanager
def emulated_workers(speeds: Sequence[float], scale: float) -> Iterator[list[Emulated]]:
    """Workers of these speeds; killed afterwards."""
    workers: list[Emulated] = []
    try:
        for speed in speeds:
            words = ["-m", "tests.workers.emulated", "--speed", str(speed), "--scale", str(scale)]
            process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
            workers.append(Emulated("", speed, process))
        for worker in workers:
            assert worker.process.stdout is not None
            worker.url = f"http://127.0.0.1:{int(worker.process.stdout.readline())}"
        yield workers
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()
            if worker.process.stdout is not None:
                worker.process.stdout.close()


def write_input(path: Path, seconds: float, rate: int = 10) -> str:
    """A file that emulated workers take, of so many seconds; its digest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    named = hashlib.sha256(path.name.encode()).digest()
    samples = (named * (1 + round(seconds * rate) * 2 // len(named)))[: round(seconds * rate) * 2]
    data = wav(samples, rate)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def expected(digest: str, seconds: float, rate: int = 10) -> dict[str, bytes]:
    """The files that come of such an input."""
    frames = round(seconds * rate)
    return {f"{s}.wav": wav(stem_samples(digest, s, 0, frames), rate) for s in STEMS}
