"""Jobs that nobody wants any more: workers forget them, and no other try is hit by that."""

from __future__ import annotations

from pathlib import Path

import anyio
import httpx
import pytest
from stemctl.asked.wishes import Wishes
from stemctl.dispatch import lookout
from stemctl.dispatch.report import Report
from stemctl.errors import WorkerError
from stemctl.fleet.stack import find_fleet
from stemctl.inputs.find import find_inputs
from stemctl.run import Asked, run
from stemctl.worker.client import UnreachableError, Worker
from stemserve.schema import BitDepth, Deleted, Job, JobCreated, JobRequest

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
