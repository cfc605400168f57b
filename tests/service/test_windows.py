"""The grid of windows: where they lie, what they need, and that they give the whole back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from stemserve.separation.span import WHOLE, Span
from stemserve.separation.windows import Pass, Windows
from torch import Tensor

GRIDS = st.builds(
    Windows,
    st.integers(2, 150),
    st.floats(0, 0.9),
    flat=st.booleans(),
    filled=st.booleans(),
).filter(lambda windows: windows.step >= 1)
SPANS = st.builds(
    lambda start, length: Span(start, None if length is None else start + length),
    st.integers(0, 700),
    st.none() | st.integers(1, 700),
)


def through(
    sound: Tensor, windows: Windows, span: Span, sizes: Sequence[int]
) -> tuple[Tensor, list[Tensor]]:
    """What a network that gives back what it hears, and its place, makes of a span."""
    seen: list[Tensor] = []

    def hear(batch: Iterable[Tensor]) -> Iterator[Tensor]:
        for window in batch:
            seen.append(window)
            place = torch.linspace(0, 1, window.shape[-1]).expand_as(window)
            yield torch.stack([window, window * place])

    needs = windows.needs(span)
    fed = sound[:, needs.start : needs.end]
    network = Pass(windows, hear, span, needs.start)
    parts: list[Tensor | None] = []
    at = number = 0
    while at < fed.shape[-1]:
        size = sizes[number % len(sizes)]
        parts.append(network.feed(fed[:, at : at + size]))
        at, number = at + size, number + 1
    parts.append(network.finish())
    known = [part for part in parts if part is not None]
    return torch.cat(known, dim=-1) if known else torch.zeros(2, 2, 0), seen


@settings(max_examples=100, deadline=None)
@given(frames=st.integers(1, 700), windows=GRIDS, sizes=st.lists(st.integers(1, 300), min_size=1))
def test_windows_lie_on_one_grid_whatever_the_blocks(
    frames: int, windows: Windows, sizes: list[int]
) -> None:
    sound = torch.randn(2, frames, generator=torch.Generator().manual_seed(frames))
    out, seen = through(sound, windows, WHOLE, sizes)
    assert out.shape == (2, 2, frames)
    torch.testing.assert_close(out[0], sound, atol=1e-5, rtol=1e-5)
    assert len(seen) == -(-frames // windows.step)
    assert not windows.filled or {window.shape[-1] for window in seen} == {windows.length}


@settings(max_examples=200, deadline=None)
@given(
    frames=st.integers(1, 700),
    windows=GRIDS,
    span=SPANS,
    sizes=st.lists(st.integers(1, 300), min_size=1),
)
def test_a_span_needs_no_more_than_it_says_and_gives_what_the_whole_gives(
    frames: int, windows: Windows, span: Span, sizes: list[int]
) -> None:
    sound = torch.randn(2, frames, generator=torch.Generator().manual_seed(frames))
    whole, all_seen = through(sound, windows, WHOLE, [frames])
    part, seen = through(sound, windows, span, sizes)
    torch.testing.assert_close(part, whole[..., span.start : span.end], atol=0, rtol=0)
    assert len(seen) <= len(all_seen)


@given(windows=GRIDS, span=SPANS)
def test_only_windows_that_touch_the_span_are_heard(windows: Windows, span: Span) -> None:
    first, end = windows.touching(span)
    assert first * windows.step + windows.length > span.start
    assume(span.end is not None)
    assert end is not None
    assert (end - 1) * windows.step < (span.end or 0)
    assert first == 0 or (first - 1) * windows.step + windows.length <= span.start
