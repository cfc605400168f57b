"""What a separator is, whatever it separates with: sound in, stems out, of a track or of a part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from stemserve.audio import Block


@dataclass(frozen=True)
class Span:
    """The samples from ``start`` up to, and without, ``end``; ``None`` is the end of the track."""

    start: int = 0
    end: int | None = None


WHOLE = Span()

Reached = Callable[[float], None]
"""Told, between one batch of windows and the next, how many of the wanted frames the work done so
far amounts to. It rises, and may raise to stop the work; a long time can pass before the first
frames are finished, never between two calls."""


class Separator(Protocol):
    """A preset, ready to separate."""

    def __call__(
        self,
        blocks: Iterable[Block],
        rate: int,
        stems: Sequence[str],
        span: Span = WHOLE,
        reached: Reached | None = None,
    ) -> Iterator[dict[str, Block]]:
        """Separate a stream, or a part of it.

        Args:
            blocks: float32 [frames, 1 or 2] of any sizes, from the first sample of the track on,
                whatever the span. No more of them are taken than the span needs.
            rate: samples a second.
            stems: which stems are wanted.
            span: what part of the track is wanted, in frames of the input.
            reached: told how far it is.

        Yields:
            Consecutive parts of every wanted stem, all of one length: together the frames of the
            span that the track has, with the values that the whole track would have there.
        """


def skipped(blocks: Iterable[Block], frames: int) -> Iterator[Block]:
    """``blocks`` without so many frames at their beginning."""
    for block in blocks:
        if frames < len(block):
            yield block[frames:]
        frames = max(0, frames - len(block))
