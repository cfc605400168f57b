"""What a run may cost: which tracks a budget still allows, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stemctl.asked.track import Track
from stemctl.asked.wanted import Wanted
from stemctl.asked.wishes import Wishes
from stemctl.dispatch import budget
from stemctl.dispatch.budget import Purse, estimate
from stemctl.dispatch.crew import Crew, Errand, Member
from stemctl.dispatch.report import End
from stemctl.fleet.stack import Endpoint, Fleet
from stemctl.inputs.find import find_inputs
from stemctl.run import Asked, run
from stemctl.worker.client import Worker
from stemserve.schema import StemFormat

from tests.cli.driving import TOKEN, write_song
from tests.service.worker import RunningWorker

WANTED = Wanted(preset="center", stems=("vocals",), format=StemFormat.WAV, bit_depth=None)


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(budget, "time", made)
    return made


def member(usd_per_hour: float, speed: float | None = None) -> Member:
    endpoint = Endpoint(slot="a", url="http://127.0.0.1:1", usd_per_hour=usd_per_hour)
    return Member(Worker(endpoint, None), frozenset({"center"}), speed=speed)


def errand(seconds: float) -> Errand:
    return Errand(Track("song", "song", WANTED, ("vocals.wav",)), seconds)


def test_a_track_is_given_out_only_if_it_ends_while_there_is_money(clock: Clock) -> None:
    crew = Crew()
    crew.members = [member(3.6, speed=10.0), member(3.6)]
    purse = Purse(crew, budget=0.2)  # a thousandth of a dollar a second and worker: 100 s
    first, second = crew.members
    assert purse.affords(first, errand(1000))
    assert not purse.affords(first, errand(1001))
    assert purse.affords(second, errand(1000)), "one that has shown no speed is like the others"
    clock.now = 60.0
    assert purse.spent() == pytest.approx(0.12)
    assert purse.affords(first, errand(400))
    assert not purse.affords(first, errand(401))
    second.gone = True
    assert purse.affords(first, errand(800)), "what has left costs nothing any more"
    clock.now = 140.0
    assert purse.spent() == pytest.approx(0.2)
    assert not purse.affords(first, errand(0.1))


@given(st.floats(0, 50), st.floats(0.001, 1e4), st.floats(0.01, 100), st.floats(0.01, 1e5))
def test_whoever_is_admitted_costs_no_more_than_there_is(
    dollars: float, rate: float, speed: float, seconds: float
) -> None:
    crew = Crew()
    crew.members = [member(rate, speed)]
    if Purse(crew, dollars).affords(crew.members[0], errand(seconds)):
        assert rate * seconds / speed / 3600 <= dollars * 1.0001 + 1e-9
    assert Purse(crew).affords(crew.members[0], errand(seconds)), "no budget, no end"


def test_the_estimate_is_the_sound_over_all_speeds() -> None:
    members = [member(1.8, 10.0), member(1.8, 30.0), member(0.0)]
    told = estimate([errand(3000), errand(3000)], members)
    assert told is not None
    assert told.seconds == pytest.approx(100)
    assert told.usd == pytest.approx(0.1)
    assert estimate([errand(1)], [member(1.0)]) is None


def test_a_run_without_money_does_nothing_and_says_so(
    workers: list[RunningWorker], tmp_path: Path, out: Path
) -> None:
    songs = [write_song(tmp_path / "in" / f"{n}.wav", 0.5, 220.0 + n) for n in range(3)]
    found = find_inputs([str(song) for song in songs], out, Wishes())
    endpoints = [
        Endpoint(slot=f"w-{n}", url=worker.url, usd_per_hour=0.36)
        for n, worker in enumerate(workers)
    ]
    fleet = Fleet(endpoints=tuple(endpoints), token=TOKEN)
    report = anyio.run(run, found, fleet, Asked(out=out, budget=0.0))
    assert report.exit_code == 2
    assert {outcome.end for outcome in report.outcomes} == {End.LEFT}
    assert all("budget of $0.00" in str(outcome.error) for outcome in report.outcomes)
    assert not list(out.glob("[0-9]*"))

    report = anyio.run(run, found, fleet, Asked(out=out, budget=100.0))
    assert report.exit_code == 0
    assert report.count(End.DONE) == 3
    assert sum(outcome.usd or 0 for outcome in report.outcomes) > 0
