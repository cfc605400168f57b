"""A run over emulated workers of known speeds: how well it uses them, and what it costs.

The workers are processes that keep the contract over real HTTP and separate nothing: a job takes
the time that its length, the worker's speed and the scale say. Time runs faster by ``--scale``, 30
by default: half a minute of it is a second. So a track of four minutes at 8 × takes a second,
beside which the few milliseconds of CPU that its requests take here do not decide, as long as this
machine has not much else to do: see ``load``. The ideal is the time in which the workers would get
it all done if sound could be cut at will and nothing had to be sent.

The second run is the same while a third of the workers fail, at odd times in its first three
quarters: killed, stopped as by SIGSTOP, slowed down to a fifth, and answering garbage. Its ideal
counts each worker until its failure, and the slow ones at their speeds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.cli.driving import STEMCTL, endpoints
from tests.workers.fleet import Emulated, emulated_workers, expected, write_input

HOURS = 3 * 3600.0
SLOWED = 0.2
GARBAGE = ("digest", "length", "html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the bench can be told."""
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--tracks", type=int, default=2000)
    parser.add_argument("--scale", type=float, default=30.0, help="by so much time runs faster")
    parser.add_argument("--seed", type=int, default=7)


def measure(workers: int, tracks: int, scale: float, seed: int) -> dict[str, Any]:
    """Figures of both runs.

    ``efficiency``: ideal over real time of the undisturbed run, from the first request for a job to
    the last stem in place; ``round_robin_efficiency``: what the same tracks dealt out in turn would
    reach at best, by calculation; ``overhead_ms_per_track``: CPU of stemctl; ``rss_mb``: its peak;
    ``efficiency_under_faults``: of the second run, over what its workers could do;
    ``wrong_results``: stems of both runs that are not what one worker would have made.
    """
    chance = random.Random(seed)
    speeds = [1 + 7 * number / max(workers - 1, 1) for number in range(workers)]
    lengths = [min(max(chance.lognormvariate(5.4, 0.45), 40), 1500) for _ in range(tracks - 3)]
    lengths = [round(length, 1) for length in [*lengths, HOURS, HOURS, HOURS]]
    chance.shuffle(speeds)
    with tempfile.TemporaryDirectory(prefix="dispatch-") as place:
        folder = Path(place)
        digests = {
            f"track {number}": (write_input(folder / "in" / f"track {number}.wav", length), length)
            for number, length in enumerate(lengths)
        }
        quiet = _run(folder, "quiet", speeds, scale, None)
        faults = _faults(chance, speeds, sum(lengths) / sum(speeds) / scale)
        faulty = _run(folder, "faulty", speeds, scale, faults)
        wrong = sum(
            (folder / out / name / file).read_bytes() != content
            for out in ("quiet", "faulty")
            for name, (digest, length) in digests.items()
            for file, content in expected(digest, length).items()
        )
    total = sum(lengths) / scale
    ideal = total / sum(speeds)
    dealt = max(sum(lengths[w::workers]) / speed / scale for w, speed in enumerate(speeds))
    figures: dict[str, Any] = {
        "efficiency": ideal / quiet.seconds,
        "round_robin_efficiency": ideal / dealt,
        "overhead_ms_per_track": 1000 * quiet.cpu / tracks,
        "rss_mb": quiet.rss / 1e6,
        "efficiency_under_faults": _ideal(total, speeds, faults) / faulty.seconds,
        "seconds": quiet.seconds,
        "seconds_under_faults": faulty.seconds,
        "done": quiet.done,
        "done_under_faults": faulty.done,
        "set_aside": len(faulty.set_aside),
        "wrong_results": wrong,
        "load": os.getloadavg()[0],
    }
    return {name: round(v, 3) if isinstance(v, float) else v for name, v in figures.items()}


@dataclass
class _Ran:
    """One run of stemctl."""

    seconds: float
    cpu: float
    rss: int
    done: int
    set_aside: dict[str, str]


@dataclass(frozen=True)
class _Fault:
    """What becomes of a worker, and when; seconds after the start of the work."""

    worker: int
    after: float
    what: str

    def happen(self, worker: Emulated) -> None:
        """Let it."""
        if self.what == "killed":
            worker.process.kill()
        elif self.what == "hung":
            worker.process.send_signal(signal.SIGSTOP)
        elif self.what == "slow":
            worker.control(speed=worker.speed * SLOWED)
        else:
            worker.control(garbage=self.what)


def _faults(chance: random.Random, speeds: Sequence[float], ideal: float) -> list[_Fault]:
    kinds = ["killed", "hung", "slow", *GARBAGE]
    bad = chance.sample(range(len(speeds)), max(len(speeds) // 3, 1))
    return [
        _Fault(worker, chance.uniform(0.05, 0.75) * ideal, kinds[number % len(kinds)])
        for number, worker in enumerate(bad)
    ]


def _ideal(total: float, speeds: Sequence[float], faults: Sequence[_Fault]) -> float:
    """When the workers could have computed ``total`` seconds of sound, by what is left of them."""
    after = {fault.worker: fault for fault in faults}

    def done(until: float) -> float:
        sums = 0.0
        for worker, speed in enumerate(speeds):
            fault = after.get(worker)
            sums += speed * min(until, fault.after if fault else until)
            if fault and fault.what == "slow":
                sums += SLOWED * speed * max(until - fault.after, 0)
        return sums

    low, high = 0.0, 100 * total
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if done(middle) < total else (low, middle)
    return high


def _run(
    folder: Path, name: str, speeds: Sequence[float], scale: float, faults: list[_Fault] | None
) -> _Ran:
    with emulated_workers(speeds, scale) as workers:
        words = ["submit", folder / "in", "--out", folder / name, "--bit-depth", "16", "--json"]
        words += ["--events", folder / f"{name}.jsonl"]
        words += endpoints(*(worker.url for worker in workers))
        process = subprocess.Popen(
            [STEMCTL, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        seen = _Seen(process.pid)
        watching = threading.Thread(target=seen.watch)
        watching.start()
        events = folder / f"{name}.jsonl"
        if faults:
            _wait(lambda: events.exists() and '"event": "trip"' in events.read_text()[:100_000])
            threading.Thread(target=_happen, args=(faults, workers), daemon=True).start()
        out, err = process.communicate()
        watching.join()
    if process.returncode:  # it says why
        print(err[-4000:], file=sys.stderr)
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    began = next(line["time"] for line in lines if line["event"] == "trip")
    ended = max(line["time"] for line in lines if line["event"] == "track")
    report = json.loads(out)
    done = sum(track["end"] == "done" for track in report["tracks"])
    print(f"{name}: {ended - began:.1f} s, set aside {report['set_aside']}", file=sys.stderr)
    return _Ran(ended - began, seen.cpu, seen.rss, done, report["set_aside"])


def _happen(faults: Sequence[_Fault], workers: Sequence[Emulated]) -> None:
    began = time.monotonic()
    for fault in sorted(faults, key=lambda fault: fault.after):
        time.sleep(max(fault.after - (time.monotonic() - began), 0))
        print(f"after {fault.after:.1f} s: {fault.what}, {workers[fault.worker].url}",
              file=sys.stderr)  # fmt: skip
        fault.happen(workers[fault.worker])


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


class _Seen:
    """What a process takes, looked at until it ends."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.cpu = 0.0
        self.rss = 0

    def watch(self) -> None:
        """Look, again and again."""
        try:
            while True:
                times = self._process.cpu_times()
                self.cpu = times.user + times.system
                self.rss = max(self.rss, self._process.memory_info().rss)
                time.sleep(0.2)
        except psutil.Error:
            return
