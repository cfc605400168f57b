"""What is kept for how long, and that what was separated once is not separated again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from stemserve.jobs.jobfiles import JobFiles
from stemserve.jobs.store import Store
from stemserve.keeping.inputs import Inputs
from stemserve.keeping.kept import KeptJobs
from stemserve.keeping.retention import Retention
from stemserve.schema import JobStatus, ResultFile
from stemserve.settings import Settings

from tests.service.test_disk import SIZE, may_mount, on_a_small_disk, put
from tests.service.test_jobs import is_problem
from tests.service.test_queue import LIMITS, content
from tests.service.worker import (
    STAND_IN,
    RunningWorker,
    ended,
    eventually,
    post,
    running_worker,
    upload,
)

DAY_S = 86_400.0


class Kept:
    """What a worker keeps, in a folder, with a clock that a test moves on."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        (folder / "inputs").mkdir(parents=True, exist_ok=True)
        self.store = Store(folder / "jobs.sqlite3")
        given = Settings.load(data_dir=folder, keep_free=0, **settings)
        self.inputs = Inputs(folder / "inputs", given.input_limit, given.keep_free)
        self.retention = Retention(given, self.store, self.inputs, self.files)

    def files(self, job_id: str) -> JobFiles:
        """A job's files."""
        return JobFiles(self.folder / "jobs" / job_id)

    def job(self, number: int, status: JobStatus = JobStatus.COMPLETED, size: int = 100) -> str:
        """A job in that status over an input of its own."""
        job_id, wanted = f"job-{number}", content(number)
        assert wanted.input_sha256
        (self.folder / "inputs" / wanted.input_sha256).write_bytes(b"i" * size)
        self.store.add(job_id, wanted, None, LIMITS)
        if status is not JobStatus.PENDING:
            assert self.store.take(job_id)
        if status is JobStatus.COMPLETED:
            files = self.files(job_id)
            files.log("a line")
            (files.folder / "vocals.wav").write_bytes(b"r" * size)
            result = ResultFile(name="vocals.wav", stem="vocals", size=size, sha256="0" * 64)
            self.store.finish(job_id, [result], 1.0)
        self.retention.sweep()
        return job_id

    def left(self) -> tuple[set[int], set[str]]:
        """The inputs that are there, and the folders of jobs."""
        jobs = self.folder / "jobs"
        folders = {path.name for path in jobs.iterdir()} if jobs.is_dir() else set()
        return {int(one.sha256, 16) for one in self.inputs.all()}, folders


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds since some moment; a test adds to it."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_what_nobody_uses_goes_by_age(tmp_path: Path, passing: list[float]) -> None:
    kept = Kept(tmp_path / "data", keep_days=30)
    one = kept.job(1)
    passing[0] += 20 * DAY_S
    kept.retention.use_results(one)
    two = kept.job(2)
    passing[0] += 15 * DAY_S
    kept.retention.sweep()
    assert kept.left() == ({2}, {one, two})
    passing[0] += 20 * DAY_S
    kept.retention.sweep()
    assert kept.left() == (set(), set())
    gone = kept.store.get(one)
    assert (gone.status, gone.results_gone, gone.results) == (JobStatus.COMPLETED, True, [])
    passing[0] += 31 * DAY_S
    kept.retention.sweep()
    assert kept.store.newest(None, 10) == ([], 0)


def test_what_a_job_needs_stays(tmp_path: Path, passing: list[float]) -> None:
    kept = Kept(tmp_path / "data", keep_days=1, keep_bytes=0, keep_least_minutes=0)
    waits, runs = kept.job(1, JobStatus.PENDING), kept.job(2, JobStatus.RUNNING)
    kept.files(runs).log("a line")
    passing[0] += 1000 * DAY_S
    kept.retention.sweep()
    assert kept.left() == ({1, 2}, {runs})
    assert kept.store.get(waits).status is JobStatus.PENDING


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path, passing: list[float]) -> None:
    kept = Kept(tmp_path / "data", keep_bytes=350, keep_least_minutes=10)
    for number in (1, 2, 3):
        kept.job(number)
        passing[0] += 100
    assert kept.left() == ({1, 2, 3}, {"job-1", "job-2", "job-3"})
    passing[0] += 550
    kept.retention.use_results("job-1")
    kept.retention.sweep()
    assert kept.left() == ({3}, {"job-1", "job-3"})


@pytest.mark.parametrize("moved_by", [-400 * DAY_S, 400 * DAY_S])
def test_a_clock_that_jumps_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved_by: float
) -> None:
    kept = Kept(tmp_path / "data", keep_days=30)
    one = kept.job(1)
    kept.store.close()
    moved = time.time() + moved_by
    monkeypatch.setattr("time.time", lambda: moved)
    again = Kept(tmp_path / "data", keep_days=30)
    again.retention.sweep()
    assert again.left() == ({1}, {one})


def test_the_age_goes_on_over_a_restart(tmp_path: Path, passing: list[float]) -> None:
    kept = Kept(tmp_path / "data", keep_days=30)
    kept.job(1)
    passing[0] += 20 * DAY_S
    kept.retention.sweep()
    kept.store.close()
    passing[0] = 5.0
    again = Kept(tmp_path / "data", keep_days=30)
    again.retention.sweep()
    assert again.left()[0] == {1}
    passing[0] += 11 * DAY_S
    again.retention.sweep()
    assert again.left()[0] == set()


