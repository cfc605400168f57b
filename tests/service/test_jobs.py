"""Jobs as a caller sees them, over a worker whose separation obeys its inputs."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

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


def is_problem(answer: httpx.Response, status: int, word: str) -> dict[str, Any]:
    """The body of an answer that must be this problem."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == word
    assert body["status"] == status
    assert body["detail"]
    return body


def test_a_job_runs_and_its_results_can_be_had(client: httpx.Client) -> None:
    job_id = post(client, b"copy this", input_name="Größe 1.wav")
    job = ended(client, job_id)
    assert job["status"] == "completed"
    assert job["state"] == "completed"
    assert job["details"] == {"completed_segments": 2, "total_segments": 2, "percent": 100}
    assert job["input_name"] == "Größe 1.wav"
    assert job["duration_seconds"] == 12.5
    names = {result["name"] for result in job["results"]}
    assert names == {"vocals.wav", "instrumental.wav", "instrumental.mp3"}
    for name in names:
        assert client.get(f"/result/{job_id}", params={"file": name}).content == b"copy this"
    part = client.get(
        f"/result/{job_id}", params={"file": "vocals.wav"}, headers={"Range": "bytes=5-"}
    )
    assert (part.status_code, part.content) == (206, b"this")


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        ("bytes=0-", 206, b"copy ranges"),
        ("bytes=5-7", 206, b"ran"),
        ("bytes=-3", 206, b"ges"),
        ("bytes=11-", 416, None),
        ("bytes=7-5", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=0-1,3-4", 416, None),
        ("pages=1-2", 416, None),
        ("bytes=-", 416, None),
    ],
)
def test_a_part_of_a_result(
    client: httpx.Client, asked: str, status: int, content: bytes | None
) -> None:
    job_id = post(client, b"copy ranges")
    ended(client, job_id)
    answer = client.get(f"/result/{job_id}", headers={"Range": asked})
    if content is None:
        is_problem(answer, status, "bad-range")
    else:
        assert (answer.status_code, answer.content) == (status, content)


@pytest.mark.parametrize(
    ("wanted", "files"),
    [
        ({"all_stems": True}, {"vocals.wav", "instrumental.wav", "drums.wav", "instrumental.mp3"}),
        ({"stems": ["drums", "vocals", "drums"]}, {"vocals.wav", "drums.wav"}),
        ({"format": "flac"}, {"vocals.flac", "instrumental.flac"}),
        ({"format": "mp3"}, {"vocals.mp3", "instrumental.mp3"}),
        ({"format": "wav", "bit_depth": "24"}, {"vocals.wav", "instrumental.wav"}),
        ({"preset": "other"}, {"drums.wav"}),
    ],
)
def test_what_is_asked_for_is_what_is_made(
    client: httpx.Client, wanted: dict[str, object], files: set[str]
) -> None:
    job = ended(client, post(client, b"copy", **wanted))
    assert {result["name"] for result in job["results"]} == files


def test_every_parameter_reaches_the_separation(client: httpx.Client) -> None:
    job_id = post(
        client,
        b"copy",
        interval_cut="1.5, 3",
        format="flac",
        bit_depth="24",
        mono=True,
        range={"start_seconds": 1, "end_seconds": 4.5},
        clip="rescale",
        strict=True,
        stems=["no_drums", "vocals"],
        input_name="a song.wav",
    )
    ended(client, job_id)
    log = client.get(f"/job/{job_id}/logs").json()["logs"]
    assert '"range": {"start_seconds": 1.0, "end_seconds": 4.5}' in log
    assert '"clip": "rescale"' in log
    assert '"strict": true' in log
    assert '"stems": ["vocals", "no_drums"]' in log
    assert f'"input_sha256": "{hashlib.sha256(b"copy").hexdigest()}"' in log
    assert '"input_name": "a song.wav"' in log
    assert '"cut_points": [1.5, 3.0]' in log
    assert '"bit_depth": "24"' in log
    assert '"mono": true' in log


