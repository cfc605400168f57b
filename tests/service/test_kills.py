"""Both processes of a worker, killed at any moment over batches of jobs: nothing is lost.

All jobs complete, with the results of an undisturbed run, and no finished segment is computed
again.
"""

from __future__ import annotations

import os
import random
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from tests.service.counting import NOTES
from tests.service.sounds import write_audio
from tests.service.test_survival import digests
from tests.service.worker import RunningWorker, running_worker, upload

KILLS = int(os.environ.get("STEMFLEET_TEST_KILLS", "20"))
"""`make soak` sets more."""

pytestmark = pytest.mark.timeout(180 + 10 * KILLS)

RATE = 44_100
SECONDS = 16
COUNTING = (sys.executable, str(Path(__file__).with_name("counting.py")))
CUTS = ",".join(str(second) for second in range(1, SECONDS))
JOBS: dict[str, dict[str, Any]] = {
    "plain": {},
    "flac": {"format": "flac", "bit_depth": "24", "stems": ["drums", "no_drums"]},
    "mp3": {"format": "mp3", "mono": True},
    "rescaled": {"clip": "rescale", "bit_depth": "16"},
    "range": {"range": {"start_seconds": 2.5, "end_seconds": 14.25}, "all_stems": True},
}
VICTIMS = ("api", "separation", "both")
LONGEST_WAIT_S = 0.8


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A quarter of a minute of noise."""
    noise = np.random.default_rng(6).normal(0, 0.3, (RATE * SECONDS, 2)).astype(np.float32)
    path = tmp_path_factory.mktemp("song") / "song.wav"
    return write_audio(path, noise, RATE, "pcm_s16le").read_bytes()


def post_all(client: httpx.Client, song: bytes) -> None:
    """Post the batch; what is there already stays as it is."""
    sha256 = upload(client, song)
    for job_id, asked in JOBS.items():
        body = {"input_sha256": sha256, "job_id": job_id, "interval_cut": CUTS, **asked}
        assert client.post("/job", json=body).status_code == 200


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, song: bytes) -> dict[str, dict[str, str]]:
    """By job, the digests of its results where nothing is killed."""
    data_dir = tmp_path_factory.mktemp("undisturbed") / "data"
    with running_worker(data_dir) as worker, worker.client() as client:
        worker.wait_ready()
        post_all(client, song)
        return {job_id: digests(client, job_id) for job_id in JOBS}


def test_jobs_survive_kills(
    tmp_path: Path, song: bytes, undisturbed: dict[str, dict[str, str]]
) -> None:
    chance = random.Random(KILLS)
    killed, batches = 0, 0
    while killed < KILLS:
        data_dir = tmp_path / f"batch-{batches}"
        killed += kill_over_a_batch(data_dir, song, undisturbed, chance, KILLS - killed)
        check_nothing_was_done_twice(data_dir)
        batches += 1


def kill_over_a_batch(
    data_dir: Path,
    song: bytes,
    undisturbed: dict[str, dict[str, str]],
    chance: random.Random,
    most: int,
) -> int:
    """Run the batch, killing as often as it takes; how often that was."""
    kills = 0
    while True:
        with (
            running_worker(data_dir, separation_command=COUNTING) as worker,
            worker.client() as client,
        ):
            worker.wait_ready()
            post_all(client, song)
            while worker.process.poll() is None:
                if kills == most or is_over(client, chance.uniform(0, LONGEST_WAIT_S)):
                    assert {job_id: digests(client, job_id) for job_id in JOBS} == undisturbed
                    return kills
                victim = chance.choice(VICTIMS)
                kill(worker, "api" if on_its_last_attempt(client) else victim)
                kills += 1


def statuses(client: httpx.Client) -> dict[str, str]:
    """By job, where it is."""
    return {row["job_id"]: row["status"] for row in client.get("/jobs").json()["jobs"]}


def is_over(client: httpx.Client, wait_s: float) -> bool:
    """Whether the batch ends before so much time has passed."""
    end = time.monotonic() + wait_s
    while True:
        if set(statuses(client).values()) == {"completed"}:
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)


def on_its_last_attempt(client: httpx.Client) -> bool:
    """Whether a job would be given up if the separation died over it once more."""
    left = [job_id for job_id, status in statuses(client).items() if status != "completed"]
    logs = (client.get(f"/job/{job_id}/logs").json()["logs"] for job_id in left)
    return any(re.findall(r" attempt (\d) of 3", log)[-1:] == ["2"] for log in logs)


def kill(worker: RunningWorker, victim: str) -> None:
    """End a process of the worker, or both, by SIGKILL."""
    if victim != "api":
        with suppress(psutil.Error):
            for process in psutil.Process(worker.process.pid).children():
                process.kill()
    if victim != "separation":
        worker.kill()
    else:
        worker.wait_ready()


def check_nothing_was_done_twice(data_dir: Path) -> None:
    """Each job went on where a segment had been finished, and no earlier."""
    notes = list(data_dir.glob(f"jobs/*/{NOTES}"))
    assert len(notes) == len(JOBS)
    for path in notes:
        finished = 0
        for line in path.read_text().splitlines():
            word, _, frame = line.partition(" ")
            if word == "from":
                assert int(frame) >= finished, path.read_text()
            finished = int(frame)
