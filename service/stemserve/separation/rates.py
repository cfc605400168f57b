"""From the input's rate and channels to what the networks hear, and back, for a span of a track.

Resampling in begins at sample 0, so that the networks' grid is where it always is. Resampling back
begins at a sample before the span that both rates share, early enough for its filter to settle.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stemserve.audio import Block
from stemserve.audio.resample import Resampler
from stemserve.separation.span import Span

RATE = 44100
_SETTLING = 4096
"""Samples of the lower rate after which no difference is left of where resampling began."""


@dataclass(frozen=True)
class Conversion:
    """For an input of this rate, what lies where on both grids."""

    rate: int
    span: Span
    """In frames of the input."""

    @property
    def begin(self) -> int:
        """The frame of the input that the stems are worked out from."""
        if self.rate == RATE:
            return self.span.start
        period = self.rate // math.gcd(self.rate, RATE)
        return max(0, self.span.start - self._settling) // period * period

    @property
    def heard(self) -> Span:
        """The span that the networks must answer for, in samples at 44.1 kHz."""
        end = self.span.end
        if self.rate == RATE:
            return self.span
        if end is not None:
            end = -(-(end + self._settling) * RATE // self.rate)
        return Span(self.begin * RATE // self.rate, end)

    @property
    def _settling(self) -> int:
        """In frames of the input."""
        return -(-_SETTLING * self.rate // min(self.rate, RATE))

    def to_networks(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Stereo at 44.1 kHz, from sample 0 on."""
        resampler = Resampler(self.rate, RATE, 2)
        for block in blocks:
            stereo = np.repeat(block, 2, axis=1) if block.shape[1] == 1 else block
            yield stereo if self.rate == RATE else resampler.feed(stereo)
        if self.rate != RATE:
            yield resampler.finish()


class Back:
    """The sources at the input's rate, from ``Conversion.begin`` on."""

    def __init__(self, conversion: Conversion) -> None:
        self._rate = conversion.rate
        self._resamplers: dict[str, Resampler] = {}

    def feed(self, sources: dict[str, Block]) -> dict[str, Block]:
        """Take [samples, 2] of every source at 44.1 kHz; give what is ready."""
        if self._rate == RATE:
            return sources
        return {name: self._resampler(name).feed(part) for name, part in sources.items()}

    def finish(self, frames: int) -> dict[str, Block]:
        """The rest; ``frames``: how many there are in all, from the beginning on."""
        return {name: r.finish(frames) for name, r in self._resamplers.items()}

    def _resampler(self, name: str) -> Resampler:
        if name not in self._resamplers:
            self._resamplers[name] = Resampler(RATE, self._rate, 2)
        return self._resamplers[name]


class Kept:
    """The input on its way to the networks, kept until their answer to it has come back."""

    def __init__(self, blocks: Iterable[Block], begin: int) -> None:
        self._blocks, self._begin = blocks, begin
        self._waiting: list[Block] = []
        self.frames = 0
        """Of the input, so far."""

    def __iter__(self) -> Iterator[Block]:
        for block in self._blocks:
            spare = max(0, self._begin - self.frames)
            self.frames += len(block)
            if spare < len(block):
                self._waiting.append(block[spare:])
            yield block

    def take(self, frames: int) -> Block:
        """The next frames, from ``begin`` on."""
        mix = np.concatenate(self._waiting)
        self._waiting = [mix[frames:].copy()]
        return mix[:frames]