def test_whether_damage_fails_a_job_is_the_workers_choice_unless_said(data_dir: Path) -> None:
    with (
        running_worker(data_dir, separation_command=STAND_IN, strict=True) as worker,
        worker.client() as client,
    ):
        worker.wait_ready()
        for asked, told in ((None, "true"), (False, "false")):
            job_id = post(client, b"copy", strict=asked)
            ended(client, job_id)
            log = client.get(f"/job/{job_id}/logs").json()["logs"]
            assert f'"strict": {told}' in log


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"range": {"start_seconds": 5, "end_seconds": 5}}, "more than start_seconds"),
        ({"range": {"start_seconds": -1}}, "greater than or equal to 0"),
        ({"format": "stem.mp4", "stems": ["vocals"]}, "leave out stems"),
        ({"format": "stem.mp4", "mono": True}, "leave out mono"),
        ({"format": "opus", "bit_depth": "16"}, "none"),
        ({"clip": "loud"}, "rescale"),
    ],
)
def test_what_has_no_meaning_is_refused(
    client: httpx.Client, asked: dict[str, object], says: str
) -> None:
    body = {"input_sha256": upload(client, b"copy"), **asked}
    assert says in is_problem(client.post("/job", json=body), 422, "invalid-request")["detail"]


def test_a_stem_file_needs_a_preset_with_its_stems(client: httpx.Client) -> None:
    body = {"input_sha256": upload(client, b"copy"), "format": "stem.mp4"}
    assert is_problem(client.post("/job", json=body), 422, "unknown-name")["choices"]


def test_the_same_request_is_the_same_job(client: httpx.Client) -> None:
    first = post(client, b"copy same")
    assert post(client, b"copy same", stems=["instrumental", "vocals"]) == first
    assert post(client, b"copy same", stems=["vocals"]) != first
    assert post(client, b"copy same", interval_cut="7") != first
    ended(client, first)
    again = client.post("/job", json={"input_sha256": upload(client, b"copy same")}).json()
    assert (again["job_id"], again["status"]) == (first, "completed")


def test_an_id_of_the_callers_own(client: httpx.Client) -> None:
    assert post(client, b"copy own", job_id="song-1") == "song-1"
    assert post(client, b"copy own", job_id="song-1") == "song-1"
    other = {"input_sha256": upload(client, b"copy another"), "job_id": "song-1"}
    is_problem(client.post("/job", json=other), 409, "job-exists")


@pytest.mark.parametrize(
    ("request_", "nearest"),
    [
        ({"preset": "centre"}, "center"),
        ({"preset": "others"}, "other"),
        ({"stems": ["vocal"]}, "vocals"),
        ({"stems": ["vocals", "drum"]}, "drums"),
        ({"stems": ["no_drum"]}, "no_drums"),
        ({"preset": "other", "stems": ["vocals"]}, "drums"),
    ],
)
def test_a_wrong_name_gets_the_names_there_are(
    client: httpx.Client, request_: dict[str, object], nearest: str
) -> None:
    body = {"input_sha256": upload(client, b"copy"), **request_}
    problem = is_problem(client.post("/job", json=body), 422, "unknown-name")
    assert problem["choices"][0] == nearest
    assert nearest in problem["detail"]


