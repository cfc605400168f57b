"""Who has which part of a long track: nothing is lost, and nothing is anybody's twice."""

from __future__ import annotations

from itertools import accumulate, pairwise
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stemctl.dispatch.crew import Trip
from stemctl.dispatch.long import About, LongTrack, Part, Span
from stemctl.dispatch.sharing import MOST_FRAMES, _grouped
from stemctl.inputs.plan import make_plan
from stemserve.schema import BitDepth

from tests.cli.test_plan import backlog_of, song
from tests.cli.test_wanted import CENTER, status

RATE = 10
GRID = 300 * RATE
STEMS = ("vocals", "drums")


def about(start: int = 0, end: int = 10 * GRID + 7) -> About:
    return About(
        rate=RATE, start_frame=start, end_frame=end, sample_format=BitDepth.B16, stems=STEMS
    )


def bring(track: LongTrack, span: Span) -> bool:
    staged = track.staged(span, "me")
    for stem in STEMS:
        (staged / f"{stem}.wav").write_text("sound")
    return track.add(span, staged)


def test_parts_are_found_again_and_half_of_one_is_not(tmp_path: Path) -> None:
    track = LongTrack.begin(tmp_path / "track", about())
    assert bring(track, Span(0, GRID))
    assert bring(track, Span(3 * GRID, 4 * GRID))
    assert not bring(track, Span(3 * GRID, 4 * GRID)), "somebody else was faster"
    (track.staged(Span(GRID, 2 * GRID), "me") / "vocals.wav").write_text("half")
    again = LongTrack.found(tmp_path / "track")
    assert again is not None
    assert again.about == track.about
    assert again.missing() == [Span(GRID, 3 * GRID), Span(4 * GRID, 10 * GRID + 7)]
    assert LongTrack.found(tmp_path / "none") is None


def test_an_end_that_was_estimated_is_put_right(tmp_path: Path) -> None:
    track = LongTrack.begin(tmp_path / "track", about(end=100))
    track.claims = {"mine": Span(50, 100), "another's": Span(0, 50)}
    track.settle_end(90)
    assert track.claims == {"mine": Span(50, 90), "another's": Span(0, 50)}
    again = LongTrack.found(tmp_path / "track")
    assert again is not None
    assert again.missing() == [Span(0, 90)]


@given(
    at=st.floats(0, 1),
    speeds=st.tuples(st.floats(0.1, 50), st.floats(0.1, 50)),
    start=st.integers(0, 5 * GRID),
)
def test_a_split_is_at_the_end_of_a_segment_behind_where_the_owner_is(
    tmp_path_factory: pytest.TempPathFactory, at: float, speeds: tuple[float, float], start: int
) -> None:
    track = LongTrack.begin(tmp_path_factory.mktemp("long") / "track", about(start=start))
    owner, helper = object(), object()
    track.claims[owner] = track.whole
    reached = start + int(at * track.whole.frames)
    span = track.split(owner, reached, speeds)
    if span is None:
        assert track.claims == {owner: track.whole}
        assert reached // GRID == (track.whole.end - 1) // GRID or speeds[0] > speeds[1]
        return
    track.give(owner, helper, span)
    assert span.start % GRID == 0
    assert reached < span.start < span.end == track.whole.end
    assert track.claims[owner] == Span(start, span.start)
    assert track.free() == []
    del track.claims[helper]
    assert track.free() == [span]


@given(st.lists(st.integers(1, 3 * MOST_FRAMES // 2), max_size=8))
def test_neighbours_are_sent_together_in_files_of_a_bounded_size(frames: list[int]) -> None:
    ends = list(accumulate(frames, initial=0))
    parts = [Part(Span(a, b), {}) for a, b in pairwise(ends)]
    groups = _grouped(parts)
    assert [part for group in groups for part in group] == parts
    for group in groups:
        assert len(group) == 1 or group[-1].span.end - group[0].span.start <= MOST_FRAMES


def test_the_faster_of_two_gets_the_larger_share(tmp_path: Path) -> None:
    track = LongTrack.begin(tmp_path / "track", about(end=12 * GRID))
    owner = object()
    track.claims[owner] = track.whole
    assert track.split(owner, 0, (1, 3)) == Span(3 * GRID, 12 * GRID)
    assert track.split(owner, 0, (3, 1)) == Span(9 * GRID, 12 * GRID)
    assert track.split(owner, 11 * GRID + 1, (1, 100)) is None


def test_what_joins_the_parts_is_asked_of_one_worker_only(tmp_path: Path) -> None:
    plan = make_plan([song("one")], {"a": status(CENTER), "b": status(CENTER)}, granted=False)

    async def main() -> Trip | None:
        backlog, members = backlog_of(plan)
        front = await backlog.take(members["a"])
        assert front is not None
        long = front.errand.long = LongTrack.begin(tmp_path / "track", about(end=2 * GRID))
        long.claims[front] = Span(0, GRID)
        await backlog.share(front.errand)
        rear = await backlog.take(members["b"])
        assert rear is not None
        assert rear.span == Span(GRID, 2 * GRID)
        for span in (Span(0, GRID), rear.span):
            assert bring(long, span)
        await backlog.over(front)
        joining = await backlog.take(members["a"])
        assert joining is not None
        assert joining.span is None
        await backlog.over(rear)
        taken: list[Trip | None] = []

        async def ask() -> None:
            taken.append(await backlog.take(members["b"]))

        async with anyio.create_task_group() as asking:
            asking.start_soon(ask)
            await anyio.lowlevel.checkpoint()
            joining.errand.ended = True
            await backlog.over(joining)
        return taken[0]

    assert anyio.run(main) is None