def test_thousands_of_ended_jobs(tmp_path: Path, passing: list[float]) -> None:
    kept = Kept(tmp_path / "data", keep_days=30)
    with kept.store.database.writing() as db:
        db.executemany(
            "INSERT INTO jobs (job_id, content, status, created_at) VALUES (?, ?, ?, 0)",
            [(f"job-{n}", content(n).text(), "completed") for n in range(1000)],
        )
    kept.retention.sweep()
    passing[0] += 31 * DAY_S
    kept.retention.sweep()
    assert all(job.results_gone for job in kept.store.newest(None, 1000)[0])
    passing[0] += 31 * DAY_S
    kept.retention.sweep()
    assert kept.store.newest(None, 1)[1] == 0


@pytest.mark.skipif(not may_mount(), reason="no mount namespaces on this system")
def test_an_upload_that_would_not_fit_makes_room(data_dir: Path) -> None:
    with running_worker(
        data_dir,
        separation_command=STAND_IN,
        keep_free=0,
        keep_least_minutes=0,
        wrapper=on_a_small_disk(data_dir),
    ) as worker:
        worker.wait_ready()
        with worker.client() as client:
            used = ended(client, post(client, b"copy" + b" " * 2**20, stems=["drums"]))["job_id"]
            upload(client, b"x" * (3 * 2**20))
            assert put(client, b"y" * (2 * SIZE)).status_code == 507
            assert client.get(f"/job/{used}").json()["results"]
            assert put(client, b"z" * (4 * 2**20)).status_code == 201

            gone = client.get(f"/job/{used}").json()
            answer = client.get(f"/result/{used}", params={"file": "drums.wav"})
            if gone["results_gone"]:
                is_problem(answer, 410, "results-gone")
            else:
                assert answer.status_code == 200


@pytest.fixture
def worker(data_dir: Path) -> Iterator[RunningWorker]:
    """A worker of the test's own."""
    with running_worker(data_dir, separation_command=STAND_IN) as running:
        running.wait_ready()
        yield running


def separations(worker: RunningWorker) -> int:
    """How many tasks the separation process was given."""
    logs = (worker.data_dir / "jobs").glob("*/demucs.log")
    return sum(path.read_text().count(" task {") for path in logs)


def test_a_job_whose_results_went_runs_again(worker: RunningWorker, client: httpx.Client) -> None:
    job_id = post(client, b"copy this")
    ended(client, job_id)
    worker.kill()
    store = Store(worker.data_dir / "jobs.sqlite3")
    assert KeptJobs(store).let_go(job_id)
    store.close()
    with running_worker(worker.data_dir, separation_command=STAND_IN) as again:
        again.wait_ready()
        with again.client() as ours:
            is_problem(ours.get(f"/result/{job_id}"), 410, "results-gone")
            assert ours.get(f"/job/{job_id}").json()["results_gone"]
            assert post(ours, b"copy this") == job_id
            assert ended(ours, job_id)["results"]
            assert ours.get(f"/result/{job_id}").content == b"copy this"


def test_a_repeated_job_is_answered_at_once(worker: RunningWorker, client: httpx.Client) -> None:
    first = post(client, b"copy this", job_id="first")
    ended(client, first)
    held = post(client, b"hold")
    before = eventually(lambda: separations(worker), lambda count: count == 2)
    body = {"input_sha256": upload(client, b"copy this"), "job_id": "second"}
    assert client.post("/job", json=body).json()["status"] == "completed"
    job = client.get("/job/second").json()
    assert (job["results"], job["details"]["percent"]) == (
        client.get("/job/first").json()["results"],
        100,
    )
    assert client.get("/result/second").content == b"copy this"
    progress = json.loads((worker.data_dir / "jobs" / "second" / "progress.txt").read_text())
    assert progress["state"] == "completed"
    other = client.post("/job", json={**body, "job_id": "third", "mono": True}).json()
    assert other["status"] == "pending"
    assert separations(worker) == before
    worker.let_go(held)
    ended(client, "third")
    assert separations(worker) == before + 1

    assert client.delete("/job/first").status_code == 200
    assert client.get("/result/second").content == b"copy this"
    worker.kill()
    with running_worker(worker.data_dir, separation_command=STAND_IN) as again:
        again.wait_ready()
        with again.client() as ours:
            body = {**body, "job_id": "fourth"}
            answer = ours.put(f"/inputs/{body['input_sha256']}", content=b"copy this")
            assert answer.status_code in (200, 201)
            assert ours.post("/job", json=body).json()["status"] == "completed"
            assert ours.get("/result/fourth").content == b"copy this"


def test_a_result_that_is_not_what_it_was_is_not_shared(
    worker: RunningWorker, client: httpx.Client
) -> None:
    ended(client, post(client, b"copy this", job_id="first"))
    path = worker.data_dir / "jobs" / "first" / "vocals.wav"
    os.truncate(path, 3)
    assert post(client, b"copy this", job_id="second") == "second"
    assert ended(client, "second")["status"] == "completed"
    digest = hashlib.sha256(b"copy this").hexdigest()
    eventually(
        lambda: {
            hashlib.sha256((worker.data_dir / "jobs/second" / name).read_bytes()).hexdigest()
            for name in ("vocals.wav", "instrumental.wav")
        },
        lambda digests: digests == {digest},
    )
