"""The queue: how much of it one caller may take, and that a table of an earlier version is kept."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import httpx
import pytest
from stemserve.jobs.job import JobContent, resolve
from stemserve.jobs.store import QueueLimits, Store
from stemserve.schema import Details, JobRequest, JobStatus, Preset, Tasks

from tests.service.test_jobs import is_problem
from tests.service.worker import STAND_IN, ended, post, running_worker, until, upload

LIMITS = QueueLimits(100, 100)


def content(number: int = 0) -> JobContent:
    """What a job asks for; another for each number."""
    preset = Preset(name="center", description="", stems=["vocals"], available=True)
    request = JobRequest(input_sha256=f"{number:064x}", stems=["vocals"])
    return resolve(request, [preset], "center")


def test_one_caller_leaves_room_for_the_others(data_dir: Path) -> None:
    with running_worker(
        data_dir, "one, two", separation_command=STAND_IN, queue_limit=3, caller_queue_limit=2
    ) as worker:
        worker.token = "one"
        worker.wait_ready()
        two = {"Authorization": "Bearer two"}
        with worker.client() as client:
            held = post(client, b"hold")
            until(client, held, "running")
            body = {"input_sha256": upload(client, b"copy")}

            def posted(number: int, **headers: str) -> httpx.Response:
                return client.post(
                    "/job", json={**body, "job_id": f"job-{number}"}, headers=headers
                )

            assert [posted(n).status_code for n in (1, 2)] == [200, 200]
            refused = posted(3)
            assert "your jobs" in is_problem(refused, 429, "queue-full")["detail"]
            assert int(refused.headers["retry-after"]) > 0
            assert posted(3, **two).status_code == 200
            is_problem(posted(4, **two), 429, "queue-full")
            worker.let_go(held)
            for number in (1, 2, 3):
                assert ended(client, f"job-{number}")["status"] == "completed"


def test_a_job_whose_process_dies_is_given_up_only_where_it_gets_no_further(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite3")
    store.add("job", content(), None, LIMITS)

    def dies(segments: int) -> JobStatus:
        store.claim()
        store.advance("job", Tasks(), Details(completed_segments=segments), None)
        after = store.interrupted("job", "It died.", "separation-died", 3)
        assert after is not None
        return after.status

    for segments in range(1, 20):
        assert dies(segments) is JobStatus.PENDING
    assert [dies(19), dies(0)] == [JobStatus.PENDING, JobStatus.FAILED]


def test_a_table_of_an_earlier_version_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    with sqlite3.connect(path) as db:
        db.executescript(
            "CREATE TABLE jobs (turn INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL"
            " UNIQUE, content TEXT NOT NULL, input_sha256 TEXT, input_name TEXT, status TEXT NOT"
            " NULL, attempts INTEGER NOT NULL DEFAULT 0, created_at REAL NOT NULL, started_at"
            " REAL, ended_at REAL, tasks TEXT NOT NULL DEFAULT '{}', details TEXT NOT NULL DEFAULT"
            " '{}', duration_seconds REAL, results TEXT NOT NULL DEFAULT '[]', error TEXT,"
            " error_type TEXT)"
        )
        db.execute(
            "INSERT INTO jobs (job_id, content, status, created_at) VALUES (?, ?, ?, ?)",
            ["old", content().text(), "pending", 0.0],
        )
    db.close()
    for _ in range(2):
        store = Store(path)
        assert store.get("old").content == content()
        assert store.add("old", content(), None, LIMITS).status is JobStatus.PENDING
        store.close()


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite3")
    store.add("job", content(), None, LIMITS)
    with store._writing() as db:
        db.execute("UPDATE jobs SET status = 'running'")
        assert store.get("job").status is JobStatus.PENDING
    assert store.get("job").status is JobStatus.RUNNING


def test_the_clock_is_set_back_while_a_job_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "jobs.sqlite3")
    store.add("job", content(), None, LIMITS)
    store.claim()
    monkeypatch.setattr("time.time", lambda: 0.0)
    store.finish("job", [], 1.0)
    job = store.get("job")
    assert job.ended_at is not None
    assert job.started_at is not None
    assert 0 <= job.ended_at - job.started_at < 60
