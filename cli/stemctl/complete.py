"""What a shell offers when Tab is pressed: names known without asking a worker."""

from __future__ import annotations

from collections.abc import Callable

from stemctl.asked.presets import COSTS

FORMATS = ("wav", "flac", "mp3", "opus", "m4a", "stem.mp4")
BIT_DEPTHS = ("16", "24", "32f")
CLIPS = ("none", "rescale", "clamp")
LICENCES = ("any", "granted")
PRESETS = tuple(COSTS)
STEMS = ("vocals", "instrumental", "drums", "bass", "other", "guitar", "piano", "all")


def one_of(names: tuple[str, ...]) -> Callable[[str], list[str]]:
    """The names that begin so."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def some_of(names: tuple[str, ...]) -> Callable[[str], list[str]]:
    """The same behind each comma."""

    def offer(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [before + comma + name for name in names if name.startswith(last)]

    return offer
