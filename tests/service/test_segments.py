"""Cutting into segments and deriving stems lose nothing, however the sound comes in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from stemserve.audio import Block
from stemserve.schema import MIX
from stemserve.separation.mixdown import separated
from stemserve.separation.segments import in_segments
from stemserve.separation.span import WHOLE, Reached, Span

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def sound(frames: int) -> Block:
    """A sound of which every sample differs."""
    return np.arange(2 * frames, dtype=np.float32).reshape(-1, 2)


def cut(whole: Block, sizes: Sequence[int]) -> Iterator[Block]:
    """The sound in blocks of such sizes, over and over."""
    at = number = 0
    while at < len(whole):
        yield whole[at : at + sizes[number % len(sizes)]]
        at, number = at + sizes[number % len(sizes)], number + 1


@given(frames=st.integers(0, 300), sizes=SIZES, start=st.integers(0, 50), data=st.data())
def test_parts_are_cut_exactly_where_segments_end(
    frames: int, sizes: list[int], start: int, data: st.DataObject
) -> None:
    ends = data.draw(st.lists(st.integers(1, 400), unique=True).map(sorted))
    whole = sound(frames)
    pieces = list(in_segments(({"x": block} for block in cut(whole, sizes)), start, tuple(ends)))
    at, ended = start, []
    for part, ends_segment in pieces:
        assert len(part["x"])
        at += len(part["x"])
        if ends_segment:
            ended.append(at)
    assert ended == [end for end in ends if start < end <= start + frames]
    joined = [part["x"] for part, _ in pieces]
    np.testing.assert_array_equal(np.concatenate([whole[:0], *joined]), whole)


@given(
    frames=st.integers(1, 300),
    sizes=SIZES,
    out_sizes=SIZES,
    start=st.integers(0, 299),
    length=st.integers(1, 300),
)
def test_the_mix_meets_its_stems(
    frames: int, sizes: list[int], out_sizes: list[int], start: int, length: int
) -> None:
    """A separator that takes what it likes ahead of what it gives, in sizes of its own."""
    start = min(start, frames - 1)
    span = Span(start, min(start + length, frames))
    whole = sound(frames)

    def separator(
        blocks: Iterable[Block],
        rate: int,
        stems: Sequence[str],
        span: Span = WHOLE,
        reached: Reached | None = None,
    ) -> Iterator[dict[str, Block]]:
        assert list(stems) == ["vocals"]
        heard = np.concatenate(list(blocks))[span.start : span.end]
        for part in cut(heard, out_sizes):
            yield {"vocals": part / np.float32(4)}

    parts = list(
        separated(
            separator,
            ("vocals", "drums"),
            cut(whole, sizes),
            44_100,
            ("no_vocals", "instrumental", MIX),
            span,
            lambda frames: None,
        )
    )
    wanted = whole[span.start : span.end]
    for name, share in (("no_vocals", 0.75), ("instrumental", 0.75), (MIX, 1)):
        np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), wanted * share)
    assert set(parts[0]) == {"no_vocals", "instrumental", MIX}
