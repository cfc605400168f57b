"""Workers that come back, and jobs of which they could not be told, or are told too late."""

from __future__ import annotations

from pathlib import Path

import anyio
import httpx
import pytest
from stemctl.asked.wishes import Wishes
from stemctl.dispatch import crew, lookout
from stemctl.dispatch.report import End, Report
from stemctl.errors import WorkerError
from stemctl.fleet.stack import find_fleet
from stemctl.inputs.find import find_inputs
from stemctl.run import Asked, run
from stemctl.worker.client import UnreachableError, Worker
from stemserve.schema import BitDepth, Deleted, Job, JobCreated, JobRequest, JobStatus

from tests.cli.test_sharing import SCALE, Songs, slot
from tests.workers.fleet import Emulated, emulated_workers

WISHES = Wishes(bit_depth=BitDepth.B16)


async def separated(songs: Songs, out: Path, workers: list[Emulated]) -> Report:
    fleet = find_fleet(None, "", [worker.url for worker in workers])
    inputs = find_inputs([str(songs.folder)], out, WISHES)
    return await run(inputs, fleet, Asked(out))


def test_a_goodbye_that_comes_late_does_not_end_the_next_try(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    songs = Songs(tmp_path / "in", song=60)
    asks, posts, deletes = Worker.job, Worker.post, Worker.delete

    async def main(workers: list[Emulated]) -> Report:
        failed, again = anyio.Event(), anyio.Event()

        async def fails_once(self: Worker, job_id: str) -> Job:
            if not failed.is_set():
                failed.set()
                raise WorkerError(f"worker {self.slot}: no progress")
            return await asks(self, job_id)

        async def post(self: Worker, request: JobRequest) -> JobCreated:
            created = await posts(self, request)
            if failed.is_set():
                again.set()
            return created

        async def delete(self: Worker, job_id: str) -> Deleted:
            with anyio.move_on_after(1):
                await again.wait()
            return await deletes(self, job_id)

        monkeypatch.setattr(Worker, "job", fails_once)
        monkeypatch.setattr(Worker, "post", post)
        monkeypatch.setattr(Worker, "delete", delete)
        return await separated(songs, out, workers)

    with emulated_workers([1], SCALE / 20) as workers:
        report = anyio.run(main, workers)
    assert report.exit_code == 0, report.outcomes
    songs.check(out)
    assert [outcome.tries for outcome in report.outcomes] == [2]


def test_a_worker_that_answers_again_comes_back(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "LOOK_EVERY_S", 0.2)
    songs = Songs(tmp_path / "in", **{f"song{number}": 60 for number in range(20)})
    with emulated_workers([1, 1], SCALE / 20) as workers:
        breaks = 0

        async def unreachable(self: Worker, request: JobRequest) -> JobCreated:
            nonlocal breaks
            if self.slot == slot(workers[0]) and breaks == 0:
                breaks += 1
                raise UnreachableError(f"worker {self.slot} does not answer")
            return await posts(self, request)

        posts = Worker.post
        monkeypatch.setattr(Worker, "post", unreachable)
        report = anyio.run(separated, songs, out, workers)
    assert report.exit_code == 0
    assert report.set_aside == {}
    assert {outcome.worker for outcome in report.outcomes} == {slot(w) for w in workers}


def test_a_worker_that_comes_back_is_told_what_nobody_wants_any_more(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "LOOK_EVERY_S", 0.2)
    songs = Songs(tmp_path / "in", **{f"song{number}": 60 for number in range(12)})
    asks = Worker.job
    lost: list[str] = []
    with emulated_workers([1, 1], SCALE / 20) as workers:

        async def job(self: Worker, job_id: str) -> Job:
            if self.slot == slot(workers[0]) and not lost:
                lost.append(job_id)
                raise UnreachableError(f"worker {self.slot} does not answer")
            return await asks(self, job_id)

        monkeypatch.setattr(Worker, "job", job)
        report = anyio.run(separated, songs, out, workers)
        left = [httpx.get(f"{one.url}/job/{lost[0]}", trust_env=False) for one in workers]
    assert report.exit_code == 0, report.outcomes
    assert report.set_aside == {}
    songs.check(out)
    assert [answer.status_code for answer in left] == [404, 404]


def test_a_network_that_is_gone_for_a_while_costs_no_work(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "SOON_S", 0.2)
    songs = Songs(tmp_path / "in", one=60, two=61, three=62)
    asks, cancels = Worker.job, Worker.cancel
    lost: list[str] = []
    cancelled: list[str] = []

    async def job(self: Worker, job_id: str) -> Job:
        told = await asks(self, job_id)
        if not lost and told.status is JobStatus.RUNNING:
            lost.append(job_id)
            raise UnreachableError(f"worker {self.slot} does not answer")
        return told

    async def cancel(self: Worker, job_id: str) -> Job:
        cancelled.append(job_id)
        return await cancels(self, job_id)

    monkeypatch.setattr(Worker, "job", job)
    monkeypatch.setattr(Worker, "cancel", cancel)
    with emulated_workers([1], SCALE / 20) as workers:
        report = anyio.run(separated, songs, out, workers)
        left = httpx.get(f"{workers[0].url}/job/{lost[0]}", trust_env=False)
    assert report.exit_code == 0, report.outcomes
    assert report.set_aside == {}
    songs.check(out)
    assert cancelled == [], "what it computed meanwhile is taken"
    assert left.status_code == 404


@pytest.mark.parametrize("how", ["gone", "there, but of no use"])
def test_workers_that_do_not_come_back_end_the_run(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(crew, "AWAY_FOR_S", 1.0)
    monkeypatch.setattr(lookout, "SOON_S", 0.1)
    songs = Songs(tmp_path / "in", **{f"song{number}": 600 for number in range(20)})
    with emulated_workers([1], SCALE / 20) as workers:

        async def post(self: Worker, request: JobRequest) -> JobCreated:
            if how == "gone":
                workers[0].process.kill()
            raise UnreachableError(f"worker {self.slot} does not answer {request.job_id}")

        monkeypatch.setattr(Worker, "post", post)
        report = anyio.run(separated, songs, out, workers)
    assert report.exit_code == 2
    left = [outcome.error for outcome in report.outcomes if outcome.end is End.LEFT]
    assert left
    assert set(left) == {"no worker was left to try it"}
    assert list(report.set_aside) == [slot(workers[0])]
