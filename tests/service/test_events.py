"""Following a job over one connection: every change told once, also to those who come back."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import httpx
import pytest
from stemserve.errors import NoSuchJobError, TooManyListenersError
from stemserve.jobs.job import JobContent, StoredJob
from stemserve.running.changes import Changes, state_id
from stemserve.schema import Details, Job, JobStatus, StemFormat, Tasks
from stemserve.separation.presets import PRESETS
from stemserve.task import Advanced, Finished

from tests.service.networks import make_weights
from tests.service.separating import separation_process, task
from tests.service.sounds import tones, write_audio
from tests.service.worker import STAND_IN, RunningWorker, post, running_worker, until

FOLLOWERS = 100


class Followed:
    """The events of a job as they come."""

    def __init__(self, answer: httpx.Response) -> None:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        self._lines = answer.iter_lines()
        self.ids: list[str] = []

    def __iter__(self) -> Iterator[Job]:
        return self

    def __next__(self) -> Job:
        """The next event; the end when the worker has no more to say."""
        fields: dict[str, str] = {}
        for line in self._lines:
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                assert fields["event"] == "job"
                self.ids.append(fields["id"])
                return Job.model_validate_json(fields["data"])
        raise StopIteration


@contextmanager
def following(client: httpx.Client, job_id: str, last: str | None = None) -> Iterator[Followed]:
    """Follow a job, from behind the event that had the id ``last``."""
    headers = {} if last is None else {"Last-Event-ID": last}
    with client.stream("GET", f"/job/{job_id}/events", headers=headers) as answer:
        yield Followed(answer)


def test_a_job_is_followed_to_its_end(worker: RunningWorker, client: httpx.Client) -> None:
    job_id = post(client, b"hold followed", job_id="followed")
    until(client, job_id, "running")
    with following(client, job_id) as events:
        first = next(events)
        assert first.job_id == job_id
        assert first.status in (JobStatus.PENDING, JobStatus.RUNNING)
        worker.let_go(job_id)
        *_, last = events
    assert last.status is JobStatus.COMPLETED
    assert last.details.percent == 100
    assert {result.name for result in last.results} >= {"vocals.wav"}
    assert len(set(events.ids)) == len(events.ids)
    # Who knows the end is told that there is no more; who does not is told the end.
    done = client.get(f"/job/{job_id}/events", headers={"Last-Event-ID": events.ids[-1]})
    assert (done.status_code, done.content) == (204, b"")
    with following(client, job_id, events.ids[0]) as again:
        assert [job.status for job in again] == [JobStatus.COMPLETED]
    assert again.ids == events.ids[-1:]


def test_who_comes_back_is_told_nothing_twice(worker: RunningWorker, client: httpx.Client) -> None:
    job_id = post(client, b"hold back", job_id="back")
    until(client, job_id, "running")
    with following(client, job_id) as events:
        while next(events).details.percent < 50:
            pass
    with following(client, job_id, events.ids[-1]) as again:
        worker.let_go(job_id)
        assert next(again).status is JobStatus.COMPLETED
    assert again.ids[0] not in events.ids


def test_ids_hold_over_a_restart_of_the_worker(data_dir: Path) -> None:
    with running_worker(data_dir, separation_command=STAND_IN) as first, first.client() as client:
        first.wait_ready()
        job_id = post(client, b"hold over", job_id="over")
        with following(client, job_id) as events:
            while next(events).details.percent < 50:
                pass
            first.kill()
            with pytest.raises(httpx.TransportError):
                list(events)
    with running_worker(data_dir, separation_command=STAND_IN) as second, second.client() as client:
        second.wait_ready()
        until(client, job_id, "running")
        with following(client, job_id, events.ids[-1]) as again:
            second.let_go(job_id)
            *_, last = again
    assert last.status is JobStatus.COMPLETED
    assert not set(again.ids) & set(events.ids[:-1])


def test_a_cancelled_and_a_deleted_job_end_the_stream(
    worker: RunningWorker, client: httpx.Client
) -> None:
    running = post(client, b"hold in-the-way", job_id="in-the-way")
    until(client, running, "running")
    waiting = post(client, b"copy to-be-deleted", job_id="to-be-deleted")
    with following(client, waiting) as events, worker.client() as other:
        assert next(events).status is JobStatus.PENDING
        assert other.delete(f"/job/{waiting}").status_code == 200
        assert list(events) == []
    with following(client, running) as events, worker.client() as other:
        next(events)
        assert other.post(f"/job/{running}/cancel").status_code == 200
        *_, last = events
    assert (last.status, last.error_type) == (JobStatus.FAILED, "cancelled")


def test_many_follow_one_job(worker: RunningWorker) -> None:
    with worker.client() as client, ThreadPoolExecutor(FOLLOWERS) as pool:
        job_id = post(client, b"hold popular", job_id="popular")
        until(client, job_id, "running")
        begun = threading.Semaphore(0)

        def follow(number: int) -> JobStatus:
            with worker.client() as mine, following(mine, job_id) as events:
                next(events)
                begun.release()
                *_, last = events
                return last.status

        futures = [pool.submit(follow, number) for number in range(FOLLOWERS)]
        for _ in range(FOLLOWERS):
            assert begun.acquire(timeout=60)
        assert client.get("/health").status_code == 200
        worker.let_go(job_id)
        assert {future.result() for future in futures} == {JobStatus.COMPLETED}


def test_strangers_and_unknown_jobs(worker: RunningWorker, client: httpx.Client) -> None:
    assert client.get("/job/unknown/events").json()["type"] == "no-such-job"
    assert httpx.get(f"{worker.url}/job/unknown/events").status_code == 401


def stored(**changes: object) -> StoredJob:
    """A job that runs."""
    content = JobContent(
        input_url=None,
        input_sha256="0" * 64,
        preset="center",
        stems=("vocals",),
        format=StemFormat.WAV,
        bit_depth=None,
        mono=False,
        template_mp3=False,
        cut_points=(),
    )
    job = StoredJob(
        job_id="job",
        content=content,
        input_sha256="0" * 64,
        input_name=None,
        status=JobStatus.RUNNING,
        attempts=0,
        created_at=1.5,
        started_at=2.5,
        ended_at=None,
        tasks=Tasks(),
        details=Details(),
        duration_seconds=None,
        results=[],
        error=None,
        error_type=None,
    )
    return replace(job, **changes)  # type: ignore[arg-type]


def test_an_id_stands_for_a_state() -> None:
    states = [
        stored(),
        stored(created_at=1.75),
        stored(attempts=1),
        stored(status=JobStatus.PENDING),
        stored(details=Details(percent=0.01)),
        stored(details=Details(completed_segments=1)),
        stored(tasks=Tasks.model_validate({"cutting": "running"})),
    ]
    assert len({state_id(job) for job in states}) == len(states)
    assert state_id(stored(started_at=9.0)) == state_id(stored())


def test_silence_is_kept_alive_and_ends_with_the_job() -> None:
    async def follow() -> list[bytes]:
        changes = Changes(keepalive_s=0.01)
        heard: list[bytes] = []
        events: AsyncIterator[bytes] = changes.follow("job", None, lambda _: stored())
        async with aclosing(events):  # type: ignore[type-var]
            async for event in events:
                heard.append(event)
                if len(heard) == 3:
                    changes.tell(stored(status=JobStatus.FAILED))
        return heard

    first, *alive, last = anyio.run(follow)
    assert b"running" in first
    assert alive
    assert all(event.startswith(b":") for event in alive)
    assert b"failed" in last


def test_no_more_follow_than_may() -> None:
    async def crowd() -> None:
        changes = Changes(limit=2)
        one, two = (changes.follow("job", None, lambda _: stored()) for _ in range(2))
        changes.check_room()
        await anext(one)
        await anext(two)
        with pytest.raises(TooManyListenersError):
            changes.check_room()
        await one.aclose()  # type: ignore[attr-defined]
        changes.check_room()
        await two.aclose()  # type: ignore[attr-defined]

    anyio.run(crowd)


def test_a_job_that_is_gone_before_it_is_read() -> None:
    def read(_: str) -> StoredJob:
        raise NoSuchJobError("gone")

    async def follow() -> list[bytes]:
        return [event async for event in Changes().follow("job", None, read)]

    assert anyio.run(follow) == []


def test_the_rest_is_reckoned_by_the_windows_that_are_done(tmp_path: Path) -> None:
    make_weights(tmp_path, PRESETS["htdemucs"])
    song = write_audio(tmp_path / "song.wav", tones(24 * 44_100), 44_100, "pcm_s16le")
    with separation_process(
        deadline_s=200, STEMSERVE_WEIGHTS=str(tmp_path), OMP_NUM_THREADS="1"
    ) as process:
        process.send(task(song, tmp_path / "out", preset="htdemucs", stems=["bass"]))
        *events, last = process.events()
    assert isinstance(last, Finished)
    seen = [event.details for event in events if isinstance(event, Advanced)]
    told = [details for details in seen if details.eta_seconds is not None]
    assert told
    assert all(0 < details.percent < 100 for details in told)
    assert seen[-1].eta_seconds is None
