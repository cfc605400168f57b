"""How long a song is by its file's header, else by its size, before any worker has seen it."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

TYPICAL_S = 240.0
"""Assumed of what is behind a URL: nobody is asked about it."""

BYTES_A_SECOND = {".wav": 176_400, ".aiff": 176_400, ".flac": 110_000, ".ape": 110_000}
USUAL_BYTES_A_SECOND = 32_000
"""256 kbit/s: assumed of a file whose header tells nothing, as a video's does not."""

READERS = 8


@dataclass(frozen=True)
class Length:
    """Of one song, in seconds. ``known``: its header tells it; else it is a guess."""

    seconds: float
    known: bool


def song_lengths(paths: Iterable[Path | None]) -> list[Length]:
    """The lengths of files, in order; None is something that lies behind a URL. Blocks."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(song_length, paths))


def song_length(path: Path | None) -> Length:
    """The length of one file. What cannot be read is guessed; whoever submits it will hear why."""
    from tinytag import TinyTag, TinyTagException

    if path is None:
        return Length(TYPICAL_S, False)
    try:
        seconds = TinyTag.get(path, tags=False, duration=True).duration
    except (TinyTagException, OSError, ValueError, ArithmeticError, LookupError):
        seconds = None
    if seconds and seconds > 0:
        return Length(float(seconds), True)
    try:
        size = path.stat().st_size
    except OSError:
        return Length(TYPICAL_S, False)
    return Length(size / BYTES_A_SECOND.get(path.suffix.lower(), USUAL_BYTES_A_SECOND), False)
