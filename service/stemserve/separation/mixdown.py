"""Stems that no preset computes itself: the mix without one of the others, and the mix."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from stemserve.audio import Block
from stemserve.schema import MIX, derived_stems
from stemserve.separation.span import Reached, Separator, Span, skipped


def separated(
    separator: Separator,
    own: Sequence[str],
    blocks: Iterable[Block],
    rate: int,
    wanted: Sequence[str],
    span: Span,
    reached: Reached,
) -> Iterator[dict[str, Block]]:
    """What a separator yields (`stemserve.separation.separators.Separator`), with derived stems.

    Args:
        separator: the preset's.
        own: the stems that it gives.
        blocks: the track, from its first sample.
        rate: samples a second.
        wanted: its stems, those of `derived_stems`, and `MIX`.
        span: what part is wanted.
        reached: told how far it is.
    """
    derived = {name: stem for name, stem in derived_stems(own).items() if name in wanted}
    computed = [stem for stem in own if stem in wanted or stem in derived.values()]
    if not derived and MIX not in wanted:
        yield from separator(blocks, rate, computed, span, reached)
        return
    kept = _Kept(span.start)
    for part in separator(kept.through(blocks), rate, computed, span, reached):
        mix = kept.take(len(next(iter(part.values()))))
        whole = part | {name: mix - part[stem] for name, stem in derived.items()} | {MIX: mix}
        yield {name: whole[name] for name in wanted}


class _Kept:
    """What a separator has taken of a track, from ``start`` on, until it has given the same."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._blocks: deque[Block] = deque()

    def through(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The same blocks."""
        at = 0
        for block in blocks:
            self._blocks.extend(skipped([block], max(0, self._start - at)))
            at += len(block)
            yield block

    def take(self, frames: int) -> Block:
        """The next so many frames."""
        taken: list[Block] = []
        while frames:
            block = self._blocks.popleft()
            if len(block) > frames:
                self._blocks.appendleft(block[frames:])
                block = block[:frames]
            taken.append(block)
            frames -= len(block)
        return np.concatenate(taken)
