"""Which files of a folder, a pattern or a bucket are taken: audio, as far as that is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

AUDIO_SUFFIXES = frozenset(
    {".aac", ".ac3", ".aif", ".aiff", ".alac", ".amr", ".ape", ".au", ".caf", ".dsf", ".eac3"}
    | {".flac", ".m4a", ".m4b", ".mka", ".mp2", ".mp3", ".mp4", ".mpc", ".oga", ".ogg", ".opus"}
    | {".ra", ".tta", ".wav", ".wave", ".weba", ".webm", ".wma", ".wv"}
)
"""What is taken from a folder. A file that is named itself is taken whatever it is called."""


@dataclass(frozen=True)
class Filter:
    """Which of the files in folders are taken: patterns of their names, or with ``/`` of paths."""

    include: tuple[str, ...] = ()
    """Empty: all."""
    exclude: tuple[str, ...] = ()
    """Also of folders, with all in them."""

    def takes(self, inside: Sequence[str], name: str) -> bool:
        """Whether a file is taken; ``inside`` are the folders between the given one and it."""
        audio = Path(name).suffix.lower() in AUDIO_SUFFIXES and not name.startswith(".")
        wanted = not self.include or _matches(self.include, inside, name)
        return audio and wanted and not _matches(self.exclude, inside, name)

    def enters(self, inside: Sequence[str], name: str) -> bool:
        """Whether a folder is looked into."""
        return not name.startswith(".") and not _matches(self.exclude, inside, name)


EVERYTHING = Filter()


def _matches(patterns: Sequence[str], inside: Sequence[str], name: str) -> bool:
    path = "/".join((*inside, name))
    return any(
        fnmatchcase(path if "/" in pattern else name, pattern.rstrip("/")) for pattern in patterns
    )