def test_a_preset_that_lacks_something_says_what(client: httpx.Client) -> None:
    body = {"input_sha256": upload(client, b"copy"), "preset": "htdemucs"}
    problem = is_problem(client.post("/job", json=body), 409, "preset-unavailable")
    assert "pip install 'stemfleet[image]'" in problem["detail"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "exactly one of input_url and input_sha256"),
        ({"input_sha256": "0" * 64, "input_url": "http://example.com/a"}, "exactly one"),
        ({"input_sha256": "0" * 64, "interval_cut": "300,200"}, "must rise"),
        ({"input_sha256": "0" * 64, "interval_cut": "soon"}, "'soon' is no number of seconds"),
        ({"input_sha256": "0" * 64, "format": "flac", "bit_depth": "32f"}, "16 or 24"),
        ({"input_sha256": "0" * 64, "speed": 3}, "speed"),
        ({"input_url": "file:///etc/passwd"}, "input_url"),
        ({"input_sha256": "../../etc/passwd"}, "input_sha256"),
        ({"input_sha256": "0" * 64, "job_id": "../jobs"}, "job_id"),
        ({"input_sha256": "0" * 64, "job_id": ".."}, "job_id"),
    ],
)
def test_a_request_that_makes_no_sense_is_told_why(
    client: httpx.Client, body: dict[str, object], told: str
) -> None:
    problem = is_problem(client.post("/job", json=body), 422, "invalid-request")
    assert told in problem["detail"]


def test_a_request_without_end(client: httpx.Client) -> None:
    body = {"input_sha256": "0" * 64, "interval_cut": "1," * 10**6}
    is_problem(client.post("/job", json=body), 413, "request-too-large")


def test_an_input_goes_with_its_last_job(client: httpx.Client) -> None:
    first = post(client, b"copy input")
    second = post(client, b"copy input", stems=["drums"])
    ended(client, first)
    sha256 = ended(client, second)["input_sha256"]
    client.delete(f"/job/{first}")
    assert client.get(f"/inputs/{sha256}").status_code == 200
    client.delete(f"/job/{second}")
    assert client.get(f"/inputs/{sha256}").status_code == 404


def test_a_job_that_is_deleted_counts_as_completed_still(client: httpx.Client) -> None:
    def completed() -> int:
        return int(client.get("/status").json()["completed_jobs"])

    before = completed()
    job_id = post(client, b"copy to be counted")
    eventually(completed, lambda count: count == before + 1)
    client.delete(f"/job/{job_id}")
    assert completed() == before + 1


