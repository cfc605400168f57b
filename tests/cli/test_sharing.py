"""Runs over emulated workers of known speed: sharing, racing, faults, and what the ledger tells."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from stemctl.asked.wishes import Wishes
from stemctl.dispatch import lookout
from stemctl.dispatch.report import Report
from stemctl.fleet.stack import Fleet, find_fleet
from stemctl.inputs.find import find_inputs
from stemctl.run import Asked, run
from stemserve.schema import BitDepth

from tests.cli.driving import LEDGER, endpoints, stemctl, tree
from tests.cli.running import finish, submitting
from tests.service.worker import eventually
from tests.workers.fleet import Emulated, emulated_workers, expected, write_input

SCALE = 600.0
"""Ten minutes in a second."""
HOUR = 3600.0


class Songs:
    """Inputs in a folder, and what must come of them."""

    def __init__(self, folder: Path, **seconds: float) -> None:
        self.folder = folder
        self.seconds = seconds
        self.digests = {
            name: write_input(folder / f"{name}.wav", length) for name, length in seconds.items()
        }

    def check(self, out: Path) -> None:
        """All stems are there, and are what one worker makes."""
        files = [f"{name}/{s}.wav" for name in self.seconds for s in ("vocals", "instrumental")]
        assert tree(out) == sorted(files)
        for name, seconds in self.seconds.items():
            for file, content in expected(self.digests[name], seconds).items():
                assert (out / name / file).read_bytes() == content


def command(songs: Songs, out: Path, workers: list[Emulated]) -> list[object]:
    urls = endpoints(*(worker.url for worker in workers))
    return ["submit", songs.folder, "--out", out, "--bit-depth", "16", "--json", *urls]


def reported(out: Path, run: int | None = None) -> dict[str, Any]:
    words = ["report", *([run] if run else []), "--out", out, "--json"]
    answer = stemctl(*words)
    assert answer.code == 0, answer.err
    return answer.json


def slot(worker: Emulated) -> str:
    return worker.url.removeprefix("http://")


def parts_home(out: Path) -> list[Path]:
    return list(out.glob(".stemctl-*/parts/*/[0-9]*-*"))


def test_a_long_track_is_shared_and_equal_to_what_one_worker_makes(
    tmp_path: Path, out: Path
) -> None:
    songs = Songs(tmp_path / "in", long=3 * HOUR + 11, short=90)
    with emulated_workers([0.5, 1.5], SCALE) as workers:
        answer = stemctl(*command(songs, out, workers))
    assert answer.code == 0, answer.err
    songs.check(out)
    assert sorted(path.name for path in out.iterdir()) == [LEDGER, "long", "short"]
    long = next(track for track in answer.json["tracks"] if track["name"] == "long.wav")
    assert set(long["worker"].split(", ")) == {slot(worker) for worker in workers}
    trips = [t for t in reported(out)["trips"] if t["place"] == "long" and t["bore"]]
    assert len({trip["slot"] for trip in trips}) == 2
    sound = sum(trip["seconds"] * SCALE * (0.5 if trip["slot"] == slot(workers[0]) else 1.5)
                for trip in trips)  # fmt: skip
    assert sound < 1.25 * sum(songs.seconds.values()), "little was computed twice"


def test_a_worker_killed_in_mid_track_loses_a_segment_at_most(tmp_path: Path, out: Path) -> None:
    songs = Songs(tmp_path / "in", long=2 * HOUR)
    with emulated_workers([1, 0.25], SCALE) as workers, submitting(
        command(songs, out, workers), None
    ) as process:  # fmt: skip
        front = {"0-3000", "3000-6000", "6000-9000"}  # the other takes the rear
        eventually(lambda: front <= {part.name for part in parts_home(out)})
        workers[0].process.kill()
        workers[1].control(speed=0.75)  # it still has work when the other is given up
        answer = finish(process)
    assert answer.code == 0, answer.err
    songs.check(out)
    assert list(answer.json["set_aside"]) == [slot(workers[0])]
    rate, segment = 10, 300
    asked = [
        (trip["end_frame"] - trip["start_frame"]) / rate
        for trip in reported(out)["trips"]
        if trip["slot"] == slot(workers[1]) and trip["start_frame"] is not None
    ]
    assert asked, "it took over ranges, not the whole"
    assert sum(asked) <= 2 * HOUR - 3 * segment


@pytest.mark.parametrize("garbage", ["digest", "length", "missing", "html"])
def test_a_worker_with_bad_results_is_set_aside_and_none_of_them_gets_through(
    tmp_path: Path, out: Path, garbage: str
) -> None:
    songs = Songs(tmp_path / "in", **{f"song{number}": 60 + number for number in range(24)})
    with emulated_workers([8, 4], SCALE / 10) as workers:
        workers[0].control(garbage=garbage)
        answer = stemctl(*command(songs, out, workers))
    assert answer.code == 0, answer.err
    songs.check(out)
    assert slot(workers[0]) in answer.json["set_aside"]
    assert f"worker {slot(workers[0])} is set aside" in answer.err
    aside = {worker["slot"]: worker["aside"] for worker in reported(out)["workers"]}
    assert aside[slot(workers[0])]
    assert aside[slot(workers[1])] is None


def test_the_last_track_of_a_worker_that_hangs_is_raced(tmp_path: Path, out: Path) -> None:
    songs = Songs(tmp_path / "in", a=300, b=200, c=100)
    with emulated_workers([0.1, 4], SCALE / 5) as workers, submitting(
        command(songs, out, workers), None
    ) as process:  # fmt: skip
        url = f"{workers[0].url}/status"
        eventually(lambda: httpx.get(url, trust_env=False).json()["active_jobs"])
        os.kill(workers[0].process.pid, signal.SIGSTOP)
        answer = finish(process)
    assert answer.code == 0, answer.err
    songs.check(out)
    assert {track["worker"] for track in answer.json["tracks"]} == {slot(workers[1])}


def test_a_run_killed_with_9_is_told_truly_and_the_next_goes_on(tmp_path: Path, out: Path) -> None:
    songs = Songs(tmp_path / "in", long=2 * HOUR, short=60)
    with emulated_workers([1, 1], SCALE / 2) as workers:
        with submitting(command(songs, out, workers), None) as process:
            eventually(lambda: len(parts_home(out)) > 3)
            process.kill()
            process.wait()
        for worker in workers:
            worker.control(speed=4)
        kept = len(parts_home(out))
        killed = reported(out, 1)
        assert killed["run"]["state"] == "killed"
        assert killed["totals"]["done"] == len([p for p in out.iterdir() if p.name == "short"])
        answer = stemctl(*command(songs, out, workers))
    assert answer.code == 0, answer.err
    songs.check(out)
    assert "parts of it are home already" in answer.err
    assert kept > 3
    asked = sum(
        (trip["end_frame"] - trip["start_frame"]) / 10
        for trip in reported(out, 2)["trips"]
        if trip["place"] == "long" and trip["bore"]
    )
    assert asked <= 2 * HOUR - 3 * 300, "what was home is not computed again"
    first, second = reported(out, 1), reported(out, 2)
    assert {track["place"]: track["state"] for track in first["tracks"]}["long"] == "left"
    states = {track["place"]: track["state"] for track in second["tracks"]}
    assert states["long"] == "done"
    assert set(states.values()) <= {"done", "there"}


def test_events_tell_what_happens_and_end_with_the_report(tmp_path: Path, out: Path) -> None:
    songs = Songs(tmp_path / "in", one=60, two=70)
    with emulated_workers([5], SCALE) as workers:
        answer = stemctl(*command(songs, out, workers), "--events", "-")
    told = [json.loads(line) for line in answer.out.splitlines()]
    assert [event["event"] for event in told].count("track") == 2
    assert told[0]["event"] == "worker"
    stages = [e["stage"] for e in told if e["event"] == "trip" and e["place"] == "one"]
    assert stages[0] == "reading"
    assert stages[-1] == "over"
    assert told[-1]["event"] == "report"
    assert told[-1]["exit_code"] == 0


def test_workers_that_appear_join_and_those_that_leave_get_no_more(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "LOOK_EVERY_S", 0.2)
    songs = Songs(tmp_path / "in", **{f"song{number}": 90 for number in range(24)})
    wishes = Wishes(bit_depth=BitDepth.B16)
    with emulated_workers([1, 3], SCALE / 10) as workers:
        first, second = (find_fleet(None, "", [worker.url]) for worker in workers)
        left = anyio.Event()

        async def look() -> Fleet:
            """The second worker appears, and once it has done something the first is gone."""
            if (out / "song3").exists():
                left.set()
            return second if left.is_set() else find_fleet(None, "", [w.url for w in workers])

        async def main() -> Report:
            inputs = find_inputs([str(songs.folder)], out, wishes)
            return await run(inputs, first, Asked(out), look=look)

        report = anyio.run(main)
    assert report.exit_code == 0
    songs.check(out)
    by = [outcome.worker for outcome in report.outcomes]
    assert set(by) == {slot(worker) for worker in workers}
    told = {worker["slot"]: worker for worker in reported(out)["workers"]}
    assert told[slot(workers[1])]["joined"] > told[slot(workers[0])]["joined"]
    assert told[slot(workers[0])]["aside"] == "it is not in the fleet any more"
    gone = told[slot(workers[0])]["gone"]
    trips = [trip for trip in reported(out)["trips"] if trip["slot"] == slot(workers[0])]
    assert all(trip["reading"] <= gone for trip in trips)


@pytest.mark.parametrize("lost", [False, True])
def test_parts_that_were_spoiled_on_the_disk_are_made_again(
    tmp_path: Path, out: Path, *, lost: bool
) -> None:
    songs = Songs(tmp_path / "in", long=HOUR)
    with emulated_workers([1], SCALE / 2) as workers:
        with submitting(command(songs, out, workers), None) as process:
            eventually(lambda: len(parts_home(out)) > 3)
            process.kill()
            process.wait()
        workers[0].control(speed=40)
        spoiled = parts_home(out)[0] / "vocals.wav"
        if lost:
            spoiled.unlink()
        else:
            spoiled.write_bytes(b"")
        answer = stemctl(*command(songs, out, workers))
    assert answer.code == 0, answer.err
    songs.check(out)
    assert lost or "do not fit" in answer.err


def test_a_song_that_is_changed_while_it_is_shared_is_not_spliced(
    tmp_path: Path, out: Path
) -> None:
    songs = Songs(tmp_path / "in", long=2 * HOUR)
    path = songs.folder / "long.wav"
    with emulated_workers([1, 0.25], SCALE) as workers, submitting(
        command(songs, out, workers), None
    ) as process:  # fmt: skip
        eventually(lambda: len(parts_home(out)) > 3)
        content = path.read_bytes()
        changed = content[:44] + bytes(byte ^ 85 for byte in content[44:])
        path.write_bytes(changed)
        workers[0].process.kill()
        workers[1].control(speed=8)
        answer = finish(process)
    assert answer.code == 0, answer.err + answer.out
    assert "it was changed while it was separated" in answer.err
    songs.digests["long"] = hashlib.sha256(changed).hexdigest()
    songs.check(out)


def test_a_track_survives_all_workers_but_one(tmp_path: Path, out: Path) -> None:
    songs = Songs(tmp_path / "in", long=5 * HOUR)
    with emulated_workers([0.5] * 4, SCALE) as workers, submitting(
        command(songs, out, workers), None
    ) as process:  # fmt: skip

        def busy() -> int:
            told = [httpx.get(f"{one.url}/status", trust_env=False).json() for one in workers]
            return sum(one["active_jobs"] for one in told)

        eventually(lambda: len(parts_home(out)) > 3 and busy() == 4)
        for worker in workers[:3]:
            worker.process.kill()
        workers[3].control(speed=1.5)
        answer = finish(process)
    assert answer.code == 0, answer.err
    songs.check(out)
    assert len(answer.json["set_aside"]) == 3
