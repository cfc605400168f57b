"""The seconds of an input that presets are compared on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stemserve.audio import Block
from stemserve.audio.decode import decode, probe
from stemserve.errors import RequestError
from stemserve.schema import parse_range

LONGEST_SECONDS = 120.0
"""All that is compared stands in one page, and in memory."""

_USUAL_SECONDS = 30.0


@dataclass(frozen=True)
class Excerpt:
    """Samples [frames, channels] of an input from ``start`` seconds on."""

    path: Path
    sound: Block
    rate: int
    start: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.sound) / self.rate


def parse_span(text: str) -> tuple[float, float]:
    """Seconds from and to, of ``60-90`` or ``1:00-1:30``.

    Raises:
        RequestError: it is neither, or does not rise.
    """
    try:
        span = parse_range(text)
    except ValueError as error:
        raise RequestError(f"--at {error}.") from None
    if span.end_seconds is None:
        raise RequestError(f"--at {text}: give two times, such as 60-90 or 1:00-1:30.")
    return span.start_seconds, span.end_seconds


def read_excerpt(path: Path, span: tuple[float, float] | None) -> Excerpt:
    """Read a span of an input; None: half a minute from its middle, or all of a shorter one.

    Raises:
        NotAudioError: it is no audio.
        RequestError: the span is too long, or the sound has ended before it begins.
    """
    if span is not None and span[1] - span[0] > LONGEST_SECONDS:
        raise RequestError(f"At most {LONGEST_SECONDS:g} s can be compared: see --at.")
    facts = probe(path)
    if span is None:
        start = max(0.0, (facts.seconds - _USUAL_SECONDS) / 2)
        span = start, start + _USUAL_SECONDS
    first, last = (int(time * facts.rate + 0.5) for time in span)
    parts: list[Block] = []
    at = 0
    for block in decode(path, facts):
        parts.append(block[max(0, first - at) : max(0, last - at)])
        at += len(block)
        if at >= last:
            break
    sound = np.concatenate(parts)
    if not len(sound):
        raise RequestError(
            f"The sound has ended by {span[0]:g} s: it is {at / facts.rate:.1f} s long."
        )
    return Excerpt(path, sound, facts.rate, first / facts.rate)