def test_no_json_at_all(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    is_problem(client.post("/job", content=b"{oops", headers=headers), 422, "invalid-request")
    is_problem(client.post("/job", content=b'"\xff"', headers=headers), 400, "bad-request")


def test_an_input_that_was_never_uploaded(client: httpx.Client) -> None:
    answer = client.post("/job", json={"input_sha256": "1" * 64})
    problem = is_problem(answer, 404, "no-such-input")
    assert f"PUT /inputs/{'1' * 64}" in problem["detail"]


def test_unknown_jobs_and_addresses(client: httpx.Client) -> None:
    for method, path in [
        ("GET", "/job/none"),
        ("GET", "/job/none/logs"),
        ("GET", "/result/none"),
        ("DELETE", "/job/none"),
        ("POST", "/job/none/cancel"),
    ]:
        is_problem(client.request(method, path), 404, "no-such-job")
    is_problem(client.get("/nothing"), 404, "not-found")
    answer = client.put("/job/none")
    is_problem(answer, 405, "method-not-allowed")
    assert "GET" in answer.headers["allow"]


def test_a_failure_tells_its_reason(client: httpx.Client) -> None:
    job_id = post(client, b"fail not-audio")
    job = ended(client, job_id)
    assert (job["status"], job["state"], job["error_type"]) == ("failed", "error", "not-audio")
    assert job["error"] == "It was told to fail."
    problem = is_problem(client.get(f"/result/{job_id}"), 400, "not-completed")
    assert "It was told to fail." in problem["detail"]


def test_a_failed_job_posted_again_runs_again(client: httpx.Client) -> None:
    job_id = post(client, b"fail again")
    ended(client, job_id)
    answer = client.post("/job", json={"input_sha256": upload(client, b"fail again")}).json()
    assert (answer["job_id"], answer["status"]) == (job_id, "pending")
    ended(client, job_id)


def test_a_running_job_shows_how_far_it_is(client: httpx.Client, worker: RunningWorker) -> None:
    job_id = post(client, b"hold progress")
    job = until(client, job_id, "running")
    while job["details"]["percent"] == 0:
        job = until(client, job_id, "running")
    assert job["state"] == "demucs"
    assert job["details"] == {"completed_segments": 0, "total_segments": 2, "percent": 50}
    assert job["tasks"]["inference"] == "running"
    is_problem(client.get(f"/result/{job_id}"), 400, "not-completed")
    is_problem(client.delete(f"/job/{job_id}"), 400, "job-running")
    assert client.get("/status").json()["active_jobs"] == 1
    worker.let_go(job_id)
    ended(client, job_id)


def test_cancel_a_running_job(client: httpx.Client, worker: RunningWorker) -> None:
    job_id = post(client, b"hang until cancelled")
    until(client, job_id, "running")
    job = client.post(f"/job/{job_id}/cancel").json()
    assert (job["status"], job["error_type"]) == ("failed", "cancelled")
    is_problem(client.post(f"/job/{job_id}/cancel"), 409, "job-ended")
    assert ended(client, post(client, b"copy after cancel"))["status"] == "completed"
    assert client.delete(f"/job/{job_id}").json() == {"status": "deleted", "job_id": job_id}
    assert not (worker.data_dir / "jobs" / job_id).exists()


def test_cancel_a_waiting_job_and_post_it_again(
    client: httpx.Client, worker: RunningWorker
) -> None:
    ahead = post(client, b"hold ahead")
    waiting = post(client, b"copy waiting")
    assert client.post(f"/job/{waiting}/cancel").json()["error_type"] == "cancelled"
    let_go_when_running(client, worker, ahead)
    ended(client, ahead)
    assert client.get(f"/job/{waiting}").json()["status"] == "failed"
    assert post(client, b"copy waiting") == waiting
    assert ended(client, waiting)["status"] == "completed"


def let_go_when_running(client: httpx.Client, worker: RunningWorker, job_id: str) -> None:
    """As `RunningWorker.let_go`, for a job that may still wait."""
    until(client, job_id, "running")
    worker.let_go(job_id)


def test_a_full_queue_says_when_to_come_back(data_dir: Path) -> None:
    with running_worker(data_dir, separation_command=STAND_IN, queue_limit=2) as worker:
        worker.wait_ready()
        with worker.client() as client:
            running = post(client, b"hold")
            until(client, running, "running")
            waiting = [post(client, b"copy 1"), post(client, b"copy 2")]
            more = {"input_sha256": upload(client, b"copy 3")}
            answer = client.post("/job", json=more)
            is_problem(answer, 429, "queue-full")
            assert int(answer.headers["retry-after"]) > 0
            assert post(client, b"copy 2") == waiting[1]
            worker.let_go(running)
            for job_id in waiting:
                assert ended(client, job_id)["status"] == "completed"
            assert client.post("/job", json=more).status_code == 200


def test_jobs_run_in_the_order_in_which_they_came(
    client: httpx.Client, worker: RunningWorker
) -> None:
    first = post(client, b"hold first in order")
    others = [post(client, f"copy in order {i}".encode()) for i in range(3)]
    let_go_when_running(client, worker, first)
    for job_id in others:
        ended(client, job_id)
    rows = client.get("/jobs", params={"status": "completed", "limit": 4}).json()["jobs"]
    assert [row["job_id"] for row in rows] == [*reversed(others), first]
    assert sorted(row["completed_at"] for row in rows) == [
        row["completed_at"] for row in reversed(rows)
    ]


def test_the_list_of_jobs(client: httpx.Client) -> None:
    ended(client, post(client, b"copy listed before"))
    job_id = post(client, b"copy listed", input_name="listed.wav")
    ended(client, job_id)
    everything = client.get("/jobs", params={"status": "", "limit": 1}).json()
    assert [row["job_id"] for row in everything["jobs"]] == [job_id]
    assert everything["jobs"][0]["input_name"] == "listed.wav"
    assert everything["total"] > 1
    assert client.get("/jobs", params={"status": "running"}).json() == {"jobs": [], "total": 0}
    is_problem(client.get("/jobs", params={"status": "lost"}), 422, "invalid-request")


def test_the_log_can_be_followed(client: httpx.Client) -> None:
    job_id = post(client, b"garbage")
    assert ended(client, job_id)["status"] == "completed"
    whole = eventually(
        lambda: client.get(f"/job/{job_id}/logs").json(),
        lambda told: " completed\n" in told["logs"],
    )
    for line in ("Loading weights...", "a warning of some library", '{"kind": "surprise"}'):
        assert line in whole["logs"]
    rest = client.get(f"/job/{job_id}/logs", params={"offset": 10}).json()
    assert rest["logs"] == whole["logs"][10:]
    end = client.get(f"/job/{job_id}/logs", params={"offset": whole["offset"]}).json()
    assert (end["logs"], end["offset"]) == ("", whole["offset"])
    beyond = client.get(f"/job/{job_id}/logs", params={"offset": 10**30}).json()
    assert (beyond["logs"], beyond["offset"]) == ("", whole["offset"])


@pytest.mark.parametrize(
    "file",
    [
        "/etc/passwd",
        "../../jobs.sqlite3",
        "../jobs.sqlite3",
        "..",
        ".",
        "",
        "progress.txt",
        "demucs.log",
        "vocals.wav/",
        "./vocals.wav",
        "vocals.wav\0",
        "..%2f..%2fjobs.sqlite3",
        "..\\..\\jobs.sqlite3",
    ],
)
def test_no_file_but_a_result_can_be_had(client: httpx.Client, file: str) -> None:
    job_id = post(client, b"copy for traversal", format="wav")
    ended(client, job_id)
    problem = is_problem(
        client.get(f"/result/{job_id}", params={"file": file}), 404, "no-such-file"
    )
    assert sorted(problem["choices"]) == ["instrumental.wav", "vocals.wav"]


def test_a_result_that_somebody_removed(client: httpx.Client, worker: RunningWorker) -> None:
    job_id = post(client, b"copy to lose")
    ended(client, job_id)
    (worker.data_dir / "jobs" / job_id / "vocals.wav").unlink()
    answer = client.get(f"/result/{job_id}", params={"file": "vocals.wav"})
    assert "removed" in is_problem(answer, 404, "no-such-file")["detail"]


@pytest.mark.parametrize("job_id", ["%2e%2e", "..%2f..", "%2fetc", "a%00b", ".%2fa", "%2e"])
def test_no_id_leads_out_of_the_jobs(
    client: httpx.Client, worker: RunningWorker, job_id: str
) -> None:
    for method, path in [
        ("DELETE", f"/job/{job_id}"),
        ("GET", f"/job/{job_id}"),
        ("GET", f"/job/{job_id}/logs"),
        ("GET", f"/result/{job_id}?file=jobs.sqlite3"),
        ("POST", f"/job/{job_id}/cancel"),
    ]:
        assert client.request(method, path).status_code in (404, 405, 422)
    assert (worker.data_dir / "jobs.sqlite3").exists()


def test_a_job_that_was_taken_keeps_its_input_while_another_with_it_is_deleted(
    client: httpx.Client,
) -> None:
    content = b"copy of what many jobs ask for"
    last = post(client, content)
    with ThreadPoolExecutor(2) as both:
        for number in range(60):
            ended(client, last)
            asked = {"input_sha256": upload(client, content), "job_id": f"next-{number}"}
            deleting = both.submit(client.delete, f"/job/{last}")
            taken = both.submit(client.post, "/job", json=asked).result()
            assert deleting.result().status_code == 200
            if taken.status_code == 200:
                last = f"next-{number}"
                assert ended(client, last)["status"] == "completed"
            else:
                assert taken.json()["type"] == "no-such-input"
                last = post(client, content, job_id=f"again-{number}")
