"""The seconds of an input that presets are compared on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stemserve.audio import Block
from stemserve.audio.decode import decode, probe
from stemserve.errors import RequestError

LONGEST_SECONDS = 120.0
"""All that is compared stands in one page, and in memory."""

_USUAL_SECONDS = 30.0
_TIME = r"(?:(\d+):)?(\d+(?:\.\d+)?)"
_SPAN = re.compile(rf"\s*{_TIME}\s*-\s*{_TIME}\s*")


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
    found = _SPAN.fullmatch(text)
    if found is None:
        raise RequestError(f"--at {text}: give two times, such as 60-90 or 1:00-1:30.")
    minutes, seconds, to_minutes, to_seconds = (float(group or 0) for group in found.groups())
    start, end = 60 * minutes + seconds, 60 * to_minutes + to_seconds
    if end <= start:
        raise RequestError(f"--at {text}: the second time must be later than the first.")
    return start, end


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
