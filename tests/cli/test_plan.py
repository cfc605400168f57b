"""Each track has wishes of its own, and goes only to workers that can serve them."""

from __future__ import annotations

import anyio
import pytest
from stemctl.asked.naming import Source
from stemctl.asked.wishes import Wishes
from stemctl.dispatch.backlog import Backlog
from stemctl.dispatch.crew import Crew, Errand, Member
from stemctl.errors import InputError
from stemctl.fleet.stack import Endpoint
from stemctl.inputs.find import Song
from stemctl.inputs.plan import Plan, make_plan
from stemctl.worker.client import Worker
from stemserve.schema import Preset, StemFormat

from tests.cli.test_wanted import CENTER, NETWORK, STEMS, status

ABLE = NETWORK.model_copy(update={"available": True, "lacks": None})
SIX = Preset(name="six", description="", stems=[*STEMS, "guitar"], available=True)


def song(name: str, **wishes: object) -> Song:
    source = Source((), name, "host", False, name)
    return Song(name, name, source, Wishes.model_validate(wishes), url=f"http://host/{name}")


def test_each_song_gets_what_is_asked_of_it() -> None:
    songs = [
        song("one"),
        song("two", preset="six", stems=("guitar",), format=StemFormat.FLAC),
        song("three", preset="center", stems=("all",)),
    ]
    plan = make_plan(songs, {"a": status(CENTER, SIX), "b": status(CENTER)}, granted=False)
    assert [track.wanted.preset for track in plan.tracks] == ["center", "six", "center"]
    assert [track.wanted.stems for track in plan.tracks] == [
        ("vocals", "instrumental"),
        ("guitar",),
        tuple(STEMS),
    ]
    assert plan.serves == {"a": {"center", "six"}, "b": {"center"}}
    assert plan.lacking == {"b": "has no preset six"}


def test_a_worker_that_serves_none_of_it_is_left_out() -> None:
    plan = make_plan([song("one", preset="htdemucs")], {"a": status(ABLE), "b": status(CENTER)},
                     granted=False)  # fmt: skip
    assert list(plan.serves) == ["a"]
    with pytest.raises(InputError, match="no worker can serve"):
        make_plan([song("one", preset="htdemucs")], {"b": status(NETWORK)}, granted=False)


def backlog_of(plan: Plan) -> tuple[Backlog, dict[str, Member]]:
    """The tracks of a plan as they wait, and its workers."""
    crew = Crew()
    for slot, presets in plan.serves.items():
        worker = Worker(Endpoint(slot=slot, url=f"http://{slot}.invalid"), None)
        crew.members.append(Member(worker, presets))
    return Backlog(crew, [Errand(track, 60) for track in plan.tracks]), {
        member.slot: member for member in crew.members
    }


def test_workers_take_only_what_they_can_serve_and_end_when_no_more_will_come() -> None:
    songs = [song("one", preset="six"), song("two"), song("three", preset="six")]
    plan = make_plan(songs, {"a": status(CENTER), "b": status(CENTER, SIX)}, granted=False)
    taken: dict[str, list[str]] = {"a": [], "b": []}

    async def main() -> None:
        backlog, members = backlog_of(plan)

        async def work(slot: str) -> None:
            while trip := await backlog.take(members[slot]):
                taken[slot].append(trip.track.name)
                if slot == "b" and not trip.errand.tried:
                    trip.errand.missed.append("b")
                else:
                    trip.errand.ended = True
                await backlog.over(trip)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(work, "a")
                group.start_soon(work, "b")

    anyio.run(main)
    assert taken["a"] == ["two"]
    assert sorted(taken["b"]) == ["one", "one", "three", "three"]


def test_a_preset_whose_last_worker_is_gone_keeps_nobody_waiting() -> None:
    songs = [song("one", preset="six"), song("two")]
    plan = make_plan(songs, {"a": status(CENTER), "b": status(SIX)}, granted=False)

    async def main() -> list[str]:
        backlog, members = backlog_of(plan)
        with anyio.fail_after(10):
            members["b"].aside = "it is gone"
            trip = await backlog.take(members["a"])
            assert trip is not None
            trip.errand.ended = True
            await backlog.over(trip)
            assert await backlog.take(members["a"]) is None
            assert await backlog.take(members["b"]) is None
        return [errand.track.name for errand in backlog.waiting]

    assert anyio.run(main) == ["one"]
